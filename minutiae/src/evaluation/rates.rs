//! Error rates by threshold.

/// One more than the highest score: from this threshold on nothing matches.
const HIGHEST_THRESHOLD: usize = 1001;

/// How many genuine and impostor comparisons have which score.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorRates {
    genuine: Below,
    impostor: Below,
}

/// A threshold and what it leads to, as shares from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetPoint {
    /// Scores from here on match.
    pub threshold: u16,
    /// Share of strangers that match.
    pub fmr: f64,
    /// Share of comparisons of one finger that don't.
    pub fnmr: f64,
}

/// Comparisons by score.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; HIGHEST_THRESHOLD] }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, score: u16, count: u64) {
        self.counts[usize::from(score)] += count;
    }
}

/// Comparisons by what is under a threshold.
#[derive(Debug, Clone, PartialEq)]
struct Below {
    /// `counts[t]` score under `t`. Whole where none is weighted: far below 2^53 they are exact.
    counts: Vec<f64>,
}

impl Below {
    fn of<'a>(weighted: impl Iterator<Item = (f64, &'a Histogram)>) -> Self {
        let mut counts = vec![0.0; HIGHEST_THRESHOLD + 1];
        for (weight, histogram) in weighted {
            for (score, &count) in histogram.counts.iter().enumerate() {
                counts[score + 1] += weight * count as f64;
            }
        }
        for score in 0..HIGHEST_THRESHOLD {
            counts[score + 1] += counts[score];
        }
        Self { counts }
    }

    fn total(&self) -> f64 {
        self.counts[HIGHEST_THRESHOLD]
    }

    /// Comparisons whose score reaches the threshold.
    fn reached(&self, threshold: u16) -> f64 {
        self.total() - self.under(threshold)
    }

    /// The score of the comparison at this share of all, in the order of their scores.
    fn quantile(&self, share: f64) -> u16 {
        let rank = ((self.total() - 1.0) * share).round();
        first_threshold(|t| self.under(t) > rank) - 1
    }

    fn under(&self, threshold: u16) -> f64 {
        self.counts[usize::from(threshold).min(HIGHEST_THRESHOLD)]
    }
}

impl ErrorRates {
    /// `None` where there is no genuine or no impostor comparison.
    pub(super) fn new(genuine: &Histogram, impostor: &Histogram) -> Option<Self> {
        Self::weighted([(1.0, genuine, impostor)])
    }

    /// Of genuine and impostor comparisons that count so much each.
    pub(super) fn weighted<'a>(
        parts: impl IntoIterator<Item = (f64, &'a Histogram, &'a Histogram)> + Clone,
    ) -> Option<Self> {
        let genuine = parts.clone().into_iter().map(|(weight, genuine, _)| (weight, genuine));
        let impostor = parts.into_iter().map(|(weight, _, impostor)| (weight, impostor));
        let new = Self { genuine: Below::of(genuine), impostor: Below::of(impostor) };
        (new.genuine.total() > 0.0 && new.impostor.total() > 0.0).then_some(new)
    }

    /// From the scores themselves, 0 to 1000 each; `None` where there are none of either kind.
    pub fn from_scores(genuine: &[u16], impostor: &[u16]) -> Option<Self> {
        let histogram = |scores: &[u16]| {
            let mut histogram = Histogram::default();
            scores.iter().for_each(|&score| histogram.add(score.min(1000), 1));
            histogram
        };
        Self::new(&histogram(genuine), &histogram(impostor))
    }

    /// Comparisons of one finger, to the nearest whole one.
    pub fn genuine_count(&self) -> u64 {
        self.genuine.total().round() as u64
    }

    /// Comparisons of strangers, to the nearest whole one.
    pub fn impostor_count(&self) -> u64 {
        self.impostor.total().round() as u64
    }

    /// The score that this share, 0 to 1, of the comparisons of one finger stays below.
    pub fn genuine_quantile(&self, share: f64) -> u16 {
        self.genuine.quantile(share)
    }

    /// The score that this share, 0 to 1, of the comparisons of strangers stays below.
    pub fn impostor_quantile(&self, share: f64) -> u16 {
        self.impostor.quantile(share)
    }

    /// Share of comparisons of one finger that a threshold turns away.
    pub fn fnmr(&self, threshold: u16) -> f64 {
        self.genuine.under(threshold) / self.genuine.total()
    }

    /// Share of comparisons of strangers that a threshold lets in.
    pub fn fmr(&self, threshold: u16) -> f64 {
        self.impostor.reached(threshold) / self.impostor.total()
    }

    /// Where FMR and FNMR are equal, both drawn as lines from threshold to threshold.
    pub fn eer(&self) -> f64 {
        let gap = |t: u16| self.fmr(t) - self.fnmr(t);
        // It goes from 1, where everything matches, to -1, where nothing does.
        let crossed = first_threshold(|t| gap(t) <= 0.0);
        let (before, after) = (gap(crossed - 1), gap(crossed));
        let part = before / (before - after);
        self.fnmr(crossed - 1) + part * (self.fnmr(crossed) - self.fnmr(crossed - 1))
    }

    /// The lowest threshold whose FMR is at most this.
    pub fn threshold_at(&self, fmr: f64) -> u16 {
        first_threshold(|t| self.fmr(t) <= fmr)
    }

    /// The lowest FNMR among the thresholds whose FMR is at most this.
    pub fn fnmr_at(&self, fmr: f64) -> f64 {
        self.fnmr(self.threshold_at(fmr))
    }

    /// The detection error trade-off: from everything matches to nothing does, a point for each
    /// threshold that changes either rate.
    pub fn det(&self) -> Vec<DetPoint> {
        let point = |t: u16| DetPoint { threshold: t, fmr: self.fmr(t), fnmr: self.fnmr(t) };
        let mut points: Vec<DetPoint> = (0..=HIGHEST_THRESHOLD as u16).map(point).collect();
        points.dedup_by(|next, kept| (next.fmr, next.fnmr) == (kept.fmr, kept.fnmr));
        points
    }
}

/// The first threshold that `holds`, for what holds from some threshold on: at the highest at least.
fn first_threshold(holds: impl Fn(u16) -> bool) -> u16 {
    let thresholds: Vec<u16> = (0..=HIGHEST_THRESHOLD as u16).collect();
    let index = thresholds.partition_point(|&t| !holds(t));
    thresholds[index.min(HIGHEST_THRESHOLD)]
}
