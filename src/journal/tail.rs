//! `ridgeway journal tail`.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use anyhow::Context as _;
use gateway::{
    control::MAX_ROWS,
    journal::{LaneSurvey, Row, event_id},
};
use serde::de::IgnoredAny;
use topics::{EventId, Lane, Record, RecordKind};

use super::source::{Place, Source};
use crate::{cli::TailArgs, feed};

pub(super) fn run(args: &TailArgs) -> anyhow::Result<()> {
    let place = Place::of(&args.place)?;
    let mut source = Source::open(&place)?;
    let lanes = args.lane.map_or_else(|| Lane::ALL.to_vec(), |lane| vec![lane]);
    let mut tail = Tail { lanes, text: args.text, places: [Told::default(); 4] };
    tail.latest(&mut source, args.lines as usize)?;
    source.still_alone()?;
    if !args.follow {
        return Ok(());
    }
    while let Source::Live(control) = &mut source {
        let next = tail.places.map(|told| told.next);
        control.wait(next).context("can't follow any longer")?;
        tail.later(&mut source)?;
    }
    anyhow::bail!("the gateway isn't running: there is nothing to follow")
}

/// How far a lane was printed.
#[derive(Clone, Copy, Default)]
struct Told {
    next: u64,
    dropped: u64,
    /// The newest gap: gaps stand among what is older than they are.
    gap: Option<EventId>,
}

struct Tail {
    lanes: Vec<Lane>,
    text: bool,
    places: [Told; 4],
}

/// Records on their way out, sorted with those of other lanes.
type Found = BTreeMap<(Option<EventId>, Lane, u64), Record>;

impl Tail {
    /// The latest `lines` records.
    fn latest(&mut self, source: &mut Source, lines: usize) -> anyhow::Result<()> {
        let mut found = Found::new();
        for lane in source.survey()?.lanes {
            let told = &mut self.places[lane.lane.index()];
            (told.next, told.dropped) = (lane.next, lane.dropped);
            if !self.lanes.contains(&lane.lane) {
                continue;
            }
            self.gaps(source, &lane, &mut found)?;
            let mut from = lane.next.saturating_sub(lines as u64);
            while from < lane.next {
                let rows = source.rows(lane.lane, from)?;
                let Some(last) = rows.last() else { break };
                from = last.key + 1;
                for row in rows.iter().filter(|row| row.key < lane.next) {
                    keep(&mut found, lane.lane, row);
                }
                while found.len() > lines {
                    found.pop_first();
                }
            }
            while found.len() > lines {
                found.pop_first();
            }
        }
        Ok(print(found.into_values(), self.text)?)
    }

    /// What came since.
    fn later(&mut self, source: &mut Source) -> anyhow::Result<()> {
        let survey = source.survey()?;
        loop {
            let mut found = Found::new();
            for lane in &survey.lanes {
                let told = &mut self.places[lane.lane.index()];
                if !self.lanes.contains(&lane.lane) {
                    told.next = lane.next;
                    continue;
                }
                if told.dropped != lane.dropped {
                    told.dropped = lane.dropped;
                    self.gaps(source, lane, &mut found)?;
                }
                let told = &mut self.places[lane.lane.index()];
                if told.next < lane.next {
                    let rows = source.rows(lane.lane, told.next)?;
                    // All may be gone already, with a gap in their place.
                    told.next = rows.last().map_or(lane.next, |row| row.key + 1);
                    for row in &rows {
                        // Once it is in front, it is not told again.
                        told.gap = told.gap.max(gap_id(row));
                        keep(&mut found, lane.lane, row);
                    }
                }
            }
            if found.is_empty() {
                return Ok(());
            }
            print(found.into_values(), self.text)?;
        }
    }

    /// The gaps of a lane that are newer than those found before: they stand in front.
    fn gaps(
        &mut self,
        source: &mut Source,
        lane: &LaneSurvey,
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let told = &mut self.places[lane.lane.index()];
        let before = told.gap;
        let mut from = 0;
        while lane.gaps > 0 && from <= lane.trimmed {
            let rows = source.some_rows(lane.lane, from, MAX_ROWS)?;
            let Some(last) = rows.last() else { break };
            from = last.key + 1;
            for row in rows.iter().filter(|row| row.key <= lane.trimmed) {
                let Some(id) = gap_id(row) else { continue };
                if before.is_none_or(|before| id > before) {
                    told.gap = told.gap.max(Some(id));
                    keep(found, lane.lane, row);
                }
            }
        }
        Ok(())
    }
}

/// The id of a gap's event.
fn gap_id(row: &Row) -> Option<EventId> {
    let record = row.record().ok();
    record.filter(|record| record.kind() == RecordKind::Gap).as_ref().and_then(event_id)
}

/// What can't be read is told on standard error.
fn keep(found: &mut Found, lane: Lane, row: &Row) {
    let record = row.record().map_err(|error| error.to_string());
    let record = record.and_then(|record| {
        let json = serde_json::from_slice::<IgnoredAny>(record.json());
        json.map(|_| record).map_err(|_| "its JSON is damaged".to_owned())
    });
    match record {
        Ok(record) => drop(found.insert((event_id(&record), lane, row.key), record)),
        Err(why) => eprintln!("ridgeway: record {} of lane {lane} can't be read: {why}", row.key),
    }
}

/// As they were told: never the sealed part.
fn print(records: impl Iterator<Item = Record>, text: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for record in records {
        match record.event() {
            Ok(event) if text => writeln!(out, "{}", feed::line(&event))?,
            Ok(_) | Err(_) => {
                out.write_all(record.json())?;
                out.write_all(b"\n")?;
            }
        }
    }
    out.flush()
}
