//! Frames that can't be read: counted, told to the operator, shown on their gateway's row.
//!
//! Such a frame has no numbers that could be accounted for, so nothing of it can be set aside. Its gateway
//! keeps the records and sends them again; until this bridge can read them, or stops being sent them, all
//! that can be done is to say so. See [`Link::unreadable`](super::link::Link::unreadable) for what the
//! gateway is told. What is here lasts as long as the process: after a start the next frame says it again.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use topics::{GatewayId, Timestamp, link::LinkError};

/// How long after its last such frame a gateway's row no longer mentions them. A gateway that is refused
/// tries again every 30 s.
pub(crate) const SHOWN_FOR: Duration = Duration::from_secs(300);
/// Between two lines of the log about one gateway and reason.
const LOG_EVERY: Duration = Duration::from_secs(3_600);
/// Of an error's text, so many characters are shown: what it quotes was sent by somebody.
const MAX_TEXT: usize = 200;

/// Why a frame can't be read. Few, as they are labels of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It does not begin like a frame: something else publishes there.
    NotAFrame,
    /// Its framing is of a version that is not known here.
    Version,
    /// It begins like a frame, and is none inside.
    Payload,
    /// A record in it is none, or of a version that is not known here.
    Record,
}

impl Reason {
    /// Of the error that `frame` was decoded with.
    pub(crate) fn of(error: &LinkError, frame: &[u8]) -> Self {
        match error {
            LinkError::Magic(_) => Self::NotAFrame,
            // Of the frame; a batch in it may be too short, too.
            LinkError::Short(length) if *length == frame.len() => Self::NotAFrame,
            LinkError::Version(_) => Self::Version,
            LinkError::Record { .. } => Self::Record,
            LinkError::Short(_)
            | LinkError::Field { .. }
            | LinkError::TooLarge(_)
            | LinkError::Json { .. }
            | LinkError::Zstd(_) => Self::Payload,
        }
    }

    /// Its name in metrics and on the gateway's row.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotAFrame => "not-a-frame",
            Self::Version => "version",
            Self::Payload => "payload",
            Self::Record => "record",
        }
    }

    /// Whether the gateway itself must have sent it. Every version's frames begin alike.
    pub(crate) fn is_of_gateway(self) -> bool {
        match self {
            Self::NotAFrame => false,
            Self::Version | Self::Payload | Self::Record => true,
        }
    }

    /// What an operator is told.
    pub(crate) fn message(self, error: &LinkError) -> String {
        let error: String = error.to_string().chars().take(MAX_TEXT).collect();
        match self {
            Self::NotAFrame => format!("something else publishes on its link topic ({error})"),
            Self::Version | Self::Payload | Self::Record => {
                format!("sends what this bridge can't read: update the bridge ({error})")
            }
        }
    }
}

/// What an operator sees on a gateway's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    reason: Reason,
    message: String,
    since: Timestamp,
    last_at: Timestamp,
    frames: u64,
}

impl Problem {
    /// `{"reason","message","since","lastAt","frames"}`
    pub(crate) fn json(&self) -> Value {
        json!({
            "reason": self.reason.as_str(),
            "message": self.message,
            "since": self.since,
            "lastAt": self.last_at,
            "frames": self.frames,
        })
    }

    fn is_over(&self, now: Timestamp) -> bool {
        // A time that lies ahead is of before the clock was set back.
        self.last_at > now || now.since(self.last_at) >= SHOWN_FOR
    }
}

/// What is to be done about a frame that was counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The first one of a while: its gateway's row has changed.
    pub(crate) is_new: bool,
    /// Frames since the last line of the log; none where it is too early for another.
    pub(crate) log: Option<u64>,
}

#[derive(Debug, Default)]
struct Count {
    total: u64,
    logged: Option<(Timestamp, u64)>,
}

/// All such frames. `None` stands for whoever is not configured here: an external broker may let anybody
/// publish.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    problems: BTreeMap<GatewayId, Problem>,
    counts: BTreeMap<(Option<GatewayId>, Reason), Count>,
}

impl Unreadable {
    /// Counts a frame.
    pub(crate) fn note(
        &mut self,
        now: Timestamp,
        gateway: Option<&GatewayId>,
        reason: Reason,
        message: &str,
    ) -> Noted {
        let count = self.counts.entry((gateway.cloned(), reason)).or_default();
        count.total += 1;
        let since_line = count.logged.map_or(count.total, |(_, total)| count.total - total);
        let is_due = count.logged.is_none_or(|(at, _)| at > now || now.since(at) >= LOG_EVERY);
        if is_due {
            count.logged = Some((now, count.total));
        }
        let is_new = gateway.is_some_and(|gateway| self.is_new(now, gateway, reason, message));
        Noted { is_new, log: is_due.then_some(since_line) }
    }

    fn is_new(
        &mut self,
        now: Timestamp,
        gateway: &GatewayId,
        reason: Reason,
        message: &str,
    ) -> bool {
        let known = self.problems.get(gateway).filter(|known| !known.is_over(now));
        let (since, frames) = known.map_or((now, 0), |known| (known.since, known.frames));
        let is_new = known.is_none_or(|known| known.reason != reason);
        let message = message.to_owned();
        let problem = Problem { reason, message, since, last_at: now, frames: frames + 1 };
        self.problems.insert(gateway.clone(), problem);
        is_new
    }

    /// What is shown of a gateway.
    pub(crate) fn problem(&self, gateway: &GatewayId) -> Option<&Problem> {
        self.problems.get(gateway)
    }

    /// Forgets what is over; the gateways whose rows change by that.
    pub(crate) fn pass_time(&mut self, now: Timestamp) -> Vec<GatewayId> {
        let over: Vec<GatewayId> = self
            .problems
            .iter()
            .filter(|(_, problem)| problem.is_over(now))
            .map(|(gateway, _)| gateway.clone())
            .collect();
        for gateway in &over {
            self.problems.remove(gateway);
        }
        over
    }

    /// Gateway (none: not configured here), reason, frames since the start.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Option<&GatewayId>, Reason, u64)> {
        self.counts
            .iter()
            .map(|((gateway, reason), count)| (gateway.as_ref(), *reason, count.total))
    }
}

#[cfg(test)]
mod tests {
    use topics::link::{Frame, Probe};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_frame_is_named_by_what_is_wrong_with_it() {
        let probe = Probe { session: 1, nonce: 2, readers: vec![], queued: 0 };
        let good = Frame::Probe(probe).encode().unwrap();
        let with = |place: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[place] = byte;
            bytes
        };
        for (bytes, reason) in [
            (b"hello".to_vec(), "not-a-frame"),
            (vec![], "not-a-frame"),
            (with(0, b'X'), "not-a-frame"),
            (with(2, 9), "version"),
            (with(3, 3), "payload"),
            (with(4, 1), "payload"),
            (with(12, b'!'), "payload"),
        ] {
            let error = Frame::decode(&bytes).unwrap_err();
            assert_eq!(Reason::of(&error, &bytes).as_str(), reason, "{error}");
        }
    }

    #[test]
    fn each_gateway_and_reason_is_logged_once_an_hour_and_counted_always() {
        let mut all = Unreadable::default();
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let mut lines = Vec::new();
        for second in 0..4_000 {
            for (gateway, reason) in [
                (Some(&one), Reason::Version),
                (Some(&one), Reason::Record),
                (Some(&two), Reason::Record),
                (None, Reason::NotAFrame),
            ] {
                let noted = all.note(at(second), gateway, reason, "x");
                lines.extend(noted.log.map(|count| (second, count)));
            }
        }
        assert_eq!(lines, [[(0, 1); 4], [(3_600, 3_600); 4]].concat());
        assert_eq!(all.counts().map(|(_, _, total)| total).collect::<Vec<_>>(), [4_000; 4]);
    }

    #[test]
    fn a_row_tells_of_it_until_it_has_stopped_for_a_while() {
        let mut all = Unreadable::default();
        let gateway: GatewayId = "hq".parse().unwrap();
        let note = |all: &mut Unreadable, second| {
            all.note(at(second), Some(&gateway), Reason::Version, "sends").is_new
        };
        assert!(note(&mut all, 10) && !note(&mut all, 20), "told once");
        assert_eq!(all.pass_time(at(319)), []);
        let shown = all.problem(&gateway).unwrap().json();
        assert_eq!((&shown["reason"], &shown["frames"]), (&json!("version"), &json!(2)));
        assert_eq!(shown["since"], json!(at(10)));
        assert_eq!(all.pass_time(at(320)).len(), 1);
        assert_eq!(all.problem(&gateway), None);
        assert!(note(&mut all, 400));
        assert_eq!(all.pass_time(at(0)).len(), 1, "the clock was set back");
    }
}
