//! The image made even, and where the print is.

use crate::filter::CELL;
use crate::image::GrayImage;
use crate::map::Map;

use super::orientation::Field;
use super::period::Spectra;

/// Reach of the local mean and deviation in pixels: over one ridge and its neighbours.
const REACH: usize = 14;
/// Deviation in grey levels added before dividing, so that flat ground stays flat.
const FLAT: f32 = 6.0;
/// No pixel counts more than this many deviations: scratches and dirt are outliers.
const MOST_DEVIATIONS: f32 = 2.2;
/// A cell belongs to the print from this share of the strongest contrast on.
const CONTRAST_SHARE: f32 = 0.28;
/// And from this many grey levels on.
const LEAST_CONTRAST: f32 = 9.0;
/// And where its surroundings alternate so far: a ridge's do for the most part, an edge's don't.
const LEAST_ALTERNATION: f32 = 0.48;
/// A print with less contrast than this, in grey levels, is faint: what is absolute above shrinks in
/// proportion, down to a share of it.
const FAINT_CONTRAST: f32 = 24.0;
const LEAST_SHARE: f32 = 1.0 / 3.0;
/// Blur in pixels that leaves most of a ridge's contrast and a quarter of the sensor's noise: among
/// faint ridges one could be taken for the other.
const GRAIN: f32 = 1.0;

/// The print at 500 dpi, before anything is known about its ridges.
pub(super) struct Ground {
    /// Ridges negative, valleys positive, about one deviation each.
    pub(super) even: Map,
    /// Direction of what may be ridges, and how it alternates.
    pub(super) rough: Field,
    pub(super) spectra: Spectra,
    pub(super) mask: Mask,
}

/// Which cells belong to the print.
pub(super) struct Mask {
    pub(super) width: usize,
    pub(super) height: usize,
    cells: Vec<bool>,
    /// Distance in pixels from each cell to the nearest one outside.
    inside: Vec<f32>,
}

impl Ground {
    pub(super) fn of(image: &GrayImage, scale: f32) -> Self {
        let plane = scaled(image, scale);
        let mean = plane.box_mean(REACH);
        let centred = combine(&plane, &mean, |p, m| p - m);
        let deviation = variance(&centred, REACH);
        let share = (strongest(&levels(&deviation)) / FAINT_CONTRAST).clamp(LEAST_SHARE, 1.0);
        let even = combine(&centred, &deviation, |c, d| {
            (c / (d + share * FLAT)).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)
        });
        let rough = Field::of(&even);
        let spectra = Spectra::of(&even, &rough);
        let alternation = spectra.alternation();
        let mask = if share < 1.0 {
            let deviation = variance(&centred.blurred(GRAIN), REACH);
            Mask::of(&deviation, &alternation, share * LEAST_CONTRAST)
        } else {
            Mask::of(&deviation, &alternation, LEAST_CONTRAST)
        };
        Self { even, rough, spectra, mask }
    }

    pub(super) fn area_pixels(&self) -> usize {
        self.mask.cells.iter().filter(|&&c| c).count() * CELL * CELL
    }
}

impl Mask {
    fn of(deviation: &Map, alternation: &Map, least_contrast: f32) -> Self {
        // What doesn't alternate has no contrast that counts.
        let levels = combine(&levels(deviation), alternation, |level, alternation| {
            if alternation >= LEAST_ALTERNATION { level } else { 0.0 }
        });
        let (width, height) = (levels.width, levels.height);
        let least = (strongest(&levels) * CONTRAST_SHARE).max(least_contrast);
        let mut cells: Vec<bool> = levels.data.iter().map(|&l| l >= least).collect();
        for _ in 0..2 {
            cells = majority(&cells, width, height, 4);
        }
        keep_large_parts(&mut cells, width, height);
        let inside = distance_to_outside(&cells, width, height);
        Self { width, height, cells, inside }
    }

    pub(super) fn cell(&self, x: usize, y: usize) -> bool {
        self.cells[y * self.width + x]
    }

    /// Whether a pixel belongs to the print; outside of the image none does.
    pub(super) fn contains(&self, x: f32, y: f32) -> bool {
        self.depth(x, y) > 0.0
    }

    /// Pixels to the edge of the print; zero outside.
    pub(super) fn depth(&self, x: f32, y: f32) -> f32 {
        if x < 0.0 || y < 0.0 {
            return 0.0;
        }
        let (column, row) = (x as usize / CELL, y as usize / CELL);
        if column >= self.width || row >= self.height {
            return 0.0;
        }
        self.inside[row * self.width + column]
    }
}

fn scaled(image: &GrayImage, scale: f32) -> Map {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let plane = Map {
        width,
        height,
        data: image.pixels().iter().map(|&p| f32::from(p)).collect::<Vec<_>>(),
    };
    if scale == 1.0 {
        return plane;
    }
    let source = if scale < 1.0 { plane.blurred(0.45 / scale) } else { plane };
    let size = |side: usize| ((side as f32 * scale).round() as usize).max(1);
    Map::from_fn(size(width), size(height), |x, y| {
        source.bilinear((x as f32 + 0.5) / scale - 0.5, (y as f32 + 0.5) / scale - 0.5)
    })
}

fn combine(a: &Map, b: &Map, with: impl Fn(f32, f32) -> f32) -> Map {
    let data = a.data.iter().zip(&b.data).map(|(&a, &b)| with(a, b)).collect();
    Map { width: a.width, height: a.height, data }
}

fn variance(centred: &Map, reach: usize) -> Map {
    let mut squares = combine(centred, centred, |a, b| a * b).box_mean(reach);
    squares.data.iter_mut().for_each(|v| *v = v.max(0.0).sqrt());
    squares
}

/// The deviation in the middle of each cell.
fn levels(deviation: &Map) -> Map {
    let (width, height) = (deviation.width.div_ceil(CELL), deviation.height.div_ceil(CELL));
    Map::from_fn(width, height, |x, y| {
        let column = (x * CELL + CELL / 2).min(deviation.width - 1);
        let row = (y * CELL + CELL / 2).min(deviation.height - 1);
        deviation.at(column, row)
    })
}

/// The deviation at the image's best places.
fn strongest(levels: &Map) -> f32 {
    let mut sorted = levels.data.clone();
    sorted.sort_by(f32::total_cmp);
    sorted[sorted.len() * 95 / 100]
}

/// A cell becomes what most of its neighbourhood is.
fn majority(cells: &[bool], width: usize, height: usize, reach: usize) -> Vec<bool> {
    let share = Map::from_fn(width, height, |x, y| f32::from(u8::from(cells[y * width + x])));
    share.box_mean(reach).data.iter().map(|&s| s > 0.5).collect()
}

/// Drops patches smaller than a quarter of the largest one, and fills holes.
fn keep_large_parts(cells: &mut [bool], width: usize, height: usize) {
    let parts = components(cells, width, height);
    let largest = parts.iter().map(Vec::len).max().unwrap_or(0);
    for part in parts.iter().filter(|p| 4 * p.len() < largest) {
        part.iter().for_each(|&i| cells[i] = false);
    }
    let mut ground: Vec<bool> = cells.iter().map(|c| !c).collect();
    for hole in components(&ground, width, height) {
        let touches_edge = hole.iter().any(|&i| {
            let (x, y) = (i % width, i / width);
            x == 0 || y == 0 || x == width - 1 || y == height - 1
        });
        if !touches_edge {
            hole.iter().for_each(|&i| ground[i] = false);
        }
    }
    cells.iter_mut().zip(&ground).for_each(|(c, &g)| *c = !g);
}

fn components(cells: &[bool], width: usize, height: usize) -> Vec<Vec<usize>> {
    let mut seen = vec![false; cells.len()];
    let mut parts = Vec::new();
    for start in 0..cells.len() {
        if !cells[start] || seen[start] {
            continue;
        }
        seen[start] = true;
        let mut part = vec![start];
        let mut next = 0;
        while let Some(&i) = part.get(next) {
            next += 1;
            let (x, y) = (i % width, i / width);
            let neighbours = [
                (x > 0).then(|| i - 1),
                (x + 1 < width).then(|| i + 1),
                (y > 0).then(|| i - width),
                (y + 1 < height).then(|| i + width),
            ];
            for n in neighbours.into_iter().flatten() {
                if cells[n] && !seen[n] {
                    seen[n] = true;
                    part.push(n);
                }
            }
        }
        parts.push(part);
    }
    parts
}

/// Chamfer distance; what lies beyond the image is outside.
fn distance_to_outside(cells: &[bool], width: usize, height: usize) -> Vec<f32> {
    let stride = width + 2;
    let mut distance = vec![0.0f32; stride * (height + 2)];
    let index = |x: usize, y: usize| (y + 1) * stride + x + 1;
    for y in 0..height {
        for x in 0..width {
            if cells[y * width + x] {
                let i = index(x, y);
                distance[i] = nearest(&distance, i, [1, stride, stride + 1, stride - 1], -1);
            }
        }
    }
    for y in (0..height).rev() {
        for x in (0..width).rev() {
            let i = index(x, y);
            let later = nearest(&distance, i, [1, stride, stride + 1, stride - 1], 1);
            distance[i] = distance[i].min(later);
        }
    }
    (0..width * height).map(|i| distance[index(i % width, i / width)] * CELL as f32).collect()
}

fn nearest(distance: &[f32], at: usize, offsets: [usize; 4], sign: isize) -> f32 {
    let steps = [1.0, 1.0, std::f32::consts::SQRT_2, std::f32::consts::SQRT_2];
    offsets
        .iter()
        .zip(steps)
        .map(|(&offset, step)| distance[at.wrapping_add_signed(sign * offset as isize)] + step)
        .fold(f32::INFINITY, f32::min)
}
