//! A disk whose power is cut: of what was not synced, each 512-byte sector is there or not, as chance
//! has it, whatever the order in which it was written. What was acknowledged must be there afterwards.

use std::{
    io,
    sync::{Arc, Mutex},
};

use redb::{Database, StorageBackend};

use super::{super::*, access, adds_up, all, config, event, telemetry};

/// What a disk writes whole, or not.
const SECTOR: usize = 512;

/// The disk.
#[derive(Debug, Default)]
struct Platter {
    /// As the process sees it.
    seen: Vec<u8>,
    /// As it was at the last sync.
    durable: Vec<u8>,
    /// Written since.
    pending: Vec<(usize, Vec<u8>)>,
    /// Until the power goes.
    calls_left: Option<u64>,
    /// How often it went: whoever opened the file before must not touch it any more.
    cuts: u64,
}

impl Platter {
    fn call(&mut self, opened_at: u64) -> io::Result<()> {
        match &mut self.calls_left {
            _ if opened_at != self.cuts => Err(io::Error::other("of before the cut")),
            Some(0) => Err(io::Error::other("the power is cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn restore(&mut self, random: &mut Random) {
        for (offset, data) in self.pending.drain(..) {
            // Most cuts take or leave a whole write; the others tear it.
            let fate = random.below(3);
            let mut at = 0;
            while at < data.len() {
                let end = data.len().min(at + SECTOR - (offset + at) % SECTOR);
                let kept = match fate {
                    0 => true,
                    1 => false,
                    _ => random.below(2) == 0,
                };
                if kept {
                    if self.durable.len() < offset + end {
                        self.durable.resize(offset + end, 0);
                    }
                    self.durable[offset + at..offset + end].copy_from_slice(&data[at..end]);
                }
                at = end;
            }
        }
        // The file's length is journaled by the file system: it is as it was, or as it became.
        if self.durable.len() < self.seen.len() && random.below(2) == 0 {
            self.durable.resize(self.seen.len(), 0);
        }
        self.seen.clone_from(&self.durable);
        self.calls_left = None;
        self.cuts += 1;
    }
}

#[derive(Debug, Clone, Default)]
struct Power(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Opened {
    power: Power,
    at: u64,
}

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        let mut platter = self.power.0.lock().unwrap();
        platter.call(self.at)?;
        Ok(platter.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.power.0.lock().unwrap();
        platter.call(self.at)?;
        let offset = offset as usize;
        out.copy_from_slice(&platter.seen[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.power.0.lock().unwrap();
        platter.call(self.at)?;
        platter.seen.resize(len as usize, 0);
        platter.durable.truncate(len as usize);
        platter.pending.retain(|(offset, data)| offset + data.len() <= len as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.power.0.lock().unwrap();
        platter.call(self.at)?;
        let Platter { seen, durable, pending, .. } = &mut *platter;
        durable.resize(seen.len(), 0);
        for (offset, data) in pending.drain(..) {
            durable[offset..offset + data.len()].copy_from_slice(&data);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.power.0.lock().unwrap();
        platter.call(self.at)?;
        let offset = offset as usize;
        platter.seen[offset..offset + data.len()].copy_from_slice(data);
        platter.pending.push((offset, data.to_vec()));
        Ok(())
    }
}

impl Power {
    /// While it is cut nothing opens.
    fn opener(&self) -> store::Opener {
        let power = self.clone();
        Box::new(move || {
            let at = power.0.lock().unwrap().cuts;
            Database::builder().create_with_backend(Opened { power: power.clone(), at })
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

/// Ten cuts of one journal, each at a random call. Afterwards: all that was acknowledged is there,
/// of the batch under way all or nothing, and the accounting adds up.
fn survive(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let dir = tempfile::tempdir().unwrap();
    let power = Power::default();
    let mut known: Vec<Record> = Vec::new();
    let mut last_key = None;
    let mut store = None;
    for cut in 0..10 {
        let opened = Journal::open_with(config(dir.path()), power.opener());
        let (journal, opened) = opened.unwrap_or_else(|e| panic!("seed {seed} cut {cut}: {e}"));
        let place = format!("seed {seed} cut {cut}");
        assert!(opened.set_aside.is_none(), "{place}");
        assert_eq!(*store.get_or_insert(opened.store), opened.store, "{place}");
        last_key = check(&journal, &mut known, last_key, &place);
        power.0.lock().unwrap().calls_left = Some(random.below(120));
        for step in 0_u64..10_000 {
            let mut batch = Batch::new();
            for _ in 0..=random.below(12) {
                let draft = match random.below(4) {
                    0 => access(),
                    1 => telemetry(step),
                    _ => event(step),
                };
                batch = batch.event(draft, Attachment::default());
            }
            let key = last_key.map_or(0, |key: u64| key + 1);
            let batch = batch.put(Table::Settings, *b"key", key.to_be_bytes().to_vec());
            match journal.commit_blocking(batch) {
                Ok(told) => {
                    known.extend(told.iter().map(|committed| committed.record.clone()));
                    last_key = Some(key);
                }
                Err(_) => break,
            }
            // One that leaves the file quick to open.
            let row = || Batch::new().put(Table::Settings, *b"probe", vec![0; 8]);
            if random.below(4) == 0 && journal.commit_blocking(row()).is_err() {
                break;
            }
        }
        drop(journal);
        power.0.lock().unwrap().restore(&mut random);
    }
}

/// `known` is what was acknowledged; what came with the last cut all the same is added. The key that
/// was written last.
fn check(
    journal: &Journal,
    known: &mut Vec<Record>,
    last_key: Option<u64>,
    place: &str,
) -> Option<u64> {
    let mut held: Vec<Record> = Lane::ALL.into_iter().flat_map(|lane| all(journal, lane)).collect();
    held.sort_by_key(store::event_id);
    let missing = known.iter().filter(|record| !held.contains(record)).count();
    assert_eq!(missing, 0, "{place}: of {} acknowledged records", known.len());
    let key = journal.get(Table::Settings, b"key").unwrap();
    let key = key.map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    let came_through = key != last_key;
    assert_eq!(came_through, held.len() > known.len(), "{place}: a batch in parts");
    if came_through {
        assert_eq!(key, Some(last_key.map_or(0, |last| last + 1)), "{place}");
    }
    adds_up(journal);
    *known = held;
    key
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut() {
    for seed in 0..40 {
        survive(seed);
    }
}
