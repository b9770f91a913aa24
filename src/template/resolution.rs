//! The dots an inch that an image file claims, from the few bytes where each format keeps them.
//!
//! | format | where |
//! |---|---|
//! | PNG | chunk `pHYs`: pixels a metre |
//! | BMP | bytes 38 and 42 of the header: pixels a metre |
//! | TIFF | tags 282 (across) and 296 (unit: 2 inch, 3 centimetre) of the first directory |
//!
//! Many programs write 72 or 96 whatever the picture is; what no fingerprint reader has (see
//! [`minutiae::image::RESOLUTION_DPI`]), or what differs between across and down, is no claim.

use image::ImageFormat;
use minutiae::image::RESOLUTION_DPI;

/// The resolution, where the file has a plausible one.
pub(super) fn of(bytes: &[u8], format: ImageFormat) -> Option<u16> {
    let dpi = match format {
        ImageFormat::Png => png(bytes),
        ImageFormat::Bmp => bmp(bytes),
        ImageFormat::Tiff => tiff(bytes),
        _ => None,
    }?;
    let dpi = dpi.round();
    let plausible = f64::from(*RESOLUTION_DPI.start())..=f64::from(*RESOLUTION_DPI.end());
    plausible.contains(&dpi).then_some(dpi as u16)
}

fn png(bytes: &[u8]) -> Option<f64> {
    let mut chunk = bytes.get(8..)?;
    loop {
        let length = u32::from_be_bytes(chunk.first_chunk().copied()?) as usize;
        let data = chunk.get(8..8usize.checked_add(length)?)?;
        match chunk.get(4..8)? {
            b"pHYs" => return png_density(data),
            b"IDAT" | b"IEND" => return None,
            _ => chunk = chunk.get(length.checked_add(12)?..)?,
        }
    }
}

fn png_density(data: &[u8]) -> Option<f64> {
    let number = |at: usize| Some(u32::from_be_bytes(data.get(at..)?.first_chunk().copied()?));
    let (across, down) = (number(0)?, number(4)?);
    (across == down && data.get(8) == Some(&1)).then(|| per_metre(across))
}

fn bmp(bytes: &[u8]) -> Option<f64> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?));
    // Only the headers of 40 bytes and more have it.
    let (across, down) = (number(38)?, number(42)?);
    (number(14)? >= 40 && across == down).then(|| per_metre(across))
}

fn per_metre(pixels: u32) -> f64 {
    f64::from(pixels) * 0.0254
}

/// Reads numbers in the file's own byte order.
struct Tiff<'a> {
    bytes: &'a [u8],
    little: bool,
}

fn tiff(bytes: &[u8]) -> Option<f64> {
    let little = match bytes.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let file = Tiff { bytes, little };
    let directory = file.u32(4)? as usize;
    let count = usize::from(file.u16(directory)?);
    let entry = |tag: u16| {
        let entries = (0..count).map(|i| directory + 2 + 12 * i);
        let mut matching = entries.filter(|&at| file.u16(at) == Some(tag));
        matching.next()
    };
    let ratio = |tag: u16| {
        let at = file.u32(entry(tag)? + 8)? as usize;
        let (numerator, denominator) = (file.u32(at)?, file.u32(at.checked_add(4)?)?);
        (denominator != 0).then(|| f64::from(numerator) / f64::from(denominator))
    };
    let (across, down) = (ratio(282)?, ratio(283)?);
    let unit = entry(296).map_or(Some(2), |at| file.u16(at + 8))?;
    match unit {
        2 if across == down => Some(across),
        3 if across == down => Some(across * 2.54),
        _ => None,
    }
}

impl Tiff<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..)?.first_chunk().copied()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..)?.first_chunk().copied()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_file(density: u32, unit: png::Unit) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: density, yppu: density, unit }));
        encoder.write_header().unwrap().write_image_data(&[0; 3]).unwrap_err();
        bytes
    }

    /// A directory with a resolution and nothing else, in either byte order.
    fn tiff_file(little: bool, unit: u16, across: (u32, u32), down: (u32, u32)) -> Vec<u8> {
        let short = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let long = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let mut bytes = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        bytes.extend([long(8), long(0)].concat()[..4].iter());
        bytes.extend(short(3));
        for (tag, kind, value) in [
            (282, 5u16, long(50)),
            (283, 5, long(58)),
            (296, 3, [short(unit), [0; 2]].concat().try_into().unwrap()),
        ] {
            bytes.extend([short(tag), short(kind)].concat());
            bytes.extend(long(1));
            bytes.extend(value);
        }
        bytes.extend(long(0));
        for number in [across.0, across.1, down.0, down.1] {
            bytes.extend(long(number));
        }
        bytes
    }

    #[test]
    fn each_formats_claim_is_read() {
        assert_eq!(of(&png_file(19_685, png::Unit::Meter), ImageFormat::Png), Some(500));
        for little in [true, false] {
            let inch = tiff_file(little, 2, (1000, 1), (1000, 1));
            assert_eq!(of(&inch, ImageFormat::Tiff), Some(1000));
            let centimetre = tiff_file(little, 3, (3937, 20), (3937, 20));
            assert_eq!(of(&centimetre, ImageFormat::Tiff), Some(500));
        }
        let mut bmp = vec![0; 54];
        bmp[14] = 40;
        bmp[38..42].copy_from_slice(&19_685u32.to_le_bytes());
        bmp[42..46].copy_from_slice(&19_685u32.to_le_bytes());
        assert_eq!(of(&bmp, ImageFormat::Bmp), Some(500));
    }

    #[test]
    fn what_no_reader_has_is_no_claim() {
        assert_eq!(of(&png_file(2_835, png::Unit::Meter), ImageFormat::Png), None, "72 dpi");
        assert_eq!(
            of(&png_file(19_685, png::Unit::Unspecified), ImageFormat::Png),
            None,
            "a ratio"
        );
        let file = |unit, across, down| of(&tiff_file(true, unit, across, down), ImageFormat::Tiff);
        assert_eq!(file(1, (500, 1), (500, 1)), None, "a ratio of sides");
        assert_eq!(file(2, (500, 1), (400, 1)), None, "oblong pixels");
        assert_eq!(file(2, (500, 0), (500, 0)), None);
        assert_eq!(of(&[], ImageFormat::Jpeg), None);
    }

    #[test]
    fn a_file_that_ends_anywhere_is_no_claim_and_no_panic() {
        for (bytes, format) in [
            (png_file(19_685, png::Unit::Meter), ImageFormat::Png),
            (tiff_file(true, 2, (500, 1), (500, 1)), ImageFormat::Tiff),
            (vec![0xff; 60], ImageFormat::Bmp),
        ] {
            for length in 0..bytes.len() {
                let _ = of(&bytes[..length], format);
                let broken: Vec<u8> = bytes.iter().map(|b| b ^ length as u8).collect();
                let _ = of(&broken, format);
            }
        }
        let far = [&b"II*\0"[..], &[0xff; 8]].concat();
        assert_eq!(of(&far, ImageFormat::Tiff), None);
    }
}
