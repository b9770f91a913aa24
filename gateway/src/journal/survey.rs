//! What the journal says of itself: for a person, and for who checks it.

use serde::{Deserialize, Serialize};
use topics::{Lane, StoreId, Timestamp, UplinkState};

use super::{
    JournalConfig, Stats,
    lane::{LaneState, Range},
    store::State,
};

/// The accounting of a journal at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// Whose it is.
    pub gateway: String,
    /// Its store id.
    pub store: StoreId,
    /// The number of its last commit.
    pub commit: u64,
    /// Highest first.
    pub lanes: Vec<LaneSurvey>,
    /// How much it may hold; unknown of a file without its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Bounds>,
    /// What only a running gateway knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneSurvey {
    /// Which.
    pub lane: Lane,
    /// The next sequence number to be given out.
    pub next: u64,
    /// The first one that is held, as an event or within a gap; `next` when none is.
    pub oldest: u64,
    /// Up to here only gaps are left.
    pub trimmed: u64,
    /// The bridge has all up to here.
    pub watermark: u64,
    /// The chain value there, as the bridge told it; 0 for none.
    #[serde(with = "hex_text")]
    pub chain: u64,
    /// What the bridge has above it.
    pub ranges: Vec<Range>,
    /// Events that the bridge has.
    pub acknowledged: u64,
    /// Events that it has not, and that are held.
    pub queued: u64,
    /// The first of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_queued: Option<u64>,
    /// Sequence numbers that only a gap stands for.
    pub dropped: u64,
    /// Up to here the edge broker has them.
    pub edge_cursor: u64,
    /// Records held, gaps among them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Gaps held.
    pub gaps: u64,
    /// Rows that are no records; only of a file that no gateway has opened since.
    #[serde(default)]
    pub unreadable: u64,
}

impl LaneSurvey {
    /// Whether `next - 1 = acknowledged + queued + dropped`.
    pub fn adds_up(&self) -> bool {
        let parts = self.acknowledged.checked_add(self.queued);
        let sum = parts.and_then(|sum| sum.checked_add(self.dropped));
        sum.is_some_and(|sum| sum == self.next.saturating_sub(1))
    }
}

/// How much a journal may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bounds {
    /// Records.
    pub max_records: u64,
    /// Bytes of records.
    pub max_bytes: u64,
    /// How long acknowledged records stay, seconds.
    pub retention_seconds: u64,
}

impl Bounds {
    /// Those of a configuration.
    pub fn of(config: &JournalConfig) -> Self {
        Self {
            max_records: config.max_records,
            max_bytes: config.max_bytes,
            retention_seconds: config.retention.as_secs(),
        }
    }
}

/// What only a running gateway knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Its process.
    pub process: u32,
    /// Its version.
    pub version: String,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// The way to the bridge.
    pub uplink: UplinkState,
    /// When something was last committed; none since the start.
    pub last_commit: Option<Timestamp>,
    /// How long that took, microseconds.
    pub last_commit_us: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Those that failed.
    pub failed_commits: u64,
}

impl Live {
    /// Of this process.
    pub fn now(stats: &Stats, uplink: UplinkState, uptime_seconds: u64) -> Self {
        Self {
            process: std::process::id(),
            version: crate::VERSION.to_owned(),
            uptime_seconds,
            uplink,
            last_commit: stats.last_commit,
            last_commit_us: stats.last_commit_us,
            commits: stats.commits,
            failed_commits: stats.failed_commits,
        }
    }
}

impl Survey {
    pub(super) fn of(state: &State, gateway: String) -> Self {
        Self {
            gateway,
            store: state.store,
            commit: state.commit,
            lanes: state.lanes.iter().map(LaneSurvey::of).collect(),
            bounds: None,
            live: None,
        }
    }

    /// One lane of it.
    pub fn lane(&self, lane: Lane) -> Option<&LaneSurvey> {
        self.lanes.iter().find(|survey| survey.lane == lane)
    }

    /// Records held.
    pub fn records(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.records).sum()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }
}

impl LaneSurvey {
    fn of(lane: &LaneState) -> Self {
        let view = lane.view();
        Self {
            lane: lane.lane,
            next: view.next,
            oldest: view.oldest,
            trimmed: lane.marks.trimmed,
            watermark: view.watermark,
            chain: view.chain,
            ranges: view.ranges,
            acknowledged: view.acknowledged,
            queued: view.queued,
            first_queued: lane.first_queued(),
            dropped: view.dropped,
            edge_cursor: view.edge_cursor,
            records: lane.rows,
            bytes: lane.bytes,
            gaps: lane.gaps.len() as u64,
            unreadable: 0,
        }
    }
}

/// A hash is no number to a program that reads JSON: many round it.
mod hex_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(de::Error::custom)
    }
}
