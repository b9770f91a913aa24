//! The DET curve, drawn: false match rate across, false non-match rate up, both logarithmic.
//!
//! The curve goes in steps from threshold to threshold; the EER lies on the line between two of them.
//! A logarithmic scale has no zero, so each axis has a place of its own for it, beyond a gap. Around
//! the curve lies the range of 90 % of the curves that come from drawing fingers anew.

use minutiae::{
    VERIFY_THRESHOLD,
    evaluation::{ErrorRates, Interval},
};

use super::draw::{
    BLACK, BLUE, Canvas, Colour, GREY, LETTER_HEIGHT, LETTER_WIDTH, ORANGE, PALE, Point, RED,
    WHITE, mixed, text_width,
};

const WIDTH: usize = 1000;
const HEIGHT: usize = 900;
/// The frame of the curve.
const LEFT: f32 = 130.0;
const RIGHT: f32 = 970.0;
const TOP: f32 = 120.0;
const BOTTOM: f32 = 800.0;
/// From the end of the scale to the place of zero.
const ZERO_GAP: f32 = 80.0;
/// Scores marked on the curve.
const MARKED: [u16; 2] = [VERIFY_THRESHOLD, 70];

/// Places of shares on both axes.
struct Axes {
    /// Powers of ten at which the scales begin; they end at 1.
    first_fmr: i32,
    first_fnmr: i32,
}

/// Draws the curve of a set under a title.
pub(super) fn draw(title: &str, rates: &ErrorRates, draws: &[ErrorRates]) -> Canvas {
    let axes = Axes::of(rates);
    let mut canvas = Canvas::new(WIDTH, HEIGHT, WHITE);
    axes.band(&mut canvas, rates, draws);
    axes.grid(&mut canvas);
    axes.equal_errors(&mut canvas, rates);
    axes.curve(&mut canvas, rates);
    axes.marks(&mut canvas, rates);
    labels(&mut canvas, title, rates);
    canvas
}

impl Axes {
    /// Far enough for one comparison to be seen.
    fn of(rates: &ErrorRates) -> Self {
        let first = |count: u64| -((count as f64).log10().ceil().clamp(2.0, 7.0) as i32);
        Self { first_fmr: first(rates.impostor_count()), first_fnmr: first(rates.genuine_count()) }
    }

    fn x(&self, fmr: f64) -> f32 {
        let start = LEFT + ZERO_GAP;
        if fmr <= 0.0 { LEFT } else { start + (RIGHT - start) * along(fmr, self.first_fmr) }
    }

    fn y(&self, fnmr: f64) -> f32 {
        let start = BOTTOM - ZERO_GAP;
        if fnmr <= 0.0 { BOTTOM } else { start - (start - TOP) * along(fnmr, self.first_fnmr) }
    }

    fn point(&self, fmr: f64, fnmr: f64) -> Point {
        (self.x(fmr), self.y(fnmr))
    }

    /// The share at a column of the picture.
    fn fmr_at(&self, x: f32) -> f64 {
        let start = LEFT + ZERO_GAP;
        let part = f64::from(((x - start) / (RIGHT - start)).clamp(0.0, 1.0));
        10f64.powf(f64::from(self.first_fmr) * (1.0 - part))
    }

    fn band(&self, canvas: &mut Canvas, rates: &ErrorRates, draws: &[ErrorRates]) {
        // Below one comparison's share there is nothing to tell.
        let least = 1.0 / rates.impostor_count() as f64;
        for x in (LEFT + ZERO_GAP) as usize..RIGHT as usize {
            let fmr = self.fmr_at(x as f32 + 0.5);
            let interval = Interval::of(draws, |rates| rates.fnmr_at(fmr));
            if let Some(Interval { low, high }) = interval.filter(|_| fmr >= least) {
                let (top, bottom) = (self.y(high), self.y(low));
                canvas.fill(
                    (x, top as usize),
                    (x + 1, bottom as usize + 1),
                    mixed(WHITE, BLUE, 0.14),
                );
            }
        }
    }

    fn grid(&self, canvas: &mut Canvas) {
        for share in ticks(self.first_fmr) {
            let (x, colour) = (self.x(share), line_colour(share));
            canvas.line((x, TOP), (x, BOTTOM), 1.0, colour);
            if let Some(text) = tick_text(share) {
                let left = x - text_width(&text, 2) / 2.0;
                canvas.text((left, BOTTOM + 12.0), 2, BLACK, &text);
            }
        }
        for share in ticks(self.first_fnmr) {
            let (y, colour) = (self.y(share), line_colour(share));
            canvas.line((LEFT, y), (RIGHT, y), 1.0, colour);
            if let Some(text) = tick_text(share) {
                let left = LEFT - 10.0 - text_width(&text, 2);
                canvas.text((left, y - LETTER_HEIGHT + 2.0), 2, BLACK, &text);
            }
        }
        for (from, to) in [((LEFT, TOP), (LEFT, BOTTOM)), ((LEFT, BOTTOM), (RIGHT, BOTTOM))] {
            canvas.line(from, to, 2.0, BLACK);
        }
        // The scale is broken between zero and its first power of ten.
        let (across, up) = (LEFT + ZERO_GAP / 2.0, BOTTOM - ZERO_GAP / 2.0);
        for shift in [-4.0, 4.0] {
            let x = across + shift;
            canvas.line((x - 4.0, BOTTOM + 8.0), (x + 4.0, BOTTOM - 8.0), 2.0, BLACK);
            let y = up + shift;
            canvas.line((LEFT - 8.0, y + 4.0), (LEFT + 8.0, y - 4.0), 2.0, BLACK);
        }
    }

    /// The line on which both errors are equal, and where the curve meets it.
    fn equal_errors(&self, canvas: &mut Canvas, rates: &ErrorRates) {
        let first = self.first_fmr.max(self.first_fnmr);
        let (from, to) = (self.point(10f64.powi(first), 10f64.powi(first)), self.point(1.0, 1.0));
        let length = (to.0 - from.0).hypot(to.1 - from.1);
        let at = |along: f32| {
            let part = (along / length).min(1.0);
            (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1))
        };
        let dashes = (length / 14.0) as usize;
        for dash in 0..=dashes {
            let start = dash as f32 * 14.0;
            canvas.line(at(start), at(start + 7.0), 1.5, GREY);
        }
        let eer = rates.eer();
        canvas.circle(self.point(eer, eer), 7.0, 3.0, RED);
    }

    /// In steps: at an FMR between two thresholds, the FNMR is that of the higher one.
    fn curve(&self, canvas: &mut Canvas, rates: &ErrorRates) {
        let points: Vec<Point> =
            rates.det().iter().map(|point| self.point(point.fmr, point.fnmr)).collect();
        for pair in points.windows(2) {
            let ((right, low), (left, high)) = (pair[0], pair[1]);
            canvas.line((right, low), (right, high), 3.0, BLUE);
            canvas.line((right, high), (left, high), 3.0, BLUE);
        }
    }

    fn marks(&self, canvas: &mut Canvas, rates: &ErrorRates) {
        for threshold in MARKED {
            let (x, y) = self.point(rates.fmr(threshold), rates.fnmr(threshold));
            canvas.circle((x, y), 4.0, 5.0, ORANGE);
            canvas.text((x + 12.0, y - 22.0), 2, ORANGE, &threshold.to_string());
        }
    }
}

/// Where a share lies between a power of ten and 1.
fn along(share: f64, first: i32) -> f32 {
    (1.0 - share.log10() / f64::from(first)).clamp(0.0, 1.0) as f32
}

/// Zero, and 1, 2 and 5 of each power of ten.
fn ticks(first: i32) -> Vec<f64> {
    let steps = (first..0).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)));
    std::iter::once(0.0).chain(steps).chain([1.0]).collect()
}

fn is_power_of_ten(share: f64) -> bool {
    (share.log10() - share.log10().round()).abs() < 1e-9
}

fn line_colour(share: f64) -> Colour {
    if share == 0.0 || is_power_of_ten(share) { [188, 188, 188] } else { PALE }
}

fn tick_text(share: f64) -> Option<String> {
    match share {
        0.0 => Some("0".to_owned()),
        _ if is_power_of_ten(share) => Some(percent(share)),
        _ => None,
    }
}

/// `0.1 %`
fn percent(share: f64) -> String {
    let value = (share * 1e9).round() / 1e7;
    format!("{value} %")
}

fn labels(canvas: &mut Canvas, title: &str, rates: &ErrorRates) {
    let room = ((RIGHT - LEFT) / (3.0 * LETTER_WIDTH)) as usize;
    let title: String = title.chars().take(room).collect();
    canvas.text((LEFT, 24.0), 3, BLACK, &title);
    let pairs = format!(
        "{} comparisons of one finger, {} of strangers",
        crate::output::number(rates.genuine_count()),
        crate::output::number(rates.impostor_count())
    );
    canvas.text((LEFT, 62.0), 2, GREY, &pairs);
    let mut x = LEFT;
    let legend = [
        (RED, format!("EER {:.2} %   ", 100.0 * rates.eer())),
        (ORANGE, "score thresholds   ".to_owned()),
        (mixed(WHITE, BLUE, 0.6), "90 % when fingers are drawn anew".to_owned()),
    ];
    for (colour, text) in legend {
        canvas.text((x, 88.0), 2, colour, &text);
        x += text_width(&text, 2);
    }
    let across = "False match rate";
    let middle = (LEFT + RIGHT - text_width(across, 2)) / 2.0;
    canvas.text((middle, BOTTOM + 52.0), 2, BLACK, across);
    let up = "False non-match rate";
    let middle = (TOP + BOTTOM + text_width(up, 2)) / 2.0;
    canvas.text_upwards((16.0, middle), 2, BLACK, up);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> ErrorRates {
        let genuine: Vec<u16> = (0..200).map(|i| 20 + 3 * i).collect();
        let impostor: Vec<u16> = (0..2_000).map(|i| i / 40).collect();
        ErrorRates::from_scores(&genuine, &impostor).unwrap()
    }

    #[test]
    fn axes_go_from_zero_over_a_gap_to_everything() {
        let axes = Axes::of(&rates());
        assert_eq!((axes.first_fmr, axes.first_fnmr), (-4, -3));
        assert_eq!(axes.point(0.0, 0.0), (LEFT, BOTTOM));
        assert_eq!(axes.point(1.0, 1.0), (RIGHT, TOP));
        assert_eq!(axes.point(1e-4, 1e-3), (LEFT + ZERO_GAP, BOTTOM - ZERO_GAP));
        assert!((axes.fmr_at(axes.x(0.02)) - 0.02).abs() < 1e-6);
        assert_eq!([percent(0.001), percent(0.00001), percent(1.0)], ["0.1 %", "0.001 %", "100 %"]);
    }

    #[test]
    fn the_curve_passes_through_its_rates() {
        let (rates, axes) = (rates(), Axes::of(&rates()));
        let canvas = draw("a set", &rates, &[]);
        for point in rates.det().iter().filter(|p| p.fmr > 0.0 && p.fnmr > 0.0) {
            let (x, y) = axes.point(point.fmr, point.fnmr);
            let colour = canvas.at(x as usize, y as usize);
            assert!([BLUE, ORANGE].contains(&colour), "{point:?}: {colour:?}");
        }
        assert_eq!(canvas.at(LEFT as usize + 300, TOP as usize + 20), WHITE);
    }

    /// Not straight: what lies between two thresholds can't be had.
    #[test]
    fn the_curve_goes_in_steps() {
        let times = |scores: &[(u16, usize)]| -> Vec<u16> {
            scores.iter().flat_map(|&(score, count)| vec![score; count]).collect()
        };
        let genuine = times(&[(10, 2), (16, 8), (900, 90)]);
        let impostor = times(&[(5, 90), (16, 9), (30, 1)]);
        let rates = ErrorRates::from_scores(&genuine, &impostor).unwrap();
        assert_eq!((rates.fmr(16), rates.fnmr(16)), (0.1, 0.02));
        assert_eq!((rates.fmr(17), rates.fnmr(17)), (0.01, 0.1));
        let (canvas, axes) = (draw("steps", &rates, &[]), Axes::of(&rates));
        for (fmr, fnmr) in [(0.03, 0.1), (0.1, 0.1), (0.1, 0.05)] {
            let (x, y) = axes.point(fmr, fnmr);
            assert_eq!(canvas.at(x as usize, y as usize), BLUE, "{fmr} {fnmr}");
        }
    }
}
