//! `ridgeway journal export`.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use gateway::journal::Row;
use serde::Serialize;
use serde::de::IgnoredAny;
use topics::Record;

use super::source::{self, Place, Source};
use crate::{
    cli::{ExportArgs, UsageError},
    output::{number, print_json, progress, size},
};

#[derive(Default, Serialize)]
struct Summary {
    records: u64,
    bytes: u64,
    /// Records that can't be read, and are not in it.
    unreadable: u64,
}

pub(super) fn run(args: &ExportArgs) -> anyhow::Result<()> {
    source::be_nice();
    let place = Place::of(&args.place)?;
    let to_stdout = args.file == Path::new("-");
    if to_stdout && args.json {
        anyhow::bail!(UsageError("--json is for the summary of a file, and - is none".to_owned()));
    }
    let summary = if to_stdout {
        let mut source = Source::open(&place)?;
        let mut out = BufWriter::new(io::stdout().lock());
        let summary = write_all(&mut source, &mut out, &AtomicBool::new(false))?;
        out.flush()?;
        summary
    } else {
        // Before the work, and again at its end.
        if args.file.symlink_metadata().is_ok() {
            anyhow::bail!("{} is there already: give another name", args.file.display());
        }
        let mut source = Source::open(&place)?;
        to_file(&mut source, &args.file)?
    };
    if args.json {
        print_json(&summary)?;
    } else {
        let whereto =
            if to_stdout { "standard output".into() } else { args.file.display().to_string() };
        eprintln!(
            "Wrote {} records ({}) to {whereto}.",
            number(summary.records),
            size(summary.bytes)
        );
    }
    if summary.unreadable > 0 {
        anyhow::bail!(
            "{} records can't be read and were left out; `ridgeway journal verify` lists them",
            number(summary.unreadable)
        );
    }
    Ok(())
}

/// All of it or nothing: what is not complete has another name, and goes with a failure.
fn to_file(source: &mut Source, path: &Path) -> anyhow::Result<Summary> {
    let draft = Draft::beside(path)?;
    let interrupted = stop_on_interrupt();
    let failed = || format!("can't write {}", draft.0.display());
    let file = File::options().write(true).create_new(true).mode(0o600).open(&draft.0);
    let mut out = BufWriter::new(file.with_context(failed)?);
    let summary = write_all(source, &mut out, &interrupted)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
    file.sync_all().with_context(failed)?;
    name(&draft.0, path)
        .with_context(|| format!("can't give {} its name {}", draft.0.display(), path.display()))?;
    drop(draft);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("can't write to {}", folder.display()))?;
    Ok(summary)
}

/// Whether Ctrl-C was pressed, from now on: what isn't complete goes before the program does.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = interrupted.clone();
    // Ends with the process.
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            told.store(true, Ordering::Relaxed);
        }
    });
    interrupted
}

/// Renames `draft`, never in the place of a file that came meanwhile.
fn name(draft: &Path, path: &Path) -> io::Result<()> {
    use rustix::{
        fs::{CWD, RenameFlags, renameat_with},
        io::Errno,
    };
    match renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE) {
        // Not every file system can; those that can't can link.
        Err(Errno::INVAL | Errno::NOSYS) => fs::hard_link(draft, path),
        renamed => Ok(renamed?),
    }
}

/// A file on its way; removed with this.
struct Draft(PathBuf);

impl Draft {
    fn beside(path: &Path) -> anyhow::Result<Self> {
        let Some(name) = path.file_name() else {
            anyhow::bail!(UsageError(format!("{} is no file's name", path.display())));
        };
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(format!(".new-{}", std::process::id()));
        Ok(Self(path.with_file_name(draft)))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Lane by lane, each in order. What comes meanwhile isn't in it.
fn write_all(
    source: &mut Source,
    out: &mut impl Write,
    interrupted: &AtomicBool,
) -> anyhow::Result<Summary> {
    let survey = source.survey()?;
    let bar = progress::bar("records", survey.records());
    let mut summary = Summary::default();
    for lane in &survey.lanes {
        let mut from = 0;
        while from < lane.next {
            if interrupted.load(Ordering::Relaxed) {
                anyhow::bail!("interrupted; nothing is left of the file");
            }
            let rows = source.rows(lane.lane, from)?;
            let Some(last) = rows.last() else { break };
            from = last.key.saturating_add(1);
            for row in rows.iter().filter(|row| row.key < lane.next) {
                match readable(row) {
                    Some(record) => {
                        out.write_all(record.json())?;
                        out.write_all(b"\n")?;
                        summary.records += 1;
                        summary.bytes += record.json().len() as u64 + 1;
                    }
                    None => summary.unreadable += 1,
                }
            }
            bar.inc(rows.len() as u64);
        }
    }
    bar.finish_and_clear();
    source.still_alone()?;
    Ok(summary)
}

fn readable(row: &Row) -> Option<Record> {
    let record = row.record().ok()?;
    serde_json::from_slice::<IgnoredAny>(record.json()).ok()?;
    Some(record)
}
