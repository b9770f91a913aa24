//! The books of both sides: what each says of every lane, and whether that adds up. Read from copies of
//! their files, so the owners have to be dead, and may go on afterwards.

use std::{collections::BTreeMap, path::Path, time::Duration};

use cloud_bridge::{
    ingest::cursor::Cursor,
    store::{Limits, Store},
};
use gateway::journal::{Journal, JournalConfig, LaneView};
use serde_json::Value;
use topics::{GatewayId, Lane, StoreId};

use super::{
    site::{GATEWAY, Site},
    text, within,
};

/// The most events that a test makes.
const MAX_EVENTS: u64 = 1_000_000;

/// For what was held up to arrive: the back-off, the patience with a broker, and then the backlog.
pub(crate) const SETTLING: Duration = Duration::from_secs(90);

/// Nothing happens any more: waits until the bridge has all, ends both sides without warning, and gives
/// what each had to show. Their books add up, and are the same.
pub(crate) async fn settle(site: &mut Site) -> (Vec<Value>, Vec<Value>) {
    for _ in 0..3 {
        let shown = within(SETTLING, "all is stored", async || {
            let (local, cloud) = (site.local().events().await, site.cloud().events().await);
            (local.len() == cloud.len()).then_some((local, cloud))
        })
        .await;
        site.kill_gateway();
        site.kill_bridge();
        let books = Books::read(site).await;
        books.assert_sound();
        if books.is_settled() {
            assert_same_events(&shown.0, &shown.1);
            return shown;
        }
        // A finger was lifted, or a reader came back, after the last look.
        site.start_bridge();
        site.start_gateway();
    }
    panic!("something always happens");
}

/// Both sides' books of all lanes.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) lanes: Vec<(LaneView, Cursor)>,
    /// Events in the bridge's store, by lane.
    stored: [u64; 4],
}

impl Books {
    /// Of a site whose gateway and bridge are dead.
    pub(crate) async fn read(site: &Site) -> Self {
        assert!(site.gateway.is_none() && site.bridge.is_none(), "their files are in use");
        let copy = tempfile::tempdir().unwrap();
        for side in ["gateway", "bridge"] {
            copy_files(&site.folder().join(side), &copy.path().join(side));
        }
        let journal = copy.path().join("gateway/journal.redb");
        let (journal, opened) =
            Journal::open(JournalConfig::new(journal, GatewayId::new(GATEWAY).unwrap())).unwrap();
        assert_eq!(opened.set_aside, None, "the journal survives every kill");
        assert_eq!(opened.previous_store, None, "the journal is the one that it was");
        let lanes = journal.lanes();
        journal.close().await.unwrap();
        let path = copy.path().join("bridge/store.redb");
        let store = opened.store;
        let read = tokio::task::spawn_blocking(move || read_bridge(&path, store));
        let (cursors, stored) = read.await.unwrap();
        let cursor = |lane| cursors.iter().find(|cursor| cursor.lane == lane).cloned();
        let lanes = lanes
            .into_iter()
            .map(|view| {
                let cursor = cursor(view.lane).unwrap_or_else(|| Cursor::new(view.lane));
                (view, cursor)
            })
            .collect();
        Self { lanes, stored }
    }

    /// What holds at any moment, also after a kill of both.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        for (gateway, bridge) in &self.lanes {
            let LaneView { next, acknowledged, queued, dropped, .. } = gateway;
            assert_eq!(next - 1, acknowledged + queued + dropped, "{gateway:?}");
            assert_eq!(*dropped, 0, "{gateway:?}");
            assert!(bridge.is_sound(), "{bridge:?}");
            assert_eq!((bridge.set_aside, bridge.lost), (0, 0), "{bridge:?}");
            assert_eq!(bridge.stored, self.stored[bridge.lane.index()], "{bridge:?}");
            // An acknowledgement is sent after the bridge's commit, and never before the record.
            let told = gateway.ranges.last().map_or(gateway.watermark, |range| range.1);
            let both = format!("{gateway:?} {bridge:?}");
            assert!(gateway.watermark <= bridge.watermark, "acknowledged, not stored: {both}");
            assert!(told <= bridge.top() && bridge.top() < *next, "one knows too much: {both}");
        }
    }

    /// Whether the bridge has all.
    fn is_settled(&self) -> bool {
        self.lanes.iter().all(|(gateway, bridge)| {
            let all = gateway.next - 1;
            (bridge.watermark, bridge.ranges.len(), bridge.stored) == (all, 0, all)
        })
    }
}

fn read_bridge(path: &Path, store: StoreId) -> (Vec<Cursor>, [u64; 4]) {
    let limits = Limits { cache_bytes: 8 << 20, max_events: MAX_EVENTS, max_commands: 100_000 };
    let (open, closing) = Store::open(path, limits).unwrap();
    let cursors = open.all_cursors(&GatewayId::new(GATEWAY).unwrap()).unwrap();
    let mut stored = [0; 4];
    let mut after = 0;
    loop {
        let page = open.events(after, None, 10_000).unwrap();
        let Some(last) = page.last() else { break };
        after = last.index;
        page.iter().for_each(|event| stored[event.event.lane.index()] += 1);
    }
    closing.close();
    assert!(cursors.iter().all(|(of, _)| *of == store), "only this journal reported: {cursors:?}");
    (cursors.into_iter().map(|(_, cursor)| cursor).collect(), stored)
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// What both sides' APIs show is the same: each event once, whole, and each lane contiguous from 1.
#[track_caller]
pub(crate) fn assert_same_events(local: &[Value], cloud: &[Value]) {
    let by_id = |events: &[Value]| -> BTreeMap<String, Value> {
        events.iter().map(|event| (text(event, "id").to_owned(), event.clone())).collect()
    };
    let (at_gateway, at_bridge) = (by_id(local), by_id(cloud));
    assert_eq!(at_gateway.len(), local.len(), "twice in the journal");
    assert_eq!(at_bridge.len(), cloud.len(), "twice at the bridge");
    for (id, event) in &at_gateway {
        assert_eq!(Some(event), at_bridge.get(id), "lost, or changed on its way");
    }
    assert_eq!(at_gateway.len(), at_bridge.len(), "the bridge has what the journal has not");
    for lane in Lane::ALL {
        let in_lane = cloud.iter().filter(|event| event["lane"] == lane.as_str());
        let mut seqs: Vec<u64> = in_lane.map(|event| event["seq"].as_u64().unwrap()).collect();
        seqs.sort_unstable();
        assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "lane {lane} has holes: {seqs:?}");
    }
}

/// Within one session a lane arrives as two rising runs, what is fresh and what is old. So an order that
/// can't be made of two for each session was not sent like that.
#[track_caller]
pub(crate) fn assert_order(cloud: &[Value], sessions: u64) {
    for lane in Lane::ALL {
        // The ends of as few rising runs as it can be made of, falling.
        let mut ends: Vec<u64> = Vec::new();
        for event in cloud.iter().filter(|event| event["lane"] == lane.as_str()) {
            let seq = event["seq"].as_u64().unwrap();
            match ends.iter_mut().find(|end| **end < seq) {
                Some(end) => *end = seq,
                None => ends.push(seq),
            }
        }
        let runs = ends.len() as u64;
        assert!(runs <= 2 * sessions, "lane {lane}: {runs} runs in {sessions} sessions");
    }
}
