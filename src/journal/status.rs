//! `ridgeway journal status`.

use std::{io::Write as _, time::SystemTime};

use gateway::journal::{LaneSurvey, Survey};
use serde::Serialize;
use topics::{Lane, Timestamp, UplinkState};

use super::{
    source::{Place, Source},
    span,
};
use crate::{
    cli::JournalStatusArgs,
    output::{number, print_json, size},
};

/// The survey, and what is found beside it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    running: bool,
    file: std::path::PathBuf,
    file_bytes: Option<u64>,
    adds_up: bool,
    queued: u64,
    /// When the oldest record that the bridge has not happened.
    oldest_queued: Option<Timestamp>,
    /// How long ago that was.
    oldest_queued_age_seconds: Option<u64>,
    #[serde(flatten)]
    survey: Survey,
}

pub(super) fn run(args: &JournalStatusArgs) -> anyhow::Result<()> {
    let place = Place::of(&args.place)?;
    let mut source = Source::open(&place)?;
    let survey = source.survey()?;
    let oldest_queued = oldest_queued(&mut source, &survey)?;
    source.still_alone()?;
    let now: Timestamp = SystemTime::now().into();
    let status = Status {
        running: source.is_live(),
        file_bytes: std::fs::metadata(&place.file).ok().map(|file| file.len()),
        file: place.file,
        adds_up: survey.lanes.iter().all(LaneSurvey::adds_up),
        queued: survey.lanes.iter().map(|lane| lane.queued).sum(),
        oldest_queued,
        oldest_queued_age_seconds: oldest_queued.map(|oldest| now.since(oldest).as_secs()),
        survey,
    };
    if args.json {
        print_json(&status)?
    } else {
        print(&status, now)?
    }
    if status.adds_up {
        return Ok(());
    }
    anyhow::bail!("the accounting doesn't add up; `ridgeway journal verify` says where")
}

/// When the first record that the bridge lacks happened, over all lanes.
fn oldest_queued(source: &mut Source, survey: &Survey) -> anyhow::Result<Option<Timestamp>> {
    let mut oldest: Option<Timestamp> = None;
    for lane in &survey.lanes {
        let Some(seq) = lane.first_queued else { continue };
        // It may have been acknowledged and trimmed meanwhile; the one after it does as well.
        let rows = source.some_rows(lane.lane, seq, 1)?;
        let record = rows.first().and_then(|row| row.record().ok());
        let time = record.and_then(|record| record.event().ok()).map(|event| event.timestamp);
        oldest = [oldest, time].into_iter().flatten().min();
    }
    Ok(oldest)
}

fn print(status: &Status, now: Timestamp) -> anyhow::Result<()> {
    let survey = &status.survey;
    let mut out = std::io::stdout().lock();
    let running = match &survey.live {
        Some(live) => format!(
            "running for {} (process {}, version {})",
            span(std::time::Duration::from_secs(live.uptime_seconds)),
            live.process,
            live.version
        ),
        None => "not running: this is the file as it was left".to_owned(),
    };
    let file_size = status.file_bytes.map_or_else(|| "size unknown".to_owned(), size);
    writeln!(out, "gateway   {}, {running}", survey.gateway)?;
    writeln!(out, "store     {}, commit {}", survey.store, number(survey.commit))?;
    writeln!(out, "file      {}, {file_size}", status.file.display())?;
    writeln!(out, "holds     {}", holds(survey))?;
    writeln!(out, "queued    {}", queued(status))?;
    if let Some(live) = &survey.live {
        writeln!(out, "bridge    {}", bridge(&live.uplink, now))?;
        let last = match live.last_commit {
            Some(at) => format!(
                "{at}, {} ago, took {:.1} ms",
                span(now.since(at)),
                live.last_commit_us as f64 / 1000.0
            ),
            None => "none since the start".to_owned(),
        };
        let failed = match live.failed_commits {
            0 => String::new(),
            failed => format!("; {} of {} FAILED", number(failed), number(live.commits + failed)),
        };
        writeln!(out, "committed {last}{failed}")?;
    }
    writeln!(out)?;
    lanes(&mut out, survey)?;
    let wrong: Vec<&str> =
        survey.lanes.iter().filter(|lane| !lane.adds_up()).map(|lane| lane.lane.as_str()).collect();
    if wrong.is_empty() {
        writeln!(out, "\nadds up: in each lane, next - 1 = acknowledged + queued + dropped")?;
    } else {
        writeln!(out, "\nDOES NOT ADD UP: {}", wrong.join(", "))?;
    }
    let unreadable: u64 = survey.lanes.iter().map(|lane| lane.unreadable).sum();
    if unreadable > 0 {
        writeln!(out, "{} records can't be read: see verify", number(unreadable))?;
    }
    Ok(out.flush()?)
}

fn holds(survey: &Survey) -> String {
    let (records, bytes) = (survey.records(), survey.bytes());
    let Some(bounds) = survey.bounds else {
        return format!(
            "{} records, {} (how much it may hold: --config tells)",
            number(records),
            size(bytes)
        );
    };
    let part = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    format!(
        "{} of {} records ({:.1} %), {} of {} ({:.1} %); what is acknowledged stays for {}",
        number(records),
        number(bounds.max_records),
        part(records, bounds.max_records),
        size(bytes),
        size(bounds.max_bytes),
        part(bytes, bounds.max_bytes),
        span(std::time::Duration::from_secs(bounds.retention_seconds)),
    )
}

fn queued(status: &Status) -> String {
    match (status.queued, status.oldest_queued, status.oldest_queued_age_seconds) {
        (0, ..) => "nothing: the bridge has everything".to_owned(),
        (queued, Some(oldest), Some(age)) => format!(
            "{} records; the oldest is of {oldest}, {} ago",
            number(queued),
            span(std::time::Duration::from_secs(age))
        ),
        (queued, ..) => format!("{} records", number(queued)),
    }
}

fn bridge(uplink: &UplinkState, now: Timestamp) -> String {
    match uplink {
        UplinkState::Disabled => "none is configured".to_owned(),
        UplinkState::Connected { .. } => "connected, proven by a probe".to_owned(),
        UplinkState::CatchingUp { .. } => "connected, catching up".to_owned(),
        UplinkState::Degraded { reason, .. } => format!("degraded: {reason}"),
        UplinkState::Offline { since, reason, .. } => {
            format!("offline for {}: {reason}", span(now.since(*since)))
        }
    }
}

fn lanes(out: &mut impl std::io::Write, survey: &Survey) -> std::io::Result<()> {
    let mut table: Vec<Vec<String>> = vec![
        [
            "lane",
            "next",
            "acknowledged",
            "queued",
            "dropped",
            "oldest",
            "watermark",
            "edge",
            "records",
            "size",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for lane in Lane::ALL.into_iter().filter_map(|lane| survey.lane(lane)) {
        let above: u64 = lane.ranges.iter().map(|(first, last)| last - first + 1).sum();
        let above = if above > 0 { format!(" +{}", number(above)) } else { String::new() };
        table.push(vec![
            lane.lane.to_string(),
            number(lane.next),
            number(lane.acknowledged),
            number(lane.queued),
            number(lane.dropped),
            number(lane.oldest),
            format!("{}{above}", number(lane.watermark)),
            number(lane.edge_cursor),
            number(lane.records),
            size(lane.bytes),
        ]);
    }
    let widths: Vec<usize> = (0..table[0].len())
        .map(|column| table.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in table {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => write!(out, "{cell:<width$}")?,
                _ => write!(out, "  {cell:>width$}")?,
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
