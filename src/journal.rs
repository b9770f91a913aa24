//! `ridgeway journal`: looks into a gateway's journal. A running gateway is asked over its control
//! socket, since it has the file locked; of a stopped one the file is read, and nothing of it changes.

mod compact;
mod export;
mod source;
mod status;
mod tail;
mod verify;

use crate::{
    cli::{JournalAction, JournalArgs},
    output::reader_may_leave,
};

pub(crate) fn run(args: JournalArgs) -> anyhow::Result<()> {
    let ended = match args.action {
        JournalAction::Status(args) => status::run(&args),
        JournalAction::Tail(args) => tail::run(&args),
        JournalAction::Verify(args) => verify::run(&args),
        JournalAction::Export(args) => export::run(&args),
        JournalAction::Compact(args) => compact::run(&args),
    };
    reader_may_leave(ended)
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
    fn spans_are_for_people() {
        let span = |seconds| span(std::time::Duration::from_secs(seconds));
        assert_eq!([span(8), span(312), span(7_260)], ["8 s", "5 min 12 s", "2 h 1 min"]);
        assert_eq!(span(90_000), "1 d 1 h");
    }
}
