//! What a seed stands for: the bounds of a world, and which faults happen in it.

use std::time::Duration;

use gateway::{journal::ledger::Bounds, uplink::LinkConfig};

/// Numbers that follow from a seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..end`; 0 for an empty range.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    /// One of `first..=last`.
    pub(crate) fn within(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A step of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The module doc of the crate tells of them.
pub(crate) enum Action {
    Append,
    Round,
    Arrive,
    KeepAcks,
    Pass,
    LoseUp,
    LoseDown,
    RepeatUp,
    RepeatDown,
    MixUp,
    MixDown,
    Cut,
    Reach,
    GatewayDies,
    BridgeDies,
    BridgeBackup,
    BridgeRestored,
    FileCopied,
    FileSwapped,
    FileReplaced,
    GatewayDisk,
    RowDamaged,
    BridgeDisk,
    GatewayClock,
    BridgeClock,
    Sleep,
}

const WORK: [(Action, usize); 5] = [
    (Action::Append, 10),
    (Action::Round, 14),
    (Action::Arrive, 14),
    (Action::KeepAcks, 8),
    (Action::Pass, 10),
];

/// Faults that happen together in a world or not at all, so that each is also met alone.
const FAULTS: [&[(Action, usize)]; 16] = [
    &[(Action::LoseUp, 3)],
    &[(Action::LoseDown, 3)],
    &[(Action::RepeatUp, 3), (Action::RepeatDown, 2)],
    &[(Action::MixUp, 3)],
    &[(Action::MixDown, 3)],
    &[(Action::Cut, 2)],
    &[(Action::Reach, 1)],
    &[(Action::GatewayDies, 2)],
    &[(Action::BridgeDies, 2)],
    &[(Action::BridgeBackup, 2), (Action::BridgeRestored, 2)],
    &[(Action::FileCopied, 2), (Action::FileSwapped, 2)],
    &[(Action::FileReplaced, 1)],
    &[(Action::GatewayDisk, 4)],
    &[(Action::RowDamaged, 2)],
    &[(Action::BridgeDisk, 4)],
    &[(Action::GatewayClock, 1), (Action::BridgeClock, 1), (Action::Sleep, 1)],
];
/// The first of them, which break the order on the way.
const UNORDERED: usize = 5;

/// The bounds and faults of one world.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Steps before the faults stop.
    pub(crate) steps: usize,
    /// Frames go as bytes.
    pub(crate) encode: bool,
    /// What is sent arrives in order or not at all.
    pub(crate) in_order: bool,
    /// Some records are no events.
    pub(crate) foreign: bool,
    /// The core hears of new records late.
    pub(crate) heads_late: bool,
    /// Frames that wait on the way, each direction.
    pub(crate) room: usize,
    /// Of the link.
    pub(crate) link: LinkConfig,
    /// Of the journal.
    pub(crate) bounds: Bounds,
    /// Of acknowledged records.
    pub(crate) retention: Duration,
    /// Records that are added at once, at most.
    pub(crate) most_appended: usize,
    /// Actions and their weights.
    weights: Vec<(Action, usize)>,
    total: usize,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(random: &mut Random) -> Self {
        let steps = match random.below(64) {
            0 => random.within(200, 600),
            1..16 => random.within(60, 150),
            _ => random.within(12, 60),
        };
        let mut weights = WORK.to_vec();
        let in_order = random.once_in(3);
        for (index, faults) in FAULTS.into_iter().enumerate() {
            if random.once_in(4) && !(in_order && index < UNORDERED) {
                weights.extend_from_slice(faults);
            }
        }
        let window = random.within(2, 8);
        let small = random.once_in(3);
        Self {
            steps,
            encode: random.once_in(32),
            in_order,
            foreign: random.once_in(12),
            heads_late: random.once_in(4),
            room: if in_order { usize::MAX } else { random.within(8, 64) },
            link: LinkConfig {
                window,
                backlog_window: random.within(1, window),
                batch_bytes: random.within(600, 4000),
                batch_records: random.within(2, 16),
                ..LinkConfig::default()
            },
            bounds: Bounds {
                records: if small { random.within(8, 40) as u64 } else { 1_000_000 },
                bytes: 1 << 30,
            },
            retention: match random.below(3) {
                0 => Duration::from_secs(random.within(1, 60) as u64),
                _ => Duration::from_secs(72 * 3600),
            },
            most_appended: random.within(1, 6),
            total: weights.iter().map(|(_, weight)| weight).sum(),
            weights,
        }
    }

    /// The next step.
    pub(crate) fn action(&self, random: &mut Random) -> Action {
        let mut left = random.below(self.total);
        for &(action, weight) in &self.weights {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return action,
            }
        }
        Action::Pass
    }
}
