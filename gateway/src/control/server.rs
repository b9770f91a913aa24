//! The gateway's end.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{Lane, UplinkState};

use super::{Address, Answer, MAX_BYTES, MAX_ROWS, Request, SOCKET};
use crate::journal::{Journal, JournalError, Live, Row};

/// Tools at a time. A person has one or two open; more are refused.
const CONNECTIONS: usize = 8;
/// The longest request.
const MAX_REQUEST: u64 = 4096;
/// How long a `wait` waits for something new.
const WAIT: Duration = Duration::from_secs(5);

/// What the socket tells of.
pub(crate) struct Parts {
    pub(crate) journal: Journal,
    pub(crate) uplink: watch::Receiver<UplinkState>,
    pub(crate) started: Instant,
}

/// The bound socket.
pub(crate) struct Server;

impl Server {
    /// Binds it and serves until `token`. Whoever calls holds the data directory's lock: a socket that
    /// is there already is a dead gateway's.
    pub(crate) fn start(
        data_dir: &Path,
        parts: Parts,
        tracker: &TaskTracker,
        token: CancellationToken,
    ) -> io::Result<()> {
        let path = data_dir.join(SOCKET);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(&Address::of(data_dir)?.path)?;
        // Whoever came in between is refused for who it is.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let owner = {
            use std::os::unix::fs::MetadataExt as _;
            fs::metadata(&path)?.uid()
        };
        let tasks = tracker.clone();
        tracker.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = accept(listener, owner, Arc::new(parts), &tasks, &token) => {}
            }
            // Nobody is told that there was one: the next start removes it otherwise.
            let _ = fs::remove_file(path);
        });
        Ok(())
    }
}

async fn accept(
    listener: UnixListener,
    owner: u32,
    parts: Arc<Parts>,
    tracker: &TaskTracker,
    token: &CancellationToken,
) {
    const FAILED_PAUSE: Duration = Duration::from_secs(1);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket can't accept");
                tokio::time::sleep(FAILED_PAUSE).await;
                continue;
            }
        };
        // The file's mode says so already; root comes past every mode.
        let allowed = stream.peer_cred().is_ok_and(|peer| [owner, 0].contains(&peer.uid()));
        let place = room.clone().try_acquire_owned();
        let (parts, token) = (parts.clone(), token.clone());
        tracker.spawn(async move {
            let refused = match (&place, allowed) {
                (_, false) => Some("only the gateway's own user and root may ask"),
                (Err(_), true) => Some("too many tools ask at once: end one of them"),
                (Ok(_), true) => None,
            };
            let served = async {
                match refused {
                    Some(why) => refuse(stream, why).await,
                    None => serve(stream, &parts).await,
                }
            };
            tokio::select! {
                () = token.cancelled() => {}
                ended = served => if let Err(error) = ended {
                    tracing::debug!(%error, "a control connection failed");
                },
            }
            drop(place);
        });
    }
}

async fn refuse(mut stream: UnixStream, why: &str) -> io::Result<()> {
    let answer = Answer::Error { error: why.to_owned() };
    stream.write_all(&line(&answer)).await
}

async fn serve(stream: UnixStream, parts: &Arc<Parts>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let Some(request) = request(&mut read).await? else { return Ok(()) };
        match request {
            Ok(Request::Survey) => {
                let survey = survey(parts);
                write.write_all(&line(&Answer::Survey { survey: Box::new(survey) })).await?;
            }
            Ok(Request::Rows { lane, from, records, bytes }) => {
                let (records, bytes) = (records.min(MAX_ROWS), bytes.min(MAX_BYTES));
                let journal = parts.journal.clone();
                // It may have to come from the disk.
                let read = move || journal.rows(lane, from, records, bytes);
                let rows = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
                send_rows(&mut write, rows).await?;
            }
            Ok(Request::Wait { next }) => {
                let next = wait(parts, next).await;
                write.write_all(&line(&Answer::Next { next })).await?;
            }
            Err(error) => write.write_all(&line(&Answer::Error { error })).await?,
        }
    }
}

/// The next request; none at the end, and what is wrong with it where it is none.
async fn request(
    read: &mut BufReader<OwnedReadHalf>,
) -> io::Result<Option<Result<Request, String>>> {
    let mut text = Vec::new();
    read.take(MAX_REQUEST).read_until(b'\n', &mut text).await?;
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() as u64 == MAX_REQUEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a request is too long"));
    }
    Ok(Some(serde_json::from_slice(&text).map_err(|error| {
        format!("version {} of the gateway doesn't know this request: {error}", crate::VERSION)
    })))
}

fn survey(parts: &Parts) -> crate::journal::Survey {
    let mut survey = parts.journal.survey();
    let uplink = parts.uplink.borrow().clone();
    let uptime = parts.started.elapsed().as_secs();
    survey.live = Some(Live::now(&parts.journal.stats(), uplink, uptime));
    survey
}

async fn send_rows(
    write: &mut OwnedWriteHalf,
    rows: Result<Vec<Row>, JournalError>,
) -> io::Result<()> {
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => {
            return write.write_all(&line(&Answer::Error { error: error.to_string() })).await;
        }
    };
    let length: usize = rows.iter().map(|row| 12 + row.bytes.len()).sum();
    let mut out = line(&Answer::Rows { rows: rows.len(), bytes: length });
    out.reserve(length);
    for row in rows {
        out.extend_from_slice(&row.key.to_le_bytes());
        // A record is 64 KiB at most.
        out.extend_from_slice(&(row.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&row.bytes);
    }
    write.write_all(&out).await
}

async fn wait(parts: &Parts, known: [u64; 4]) -> [u64; 4] {
    let mut heads = parts.journal.heads();
    let next = |heads: &crate::journal::Heads| Lane::ALL.map(|lane| heads.next(lane));
    // Too late or no journal any more: it is told what is known.
    let _ = timeout(WAIT, heads.wait_for(|heads| next(heads) != known)).await;
    let heads = *heads.borrow();
    next(&heads)
}

fn line(answer: &Answer) -> Vec<u8> {
    // Texts and numbers: this can't fail.
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    line
}
