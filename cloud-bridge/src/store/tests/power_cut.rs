//! A disk whose power is cut: of what was not synced, each 512-byte sector is there or not, as chance
//! has it. What was acknowledged must be there afterwards, and the cursors must say what is stored.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use redb::{Database, StorageBackend};

use super::*;

/// What a disk writes whole, or not at all.
const SECTOR: usize = 512;
const CUTS: u32 = 10;
const SEEDS: u64 = 100;

/// The file as the process sees it, and as it is on the disk.
#[derive(Debug, Default)]
struct Disk {
    cached: Vec<u8>,
    synced: Vec<u8>,
    /// Places and contents of writes since the last sync.
    dirty: Vec<(usize, Vec<u8>)>,
    /// Calls until the power goes.
    calls: Option<u64>,
    /// Times that it went: whoever opened the file before must not touch it any more.
    cuts: u32,
}

impl Disk {
    fn call(&mut self, opened_in: u32) -> io::Result<()> {
        let is_powered = opened_in == self.cuts && self.calls != Some(0);
        self.calls = self.calls.map(|calls| calls.saturating_sub(1));
        if is_powered { Ok(()) } else { Err(io::Error::other("no power")) }
    }

    fn sync(&mut self) {
        self.synced.clone_from(&self.cached);
        self.dirty.clear();
    }

    /// The power goes and comes back.
    fn cut(&mut self, random: &mut Random) {
        let dirty = std::mem::take(&mut self.dirty);
        for (offset, data) in dirty {
            let fate = random.below(3);
            let mut from = 0;
            while from < data.len() {
                let place = offset + from;
                let to = data.len().min(from + SECTOR - place % SECTOR);
                // A whole write came through, or none of it; or it is torn.
                if fate == 0 || (fate == 1 && random.below(2) == 0) {
                    let end = offset + to;
                    self.synced.resize(self.synced.len().max(end), 0);
                    self.synced[place..end].copy_from_slice(&data[from..to]);
                }
                from = to;
            }
        }
        // The file system has a journal of its own for lengths.
        if random.below(2) == 0 {
            self.synced.resize(self.synced.len().max(self.cached.len()), 0);
        }
        self.cached.clone_from(&self.synced);
        self.calls = None;
        self.cuts += 1;
    }
}

/// The disk's end at redb.
#[derive(Debug)]
struct Plug {
    disk: Arc<Mutex<Disk>>,
    opened_in: u32,
}

impl Plug {
    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> io::Result<T> {
        let mut disk = self.disk.lock().unwrap();
        disk.call(self.opened_in)?;
        Ok(act(&mut disk))
    }
}

impl StorageBackend for Plug {
    fn len(&self) -> io::Result<u64> {
        self.with(|disk| disk.cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        self.with(|disk| out.copy_from_slice(&disk.cached[offset..offset + out.len()]))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = len as usize;
        self.with(|disk| {
            disk.cached.resize(len, 0);
            disk.synced.truncate(len);
            disk.dirty.retain(|(offset, data)| offset + data.len() <= len);
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Disk::sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = offset as usize;
        self.with(|disk| {
            disk.cached[offset..offset + data.len()].copy_from_slice(data);
            disk.dirty.push((offset, data.to_vec()));
        })
    }
}

/// xorshift64*, seeded.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn opener(disk: &Arc<Mutex<Disk>>) -> Opener {
    let disk = disk.clone();
    Box::new(move || {
        let opened_in = disk.lock().unwrap().cuts;
        let plug = Plug { disk: disk.clone(), opened_in };
        Ok(Database::builder().set_cache_size(1 << 20).create_with_backend(plug)?)
    })
}

const GATEWAYS: [&str; 3] = ["hq", "hq-2", "lab"];

fn journal() -> StoreId {
    StoreId::from_bytes([9; 16])
}

/// What was put into the store.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    /// By index, from 1.
    events: Vec<NewEvent>,
    counts: BTreeMap<(&'static str, usize), u64>,
    /// Commands that were sent; the others are pending.
    commands: BTreeMap<u64, bool>,
    nonce: u64,
}

impl Known {
    /// A round, and what is known once it is committed.
    fn round(&self, random: &mut Random) -> (Round, Known) {
        let (mut round, mut next) = (Round::default(), self.clone());
        for _ in 0..=random.below(12) {
            let name = GATEWAYS[random.below(3) as usize];
            let lane = Lane::ALL[random.below(4) as usize];
            let count = next.counts.entry((name, lane.index())).or_default();
            *count += 1;
            let mut id = [7; 16];
            id[..8].copy_from_slice(&(next.events.len() as u64).to_be_bytes());
            let json = format!(r#"{{"seq":{count},"filler":"{}"}}"#, "x".repeat(200));
            let event =
                NewEvent { id: EventId::from_bytes(id), gateway: gateway(name), lane, json };
            next.events.push(event.clone());
            round.events.push(event);
        }
        for name in GATEWAYS {
            round.cursors.push((gateway(name), journal(), next.cursors(name)));
        }
        next.nonce += 1;
        round.probes = vec![(gateway("hq"), next.nonce)];
        let pending = next.commands.iter_mut().find(|(_, sent)| !**sent);
        if let Some((number, sent)) = pending {
            *sent = true;
            round.changes.push((command_id(*number), Change::Sent(Timestamp::from_millis(1))));
        }
        (round, next)
    }

    fn cursors(&self, name: &'static str) -> Vec<Cursor> {
        let cursor = |lane: Lane| {
            let count = self.counts.get(&(name, lane.index())).copied().unwrap_or(0);
            Cursor { watermark: count, stored: count, ..Cursor::new(lane) }
        };
        Lane::ALL.map(cursor).to_vec()
    }

    /// What is committed, read back; panics where cursors, events and indexes disagree.
    fn read(store: &Store, place: &str) -> Self {
        let all = store.events(0, None, usize::MAX).unwrap();
        let mut known = Self::default();
        for (place_in_store, stored) in (1..).zip(&all) {
            assert_eq!(stored.index, place_in_store, "{place}");
            assert_eq!(store.index_of(stored.event.id).unwrap(), Some(stored.index), "{place}");
            let name = GATEWAYS.into_iter().find(|it| *it == stored.event.gateway.as_str());
            *known.counts.entry((name.unwrap(), stored.event.lane.index())).or_default() += 1;
            known.events.push(stored.event.clone());
        }
        for name in GATEWAYS {
            let cursors = store.cursors(&gateway(name), journal()).unwrap();
            if !all.is_empty() {
                assert_eq!(cursors, known.cursors(name), "{place}: cursors of {name}");
            }
            let of_gateway = store.events(0, Some(&gateway(name)), usize::MAX).unwrap().len();
            let counted: u64 = cursors.iter().map(|cursor| cursor.stored).sum();
            assert_eq!(of_gateway as u64, counted, "{place}: events of {name}");
        }
        for command in store.open_commands().unwrap() {
            let number = command.id.as_str()[2..].parse().unwrap();
            known.commands.insert(number, command.status == CommandStatus::Sent);
        }
        let probes = store.read().unwrap().open_table(PROBES).unwrap();
        known.nonce = probes.get("hq").unwrap().map_or(0, |row| row.value());
        known
    }
}

fn command_id(number: u64) -> CommandId {
    format!("c-{number}").parse().unwrap()
}

/// Some cuts of one store, each at a random call.
async fn survive(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let disk = Arc::new(Mutex::new(Disk::default()));
    let mut known = Known::default();
    let mut under_way: Option<Known> = None;
    for cut in 0..CUTS {
        let place = format!("seed {seed} cut {cut}");
        let opened = Store::open_with(opener(&disk), Limits { max_commands: 1_000, ..LIMITS });
        let (store, closing) = opened.unwrap_or_else(|error| panic!("{place}: {error}"));
        let found = Known::read(&store, &place);
        let came_through = under_way.take().is_some_and(|under_way| found == under_way);
        assert!(
            came_through || found == known,
            "{place}: {} events of {} acknowledged",
            found.events.len(),
            known.events.len()
        );
        known = found;
        disk.lock().unwrap().calls = Some(random.below(150));
        loop {
            let (committed, next) = if random.below(4) == 0 {
                let number = known.commands.len() as u64;
                let mut next = known.clone();
                next.commands.insert(number, false);
                let created = command(&format!("c-{number}"), number as i64);
                (store.create_command(created).await.map(drop), next)
            } else {
                let (round, next) = known.round(&mut random);
                (store.ingest(round).await.map(drop), next)
            };
            match committed {
                Ok(()) => known = next,
                Err(_) => {
                    under_way = Some(next);
                    break;
                }
            }
        }
        tokio::task::spawn_blocking(|| closing.close()).await.unwrap();
        disk.lock().unwrap().cut(&mut random);
    }
    assert!(!known.events.is_empty(), "seed {seed}: nothing was ever committed");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_power_cut_and_cursors_agree() {
    for seed in 0..SEEDS {
        survive(seed).await;
    }
}
