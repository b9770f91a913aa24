//! `cargo bench -p minutiae --bench conditions [-- --only PART,PART] [--pictures DIR]`: what is left of the accuracy when
//! images are as real sensors spoil them.
//!
//! | figure | impressions |
//! |---|---|
//! | both | every impression is spoilt |
//! | one | a spoilt impression is compared with an untouched one |
//! | each in another way | impressions take conditions in turn; those with the lowest quality are left out |
//!
//! Taken of FVC2002 DB4_B, where it is at hand (as in `accuracy`), and of generated fingers. All pairs
//! take part. Everything follows from the number of the image, so that a run can be repeated. With
//! `--pictures`, every impression is written as it was spoilt, for other engines to be measured beside this one
//! (`DIR/SET/CONDITION/FINGER_IMPRESSION.png`); with `--only`, conditions take part that have one of these
//! parts in their name.

#[path = "../tests/evaluation/mod.rs"]
#[allow(dead_code, unreachable_pub)]
mod evaluation;

use std::f32::consts::TAU;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use evaluation::{Set, data_folder, images};
use minutiae::GrayImage;
use minutiae::evaluation::{Print, Scores};
use minutiae::synth::Finger;

const GENERATED_FINGERS: u64 = 12;
const GENERATED_IMPRESSIONS: u64 = 6;
const FIRST_SEED: u64 = 52_000;
const FIRST_GHOST: u64 = 53_000;
/// The grey of a clean glass.
const GLASS: f32 = 245.0;

/// Fingers of neither set, one for each finger's images.
static GHOSTS: LazyLock<Vec<GrayImage>> =
    LazyLock::new(|| (0..12).map(|n| Finger::new(FIRST_GHOST + n).impression(0)).collect());

/// Spoils an image, knowing another print and where chance starts.
type Spoil = fn(Plane, &Plane, &mut Chance) -> Plane;

const CONDITIONS: [(&str, Spoil); 17] = [
    ("untouched", |print, _, _| print),
    ("print fills the image", |print, _, _| print.cut(200, 280)),
    ("large image, 640x480", |print, _, _| print.laid_on(640, 480, GLASS)),
    ("uneven lighting", |print, _, _| uneven(print.laid_on(388, 374, GLASS))),
    ("grainy background", |print, _, chance| grainy(print.laid_on(388, 374, GLASS), chance)),
    ("ghost of another print", |print, other, _| ghost(&print, other)),
    ("wet", |print, _, _| print.blurred(1.1).curved(|p| p.powf(2.2))),
    ("dry", dry),
    ("low contrast", |print, _, _| print.curved(|p| 0.44 + 0.12 * p)),
    ("low pressure", |print, _, _| print.curved(|p| 0.55 + 0.45 * p)),
    ("noise", |print, _, chance| noisy(print, 30.0, chance)),
    ("scratches", scratched),
    ("stripes of a sweep sensor", striped),
    ("pulled over a sweep sensor", pulled),
    ("569 dpi said to be 500", |print, _, _| print.scaled(1.14)),
    ("440 dpi said to be 500", |print, _, _| print.scaled(0.88)),
    ("frame around the print", |print, _, _| framed(print)),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|a| a == "--bench") {
        return;
    }
    let value = |name: &str| arguments.iter().skip_while(|a| *a != name).nth(1);
    let pictures = value("--pictures").map(PathBuf::from);
    let only = value("--only").map_or("", String::as_str);
    println!(
        "| set | condition | both: EER % | FNMR % at FMR 0.1 % | one: EER % | FNMR % at FMR 0.1 % \
         | no template |"
    );
    println!("|---|---|---|---|---|---|---|");
    match data_folder().map(|folder| folder.join("fvc2002-db4_b")).filter(|f| f.is_dir()) {
        Some(folder) => {
            report("FVC2002 DB4_B", &images(&folder, usize::MAX), only, pictures.as_deref());
        }
        None => println!("| FVC2002 DB4_B | absent |"),
    }
    report("generated", &generated(), only, pictures.as_deref());
}

fn generated() -> Vec<Vec<GrayImage>> {
    (0..GENERATED_FINGERS)
        .map(|n| {
            let finger = Finger::new(FIRST_SEED + n);
            (0..GENERATED_IMPRESSIONS).map(|i| finger.impression(i)).collect()
        })
        .collect()
}

fn report(name: &str, clean: &[Vec<GrayImage>], only: &str, pictures: Option<&Path>) {
    let untouched = Set::extracted(clean.to_vec());
    let chosen = |(name, _): &(&str, Spoil)| only.split(',').any(|part| name.contains(part));
    for (condition, spoil) in CONDITIONS.into_iter().filter(chosen) {
        let spoilt = spoilt(clean, spoil);
        if let Some(folder) = pictures {
            save(&spoilt, &folder.join(name).join(condition));
        }
        let set = Set::extracted(spoilt);
        let (both, one) = (figures(&set.compared()), figures(&set.compared_with(&untouched)));
        let missing = set.fingers.iter().flatten().filter(|t| t.is_none()).count();
        println!("| {name} | {condition} | {both} | {one} | {missing} |");
    }
    if only.is_empty() {
        mixed(name, clean);
    }
}

/// Every impression spoilt in a way of its own: does its quality tell which ones will not match?
fn mixed(name: &str, clean: &[Vec<GrayImage>]) {
    let by_condition: Vec<Vec<Vec<GrayImage>>> =
        CONDITIONS.iter().map(|(_, spoil)| spoilt(clean, *spoil)).collect();
    let mut number = 0;
    let mut next = |finger: usize, impression: usize| {
        number += 1;
        by_condition[number * 7 % CONDITIONS.len()][finger][impression].clone()
    };
    let images = clean.iter().enumerate();
    let images = images.map(|(f, own)| (0..own.len()).map(|i| next(f, i)).collect()).collect();
    let set = Set::extracted(images);
    let scores = set.compared();
    let quality = |print: Print| set.qualities[print.finger][print.impression];
    let fnmr = |share: f64| {
        let rates = scores.rates_without_worst(share, quality);
        rates.map_or_else(|| "-".to_owned(), |rates| format!("{:.1}", 100.0 * rates.fnmr_at(0.001)))
    };
    println!(
        "{name}, each impression in another way: FNMR at FMR 0.1 % {} %, without the worst tenth by \
         quality {}, fifth {}, three tenths {}",
        fnmr(0.0),
        fnmr(0.1),
        fnmr(0.2),
        fnmr(0.3)
    );
}

fn figures(scores: &Scores) -> String {
    let rates = scores.rates();
    format!("{:.2} | {:.2}", 100.0 * rates.eer(), 100.0 * rates.fnmr_at(0.001))
}

fn spoilt(clean: &[Vec<GrayImage>], spoil: Spoil) -> Vec<Vec<GrayImage>> {
    let of = |finger: usize, impression: usize| {
        let other = Plane::of(&GHOSTS[finger % GHOSTS.len()]);
        let mut chance = Chance::new((finger * 100 + impression) as u64);
        spoil(Plane::of(&clean[finger][impression]), &other, &mut chance).image()
    };
    (0..clean.len()).map(|f| (0..clean[f].len()).map(|i| of(f, i)).collect()).collect()
}

fn save(spoilt: &[Vec<GrayImage>], folder: &Path) {
    std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for (finger, impressions) in spoilt.iter().enumerate() {
        for (impression, image) in impressions.iter().enumerate() {
            let path = folder.join(format!("{}_{}.png", finger + 1, impression + 1));
            let (pixels, color) = (image.pixels(), image::ExtendedColorType::L8);
            image::save_buffer(&path, pixels, image.width(), image.height(), color)
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

/// The lamp's light falls off to the right and towards the corners, the glass too.
fn uneven(print: Plane) -> Plane {
    let (width, height) = (print.width as f32, print.height as f32);
    print.each(|x, y, p| {
        let (u, v) = (x as f32 / width - 0.5, y as f32 / height - 0.5);
        p * (0.72 - 0.35 * u) * (1.0 - 0.9 * (u * u + v * v))
    })
}

/// A grain of some pixels where the glass shows, as of a worn coating or of dust.
fn grainy(print: Plane, chance: &mut Chance) -> Plane {
    let noise = Plane::noise(print.width, print.height, chance).blurred(1.4);
    print.each(|x, y, p| p + 130.0 * noise.at(x, y) - 35.0)
}

/// What the finger before left on the glass, at a third of its contrast.
fn ghost(print: &Plane, other: &Plane) -> Plane {
    let (left, up) = (55i32, 40i32);
    let paper = 245.0;
    print.clone().each(|x, y, p| {
        let ghost = other.nearest(x as i32 + left, y as i32 - up);
        p * (1.0 - 0.33 * (1.0 - (ghost / paper).min(1.0)))
    })
}

/// Ridges that touch only here and there.
fn dry(print: Plane, _: &Plane, chance: &mut Chance) -> Plane {
    let noise = Plane::noise(print.width, print.height, chance).blurred(0.9);
    print.each(|x, y, p| if noise.at(x, y) > 0.04 { GLASS } else { p })
}

fn noisy(print: Plane, levels: f32, chance: &mut Chance) -> Plane {
    print.each(|_, _, p| p + levels * 1.7 * chance.either_way())
}

/// Straight scratches of the glass, dark and light.
fn scratched(print: Plane, _: &Plane, chance: &mut Chance) -> Plane {
    let lines: Vec<[f32; 4]> = (0..14)
        .map(|_| {
            let (sin, cos) = (TAU * chance.unit()).sin_cos();
            let (x, y) = (chance.unit() * print.width as f32, chance.unit() * print.height as f32);
            [sin, cos, x * sin - y * cos, if chance.unit() < 0.5 { 30.0 } else { 250.0 }]
        })
        .collect();
    print.each(|x, y, p| {
        let on = |l: &&[f32; 4]| (x as f32 * l[0] - y as f32 * l[1] - l[2]).abs() < 0.9;
        lines.iter().find(on).map_or(p, |l| l[3])
    })
}

/// Rows of unlike brightness, and pieces set beside each other by a pixel or two.
fn striped(print: Plane, _: &Plane, chance: &mut Chance) -> Plane {
    let levels: Vec<f32> = (0..print.height).map(|_| 28.0 * chance.either_way()).collect();
    let mut shift = 0.0;
    let shifts: Vec<i32> = (0..print.height)
        .map(|row| {
            if row % 8 == 0 {
                shift = (shift + 1.6 * chance.either_way()).clamp(-4.0, 4.0);
            }
            shift as i32
        })
        .collect();
    let source = print.clone();
    print.each(|x, y, _| source.nearest(x as i32 + shifts[y], y as i32) + levels[y])
}

/// A finger drawn at an uneven speed: stretched here and pressed together there.
fn pulled(print: Plane, _: &Plane, chance: &mut Chance) -> Plane {
    let (phase, height) = (TAU * chance.unit(), print.height as f32);
    let source = print.clone();
    print.each(|x, y, _| {
        let moved = 9.0 * (TAU * 1.3 * y as f32 / height + phase).sin();
        source.bilinear(x as f32, y as f32 + moved)
    })
}

/// The housing's edge: a dark line around, and its shadow.
fn framed(print: Plane) -> Plane {
    let (width, height) = (print.width, print.height);
    print.each(|x, y, p| match x.min(y).min(width - 1 - x).min(height - 1 - y) {
        0..6 => 70.0,
        6..9 => 15.0,
        _ => p,
    })
}

/// An image whose levels aren't rounded.
#[derive(Clone)]
struct Plane {
    width: usize,
    height: usize,
    levels: Vec<f32>,
}

impl Plane {
    fn of(image: &GrayImage) -> Self {
        let levels = image.pixels().iter().map(|&p| f32::from(p)).collect();
        Self { width: image.width() as usize, height: image.height() as usize, levels }
    }

    fn image(&self) -> GrayImage {
        let pixels = self.levels.iter().map(|l| l.round().clamp(0.0, 255.0) as u8).collect();
        GrayImage::new(self.width as u32, self.height as u32, 500, pixels)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// About -1 to 1, no pixel knowing of another.
    fn noise(width: usize, height: usize, chance: &mut Chance) -> Self {
        Self { width, height, levels: (0..width * height).map(|_| chance.either_way()).collect() }
    }

    fn from_fn(width: usize, height: usize, level: impl Fn(usize, usize) -> f32) -> Self {
        let levels = (0..width * height).map(|i| level(i % width, i / width)).collect();
        Self { width, height, levels }
    }

    fn at(&self, x: usize, y: usize) -> f32 {
        self.levels[y * self.width + x]
    }

    fn nearest(&self, x: i32, y: i32) -> f32 {
        let (right, bottom) = (self.width as i32 - 1, self.height as i32 - 1);
        self.at(x.clamp(0, right) as usize, y.clamp(0, bottom) as usize)
    }

    fn bilinear(&self, x: f32, y: f32) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (u, v, left, top) = (x - left, y - top, left as i32, top as i32);
        let row = |y| self.nearest(left, y) * (1.0 - u) + self.nearest(left + 1, y) * u;
        row(top) * (1.0 - v) + row(top + 1) * v
    }

    fn each(mut self, mut level: impl FnMut(usize, usize, f32) -> f32) -> Self {
        for (i, l) in self.levels.iter_mut().enumerate() {
            *l = level(i % self.width, i / self.width, *l);
        }
        self
    }

    /// Maps 0 to 1, black to white.
    fn curved(self, curve: fn(f32) -> f32) -> Self {
        self.each(|_, _, p| 255.0 * curve((p / 255.0).clamp(0.0, 1.0)))
    }

    /// The middle of what is dark.
    fn middle(&self) -> (i32, i32) {
        let (mut sum, mut x, mut y) = (1e-6, 0.0, 0.0);
        for (i, &level) in self.levels.iter().enumerate() {
            let ink = f64::from((200.0 - level).max(0.0));
            sum += ink;
            x += ink * (i % self.width) as f64;
            y += ink * (i / self.width) as f64;
        }
        ((x / sum) as i32, (y / sum) as i32)
    }

    fn cut(self, width: usize, height: usize) -> Self {
        let (x, y) = self.middle();
        let left = (x - width as i32 / 2).clamp(0, (self.width - width) as i32) as usize;
        let top = (y - height as i32 / 2).clamp(0, (self.height - height) as i32) as usize;
        Self::from_fn(width, height, |x, y| self.at(left + x, top + y))
    }

    fn laid_on(self, width: usize, height: usize, ground: f32) -> Self {
        let left = (width as i32 - self.width as i32) / 2;
        let top = (height as i32 - self.height as i32) / 2;
        Self::from_fn(width, height, |x, y| {
            let (x, y) = (x as i32 - left, y as i32 - top);
            let inside =
                (0..self.width as i32).contains(&x) && (0..self.height as i32).contains(&y);
            if inside { self.nearest(x, y) } else { ground }
        })
    }

    fn scaled(self, by: f32) -> Self {
        let size = |side: usize| (side as f32 * by).round() as usize;
        let source = if by < 1.0 { self.blurred(0.3) } else { self };
        Self::from_fn(size(source.width), size(source.height), |x, y| {
            source.bilinear((x as f32 + 0.5) / by - 0.5, (y as f32 + 0.5) / by - 0.5)
        })
    }

    fn blurred(&self, sigma: f32) -> Self {
        let reach = (3.0 * sigma).ceil() as i32;
        let weights: Vec<f32> =
            (-reach..=reach).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let along = |plane: &Self, dx: i32, dy: i32| {
            Self::from_fn(plane.width, plane.height, |x, y| {
                let level = |i: i32| plane.nearest(x as i32 + i * dx, y as i32 + i * dy);
                (-reach..=reach).zip(&weights).map(|(i, w)| w * level(i)).sum::<f32>() / sum
            })
        };
        along(&along(self, 1, 0), 0, 1)
    }
}

/// Numbers that are the same in every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// From 0 up to, not including, 1.
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// From -1 to 1.
    fn either_way(&mut self) -> f32 {
        2.0 * self.unit() - 1.0
    }
}
