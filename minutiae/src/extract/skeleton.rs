//! Ridges thinned to lines of one pixel.
//!
//! A ridge pixel is removed from one side at a time when it lies on the border of its ridge, isn't
//! the end of a line, and its neighbours hang together without it. What is left is connected as the
//! ridges were.

use std::sync::LazyLock;

use crate::map::Map;

use super::ground::Mask;

/// Lines of one pixel, with a margin of one so that every pixel has eight neighbours.
pub(super) struct Skeleton {
    pub(super) stride: usize,
    pub(super) pixels: Vec<u8>,
}

/// Whether a pixel with these neighbours can go.
static REMOVABLE: LazyLock<[bool; 256]> =
    LazyLock::new(|| std::array::from_fn(|code| removable(code as u8)));

impl Skeleton {
    pub(super) fn of(ridges: &Map, mask: &Mask) -> Self {
        let stride = ridges.width + 2;
        let mut pixels = vec![0; stride * (ridges.height + 2)];
        for y in 0..ridges.height {
            for x in 0..ridges.width {
                let ridge = ridges.at(x, y) > 0.0 && mask.contains(x as f32, y as f32);
                pixels[(y + 1) * stride + x + 1] = u8::from(ridge);
            }
        }
        let mut skeleton = Self { stride, pixels };
        skeleton.thin();
        skeleton
    }

    /// The eight neighbours' indices, clockwise from the right one.
    pub(super) fn around(&self, at: usize) -> [usize; 8] {
        let s = self.stride;
        [at + 1, at + s + 1, at + s, at + s - 1, at - 1, at - s - 1, at - s, at - s + 1]
    }

    /// One bit a neighbour that is set, in the order of [`Skeleton::around`].
    pub(super) fn neighbours(&self, at: usize) -> u8 {
        let around = self.around(at);
        (0..8).fold(0, |code, i| code | self.pixels[around[i]] << i)
    }

    /// Half the number of changes around the pixel: 1 at an end, 3 at a fork.
    pub(super) fn crossings(&self, at: usize) -> u32 {
        let code = self.neighbours(at);
        (code ^ code.rotate_left(1)).count_ones() / 2
    }

    /// Position of a pixel in the image.
    pub(super) fn position(&self, at: usize) -> (f32, f32) {
        ((at % self.stride) as f32 - 1.0, (at / self.stride) as f32 - 1.0)
    }

    /// Index of the pixel at a position that lies in the image.
    pub(super) fn index(&self, x: f32, y: f32) -> usize {
        (y.round() as usize + 1) * self.stride + x.round() as usize + 1
    }

    pub(super) fn set_pixels(&self) -> Vec<usize> {
        (0..self.pixels.len()).filter(|&i| self.pixels[i] != 0).collect()
    }

    /// Takes off border pixels from all four sides until none can go.
    pub(super) fn thin(&mut self) {
        let removable = &*REMOVABLE;
        let mut left = self.set_pixels();
        loop {
            let before = left.len();
            for side in [6usize, 2, 0, 4] {
                let border: Vec<usize> = left
                    .iter()
                    .copied()
                    .filter(|&i| self.pixels[self.around(i)[side]] == 0)
                    .collect();
                for i in border {
                    if removable[usize::from(self.neighbours(i))] {
                        self.pixels[i] = 0;
                    }
                }
                left.retain(|&i| self.pixels[i] != 0);
            }
            if left.len() == before {
                return;
            }
        }
    }
}

/// More than one neighbour, hanging together, and not surrounded.
fn removable(code: u8) -> bool {
    if code.count_ones() < 2 {
        return false;
    }
    // Eight-connected pieces of the neighbourhood (Yokoi number): even bits are the four sides.
    let set = |i: usize| code >> (i % 8) & 1 == 1;
    let pieces =
        [0, 2, 4, 6].into_iter().filter(|&i| !set(i) && (set(i + 1) || set(i + 2))).count();
    pieces == 1
}
