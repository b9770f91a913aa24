//! Where the records come from: a running gateway, or its file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use gateway::{
    Holder, Presence,
    control::{Control, ControlError, MAX_BYTES, MAX_ROWS},
    journal::{Bounds, FileError, JournalConfig, JournalFile, Row, Survey, is_open},
};
use topics::Lane;

use crate::{cli::JournalPlace, settings};

const FILE: &str = "journal.redb";
/// A gateway that starts or stops has the directory, and answers no tool, for about so long.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// Where a journal is.
pub(super) struct Place {
    pub(super) data_dir: PathBuf,
    pub(super) file: PathBuf,
    /// How much it may hold, where a configuration tells.
    bounds: Option<Bounds>,
}

impl Place {
    pub(super) fn of(args: &JournalPlace) -> anyhow::Result<Self> {
        if let Some(path) = &args.config {
            let config = settings::load(path, std::env::vars(), gateway::Config::validate)?;
            let data_dir = config.gateway.data_dir.clone();
            let file = data_dir.join(FILE);
            let mut journal = JournalConfig::new(&file, config.gateway.id);
            journal.max_bytes = config.journal.max_bytes;
            journal.max_records = config.journal.max_records;
            journal.retention = Duration::from_secs(config.journal.retention_hours * 3_600);
            return Ok(Self { data_dir, file, bounds: Some(Bounds::of(&journal)) });
        }
        let mut data_dir = args.data_dir.clone();
        // The demo's holds the gateway's.
        if !data_dir.join(FILE).exists() && data_dir.join("gateway").join(FILE).exists() {
            data_dir.push("gateway");
        }
        let file = data_dir.join(FILE);
        Ok(Self { data_dir, file, bounds: None })
    }
}

/// A journal that can be read.
pub(super) enum Source {
    /// Of a running gateway.
    Live(Control),
    /// Nobody's.
    Stopped { path: PathBuf, file: JournalFile, presence: Presence, bounds: Option<Bounds> },
}

impl Source {
    /// Asks the gateway, if one runs; opens the file otherwise.
    pub(super) fn open(place: &Place) -> anyhow::Result<Self> {
        let deadline = std::time::Instant::now() + START_PATIENCE;
        loop {
            if let Some(control) = Control::connect(&place.data_dir).map_err(help)? {
                return Ok(Source::Live(control));
            }
            let (presence, holder) = look(&place.data_dir)?;
            let Holder::Process(id) = holder else {
                let file = JournalFile::open(&place.file).map_err(help_file)?;
                let (path, bounds) = (place.file.clone(), place.bounds);
                return Ok(Source::Stopped { path, file, presence, bounds });
            };
            if std::time::Instant::now() >= deadline {
                anyhow::bail!(
                    "process {id} has {} and doesn't answer on {}: a gateway that is starting, \
                     stopping or stuck, or one of an earlier version. Try again in a moment, or stop \
                     it first",
                    place.data_dir.display(),
                    gateway::control::SOCKET
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self, Source::Live(_))
    }

    /// The accounting, now.
    pub(super) fn survey(&mut self) -> anyhow::Result<Survey> {
        match self {
            Source::Live(control) => control.survey().map_err(help),
            Source::Stopped { file, bounds, .. } => {
                let mut survey = file.survey().map_err(help_file)?;
                survey.bounds = *bounds;
                Ok(survey)
            }
        }
    }

    /// Some rows of a lane, from a key on; none: there are no more.
    pub(super) fn rows(&mut self, lane: Lane, from: u64) -> anyhow::Result<Vec<Row>> {
        self.some_rows(lane, from, MAX_ROWS)
    }

    /// [`rows`](Self::rows), but no more than `most`.
    pub(super) fn some_rows(
        &mut self,
        lane: Lane,
        from: u64,
        most: usize,
    ) -> anyhow::Result<Vec<Row>> {
        match self {
            Source::Live(control) => control.rows(lane, from, most, MAX_BYTES).map_err(help),
            Source::Stopped { file, .. } => {
                file.rows(lane, from, most, MAX_BYTES).map_err(help_file)
            }
        }
    }

    /// Fails where a gateway came while its file was read: what was read then says nothing.
    pub(super) fn still_alone(&self) -> anyhow::Result<()> {
        match self {
            Source::Stopped { path, presence, .. } if presence.changed() || is_open(path) => {
                anyhow::bail!(
                    "a gateway has started on this data directory meanwhile; run this again, and the \
                     gateway is asked"
                )
            }
            Source::Stopped { .. } | Source::Live(_) => Ok(()),
        }
    }
}

/// Work that takes a while goes last: readers and doors go first.
pub(super) fn be_nice() {
    const LATER: i32 = 10;
    // Where it can't be it goes without.
    let _ = rustix::process::nice(LATER);
}

fn look(data_dir: &Path) -> anyhow::Result<(Presence, Holder)> {
    Presence::look(data_dir).with_context(|| {
        format!(
            "can't look into the data directory {}: run this as the gateway's own user",
            data_dir.display()
        )
    })
}

fn help(error: ControlError) -> anyhow::Error {
    let denied = matches!(&error, ControlError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::PermissionDenied);
    let error = anyhow::Error::new(error);
    if denied { error.context("run this as the gateway's own user, or as root") } else { error }
}

/// What to do about a file that can't be read.
pub(super) fn help_file(error: FileError) -> anyhow::Error {
    use std::io::ErrorKind::PermissionDenied;
    let advice = match &error {
        FileError::Missing { .. } => {
            "a gateway makes one at its first start; name its data directory with --data-dir, or its \
             configuration with --config"
        }
        FileError::Io { source, .. } if source.kind() == PermissionDenied => {
            "run this as the gateway's own user, or as root"
        }
        FileError::Io { .. } => "look at the disk",
        FileError::Locked { .. } => "end that process first",
        FileError::Other { .. } => "name the gateway's data directory with --data-dir",
        FileError::Damaged { .. } => {
            "nothing was changed. Copy the file before the gateway starts again: it sets aside what it \
             can't read, and begins a new journal, which it tells the bridge"
        }
    };
    anyhow::Error::new(WithAdvice { error, advice })
}

/// An error, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{error}; {advice}")]
pub(super) struct WithAdvice {
    pub(super) error: FileError,
    advice: &'static str,
}
