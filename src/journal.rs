//! `ridgeway journal`: looks into a gateway's journal. A running gateway is asked over its control
//! socket, since it has the file locked; of a stopped one the file is read, and nothing of it changes.

mod compact;
mod export;
mod progress;
mod source;
mod status;
mod tail;
mod verify;

use std::io::{self, Write as _};

use crate::cli::{JournalAction, JournalArgs};

pub(crate) fn run(args: JournalArgs) -> anyhow::Result<()> {
    let ended = match args.action {
        JournalAction::Status(args) => status::run(&args),
        JournalAction::Tail(args) => tail::run(&args),
        JournalAction::Verify(args) => verify::run(&args),
        JournalAction::Export(args) => export::run(&args),
        JournalAction::Compact(args) => compact::run(&args),
    };
    // `… | head` has seen enough: nothing failed.
    let pipe_closed = |error: &anyhow::Error| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    ended.or_else(|error| if pipe_closed(&error) { Ok(()) } else { Err(error) })
}

/// One JSON object on a line of standard output.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// `1.5 MiB`
fn size(bytes: u64) -> String {
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
fn number(value: u64) -> String {
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

/// `3 d 4 h`, `5 min 12 s`, `8 s`
fn span(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match () {
        () if days > 0 => format!("{days} d {hours} h"),
        () if hours > 0 => format!("{hours} h {minutes} min"),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_people() {
        assert_eq!([size(0), size(1023), size(1536)], ["0 bytes", "1023 bytes", "1.5 KiB"]);
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!([number(7), number(4711), number(1_000_000)], ["7", "4 711", "1 000 000"]);
        let span = |seconds| span(std::time::Duration::from_secs(seconds));
        assert_eq!([span(8), span(312), span(7_260)], ["8 s", "5 min 12 s", "2 h 1 min"]);
        assert_eq!(span(90_000), "1 d 1 h");
    }
}
