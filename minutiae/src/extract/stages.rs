//! What each step of extraction made of an image, for people to look at.

use crate::filter::CELL;
use crate::image::GrayImage;
use crate::map::Map;
use crate::template::Minutia;

use super::skeleton::Skeleton;
use super::{Analysis, ExtractError, MOST_MINUTIAE, detect};

/// What the steps of extraction leave behind, in their order.
///
/// All planes are row-major from the top left pixel, [`width`](Self::width) times
/// [`height`](Self::height) at about 500 dpi: an image of 490 to 510 is not scaled.
#[derive(Debug, Clone, PartialEq)]
pub struct Stages {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Pixels here for one of the image's.
    pub scale: f32,
    /// Brightness and contrast made even: 0 black, 255 white, ridges dark.
    pub even: Vec<u8>,
    /// Which pixels belong to the print.
    pub mask: Vec<bool>,
    /// Direction of the ridges in the middle of each cell of the print, row by row.
    pub orientation: Vec<Orientation>,
    /// Ridges after filtering: 0 the clearest ridge, 255 the clearest valley, 128 neither.
    pub ridges: Vec<u8>,
    /// Which pixels are ridge.
    pub binary: Vec<bool>,
    /// Ridges thinned to one pixel.
    pub skeleton: Vec<bool>,
    /// The same after spurs, islands, breaks and bridges are mended.
    pub mended: Vec<bool>,
    /// What is found on the mended lines, the best first, in the image's own pixels; as many as a
    /// template keeps, or too few for one.
    pub minutiae: Vec<Minutia>,
    /// Quality of the print, 0 to 100.
    pub quality: u8,
}

/// Which way the ridges run at a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Orientation {
    /// Pixels from the left at 500 dpi.
    pub x: f32,
    /// Pixels from the top at 500 dpi.
    pub y: f32,
    /// Radians, clockwise as seen from the x axis; a line's, so half a turn is all there is.
    pub angle: f32,
    /// How far the neighbourhood agrees on it, 0 to 1.
    pub coherence: f32,
    /// Pixels from ridge to ridge.
    pub period: f32,
}

/// Takes an image through the steps and keeps what each left behind.
///
/// # Errors
/// [`ExtractError::NoPrint`]: there is nothing to show. A print with too few minutiae is shown.
pub fn stages(image: &GrayImage) -> Result<Stages, ExtractError> {
    let analysis = Analysis::of(image)?;
    let (even, mask) = (&analysis.ground.even, &analysis.ground.mask);
    let mut lines = Skeleton::of(&analysis.ridges, mask);
    let skeleton = lines_of(&lines, even);
    let mut found = detect::minutiae(&mut lines, mask, &analysis.field, &analysis.agreement);
    found.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    found.truncate(MOST_MINUTIAE);
    Ok(Stages {
        width: even.width,
        height: even.height,
        scale: analysis.scale,
        even: grey(even, |value| 128.0 + 50.0 * value),
        mask: each(even, |x, y| mask.contains(x as f32, y as f32)),
        orientation: orientation(&analysis),
        ridges: grey(&analysis.ridges, |value| 128.0 - 120.0 * value),
        binary: each(even, |x, y| {
            analysis.ridges.at(x, y) > 0.0 && mask.contains(x as f32, y as f32)
        }),
        skeleton,
        mended: lines_of(&lines, even),
        minutiae: found.iter().map(|f| analysis.minutia(f)).collect(),
        quality: analysis.quality(&found),
    })
}

fn orientation(analysis: &Analysis) -> Vec<Orientation> {
    let mask = &analysis.ground.mask;
    let cells = (0..mask.height).flat_map(|y| (0..mask.width).map(move |x| (x, y)));
    cells
        .filter(|&(x, y)| mask.cell(x, y))
        .map(|(column, row)| {
            let middle = |cell: usize| (cell * CELL + CELL / 2) as f32;
            let (x, y) = (middle(column), middle(row));
            Orientation {
                x,
                y,
                angle: analysis.field.at(x, y),
                coherence: analysis.field.coherence(x, y),
                period: analysis.period.at(column, row),
            }
        })
        .collect()
}

fn lines_of(skeleton: &Skeleton, like: &Map) -> Vec<bool> {
    each(like, |x, y| skeleton.pixels[skeleton.index(x as f32, y as f32)] != 0)
}

fn grey(plane: &Map, level: impl Fn(f32) -> f32) -> Vec<u8> {
    plane.data.iter().map(|&value| level(value).round().clamp(0.0, 255.0) as u8).collect()
}

fn each(like: &Map, value: impl Fn(usize, usize) -> bool) -> Vec<bool> {
    (0..like.data.len()).map(|i| value(i % like.width, i / like.width)).collect()
}
