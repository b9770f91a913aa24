//! What an evaluation tells.

use std::{io::Write as _, time::Duration};

use minutiae::{
    VERIFY_THRESHOLD,
    evaluation::{ErrorRates, Interval, Print, Scores},
};
use serde::Serialize;

use super::{Failure, Loaded, files::Set};
use crate::{
    cli::{EvaluateArgs, PairsOf},
    output::number,
    template::parallel,
};

/// Share of prints that is left out as the worst, to see what quality is worth.
const WORST: f64 = 0.1;
/// Files named for people.
const NAMED_UNREADABLE: usize = 10;
/// Pairs named on either side.
const NAMED_PAIRS: usize = 3;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    dir: String,
    #[serde(skip)]
    set: String,
    fingers: usize,
    prints: usize,
    /// Files that gave no template, and score 0.
    without_template: Vec<String>,
    /// Those among them that couldn't be read at all.
    unreadable: Vec<Unreadable>,
    enrolled: usize,
    pairs: &'static str,
    genuine: u64,
    impostors: u64,
    eer: Figure,
    fnmr_at_fmr: Vec<AtFmr>,
    at_threshold: Vec<AtThreshold>,
    /// Of the prints but for the tenth of the lowest quality.
    without_worst_tenth: Option<Better>,
    /// Median milliseconds of an extraction.
    extraction_ms: Option<f64>,
    /// Mean microseconds of comparing two templates.
    comparison_us: Option<f64>,
    /// Cores that worked at a time.
    cores: usize,
    lowest_genuine: Vec<Pair>,
    highest_impostors: Vec<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) det: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rejection: Option<String>,
}

#[derive(Serialize)]
struct Unreadable {
    file: String,
    reason: String,
}

/// A share from 0 to 1, and the range of 90 % of its values when fingers are drawn anew.
#[derive(Serialize)]
struct Figure {
    value: f64,
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Serialize)]
struct AtFmr {
    fmr: f64,
    threshold: u16,
    fnmr: Figure,
}

#[derive(Serialize)]
struct AtThreshold {
    threshold: u16,
    fmr: f64,
    fnmr: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Better {
    eer: f64,
    /// At an FMR of 0.1 %.
    fnmr: f64,
}

#[derive(Serialize)]
struct Pair {
    score: u16,
    a: String,
    b: String,
}

impl Unreadable {
    fn of(loaded: &Loaded) -> Option<Self> {
        match &loaded.print {
            Err(Failure::Unreadable(reason)) => {
                Some(Self { file: loaded.name.clone(), reason: reason.clone() })
            }
            Err(Failure::NoTemplate(_)) | Ok(_) => None,
        }
    }
}

impl Figure {
    fn of(rates: &ErrorRates, draws: &[ErrorRates], figure: impl Fn(&ErrorRates) -> f64) -> Self {
        let interval = Interval::of(draws, &figure);
        let (low, high) = (interval.map(|i| i.low), interval.map(|i| i.high));
        Self { value: figure(rates), low, high }
    }

    /// `1.23 %  (0.40 to 2.10)`
    fn text(&self) -> String {
        let value = format!("{:>6.2} %", 100.0 * self.value);
        match (self.low, self.high) {
            (Some(low), Some(high)) => {
                format!("{value}  ({:.2} to {:.2})", 100.0 * low, 100.0 * high)
            }
            _ => value,
        }
    }
}

impl Report {
    pub(super) fn of(
        args: &EvaluateArgs,
        set: &Set,
        fingers: &[Vec<Loaded>],
        scores: &Scores,
        draws: &[ErrorRates],
        comparison: Option<Duration>,
    ) -> Self {
        let rates = scores.rates();
        let of = |print: Print| &fingers[print.finger][print.impression];
        let without = fingers.iter().flatten().filter(|print| print.print.is_err());
        let better = scores.rates_without_worst(WORST, |print| of(print).quality);
        let named = |pairs: Vec<(u16, Print, Print)>| {
            let pair = |(score, a, b)| Pair { score, a: of(a).name.clone(), b: of(b).name.clone() };
            pairs.into_iter().map(pair).collect()
        };
        Self {
            dir: args.dir.display().to_string(),
            set: set.summary(),
            fingers: fingers.len(),
            prints: set.count(),
            without_template: without.map(|print| print.name.clone()).collect(),
            unreadable: fingers.iter().flatten().filter_map(Unreadable::of).collect(),
            enrolled: args.enrol.into(),
            pairs: match args.pairs {
                PairsOf::All => "all",
                PairsOf::Fvc => "fvc",
            },
            genuine: rates.genuine_count(),
            impostors: rates.impostor_count(),
            eer: Figure::of(&rates, draws, ErrorRates::eer),
            fnmr_at_fmr: [0.01, 0.001, 0.0]
                .map(|fmr| AtFmr {
                    fmr,
                    threshold: rates.threshold_at(fmr),
                    fnmr: Figure::of(&rates, draws, |rates| rates.fnmr_at(fmr)),
                })
                .into(),
            at_threshold: [VERIFY_THRESHOLD, 70]
                .map(|threshold| AtThreshold {
                    threshold,
                    fmr: rates.fmr(threshold),
                    fnmr: rates.fnmr(threshold),
                })
                .into(),
            without_worst_tenth: better
                .map(|rates| Better { eer: rates.eer(), fnmr: rates.fnmr_at(0.001) }),
            extraction_ms: median_extraction(fingers).map(|time| 1e3 * time.as_secs_f64()),
            comparison_us: comparison.map(|time| 1e6 * time.as_secs_f64()),
            cores: parallel::cores(),
            lowest_genuine: named(scores.weakest_genuine(NAMED_PAIRS)),
            highest_impostors: named(scores.strongest_impostors(NAMED_PAIRS)),
            det: None,
            rejection: None,
        }
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let mut row = |label: &str, value: String| writeln!(out, "{label:<20} {value}");
        row("set", format!("{}: {}", self.dir, self.set))?;
        if let [first, rest @ ..] = &self.without_template[..] {
            let more =
                if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            row("no template, score 0", format!("{first}{more}"))?;
        }
        if !self.unreadable.is_empty() {
            let count = format!("{} of {}", self.unreadable.len(), self.prints);
            row("unreadable", format!("{count}, counted as an image that gives no template is:"))?;
        }
        for Unreadable { file, reason } in self.unreadable.iter().take(NAMED_UNREADABLE) {
            row("", format!("{file}: {reason}"))?;
        }
        if let Some(more @ 1..) = self.unreadable.len().checked_sub(NAMED_UNREADABLE) {
            row("", format!("and {more} more: --json names all"))?;
        }
        let enrolled = match self.enrolled {
            1 => "one enrolled",
            _ => "three enrolled in all choices",
        };
        let strangers = match self.pairs {
            "fvc" => "first impressions of every two fingers",
            _ => "all impressions of every two fingers",
        };
        let (genuine, impostors) = (number(self.genuine), number(self.impostors));
        row(
            "comparisons",
            format!("{genuine} genuine ({enrolled}), {impostors} impostor ({strangers})"),
        )?;
        row("EER", self.eer.text())?;
        for AtFmr { fmr, threshold, fnmr } in &self.fnmr_at_fmr {
            row(
                &format!("FNMR at FMR {} %", 100.0 * fmr),
                format!("{}  score {threshold}", fnmr.text()),
            )?;
        }
        row(
            "",
            "in brackets: 90 % of the values when fingers are drawn anew, 1 000 times".to_owned(),
        )?;
        for AtThreshold { threshold, fmr, fnmr } in &self.at_threshold {
            let (fmr, fnmr) = (100.0 * fmr, 100.0 * fnmr);
            row(&format!("at score {threshold}"), format!("FMR {fmr:.3} %, FNMR {fnmr:.2} %"))?;
        }
        if let Some(Better { eer, fnmr }) = &self.without_worst_tenth {
            let (eer, fnmr) = (100.0 * eer, 100.0 * fnmr);
            row(
                "without the worst",
                format!(
                    "EER {eer:.2} %, FNMR at FMR 0.1 % {fnmr:.2} % (tenth by quality left out)"
                ),
            )?;
        }
        if let Some(time) = self.extraction_ms {
            row(
                "extraction",
                format!("{time:.1} ms (median, on one of {} busy cores)", self.cores),
            )?;
        }
        if let Some(time) = self.comparison_us {
            row("comparison", format!("{time:.1} us (mean)"))?;
        }
        for (label, pairs) in [
            ("lowest genuine", &self.lowest_genuine),
            ("highest impostor", &self.highest_impostors),
        ] {
            let text = pairs.iter().map(|Pair { score, a, b }| format!("{score}: {a} {b}"));
            row(label, text.collect::<Vec<_>>().join(", "))?;
        }
        for (label, file) in [("DET curve", &self.det), ("rejection curve", &self.rejection)] {
            if let Some(file) = file {
                row(label, file.clone())?;
            }
        }
        Ok(out.flush()?)
    }
}

fn median_extraction(fingers: &[Vec<Loaded>]) -> Option<Duration> {
    let mut times: Vec<Duration> =
        fingers.iter().flatten().filter_map(|print| print.extraction).collect();
    times.sort();
    times.get(times.len() / 2).copied()
}
