//! `ridgeway template match`.

use std::{io::Write as _, path::Path};

use minutiae::{Prepared, VERIFY_THRESHOLD, compare, confidence};
use serde::Serialize;

use super::input;
use crate::{cli::MatchArgs, output::print_json};

/// Scores and the share of strangers that reach them: see [`minutiae::Score`].
const THRESHOLDS: [Threshold; 2] =
    [Threshold { score: VERIFY_THRESHOLD, one_in: 1_000 }, Threshold { score: 70, one_in: 10_000 }];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Threshold {
    score: u16,
    /// One pair of strangers in so many reaches it.
    one_in: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    score: u16,
    confidence: f64,
    #[serde(rename = "match")]
    matches: bool,
    threshold: u16,
    thresholds: [Threshold; 2],
}

pub(super) fn run(args: &MatchArgs) -> anyhow::Result<()> {
    let dpi = args.resolution.dpi;
    let prepared = |path: &Path| {
        let template = input::read(path, dpi)?.into_template(path)?;
        Ok::<_, anyhow::Error>(Prepared::new(&template))
    };
    let score = compare(&prepared(&args.a)?, &prepared(&args.b)?).get();
    let report = Report {
        score,
        confidence: confidence(score, VERIFY_THRESHOLD),
        matches: score >= VERIFY_THRESHOLD,
        threshold: VERIFY_THRESHOLD,
        thresholds: THRESHOLDS,
    };
    if args.json { print_json(&report) } else { print(&report) }
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let decision =
        if report.matches { "same finger" } else { "not the same finger, or too poor a print" };
    writeln!(out, "score       {} of 1000", report.score)?;
    writeln!(
        out,
        "confidence  {:.1} of 100 (a confidence of 70 is the score {})",
        report.confidence, report.threshold
    )?;
    writeln!(out, "decision    {decision}")?;
    for (index, Threshold { score, one_in }) in report.thresholds.iter().enumerate() {
        let label = if index == 0 { "threshold" } else { "" };
        let strangers = crate::output::number((*one_in).into());
        let reached = if report.score >= *score { "reached" } else { "missed" };
        writeln!(
            out,
            "{label:<11} score {score}: one pair of strangers in {strangers}; {reached}"
        )?;
    }
    Ok(out.flush()?)
}
