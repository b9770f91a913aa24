//! Checks a lane, row by row, against what is written beside it. Pure: rows and surveys go in,
//! findings come out; whoever reads the rows may take them from a file or from a running gateway.
//!
//! The chain ties each record to the one before it, so the first one after a gap, or after what was
//! trimmed, has nothing to be checked against: it is counted as *unchained*.

use std::fmt;

use serde::{Deserialize, Serialize};
use topics::{EventId, EventType, Lane, Record, RecordKind};

use super::{
    LaneSurvey, Row,
    lane::{Range, count, normalise, subtract, whole},
    store::event_id,
};

/// The most findings that are kept; the rest is counted.
pub const MAX_FINDINGS: usize = 100;

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// A row is no record, or not what was written.
    Unreadable,
    /// A record stands in another lane or under another number than it says.
    Misplaced,
    /// A record and its chain value don't go together.
    Chain,
    /// An event's id is not later than the one before.
    Order,
    /// The JSON is none, or says something else than the record's header.
    Json,
    /// Sequence numbers for which nothing stands.
    Missing,
    /// Sequence numbers for which more than one record stands.
    Overlap,
    /// The counts or the marks don't fit what is there.
    Accounting,
    /// redb's own check, or redb itself.
    Storage,
}

impl Problem {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Problem::Unreadable => "unreadable",
            Problem::Misplaced => "misplaced",
            Problem::Chain => "chain",
            Problem::Order => "order",
            Problem::Json => "json",
            Problem::Missing => "missing",
            Problem::Overlap => "overlap",
            Problem::Accounting => "accounting",
            Problem::Storage => "storage",
        }
    }
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind.
    pub problem: Problem,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// The first sequence number that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// For people.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}", self.problem.as_str())?;
        if let Some(lane) = self.lane {
            write!(f, " {lane}")?;
        }
        if let Some(seq) = self.seq {
            write!(f, " {seq}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Findings, the first [`MAX_FINDINGS`] of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// The first ones.
    pub listed: Vec<Finding>,
    /// How many more.
    pub more: u64,
}

impl Findings {
    /// One more.
    pub fn add(&mut self, finding: Finding) {
        if self.listed.len() < MAX_FINDINGS {
            self.listed.push(finding);
        } else {
            self.more += 1;
        }
    }

    /// Those of another list, too.
    pub fn extend(&mut self, other: Findings) {
        other.listed.into_iter().for_each(|finding| self.add(finding));
        self.more += other.more;
    }

    /// How many in all.
    pub fn count(&self) -> u64 {
        self.listed.len() as u64 + self.more
    }
}

/// What was read of a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Rows.
    pub records: u64,
    /// Gaps among them.
    pub gaps: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records whose predecessor is not held, so that the chain says nothing of them.
    pub unchained: u64,
}

/// The record before.
#[derive(Debug, Clone, Copy)]
struct Before {
    seq: u64,
    chain: u64,
    kind: RecordKind,
}

/// The check of one lane.
#[derive(Debug)]
pub struct LaneCheck {
    gateway: String,
    /// As it was at the start.
    survey: LaneSurvey,
    counted: Counted,
    findings: Findings,
    before: Option<Before>,
    last_id: Option<EventId>,
    /// Sequence numbers for which no row stood.
    missing: Vec<Range>,
    gaps: Vec<Range>,
    /// Numbers for which a row stood before, and the row that stands for them again.
    again: Vec<(Range, RecordKind, u64)>,
    /// The next number that a row should cover.
    expected: u64,
}

impl LaneCheck {
    /// Of a lane of `gateway`'s journal that was as `survey` before its first row was read.
    pub fn new(gateway: &str, survey: &LaneSurvey) -> Self {
        Self {
            gateway: gateway.to_owned(),
            survey: survey.clone(),
            counted: Counted::default(),
            findings: Findings::default(),
            before: None,
            last_id: None,
            missing: Vec::new(),
            gaps: Vec::new(),
            again: Vec::new(),
            expected: 1,
        }
    }

    /// What was read so far.
    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// Takes the next row, in order of their keys.
    pub fn row(&mut self, row: &Row) {
        self.counted.records += 1;
        self.counted.bytes += row.record_len();
        let record = match row.record() {
            Ok(record) => record,
            Err(error) => return self.no_record(row.key, &error.to_string(), Problem::Unreadable),
        };
        let lane = self.survey.lane;
        if record.seq() != row.key || record.lane() != lane {
            let text = format!("it says that it is {} of lane {}", record.seq(), record.lane());
            return self.no_record(row.key, &text, Problem::Misplaced);
        }
        self.place(record.first(), record.seq(), record.kind());
        self.chain(&record);
        self.json(&record);
        match record.kind() {
            RecordKind::Gap => {
                self.counted.gaps += 1;
                self.gaps.push((record.first(), record.seq()));
            }
            RecordKind::Event => self.order(&record),
        }
        let (seq, chain, kind) = (record.seq(), record.chain(), record.kind());
        self.before = Some(Before { seq, chain, kind });
    }

    fn no_record(&mut self, key: u64, text: &str, problem: Problem) {
        self.find(problem, key, text);
        // Something stands there, so it is not missing as well.
        self.place(key, key, RecordKind::Event);
        self.before = None;
    }

    /// Each number once.
    fn place(&mut self, first: u64, last: u64, kind: RecordKind) {
        if first > self.expected {
            self.missing.push((self.expected, first - 1));
        } else if first < self.expected {
            self.again.push(((first, (self.expected - 1).min(last)), kind, last));
        }
        self.expected = self.expected.max(last.saturating_add(1));
    }

    fn chain(&mut self, record: &Record) {
        let (first, seq) = (record.first(), record.seq());
        let before = self.before.filter(|before| before.seq + 1 == first);
        let at_watermark = first == self.survey.watermark + 1 && self.survey.chain != 0;
        let must = match (before, record.kind()) {
            // A gap may continue what it stands for, which is gone.
            (_, RecordKind::Gap) => None,
            (Some(before), RecordKind::Event) if before.kind == RecordKind::Event => {
                Some(before.chain)
            }
            (Some(_), RecordKind::Event) => None,
            (None, RecordKind::Event) if first == 1 => Some(0),
            (None, RecordKind::Event) => at_watermark.then_some(self.survey.chain),
        };
        match must {
            Some(before) if !record.continues(before) => self.find(
                Problem::Chain,
                seq,
                "its content doesn't give its chain value: it, or the chain value before it, is not \
                 what was written",
            ),
            Some(_) => {}
            None => {
                let may = [before.map(|before| before.chain), Some(0), Some(self.survey.chain)];
                let continues = may.into_iter().flatten().any(|before| record.continues(before));
                self.counted.unchained += u64::from(!continues);
            }
        }
        let told = self.survey.chain;
        let is_event = record.kind() == RecordKind::Event;
        if is_event && seq == self.survey.watermark && told != 0 && told != record.chain() {
            let text = "the bridge acknowledged another record under this number";
            self.find(Problem::Chain, seq, text);
        }
    }

    fn json(&mut self, record: &Record) {
        /// What an event says of itself.
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
            #[serde(borrow)]
            gateway: std::borrow::Cow<'a, str>,
            id: EventId,
            lane: Lane,
            seq: u64,
            from: Option<u64>,
            to: Option<u64>,
        }
        let seq = record.seq();
        let told: Envelope<'_> = match serde_json::from_slice(record.json()) {
            Ok(told) => told,
            Err(error) => {
                // The error shows where, and nothing of what stands there.
                let text = format!("no event can be read from it ({:?})", error.classify());
                return self.find(Problem::Json, seq, &text);
            }
        };
        if (told.lane, told.seq) != (record.lane(), seq) {
            let text = format!("its JSON says {} of lane {}", told.seq, told.lane);
            self.find(Problem::Json, seq, &text);
        }
        if told.gateway != self.gateway {
            self.find(Problem::Json, seq, "its JSON names another gateway");
        }
        if event_id(record) != Some(told.id) {
            self.find(Problem::Json, seq, "its JSON has two ids");
        }
        let covers = (told.from, told.to) == (Some(record.first()), Some(seq));
        match (record.kind(), EventType::parse(&told.kind)) {
            (RecordKind::Gap, Some(EventType::JournalGap)) if covers => {}
            (RecordKind::Gap, Some(EventType::JournalGap)) => {
                self.find(Problem::Json, seq, "its JSON covers another range than the gap");
            }
            (RecordKind::Event, Some(event)) if event.lane() == record.lane() => {}
            (_, Some(event)) => {
                let text = format!("{} is none of lane {}", event.as_str(), record.lane());
                self.find(Problem::Json, seq, &text);
            }
            // A later version's; the wire tolerates it.
            (RecordKind::Event, None) => {}
            (RecordKind::Gap, None) => self.find(Problem::Json, seq, "a gap that says it is none"),
        }
    }

    /// Ids of events rise with the numbers; gaps are made later than what is around them.
    fn order(&mut self, record: &Record) {
        let Some(id) = event_id(record) else { return };
        if self.last_id.is_some_and(|last| last >= id) {
            self.find(Problem::Order, record.seq(), "its id is not later than the one before");
        }
        self.last_id = Some(id);
    }

    fn find(&mut self, problem: Problem, seq: u64, text: &str) {
        let lane = Some(self.survey.lane);
        self.findings.add(Finding { problem, lane, seq: Some(seq), text: text.to_owned() });
    }

    /// Ends it: `now` is the lane as it was after the last row, and `front` the gaps up to its
    /// `trimmed`, read after that. On a file nobody writes to they are as before.
    pub fn end(mut self, now: &LaneSurvey, front: Option<&[Row]>) -> (Counted, Findings) {
        let next = self.survey.next;
        if self.expected < next {
            let text =
                format!("{} to {} were given out, and are not there", self.expected, next - 1);
            self.find(Problem::Missing, self.expected, &text);
            self.expected = next;
        }
        let mut gaps = std::mem::take(&mut self.gaps);
        if let Some(front) = front {
            gaps.retain(|gap| gap.1 > now.trimmed);
            let front = front.iter().filter_map(|row| row.record().ok());
            let front = front.filter(|record| record.kind() == RecordKind::Gap);
            gaps.extend(front.map(|record| (record.first(), record.seq())));
        }
        let gaps = normalise(gaps);
        let below = (now.watermark > 0).then_some((1, now.watermark));
        let acked = normalise(below.into_iter().chain(now.ranges.iter().copied()).collect());
        self.overlaps(now);
        self.holes(now, &gaps, &acked);
        self.marks(now, &acked);
        self.account(now, &gaps, acked);
        (self.counted, self.findings)
    }

    /// Numbers for which more than one row stands, but for a gap that was made while they were read.
    fn overlaps(&mut self, now: &LaneSurvey) {
        for ((first, last), kind, row) in std::mem::take(&mut self.again) {
            let new = self.survey.trimmed < row && row <= now.trimmed;
            if !(new && kind == RecordKind::Gap) {
                let text = format!("{first} to {last} stand in the row before, too");
                self.find(Problem::Overlap, row, &text);
            }
        }
    }

    /// Numbers for which no row stands: acknowledged and trimmed, or lost.
    fn holes(&mut self, now: &LaneSurvey, gaps: &[Range], acked: &[Range]) {
        let missing = normalise(std::mem::take(&mut self.missing));
        let above = subtract(missing.clone(), &whole(1, now.trimmed));
        let below = subtract(subtract(whole(1, now.trimmed), gaps), acked);
        for (first, last) in above {
            let text = format!("no row stands for {first} to {last}");
            self.find(Problem::Missing, first, &text);
        }
        for (first, last) in below {
            let text = format!(
                "{first} to {last} are trimmed, not acknowledged, and covered by no gap: lost without \
                 a word"
            );
            self.find(Problem::Missing, first, &text);
        }
        self.missing = missing;
    }

    fn marks(&mut self, now: &LaneSurvey, acked: &[Range]) {
        let last = acked.last().map_or(0, |range| range.1);
        let mut wrong = |text: String| {
            let lane = Some(now.lane);
            let problem = Problem::Accounting;
            self.findings.add(Finding { problem, lane, seq: None, text });
        };
        for (name, value) in
            [("acknowledged", last), ("trimmed", now.trimmed), ("edge cursor", now.edge_cursor)]
        {
            if value >= now.next {
                wrong(format!("{name} up to {value}, and the next number is {}", now.next));
            }
        }
        let ordered = now.ranges.iter().all(|range| range.0 <= range.1 && range.0 > now.watermark);
        if !ordered {
            wrong(format!("its acknowledged ranges {:?} are none", now.ranges));
        }
    }

    /// The counts, anew from the rows. What was appended after the first survey is taken as told.
    fn account(&mut self, now: &LaneSurvey, gaps: &[Range], acked: Vec<Range>) {
        let there = subtract(whole(now.trimmed + 1, now.next.saturating_sub(1)), &self.missing);
        let held = subtract(there, gaps);
        let counts = [
            ("acknowledged", now.acknowledged, count(&subtract(acked.clone(), gaps))),
            ("queued", now.queued, count(&subtract(held, &acked))),
            ("dropped", now.dropped, count(gaps)),
        ];
        let mut sum = 0;
        let mut wrong = Vec::new();
        for (name, told, counted) in counts {
            sum += counted;
            if told != counted {
                wrong.push(format!("{name}: {told} by the journal, {counted} by its records"));
            }
        }
        if sum != now.next.saturating_sub(1) {
            wrong.push(format!(
                "acknowledged, queued and dropped make {sum}, and {} numbers were given out",
                now.next.saturating_sub(1)
            ));
        }
        // Counts can only be compared where nothing came or went.
        let still = (now.next, now.trimmed) == (self.survey.next, self.survey.trimmed)
            && now.unreadable == 0;
        let (records, bytes) = (self.counted.records, self.counted.bytes);
        if still && now.gaps == self.survey.gaps && (records, bytes) != (now.records, now.bytes) {
            wrong.push(format!(
                "{} records ({} bytes) by the journal, {records} ({bytes} bytes) read",
                now.records, now.bytes
            ));
        }
        for text in wrong {
            let (problem, lane) = (Problem::Accounting, Some(now.lane));
            self.findings.add(Finding { problem, lane, seq: None, text });
        }
    }
}

#[cfg(test)]
mod tests;
