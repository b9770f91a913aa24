//! Lanes: what goes first, and what is dropped last, when not everything can go at once.

use serde::{Deserialize, Serialize};

/// A lane of the journal, highest first. Each has its own contiguous sequence numbers from 1.
/// Which event belongs to which lane: [`EventType::lane`](crate::EventType::lane).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Decisions at a door, and alarms.
    Access,
    /// Results of commands.
    Results,
    /// What readers saw.
    Events,
    /// How the gateway itself is.
    Telemetry,
}

impl Lane {
    /// All lanes, highest first.
    pub const ALL: [Lane; 4] = [Lane::Access, Lane::Results, Lane::Events, Lane::Telemetry];

    /// 0 for the highest to 3 for the lowest; also its byte in a record.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The lane with this index.
    pub fn from_index(index: usize) -> Option<Lane> {
        Self::ALL.get(index).copied()
    }

    /// The lane's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Access => "access",
            Lane::Results => "results",
            Lane::Events => "events",
            Lane::Telemetry => "telemetry",
        }
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
