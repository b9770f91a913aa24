//! What quality is worth, drawn: the false non-match rate of the prints that are left when those of
//! the lowest quality are rejected. The score that counts as a match stays that of the whole set.

use minutiae::evaluation::{Print, Scores};

use super::draw::{BLACK, BLUE, Canvas, GREY, LETTER_HEIGHT, PALE, Point, RED, WHITE, text_width};

/// FMR of the whole set at the score that counts as a match.
const FMR: f64 = 0.001;
/// Shares rejected: from none to half of the prints.
const STEPS: usize = 50;
/// The share that is marked.
const MARKED: usize = 10;

const WIDTH: usize = 1000;
const HEIGHT: usize = 700;
/// The frame of the curve.
const LEFT: f32 = 130.0;
const RIGHT: f32 = 970.0;
const TOP: f32 = 120.0;
const BOTTOM: f32 = 600.0;

/// FNMR by the share rejected, in steps of a hundredth. It ends where no comparison is left.
pub(super) struct Rejection {
    threshold: u16,
    fnmr: Vec<f64>,
}

impl Rejection {
    pub(super) fn of(scores: &Scores, quality: impl Fn(Print) -> u8) -> Self {
        let threshold = scores.rates().threshold_at(FMR);
        let fnmr = (0..=STEPS).map_while(|step| {
            let left = scores.rates_without_worst(step as f64 / 100.0, &quality);
            left.map(|rates| rates.fnmr(threshold))
        });
        Self { threshold, fnmr: fnmr.collect() }
    }

    pub(super) fn draw(&self, title: &str) -> Canvas {
        let mut canvas = Canvas::new(WIDTH, HEIGHT, WHITE);
        let top = self.top();
        let place = |step: usize, fnmr: f64| -> Point {
            let across = LEFT + (RIGHT - LEFT) * step as f32 / STEPS as f32;
            (across, BOTTOM - (BOTTOM - TOP) * (fnmr / top) as f32)
        };
        for tick in 0..=5 {
            let share = top * f64::from(tick) / 5.0;
            let y = place(0, share).1;
            canvas.line((LEFT, y), (RIGHT, y), 1.0, PALE);
            let text = format!("{} %", (share * 1e5).round() / 1e3);
            let left = LEFT - 10.0 - text_width(&text, 2);
            canvas.text((left, y - LETTER_HEIGHT + 2.0), 2, BLACK, &text);
            let step = tick as usize * STEPS / 5;
            let x = place(step, 0.0).0;
            canvas.line((x, TOP), (x, BOTTOM), 1.0, PALE);
            let text = format!("{step} %");
            canvas.text((x - text_width(&text, 2) / 2.0, BOTTOM + 12.0), 2, BLACK, &text);
        }
        canvas.line((LEFT, TOP), (LEFT, BOTTOM), 2.0, BLACK);
        canvas.line((LEFT, BOTTOM), (RIGHT, BOTTOM), 2.0, BLACK);
        let y = place(0, self.whole()).1;
        for x in (LEFT as usize..RIGHT as usize).step_by(14) {
            canvas.line((x as f32, y), (x as f32 + 7.0, y), 1.5, GREY);
        }
        let points: Vec<Point> =
            self.fnmr.iter().enumerate().map(|(step, &fnmr)| place(step, fnmr)).collect();
        for pair in points.windows(2) {
            canvas.line(pair[0], pair[1], 3.0, BLUE);
        }
        if let Some(&point) = points.get(MARKED) {
            canvas.circle(point, 7.0, 3.0, RED);
        }
        self.labels(&mut canvas, title);
        canvas
    }

    fn whole(&self) -> f64 {
        self.fnmr.first().copied().unwrap_or(0.0)
    }

    /// The upper end of the scale: 1, 2 or 5 of a power of ten.
    fn top(&self) -> f64 {
        let most = self.fnmr.iter().copied().fold(0.001, f64::max);
        let power = 10f64.powf(most.log10().floor());
        let fits = [1.0, 2.0, 5.0].map(|step| step * power).into_iter().find(|&end| most <= end);
        fits.unwrap_or(10.0 * power)
    }

    fn labels(&self, canvas: &mut Canvas, title: &str) {
        canvas.text((LEFT, 24.0), 3, BLACK, &title.chars().take(46).collect::<String>());
        let score = format!(
            "Score {} or more is a match: FMR {} % with all prints",
            self.threshold,
            100.0 * FMR
        );
        canvas.text((LEFT, 62.0), 2, GREY, &score);
        if let Some(&better) = self.fnmr.get(MARKED) {
            let (whole, better) = (100.0 * self.whole(), 100.0 * better);
            let text = format!("FNMR {whole:.2} %; without the worst tenth {better:.2} %");
            canvas.text((LEFT, 88.0), 2, RED, &text);
        }
        let across = "Prints rejected, those of the lowest quality first";
        let middle = (LEFT + RIGHT - text_width(across, 2)) / 2.0;
        canvas.text((middle, BOTTOM + 52.0), 2, BLACK, across);
        let up = "False non-match rate";
        let middle = (TOP + BOTTOM + text_width(up, 2)) / 2.0;
        canvas.text_upwards((16.0, middle), 2, BLACK, up);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minutiae::evaluation::Protocol;

    /// One finger in five has bad prints.
    fn scores() -> Scores {
        let score = |a: Print, b: Print| match (a.finger == b.finger, a.finger) {
            (true, 0) => 0,
            (true, _) => 90,
            (false, _) => 10,
        };
        Scores::of(&[4; 5], Protocol::default(), score).unwrap()
    }

    #[test]
    fn rejecting_what_is_bad_helps_and_rejecting_what_is_good_does_not() {
        let quality = |print: Print| if print.finger == 0 { 10 } else { 90 };
        let good = Rejection::of(&scores(), quality);
        assert_eq!((good.threshold, good.fnmr[0]), (11, 0.2));
        assert_eq!((good.fnmr.len(), good.fnmr[20]), (STEPS + 1, 0.0));
        let wrong = Rejection::of(&scores(), |print| 100 - quality(print));
        assert!(wrong.fnmr[50] > 0.2, "{:?}", wrong.fnmr);
        assert_eq!(good.top(), 0.2);
    }

    #[test]
    fn the_curve_is_drawn_from_none_rejected_to_half() {
        let drawn = |quality: fn(Print) -> u8| Rejection::of(&scores(), quality).draw("a set");
        let flat = drawn(|_| 50);
        assert_eq!(flat.at(LEFT as usize + 3, TOP as usize), BLUE, "0.2 of 0.2 is at the top");
        let falling = drawn(|print| print.finger as u8);
        assert_eq!(falling.at(RIGHT as usize - 30, BOTTOM as usize), BLUE, "and 0 at the bottom");
    }
}
