//! The steps of extraction, drawn: each as a picture with a line that says what it shows.

use minutiae::{
    ExtractError, GrayImage, Minutia, MinutiaKind, Template,
    extract::{Orientation, Stages, stages},
};

use super::draw::{
    BLACK, BLUE, Canvas, Colour, GREEN, GREY, LETTER_HEIGHT, ORANGE, PALE, Point, RED, WHITE,
    mixed, text_width,
};

/// Pixels at 500 dpi from one drawn direction to the next.
const DIRECTION_EVERY: f32 = 12.0;
/// Longer sides are drawn smaller.
const LARGEST_SIDE: f32 = 1800.0;
/// Pixels of a template's picture for one of its own, at most.
const LARGEST_SCALE: f32 = 3.0;

type Named = (String, Canvas);

/// The steps from the image to its minutiae, by name.
pub(super) fn of_image(image: &GrayImage) -> Result<Vec<Named>, ExtractError> {
    let stages = stages(image)?;
    let sheet = Sheet::of(&stages);
    let named = |name: &str, picture| (name.to_owned(), picture);
    Ok(vec![
        named("1-print", sheet.print(image)),
        named("2-even", sheet.even()),
        named("3-mask", sheet.mask()),
        named("4-orientation", sheet.orientation()),
        named("5-ridges", sheet.ridges()),
        named("6-binary", sheet.binary()),
        named("7-skeleton", sheet.skeleton()),
        named("8-minutiae", sheet.minutiae(image)),
    ])
}

/// The minutiae of each view on white ground.
pub(super) fn of_template(template: &Template) -> Vec<Named> {
    let views = template.views().iter().enumerate();
    views
        .map(|(index, view)| {
            let minutiae = view.minutiae();
            // Some records declare sizes loosely: what lies outside of them is shown, too.
            let furthest = |of: fn(&Minutia) -> u16, declared: u16| {
                let needed = minutiae.iter().map(of).max().unwrap_or(0).saturating_add(20);
                f32::from(needed.max(declared.min(2048)))
            };
            let width = furthest(|m| m.x, template.width());
            let height = furthest(|m| m.y, template.height());
            let scale = (LARGEST_SIDE / width.max(height)).min(LARGEST_SCALE);
            let size = |side: f32| (side * scale).ceil() as usize;
            let mut picture = Page::new(size(width), size(height), &count_of(minutiae));
            draw_minutiae(&mut picture, minutiae, scale, scale.max(1.0));
            (format!("minutiae-{index}"), picture.canvas)
        })
        .collect()
}

/// A picture below a line of text.
struct Page {
    canvas: Canvas,
    /// Where the picture begins.
    top: usize,
}

impl Page {
    fn new(width: usize, height: usize, caption: &[(Colour, String)]) -> Self {
        let whole: f32 = caption.iter().map(|(_, text)| text_width(text, 2)).sum();
        let size = if whole + 12.0 > width as f32 { 1 } else { 2 };
        let top = LETTER_HEIGHT as usize * size + 10;
        let mut canvas = Canvas::new(width, height + top, WHITE);
        let mut x = 6.0;
        for (colour, text) in caption {
            canvas.text((x, 5.0), size, *colour, text);
            x += text_width(text, size);
        }
        canvas.fill((0, top - 1), (width, top), GREY);
        Self { canvas, top }
    }

    fn set(&mut self, x: usize, y: usize, colour: Colour) {
        self.canvas.set(x, y + self.top, colour);
    }

    fn below_text(&self, (x, y): Point) -> Point {
        (x, y + self.top as f32)
    }
}

/// What all pictures of one image have in common.
struct Sheet<'a> {
    stages: &'a Stages,
    /// Pixels of a picture for one at 500 dpi.
    scale: usize,
}

impl<'a> Sheet<'a> {
    fn of(stages: &'a Stages) -> Self {
        let side = stages.width.max(stages.height);
        let scale = match side {
            0..=600 => 3,
            601..=1000 => 2,
            1001.. => 1,
        };
        Self { stages, scale }
    }

    /// A picture whose every pixel at 500 dpi has a colour.
    fn page(&self, caption: &[(Colour, String)], colour: impl Fn(usize, usize) -> Colour) -> Page {
        let (width, height) = (self.stages.width * self.scale, self.stages.height * self.scale);
        let mut page = Page::new(width, height, caption);
        for y in 0..height {
            for x in 0..width {
                page.set(x, y, colour(x / self.scale, y / self.scale));
            }
        }
        page
    }

    fn index(&self, x: usize, y: usize) -> usize {
        y * self.stages.width + x
    }

    fn inside(&self, x: usize, y: usize) -> bool {
        self.stages.mask[self.index(x, y)]
    }

    /// The image's own grey at a pixel of 500 dpi.
    fn grey_of(&self, image: &GrayImage, x: usize, y: usize) -> u8 {
        let of = |place: usize, side: u32| {
            (((place as f32 + 0.5) / self.stages.scale) as usize).min(side as usize - 1)
        };
        let (column, row) = (of(x, image.width()), of(y, image.height()));
        image.pixels()[row * image.width() as usize + column]
    }

    fn print(&self, image: &GrayImage) -> Canvas {
        let text = format!(
            "The print: {} x {} pixels, {} dpi",
            image.width(),
            image.height(),
            image.dpi()
        );
        self.page(&[(BLACK, text)], |x, y| [self.grey_of(image, x, y); 3]).canvas
    }

    fn even(&self) -> Canvas {
        let text = "Brightness and contrast made even".to_owned();
        self.page(&[(BLACK, text)], |x, y| [self.stages.even[self.index(x, y)]; 3]).canvas
    }

    /// What doesn't belong to the print is veiled, its edge drawn.
    fn mask(&self) -> Canvas {
        let inside = self.stages.mask.iter().filter(|&&inside| inside).count();
        let area = inside as f32 * (25.4f32 / 500.0).powi(2);
        let text = format!("Where the print is: {area:.0} square millimetres");
        let page = self.page(&[(BLACK, text)], |x, y| {
            let even = [self.stages.even[self.index(x, y)]; 3];
            match self.inside(x, y) {
                true if self.at_edge(x, y) => RED,
                true => even,
                false => mixed(even, [150, 190, 235], 0.75),
            }
        });
        page.canvas
    }

    fn at_edge(&self, x: usize, y: usize) -> bool {
        let (right, low) = (self.stages.width - 1, self.stages.height - 1);
        if x == 0 || y == 0 || x == right || y == low {
            return true;
        }
        [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)].iter().any(|&(x, y)| !self.inside(x, y))
    }

    /// A dash along the ridges here and there: blue where they agree, red where they don't.
    fn orientation(&self) -> Canvas {
        let orientation = &self.stages.orientation;
        let mut periods: Vec<f32> = orientation.iter().map(|o| o.period).collect();
        periods.sort_by(f32::total_cmp);
        let period = periods.get(periods.len() / 2).copied().unwrap_or(0.0);
        let caption = [
            (BLACK, format!("Direction of the ridges, {period:.1} pixels apart: ")),
            (BLUE, "clear ".to_owned()),
            (RED, "unclear".to_owned()),
        ];
        let mut page =
            self.page(&caption, |x, y| mixed([self.stages.even[self.index(x, y)]; 3], WHITE, 0.72));
        for place in orientation.iter().filter(|place| is_drawn(place)) {
            self.dash(&mut page, place);
        }
        page.canvas
    }

    fn dash(&self, page: &mut Page, place: &Orientation) {
        let scale = self.scale as f32;
        let reach = 0.42 * DIRECTION_EVERY * scale;
        let (sin, cos) = place.angle.sin_cos();
        let (x, y) = page.below_text((place.x * scale, place.y * scale));
        let (from, to) = ((x - reach * cos, y - reach * sin), (x + reach * cos, y + reach * sin));
        let clear = ((place.coherence - 0.3) / 0.6).clamp(0.0, 1.0);
        page.canvas.line(from, to, scale, mixed(RED, BLUE, clear));
    }

    fn ridges(&self) -> Canvas {
        let text = "Ridges after filtering along their direction".to_owned();
        self.page(&[(BLACK, text)], |x, y| match self.inside(x, y) {
            true => [self.stages.ridges[self.index(x, y)]; 3],
            false => PALE,
        })
        .canvas
    }

    fn binary(&self) -> Canvas {
        let text = "Ridge (black) or valley (white)".to_owned();
        self.page(&[(BLACK, text)], |x, y| match self.stages.binary[self.index(x, y)] {
            true => BLACK,
            false if self.inside(x, y) => WHITE,
            false => PALE,
        })
        .canvas
    }

    /// Lines of one pixel; what mending took away and what it added.
    fn skeleton(&self) -> Canvas {
        let caption = [
            (BLACK, "Ridges thinned to lines; mending ".to_owned()),
            (RED, "removed ".to_owned()),
            (BLACK, "and ".to_owned()),
            (GREEN, "joined".to_owned()),
        ];
        self.page(&caption, |x, y| {
            let index = self.index(x, y);
            match (self.stages.skeleton[index], self.stages.mended[index]) {
                (true, true) => BLACK,
                (true, false) => RED,
                (false, true) => GREEN,
                (false, false) if !self.stages.mask[index] => PALE,
                (false, false) if self.stages.binary[index] => [222, 228, 240],
                (false, false) => WHITE,
            }
        })
        .canvas
    }

    fn minutiae(&self, image: &GrayImage) -> Canvas {
        let minutiae = &self.stages.minutiae;
        let mut caption = count_of(minutiae);
        caption.push((BLACK, format!("; quality {}", self.stages.quality)));
        let mut page =
            self.page(&caption, |x, y| mixed([self.grey_of(image, x, y); 3], WHITE, 0.45));
        let scale = self.scale as f32;
        draw_minutiae(&mut page, minutiae, self.stages.scale * scale, scale);
        page.canvas
    }
}

/// Of all cells, those nearest to a wide grid.
fn is_drawn(place: &Orientation) -> bool {
    let near = |value: f32| value.rem_euclid(DIRECTION_EVERY) < DIRECTION_EVERY / 3.0;
    near(place.x) && near(place.y)
}

fn count_of(minutiae: &[Minutia]) -> Vec<(Colour, String)> {
    let count = |kind| minutiae.iter().filter(|minutia| minutia.kind == kind).count();
    let mut caption = vec![
        (BLACK, format!("{} minutiae: ", minutiae.len())),
        (RED, format!("{} endings ", count(MinutiaKind::Ending))),
        (BLUE, format!("{} bifurcations", count(MinutiaKind::Bifurcation))),
    ];
    let other = count(MinutiaKind::Other);
    if other > 0 {
        caption.push((ORANGE, format!(" {other} of no kind")));
    }
    caption
}

/// A ring for an ending, a box for a fork, and a line in the minutia's direction; the thicker, the
/// surer.
fn draw_minutiae(page: &mut Page, minutiae: &[Minutia], scale: f32, pen: f32) {
    for minutia in minutiae {
        let place = |value: u16| (f32::from(value) + 0.5) * scale;
        let centre = page.below_text((place(minutia.x), place(minutia.y)));
        // The record counts counter-clockwise, the picture's y points down.
        let angle = -f32::from(minutia.angle) * std::f32::consts::TAU / 256.0;
        let quality = if minutia.quality == 0 { 50 } else { minutia.quality };
        let thickness = pen * (0.4 + 0.6 * f32::from(quality.min(100)) / 100.0);
        let (radius, tail) = (3.2 * pen, 11.0 * pen);
        let along =
            |length: f32| (centre.0 + length * angle.cos(), centre.1 + length * angle.sin());
        let colour = match minutia.kind {
            MinutiaKind::Ending => RED,
            MinutiaKind::Bifurcation => BLUE,
            MinutiaKind::Other => ORANGE,
        };
        match minutia.kind {
            MinutiaKind::Bifurcation => page.canvas.square(centre, radius, thickness, colour),
            MinutiaKind::Ending | MinutiaKind::Other => {
                page.canvas.circle(centre, radius, thickness, colour);
            }
        }
        page.canvas.line(along(radius), along(tail), thickness, colour);
    }
}
