//! `ridgeway journal verify`.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use gateway::journal::{
    Counted, FileError, Finding, Findings, Integrity, JournalFile, LaneCheck, LaneSurvey, Problem,
    Row,
};
use indicatif::ProgressBar;
use serde::Serialize;
use topics::Lane;

use super::source::{self, Place, Source, WithAdvice};
use crate::{
    cli::JournalStatusArgs,
    output::{number, print_json, progress, size},
};

/// How often a lane's front is looked at again, until it stands still between two looks.
const LOOKS: u32 = 20;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    sound: bool,
    running: bool,
    gateway: Option<String>,
    store: Option<topics::StoreId>,
    lanes: Vec<LaneReport>,
    /// Whether redb checked its pages, which it can on a stopped gateway's file.
    pages_checked: bool,
    damage: u64,
    findings: Vec<Finding>,
    milliseconds: u64,
}

#[derive(Serialize)]
struct LaneReport {
    lane: Lane,
    #[serde(flatten)]
    counted: Counted,
}

pub(super) fn run(args: &JournalStatusArgs) -> anyhow::Result<()> {
    source::be_nice();
    let place = Place::of(&args.place)?;
    let started = Instant::now();
    let mut report = match Source::open(&place) {
        Ok(mut source) => check(&mut source, &place)?,
        Err(error) => unopened(error)?,
    };
    report.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    if args.json {
        print_json(&report)?
    } else {
        print(&report)?
    }
    if report.sound {
        return Ok(());
    }
    anyhow::bail!(
        "{} is damaged in {} {}",
        place.file.display(),
        number(report.damage),
        if report.damage == 1 { "place" } else { "places" }
    )
}

/// A file that is there and can't be opened is damaged; every other failure is one.
fn unopened(error: anyhow::Error) -> anyhow::Result<Report> {
    let damaged = error
        .downcast_ref::<WithAdvice>()
        .is_some_and(|with| matches!(with.error, FileError::Damaged { .. }));
    if !damaged {
        return Err(error);
    }
    let mut findings = Findings::default();
    findings.add(storage(error.to_string()));
    Ok(Report {
        sound: false,
        running: false,
        gateway: None,
        store: None,
        lanes: Vec::new(),
        pages_checked: false,
        damage: 1,
        findings: findings.listed,
        milliseconds: 0,
    })
}

fn check(source: &mut Source, place: &Place) -> anyhow::Result<Report> {
    let survey = source.survey()?;
    let bar = progress::bar("records", survey.records());
    let mut findings = Findings::default();
    let mut lanes = Vec::new();
    for lane in &survey.lanes {
        let (counted, found) = check_lane(source, &survey.gateway, lane, &bar)?;
        lanes.push(LaneReport { lane: lane.lane, counted });
        findings.extend(found);
    }
    bar.finish_and_clear();
    let pages_checked = !source.is_live();
    if pages_checked {
        let spinner = progress::spinner("pages");
        let checked = JournalFile::check_integrity(&place.file);
        spinner.finish_and_clear();
        match checked {
            Ok(Integrity::Sound) => {}
            Ok(Integrity::Repairable) => findings.add(storage(
                "redb's own check finds pages that are not as their checksums say".to_owned(),
            )),
            Err(FileError::Damaged { reason, .. }) => {
                findings.add(storage(format!("redb's own check: {reason}")));
            }
            Err(error) => return Err(source::help_file(error)),
        }
    }
    source.still_alone()?;
    if source.survey()?.store != survey.store {
        anyhow::bail!("the journal took a new store id meanwhile; run this again");
    }
    Ok(Report {
        sound: findings.count() == 0,
        running: source.is_live(),
        gateway: Some(survey.gateway),
        store: Some(survey.store),
        lanes,
        pages_checked,
        damage: findings.count(),
        findings: findings.listed,
        milliseconds: 0,
    })
}

fn check_lane(
    source: &mut Source,
    gateway: &str,
    lane: &LaneSurvey,
    bar: &ProgressBar,
) -> anyhow::Result<(Counted, Findings)> {
    let mut check = LaneCheck::new(gateway, lane);
    let mut from = 0;
    while from < lane.next {
        let rows = source.rows(lane.lane, from)?;
        let Some(last) = rows.last() else { break };
        from = last.key.saturating_add(1);
        rows.iter().for_each(|row| check.row(row));
        bar.inc(rows.len() as u64);
    }
    if !source.is_live() {
        return Ok(check.end(lane, None));
    }
    let (now, front) = standing_still(source, lane)?;
    Ok(check.end(&now, Some(&front)))
}

/// A lane of a running gateway and the gaps in its front, as they were at one moment: its oldest
/// records go while others are read.
fn standing_still(
    source: &mut Source,
    lane: &LaneSurvey,
) -> anyhow::Result<(LaneSurvey, Vec<Row>)> {
    let name = lane.lane;
    let mut before = at(source, name)?;
    for look in 0..LOOKS {
        let mut front = Vec::new();
        let mut from = 0;
        while from <= before.trimmed {
            let rows = source.rows(name, from)?;
            let Some(last) = rows.last() else { break };
            from = last.key.saturating_add(1);
            front.extend(rows.into_iter().filter(|row| row.key <= before.trimmed));
        }
        let after = at(source, name)?;
        if (after.trimmed, after.gaps, after.dropped)
            == (before.trimmed, before.gaps, before.dropped)
        {
            return Ok((before, front));
        }
        before = after;
        std::thread::sleep(Duration::from_millis(u64::from(look) * 5));
    }
    anyhow::bail!("lane {name} doesn't stand still for long enough to be counted; run this again")
}

fn at(source: &mut Source, lane: Lane) -> anyhow::Result<LaneSurvey> {
    let survey = source.survey()?;
    let found = survey.lane(lane).cloned();
    found.ok_or_else(|| anyhow::anyhow!("the gateway tells nothing of lane {lane}"))
}

fn storage(text: String) -> Finding {
    Finding { problem: Problem::Storage, lane: None, seq: None, text }
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for lane in &report.lanes {
        let Counted { records, gaps, bytes, unchained } = lane.counted;
        let mut line =
            format!("{:<10} {:>11} records, {}", lane.lane.as_str(), number(records), size(bytes));
        if gaps > 0 {
            line.push_str(&format!(", {} of them gaps", number(gaps)));
        }
        if unchained > 0 {
            line.push_str(&format!(
                "; {} without a record before it to check its chain by",
                number(unchained)
            ));
        }
        writeln!(out, "{line}")?;
    }
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    let more = report.damage - report.findings.len() as u64;
    if more > 0 {
        writeln!(out, "… and {} more", number(more))?;
    }
    if report.sound {
        let records: u64 = report.lanes.iter().map(|lane| lane.counted.records).sum();
        let pages = if report.pages_checked {
            "; redb's pages are as their checksums say"
        } else {
            " (redb checks its pages only when the gateway is stopped)"
        };
        writeln!(
            out,
            "sound: {} records checked in {:.1} s, and they add up{pages}",
            number(records),
            report.milliseconds as f64 / 1000.0
        )?;
    }
    Ok(out.flush()?)
}
