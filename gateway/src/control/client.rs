//! The tool's end.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use topics::Lane;

use super::{Address, Answer, MAX_LINE, Request, SOCKET};
use crate::journal::{Row, Survey};

/// How long the gateway may take for an answer: longer than it waits for something new.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a running gateway can't be asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ControlError {
    #[error("the gateway's socket {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the gateway has stopped")]
    Ended,
    #[error("the gateway refuses: {0}")]
    Refused(String),
    #[error("the gateway's answer can't be read: {0}")]
    Answer(String),
}

/// A connection to a running gateway.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects to the gateway of a data directory; `None` where none runs.
    pub fn connect(data_dir: &Path) -> Result<Option<Self>, ControlError> {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        let path = data_dir.join(SOCKET);
        let connected =
            Address::of(data_dir).and_then(|address| UnixStream::connect(&address.path));
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(None),
            Err(source) => return Err(ControlError::Io { path, source }),
        };
        let limits = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        limits.map_err(|source| ControlError::Io { path: path.clone(), source })?;
        Ok(Some(Self { path, stream: BufReader::new(stream) }))
    }

    /// The accounting, now.
    pub fn survey(&mut self) -> Result<Survey, ControlError> {
        match self.ask(&Request::Survey)? {
            Answer::Survey { survey } => Ok(*survey),
            other => Err(unexpected(&other)),
        }
    }

    /// Rows of a lane from a key on; none: there are no more.
    pub fn rows(
        &mut self,
        lane: Lane,
        from: u64,
        records: usize,
        bytes: usize,
    ) -> Result<Vec<Row>, ControlError> {
        match self.ask(&Request::Rows { lane, from, records, bytes })? {
            Answer::Rows { rows, bytes } => self.read_rows(rows, bytes),
            other => Err(unexpected(&other)),
        }
    }

    /// The next numbers, once they are others than `next`, or after some seconds.
    pub fn wait(&mut self, next: [u64; 4]) -> Result<[u64; 4], ControlError> {
        match self.ask(&Request::Wait { next })? {
            Answer::Next { next } => Ok(next),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Answer, ControlError> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| ControlError::Answer(error.to_string()))?;
        line.push(b'\n');
        // A refusal may be there before the question; then it can't be sent, and is to be read.
        let sent = self.stream.get_mut().write_all(&line);
        let mut text = String::new();
        let read = (&mut self.stream).take(MAX_LINE).read_line(&mut text);
        match (sent, read) {
            (_, Ok(1..)) => {}
            (Ok(()), Ok(0)) => return Err(ControlError::Ended),
            (Err(error), _) | (Ok(()), Err(error)) => return Err(self.failed(error)),
        }
        match serde_json::from_str(&text) {
            Ok(Answer::Error { error }) => Err(ControlError::Refused(error)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(ControlError::Answer(error.to_string())),
        }
    }

    fn read_rows(&mut self, rows: usize, bytes: usize) -> Result<Vec<Row>, ControlError> {
        let cut = || ControlError::Answer("rows are cut".to_owned());
        let mut body = vec![0; bytes.min(MAX_LINE as usize)];
        self.stream.read_exact(&mut body).map_err(|error| self.failed(error))?;
        let mut rest = body.as_slice();
        let mut found = Vec::with_capacity(rows.min(super::MAX_ROWS));
        while let Some((head, more)) = rest.split_first_chunk::<12>() {
            let [key, length] = [&head[..8], &head[8..]];
            let key = u64::from_le_bytes(key.try_into().map_err(|_| cut())?);
            let length = u32::from_le_bytes(length.try_into().map_err(|_| cut())?) as usize;
            let (bytes, more) = more.split_at_checked(length).ok_or_else(cut)?;
            found.push(Row { key, bytes: bytes.to_vec() });
            rest = more;
        }
        if !rest.is_empty() || found.len() != rows { Err(cut()) } else { Ok(found) }
    }

    fn failed(&self, source: io::Error) -> ControlError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match source.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => ControlError::Ended,
            _ => ControlError::Io { path: self.path.clone(), source },
        }
    }
}

fn unexpected(answer: &Answer) -> ControlError {
    let kind = match answer {
        Answer::Survey { .. } => "survey",
        Answer::Rows { .. } => "rows",
        Answer::Next { .. } => "next",
        Answer::Error { .. } => "error",
    };
    ControlError::Answer(format!("{kind} was not asked for"))
}
