//! How far long work is, on a terminal's standard error; elsewhere nothing.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

const BAR: &str = "{msg:>10} [{bar:32}] {human_pos} of {human_len}, {eta} left";
const SPINNER: &str = "{msg:>10} {spinner} {elapsed}";

/// A bar towards `total`.
pub(crate) fn bar(what: &'static str, total: u64) -> ProgressBar {
    styled(ProgressBar::new(total), what, BAR)
}

/// Of work that doesn't tell how far it is.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    let spinner = styled(ProgressBar::new_spinner(), what, SPINNER);
    spinner.enable_steady_tick(std::time::Duration::from_millis(200));
    spinner
}

fn styled(bar: ProgressBar, what: &'static str, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar
}

/// Of work that another bar tells of.
pub(crate) fn hidden() -> ProgressBar {
    ProgressBar::hidden()
}
