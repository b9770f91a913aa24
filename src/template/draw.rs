//! A picture in memory, what is drawn on it, and PNG files.
//!
//! Coordinates are pixels from the top left corner, `(0.5, 0.5)` in the middle of the first pixel.
//! Lines and circles have soft edges: a pixel takes as much of the colour as is covered.

mod font;
pub(super) mod png;

/// Red, green, blue.
pub(super) type Colour = [u8; 3];

pub(super) const WHITE: Colour = [255, 255, 255];
pub(super) const BLACK: Colour = [0, 0, 0];
pub(super) const GREY: Colour = [110, 110, 110];
pub(super) const PALE: Colour = [226, 226, 226];
pub(super) const RED: Colour = [208, 32, 32];
pub(super) const BLUE: Colour = [24, 84, 200];
pub(super) const GREEN: Colour = [16, 140, 60];
pub(super) const ORANGE: Colour = [224, 120, 0];

/// Pixels from one letter to the next, and from one line of letters to the next, at size 1.
pub(super) const LETTER_WIDTH: f32 = 6.0;
pub(super) const LETTER_HEIGHT: f32 = 9.0;

/// A picture.
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pixels: Vec<Colour>,
}

/// A place on a picture.
pub(super) type Point = (f32, f32);

impl Canvas {
    pub(super) fn new(width: usize, height: usize, ground: Colour) -> Self {
        Self { width, height, pixels: vec![ground; width * height] }
    }

    /// Red, green and blue of each pixel, row by row.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.pixels.as_flattened().to_vec()
    }

    #[cfg(test)]
    pub(super) fn at(&self, x: usize, y: usize) -> Colour {
        self.pixels[y * self.width + x]
    }

    pub(super) fn set(&mut self, x: usize, y: usize, colour: Colour) {
        if x < self.width && y < self.height {
            self.pixels[y * self.width + x] = colour;
        }
    }

    /// Mixes a share, 0 to 1, of the colour into a pixel; outside of the picture nothing happens.
    fn blend(&mut self, x: i64, y: i64, colour: Colour, share: f32) {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return };
        if x < self.width && y < self.height && share > 0.0 {
            let pixel = &mut self.pixels[y * self.width + x];
            *pixel = mixed(*pixel, colour, share.min(1.0));
        }
    }

    /// Fills the box from one corner up to, not including, the other.
    pub(super) fn fill(
        &mut self,
        (left, top): (usize, usize),
        (right, bottom): (usize, usize),
        colour: Colour,
    ) {
        for y in top..bottom.min(self.height) {
            for x in left..right.min(self.width) {
                self.pixels[y * self.width + x] = colour;
            }
        }
    }

    pub(super) fn line(&mut self, from: Point, to: Point, thickness: f32, colour: Colour) {
        let reach = thickness / 2.0;
        let corner = (from.0.min(to.0), from.1.min(to.1));
        let other = (from.0.max(to.0), from.1.max(to.1));
        self.cover(corner, other, reach, colour, |point| reach - distance(point, from, to));
    }

    pub(super) fn circle(&mut self, centre: Point, radius: f32, thickness: f32, colour: Colour) {
        let reach = radius + thickness / 2.0;
        self.cover(centre, centre, reach, colour, |(x, y)| {
            let from_ring = (x - centre.0).hypot(y - centre.1) - radius;
            thickness / 2.0 - from_ring.abs()
        });
    }

    pub(super) fn square(&mut self, (x, y): Point, radius: f32, thickness: f32, colour: Colour) {
        let (left, right, top, bottom) = (x - radius, x + radius, y - radius, y + radius);
        for (from, to) in [
            ((left, top), (right, top)),
            ((right, top), (right, bottom)),
            ((right, bottom), (left, bottom)),
            ((left, bottom), (left, top)),
        ] {
            self.line(from, to, thickness, colour);
        }
    }

    /// Colours each pixel near a box as far as it lies within a shape, told by `depth`: pixels to
    /// the shape's edge, negative outside.
    fn cover(
        &mut self,
        (left, top): Point,
        (right, bottom): Point,
        reach: f32,
        colour: Colour,
        depth: impl Fn(Point) -> f32,
    ) {
        let before = |value: f32| (value - reach - 1.0).floor() as i64;
        let behind = |value: f32| (value + reach + 1.0).ceil() as i64;
        let columns = before(left).max(0)..=behind(right).min(self.width as i64);
        for y in before(top).max(0)..=behind(bottom).min(self.height as i64) {
            for x in columns.clone() {
                let share = depth((x as f32 + 0.5, y as f32 + 0.5)) + 0.5;
                self.blend(x, y, colour, share);
            }
        }
    }

    /// Letters from a point on, which is their top left corner.
    pub(super) fn text(&mut self, (x, y): Point, size: usize, colour: Colour, text: &str) {
        self.letters(text, size, |canvas, column, row| {
            let (x, y) = (x.round() as i64 + column, y.round() as i64 + row);
            canvas.blend(x, y, colour, 1.0);
        });
    }

    /// Letters upwards from a point on, which is their lower left corner.
    pub(super) fn text_upwards(&mut self, (x, y): Point, size: usize, colour: Colour, text: &str) {
        self.letters(text, size, |canvas, column, row| {
            let (x, y) = (x.round() as i64 + row, y.round() as i64 - column);
            canvas.blend(x, y, colour, 1.0);
        });
    }

    fn letters(&mut self, text: &str, size: usize, mut dot: impl FnMut(&mut Self, i64, i64)) {
        for (place, letter) in text.chars().enumerate() {
            for (row, bits) in font::letter(letter).into_iter().enumerate() {
                let columns = (0..5).filter(|column| bits >> (4 - column) & 1 == 1);
                for column in columns {
                    let left = (place * LETTER_WIDTH as usize + column) * size;
                    for part in 0..size * size {
                        let (right, down) = (left + part % size, row * size + part / size);
                        dot(self, right as i64, down as i64);
                    }
                }
            }
        }
    }
}

/// Pixels that a line of letters takes.
pub(super) fn text_width(text: &str, size: usize) -> f32 {
    text.chars().count() as f32 * LETTER_WIDTH * size as f32
}

/// Some of one colour and the rest of another.
pub(super) fn mixed(a: Colour, b: Colour, share_of_b: f32) -> Colour {
    std::array::from_fn(|i| {
        let (a, b) = (f32::from(a[i]), f32::from(b[i]));
        (a + (b - a) * share_of_b).round() as u8
    })
}

/// From a point to a line between two others.
fn distance((x, y): Point, from: Point, to: Point) -> f32 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = dx * dx + dy * dy;
    let along = if length > 0.0 {
        (((x - from.0) * dx + (y - from.1) * dy) / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    (x - from.0 - along * dx).hypot(y - from.1 - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_cover_what_lies_on_them_and_nothing_outside_breaks() {
        let mut canvas = Canvas::new(40, 30, WHITE);
        canvas.line((5.0, 10.5), (30.0, 10.5), 1.0, BLACK);
        assert_eq!(
            (canvas.at(17, 10), canvas.at(17, 12), canvas.at(35, 10)),
            (BLACK, WHITE, WHITE)
        );
        canvas.circle((20.5, 20.5), 5.0, 1.0, RED);
        assert_eq!((canvas.at(25, 20), canvas.at(20, 20)), (RED, WHITE));
        canvas.line((-500.0, -3.0), (900.0, 80.0), 9.0, BLUE);
        canvas.circle((-3.0, 300.0), 5.0, 1.0, RED);
        canvas.text((36.0, 27.0), 2, BLACK, "out of it");
        canvas.set(40, 0, RED);
    }

    #[test]
    fn letters_can_be_told_apart_and_stand_upright() {
        let drawn = |text: &str| {
            let mut canvas = Canvas::new(8, 10, WHITE);
            canvas.text((1.0, 0.0), 1, BLACK, text);
            canvas.bytes()
        };
        let letters: Vec<char> = (' '..='~').collect();
        let mut seen = std::collections::HashMap::new();
        for letter in letters {
            if let Some(other) = seen.insert(drawn(&letter.to_string()), letter) {
                panic!("{letter:?} looks like {other:?}");
            }
        }
        let mut canvas = Canvas::new(8, 10, WHITE);
        canvas.text((0.0, 0.0), 1, BLACK, "T");
        let bar = (0..5).all(|x| canvas.at(x, 0) == BLACK);
        assert!(bar && canvas.at(2, 6) == BLACK && canvas.at(0, 6) == WHITE);
    }
}
