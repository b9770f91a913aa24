//! What the tools print: JSON lines, figures for people, and how far long work is. And the files they
//! write.

pub(crate) mod file;
pub(crate) mod progress;

use std::io::{self, Write as _};

/// `… | head` has seen enough: nothing failed.
pub(crate) fn reader_may_leave(ended: anyhow::Result<()>) -> anyhow::Result<()> {
    let pipe_closed = |error: &anyhow::Error| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    ended.or_else(|error| if pipe_closed(&error) { Ok(()) } else { Err(error) })
}

/// One JSON object on a line of standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// `1.5 MiB`
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

/// `4711` as `4 711`.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 image`, `4 711 images`
pub(crate) fn counted(count: u64, one: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {one}{plural}", number(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_people() {
        assert_eq!([size(0), size(1023), size(1536)], ["0 bytes", "1023 bytes", "1.5 KiB"]);
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!([counted(1, "image"), counted(4711, "image")], ["1 image", "4 711 images"]);
        assert_eq!([number(7), number(4711), number(1_000_000)], ["7", "4 711", "1 000 000"]);
    }
}
