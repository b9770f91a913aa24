//! The control socket: how a tool on this machine asks a running gateway about its journal, whose
//! file is locked.
//!
//! `{data_dir}/control.sock` is a Unix socket of mode 0600, and who connects must be the gateway's own
//! user or root: whoever may read the data directory needs nothing else, and nobody else gets in.
//! It reads; nothing can be changed over it. See `docs/decisions/0013`.
//!
//! # Wire
//!
//! One JSON object a line each way, any number on a connection, each answered before the next is read:
//!
//! | request | answer |
//! |---|---|
//! | `{"ask":"survey"}` | `{"survey":{…}}` |
//! | `{"ask":"rows","lane":"events","from":1,"records":1024,"bytes":262144}` | `{"rows":n,"bytes":m}`, then `m` bytes |
//! | `{"ask":"wait","next":[1,1,1,1]}` | `{"next":[…]}`: once a lane's next number is another, or after some seconds |
//! | anything that can't be | `{"error":"…"}` |
//!
//! A row is its key (8 bytes, little-endian), its length (4 bytes) and its bytes. Each answer of rows
//! is one short read of the journal: a reader that stands still holds no page back.

mod client;
mod server;

use std::{
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use topics::Lane;

pub use self::client::{Control, ControlError};
pub(crate) use self::server::{Parts, Server};
use crate::journal::Survey;

/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";
/// The most rows in an answer.
pub const MAX_ROWS: usize = 1_024;
/// The most bytes in an answer, but for a single row that is larger.
pub const MAX_BYTES: usize = 256 * 1024;
/// The longest line of a request, and of an answer.
const MAX_LINE: u64 = 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    Survey,
    Rows { lane: Lane, from: u64, records: usize, bytes: usize },
    Wait { next: [u64; 4] },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Survey { survey: Box<Survey> },
    Rows { rows: usize, bytes: usize },
    Next { next: [u64; 4] },
    Error { error: String },
}

/// Where a socket is bound or found: addresses of Unix sockets are short, data directories need not
/// be. The directory's handle must live as long as the address is used.
struct Address {
    path: PathBuf,
    _directory: Option<std::fs::File>,
}

impl Address {
    fn of(data_dir: &Path) -> io::Result<Self> {
        // 108 bytes with the zero at the end, on Linux.
        const MAX_BYTES: usize = 100;
        let path = data_dir.join(SOCKET);
        if path.as_os_str().len() <= MAX_BYTES {
            return Ok(Self { path, _directory: None });
        }
        let directory = std::fs::File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()));
        Ok(Self { path, _directory: Some(directory) })
    }
}

#[cfg(test)]
mod tests;
