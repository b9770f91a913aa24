//! Template to bytes.

use super::format::MAGIC;
use super::{Format, Minutia, MinutiaKind, Template, View};

const ISO_HEADER: usize = 24;
const ANSI_HEADER: usize = 26;
/// An ANSI length that needs its long form makes the header this much longer.
const ANSI_LONG_LENGTH: usize = 4;

pub(super) fn iso(template: &Template) -> Vec<u8> {
    let length = ISO_HEADER + body_length(template);
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(length as u32).to_be_bytes());
    rest(template, Format::Iso19794_2, &mut out);
    out
}

pub(super) fn ansi(template: &Template) -> Vec<u8> {
    let length = ANSI_HEADER + body_length(template);
    let mut out = Vec::with_capacity(length + ANSI_LONG_LENGTH);
    out.extend_from_slice(MAGIC);
    match u16::try_from(length) {
        Ok(short) => out.extend_from_slice(&short.to_be_bytes()),
        Err(_) => {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&((length + ANSI_LONG_LENGTH) as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(&template.product.to_be_bytes());
    rest(template, Format::Ansi378, &mut out);
    out
}

fn body_length(template: &Template) -> usize {
    template.views.iter().map(|v| 4 + 6 * v.minutiae.len() + 2 + v.extension_bytes()).sum()
}

/// Everything behind the length (ISO) or the product (ANSI).
fn rest(template: &Template, format: Format, out: &mut Vec<u8>) {
    let Template { equipment, width, height, x_resolution, y_resolution, .. } = *template;
    for field in [equipment, width, height, x_resolution, y_resolution] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    out.extend_from_slice(&[template.views.len() as u8, 0]);
    for part in &template.views {
        view(part, format, out);
    }
}

fn view(view: &View, format: Format, out: &mut Vec<u8>) {
    let number_and_impression = view.number << 4 | view.impression & 0x0f;
    let count = view.minutiae.len() as u8;
    out.extend_from_slice(&[view.position, number_and_impression, view.quality, count]);
    for m in &view.minutiae {
        out.extend_from_slice(&minutia(m, format));
    }
    out.extend_from_slice(&(view.extension_bytes() as u16).to_be_bytes());
    for block in &view.extensions {
        out.extend_from_slice(&block.type_code.to_be_bytes());
        out.extend_from_slice(&(4 + block.data.len() as u16).to_be_bytes());
        out.extend_from_slice(&block.data);
    }
}

fn minutia(minutia: &Minutia, format: Format) -> [u8; 6] {
    let kind = match minutia.kind {
        MinutiaKind::Other => 0u16,
        MinutiaKind::Ending => 0b01 << 14,
        MinutiaKind::Bifurcation => 0b10 << 14,
    };
    let angle = match format {
        Format::Ansi378 => angle_to_ansi(minutia.angle),
        Format::Iso19794_2 | Format::ZkFinger10 => minutia.angle,
    };
    let [x_high, x_low] = (kind | minutia.x & 0x3fff).to_be_bytes();
    let [y_high, y_low] = (minutia.y & 0x3fff).to_be_bytes();
    [x_high, x_low, y_high, y_low, angle, minutia.quality]
}

/// 256ths of a turn to two-degree units, the inverse of reading for every value that reading gives.
fn angle_to_ansi(angle: u8) -> u8 {
    ((u32::from(angle) * 180 + 128) / 256 % 180) as u8
}
