//! `ridgeway journal compact`.

use std::time::Instant;

use gateway::{DataLock, LockError, journal};
use serde_json::json;

use super::source::{Place, help_file};
use crate::{
    cli::JournalStatusArgs,
    output::{print_json, progress, size},
};

pub(super) fn run(args: &JournalStatusArgs) -> anyhow::Result<()> {
    let place = Place::of(&args.place)?;
    if !place.file.exists() {
        let path = place.file;
        return Err(help_file(journal::FileError::Missing { path }));
    }
    // No gateway starts on it meanwhile.
    let _lock = DataLock::take_existing(&place.data_dir).map_err(|error| match error {
        LockError::Held(holder) => anyhow::anyhow!(
            "process {holder} uses {}: stop the gateway first. While the file is compacted nothing \
             can be committed, so no door would open",
            place.data_dir.display()
        ),
        LockError::Io(error) => {
            anyhow::Error::new(error).context(format!("can't take {}", place.data_dir.display()))
        }
    })?;
    let length = || Ok::<_, anyhow::Error>(std::fs::metadata(&place.file)?.len());
    let (before, started) = (length()?, Instant::now());
    let spinner = progress::spinner("compacts");
    let compacted = journal::compact(&place.file);
    spinner.finish_and_clear();
    compacted.map_err(help_file)?;
    let (after, took) = (length()?, started.elapsed());
    if args.json {
        return print_json(&json!({
            "bytesBefore": before, "bytesAfter": after, "milliseconds": took.as_millis() as u64,
        }));
    }
    println!(
        "{}: {} before, {} after, in {:.1} s",
        place.file.display(),
        size(before),
        size(after),
        took.as_secs_f64()
    );
    Ok(())
}
