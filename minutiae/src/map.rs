//! A plane of numbers and the few operations that both extraction and generation need.

/// Row-major plane of `f32`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Map {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) data: Vec<f32>,
}

impl Map {
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Self { width, height, data: vec![0.0; width * height] }
    }

    pub(crate) fn from_fn(
        width: usize,
        height: usize,
        mut value: impl FnMut(usize, usize) -> f32,
    ) -> Self {
        let mut data = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                data.push(value(x, y));
            }
        }
        Self { width, height, data }
    }

    pub(crate) fn row(&self, y: usize) -> &[f32] {
        &self.data[y * self.width..(y + 1) * self.width]
    }

    pub(crate) fn at(&self, x: usize, y: usize) -> f32 {
        self.data[y * self.width + x]
    }

    /// The value at a point, coordinates held inside the plane.
    pub(crate) fn nearest(&self, x: f32, y: f32) -> f32 {
        let column = (x + 0.5).clamp(0.0, (self.width - 1) as f32) as usize;
        let row = (y + 0.5).clamp(0.0, (self.height - 1) as f32) as usize;
        self.at(column, row)
    }

    /// Bilinear interpolation, coordinates held inside the plane.
    pub(crate) fn bilinear(&self, x: f32, y: f32) -> f32 {
        let x = x.clamp(0.0, (self.width - 1) as f32);
        let y = y.clamp(0.0, (self.height - 1) as f32);
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.width - 1), (top + 1).min(self.height - 1));
        let (fx, fy) = (x - left as f32, y - top as f32);
        let upper = self.at(left, top) * (1.0 - fx) + self.at(right, top) * fx;
        let lower = self.at(left, bottom) * (1.0 - fx) + self.at(right, bottom) * fx;
        upper * (1.0 - fy) + lower * fy
    }

    /// Gaussian blur; beyond the edge the nearest value goes on.
    pub(crate) fn blurred(&self, sigma: f32) -> Map {
        let kernel = gaussian(sigma);
        self.convolved_rows(&kernel).transposed().convolved_rows(&kernel).transposed()
    }

    /// Mean over a square of `2 * radius + 1` pixels a side, cut at the edges.
    pub(crate) fn box_mean(&self, radius: usize) -> Map {
        self.box_rows(radius).transposed().box_rows(radius).transposed()
    }

    fn convolved_rows(&self, kernel: &[f32]) -> Map {
        let radius = kernel.len() / 2;
        let mut out = Map::new(self.width, self.height);
        let mut padded = vec![0.0; self.width + 2 * radius];
        for y in 0..self.height {
            let row = self.row(y);
            padded[..radius].fill(row[0]);
            padded[radius..radius + self.width].copy_from_slice(row);
            padded[radius + self.width..].fill(row[self.width - 1]);
            let target = &mut out.data[y * self.width..(y + 1) * self.width];
            for (offset, &weight) in kernel.iter().enumerate() {
                for (value, source) in target.iter_mut().zip(&padded[offset..]) {
                    *value += weight * source;
                }
            }
        }
        out
    }

    fn box_rows(&self, radius: usize) -> Map {
        let mut out = Map::new(self.width, self.height);
        let mut sums = vec![0.0f64; self.width + 1];
        for y in 0..self.height {
            for (x, &value) in self.row(y).iter().enumerate() {
                sums[x + 1] = sums[x] + f64::from(value);
            }
            for x in 0..self.width {
                let (from, to) = (x.saturating_sub(radius), (x + radius + 1).min(self.width));
                let mean = (sums[to] - sums[from]) / (to - from) as f64;
                out.data[y * self.width + x] = mean as f32;
            }
        }
        out
    }

    fn transposed(&self) -> Map {
        const TILE: usize = 16;
        let mut out = Map::new(self.height, self.width);
        for top in (0..self.height).step_by(TILE) {
            for left in (0..self.width).step_by(TILE) {
                for y in top..(top + TILE).min(self.height) {
                    for x in left..(left + TILE).min(self.width) {
                        out.data[x * self.height + y] = self.data[y * self.width + x];
                    }
                }
            }
        }
        out
    }
}

fn gaussian(sigma: f32) -> Vec<f32> {
    let radius = (3.0 * sigma).ceil().max(1.0) as i32;
    let mut kernel: Vec<f32> =
        (-radius..=radius).map(|i| (-((i * i) as f32) / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f32 = kernel.iter().sum();
    kernel.iter_mut().for_each(|k| *k /= sum);
    kernel
}
