//! The bridge's truth: events, cursors, gateways, commands, templates, in one redb file.
//!
//! Whoever writes is answered after the fsync; reads see what is committed. The interface speaks of
//! the domain only, so that another database can stand in this one's place.
//!
//! | table | key | value |
//! |---|---|---|
//! | `events-v1` | index | see [`NewEvent`] |
//! | `event-ids-v1` | event id | index |
//! | `agent-events-v1` | gateway, index | - |
//! | `cursors-v1` | gateway, store id, lane | [`Cursor`], JSON |
//! | `set-aside-v1` | number | [`SetAside`], JSON |
//! | `agents-v1` | gateway | [`Agent`], JSON |
//! | `probes-v1` | gateway | the last nonce |
//! | `commands-v1` | command id | [`Command`], JSON |
//! | `agent-commands-v1` | gateway, milliseconds, command id | - |
//! | `command-ages-v1` | milliseconds, command id | - |
//! | `open-commands-v1` | command id | - |
//! | `templates-v1` | user, finger | [`Template`], JSON |
//! | `settings-v1` | name | number |
//! | `room-v1` | `room` | bytes, while room is looked for |

mod apply;
mod outage;
mod rows;
mod writer;

use std::{
    io::ErrorKind,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Instant,
};

use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable, TableDefinition,
    WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;
use topics::{CommandId, EventId, GatewayId, StoreId, UserId};

use crate::{
    command::{Change, Command},
    ingest::cursor::Cursor,
};

use apply::{apply_round, change_command, create_command, put_template};
pub use outage::Health;
pub use rows::{Agent, NewEvent, SetAside, StoredEvent, Template};
pub(crate) use writer::Opener;
use writer::{Job, QUEUE_DEPTH, Shared, Writer};

const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events-v1");
const EVENT_IDS: TableDefinition<'_, [u8; 16], u64> = TableDefinition::new("event-ids-v1");
const AGENT_EVENTS: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("agent-events-v1");
const CURSORS: TableDefinition<'_, (&str, [u8; 16], u8), &[u8]> =
    TableDefinition::new("cursors-v1");
const SET_ASIDE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("set-aside-v1");
const AGENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("agents-v1");
const PROBES: TableDefinition<'_, &str, u64> = TableDefinition::new("probes-v1");
const COMMANDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("commands-v1");
const AGENT_COMMANDS: TableDefinition<'_, (&str, i64, &str), ()> =
    TableDefinition::new("agent-commands-v1");
const COMMAND_AGES: TableDefinition<'_, (i64, &str), ()> = TableDefinition::new("command-ages-v1");
const OPEN_COMMANDS: TableDefinition<'_, &str, ()> = TableDefinition::new("open-commands-v1");
const TEMPLATES: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("templates-v1");
const SETTINGS: TableDefinition<'_, &str, u64> = TableDefinition::new("settings-v1");

/// What can't be read, where it can't.
const A_CURSOR: &str = "a cursor";
const A_COMMAND: &str = "a command";
const A_GATEWAY: &str = "a gateway's row";

const ROOM: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("room-v1");

const PUBLISHED: &str = "published";
/// What must fit before anything else is tried again.
const ROOM_BYTES: usize = 1 << 20;
/// Records kept aside at most: enough to find out what is wrong, no way to fill the disk.
const SET_ASIDE_LIMIT: u64 = 10_000;
/// Rows that one commit deletes at most beyond the ones it added.
const PRUNE_STEP: u64 = 256;

/// Why the store can't do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum StoreError {
    #[error("the disk is full")]
    Full,
    #[error("the store is closed")]
    Closed,
    #[error("the store is opened again after a failure")]
    Reopening,
    #[error("the commit was given up because of another request in it; try again")]
    GivenUp,
    #[error("{0} can't be read")]
    Corrupt(&'static str),
    #[error("{0}")]
    Database(String),
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                StoreError::of(error.into())
            }
        }
    )*};
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

impl StoreError {
    fn of(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(io)
                if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                Self::Full
            }
            redb::Error::PreviousIo => Self::Reopening,
            other => Self::Database(other.to_string()),
        }
    }

    /// Whether the file takes nothing, rather than that something in it or in the request is wrong.
    fn is_of_disk(&self) -> bool {
        match self {
            Self::Full | Self::Closed | Self::Reopening | Self::Database(_) => true,
            Self::GivenUp | Self::Corrupt(_) => false,
        }
    }

    /// Whether it passes, and was logged where it began.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Full | Self::Closed | Self::Reopening | Self::GivenUp => true,
            Self::Database(_) | Self::Corrupt(_) => false,
        }
    }
}

/// How much the store keeps.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Memory for pages.
    pub cache_bytes: usize,
    /// Events.
    pub max_events: u64,
    /// Commands.
    pub max_commands: u64,
}

/// What is committed together for what gateways sent.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// In the order to be stored and told.
    pub events: Vec<NewEvent>,
    /// Records that can't be events.
    pub set_aside: Vec<SetAside>,
    /// Where each journal is then.
    pub cursors: Vec<(GatewayId, StoreId, Vec<Cursor>)>,
    /// Gateways as they are then.
    pub agents: Vec<Agent>,
    /// Probes: one row a gateway, overwritten.
    pub probes: Vec<(GatewayId, u64)>,
    /// What happened to commands.
    pub changes: Vec<(CommandId, Change)>,
    /// Templates that came with results.
    pub templates: Vec<Template>,
}

impl Round {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.set_aside.is_empty()
            && self.cursors.is_empty()
            && self.agents.is_empty()
            && self.probes.is_empty()
            && self.changes.is_empty()
            && self.templates.is_empty()
    }
}

/// What a round came to.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// The events that are new, in order.
    pub events: Vec<StoredEvent>,
    /// Commands that changed, as they are now.
    pub commands: Vec<Command>,
}

/// A handle on the store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    database: Shared,
    jobs: mpsc::Sender<Job>,
    limits: Limits,
    outage: Arc<Mutex<outage::State>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// The writer's thread, to be ended at last.
#[derive(Debug)]
pub struct Closing {
    jobs: mpsc::Sender<Job>,
    thread: std::thread::JoinHandle<()>,
}

impl Closing {
    /// Commits what waits and closes the file; handles that are left refuse from then on. Blocks.
    pub fn close(self) {
        // Fails only where the thread has ended already.
        let _ = self.jobs.blocking_send(Job::Close);
        // A panic there was reported by the panic hook; the file is as the last commit left it.
        let _ = self.thread.join();
    }
}

impl Store {
    /// Opens the file, made where it is missing, and starts its writer.
    pub fn open(path: &Path, limits: Limits) -> Result<(Self, Closing), StoreError> {
        Self::open_with(writer::opener(path.into(), limits.cache_bytes), limits)
    }

    /// Over another place for its bytes.
    pub(crate) fn open_with(open: Opener, limits: Limits) -> Result<(Self, Closing), StoreError> {
        let database = open()?;
        make_tables(&database)?;
        let database = Arc::new(RwLock::new(Some(database)));
        let (jobs, queue) = mpsc::channel(QUEUE_DEPTH);
        let outage = Arc::new(Mutex::new(outage::State::default()));
        let writer =
            Writer { open, database: database.clone(), jobs: queue, outage: outage.clone() };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(|| writer.run())
            .map_err(|error| StoreError::Database(error.to_string()))?;
        let closing = Closing { jobs: jobs.clone(), thread };
        Ok((Self { database, jobs, limits, outage }, closing))
    }

    /// How commits go.
    pub fn health(&self) -> Health {
        self.outage().health()
    }

    /// What whoever wants something committed is told at once, as long as nothing is tried.
    pub fn refusal(&self) -> Option<StoreError> {
        self.outage().refusal()
    }

    /// Moves an outage on, as time asks for; to be called every second or so. Whether everything is tried
    /// again from now on.
    pub async fn pass_time(&self) -> bool {
        let due = self.outage().pass_time(Instant::now());
        match due {
            outage::Due::Nothing => false,
            outage::Due::Over { failed_commits } => {
                tracing::info!(failed_commits, "the store takes what it is given again");
                false
            }
            outage::Due::Search => {
                // What comes of it is counted, and shown by the outage that goes on.
                let has_room = self.find_room().await.is_ok();
                if has_room {
                    self.outage().found_room(Instant::now());
                }
                has_room
            }
        }
    }

    async fn find_room(&self) -> Result<(), StoreError> {
        // A row that an earlier search could not remove takes no room from this one: it is overwritten.
        self.submit(|tx| {
            tx.open_table(ROOM)?.insert("room", vec![0; ROOM_BYTES].as_slice())?;
            Ok(())
        })
        .await?;
        self.submit(|tx| Ok(tx.open_table(ROOM)?.remove("room").map(drop)?)).await
    }

    fn outage(&self) -> MutexGuard<'_, outage::State> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits what gateways sent.
    pub async fn ingest(&self, round: Round) -> Result<Done, StoreError> {
        let limits = self.limits;
        let done = self.write(move |tx| apply_round(tx, round, limits)).await?;
        if !done.events.is_empty() {
            self.outage().took_events();
        }
        Ok(done)
    }

    /// Where the journal `store` of `gateway` is. Fails where one of them can't be read: without it nobody
    /// knows what of the journal is stored.
    pub fn cursors(&self, gateway: &GatewayId, store: StoreId) -> Result<Vec<Cursor>, StoreError> {
        let table = self.read()?.open_table(CURSORS)?;
        let id = *store.as_bytes();
        let name = gateway.as_str();
        let rows = table.range((name, id, 0)..=(name, id, u8::MAX))?;
        let cursors = rows.map(|row| parse(row?.1.value(), A_CURSOR));
        cursors.map(|cursor| sound(cursor?)).collect()
    }

    /// All cursors of a gateway, of all its journals.
    pub fn all_cursors(&self, gateway: &GatewayId) -> Result<Vec<(StoreId, Cursor)>, StoreError> {
        let table = self.read()?.open_table(CURSORS)?;
        let name = gateway.as_str();
        table
            .range((name, [0; 16], 0)..=(name, [u8::MAX; 16], u8::MAX))?
            .map(|row| {
                let (key, value) = row?;
                Ok((StoreId::from_bytes(key.value().1), parse(value.value(), A_CURSOR)?))
            })
            .filter_map(readable)
            .collect()
    }

    /// Stored events after `index`, oldest first; of one gateway, or of all.
    pub fn events(
        &self,
        after: u64,
        gateway: Option<&GatewayId>,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let tx = self.read()?;
        let events = tx.open_table(EVENTS)?;
        let from = after.saturating_add(1);
        let Some(gateway) = gateway else {
            return events
                .range(from..)?
                .map(|row| {
                    let (index, bytes) = row?;
                    Ok(StoredEvent {
                        index: index.value(),
                        event: NewEvent::decode(bytes.value())?,
                    })
                })
                .filter_map(readable)
                .take(limit)
                .collect();
        };
        let name = gateway.as_str();
        let by_agent = tx.open_table(AGENT_EVENTS)?;
        let rows = by_agent.range((name, from)..=(name, u64::MAX))?.map(|row| {
            let index = row?.0.value().1;
            let bytes = events.get(index)?.ok_or(StoreError::Corrupt("the index of events"))?;
            Ok(StoredEvent { index, event: NewEvent::decode(bytes.value())? })
        });
        rows.filter_map(readable).take(limit).collect()
    }

    /// The newest events, oldest first.
    pub fn newest(&self, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        let table = self.read()?.open_table(EVENTS)?;
        let rows = table.iter()?.rev().map(|row| {
            let (index, bytes) = row?;
            Ok(StoredEvent { index: index.value(), event: NewEvent::decode(bytes.value())? })
        });
        let rows = rows.filter_map(readable).take(limit);
        let mut found: Vec<StoredEvent> = rows.collect::<Result<_, StoreError>>()?;
        found.reverse();
        Ok(found)
    }

    /// The place of an event.
    pub fn index_of(&self, id: EventId) -> Result<Option<u64>, StoreError> {
        Ok(self.read()?.open_table(EVENT_IDS)?.get(*id.as_bytes())?.map(|row| row.value()))
    }

    /// The place of the newest event, 0 for none.
    pub fn last_index(&self) -> Result<u64, StoreError> {
        Ok(self.read()?.open_table(EVENTS)?.last()?.map_or(0, |row| row.0.value()))
    }

    /// All gateways that ever came.
    pub fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        let table = self.read()?.open_table(AGENTS)?;
        table.iter()?.map(|row| parse(row?.1.value(), A_GATEWAY)).filter_map(readable).collect()
    }

    /// One gateway.
    pub fn agent(&self, id: &GatewayId) -> Result<Option<Agent>, StoreError> {
        let table = self.read()?.open_table(AGENTS)?;
        table.get(id.as_str())?.map(|row| parse(row.value(), A_GATEWAY)).transpose()
    }

    /// Records a new command; where there is one of this id already, that one is returned, and
    /// false.
    pub async fn create_command(&self, command: Command) -> Result<(Command, bool), StoreError> {
        let limits = self.limits;
        let created = self.write(move |tx| match create_command(tx, command, limits) {
            // Nothing was written yet; what others asked for in the same commit goes on.
            Err(error @ StoreError::Corrupt(_)) => Ok(Err(error)),
            created => created.map(Ok),
        });
        created.await?
    }

    /// Changes a command; none where there is none or nothing changes.
    pub async fn change_command(
        &self,
        id: CommandId,
        change: Change,
    ) -> Result<Option<Command>, StoreError> {
        self.write(move |tx| change_command(tx, &id, &change)).await
    }

    /// One command.
    pub fn command(&self, id: &CommandId) -> Result<Option<Command>, StoreError> {
        let table = self.read()?.open_table(COMMANDS)?;
        table.get(id.as_str())?.map(|row| parse(row.value(), A_COMMAND)).transpose()
    }

    /// The newest commands of a gateway, newest first.
    pub fn commands_of(&self, agent: &GatewayId, limit: usize) -> Result<Vec<Command>, StoreError> {
        let tx = self.read()?;
        let commands = tx.open_table(COMMANDS)?;
        let name = agent.as_str();
        let ages = tx.open_table(AGENT_COMMANDS)?;
        // 0xff is no byte of UTF-8, so nothing of this gateway lies above.
        let end = format!("{name}\0");
        ages.range((name, i64::MIN, "")..(end.as_str(), i64::MIN, ""))?
            .rev()
            .map(|row| {
                let key = row?.0;
                let id = key.value().2;
                let row = commands.get(id)?.ok_or(StoreError::Corrupt("the index of commands"))?;
                parse(row.value(), A_COMMAND)
            })
            .filter_map(readable)
            .take(limit)
            .collect()
    }

    /// Commands that the bridge still has something to do for.
    pub fn open_commands(&self) -> Result<Vec<Command>, StoreError> {
        let tx = self.read()?;
        let commands = tx.open_table(COMMANDS)?;
        let mut open = Vec::new();
        for row in tx.open_table(OPEN_COMMANDS)?.iter()? {
            if let Some(command) = commands.get(row?.0.value())? {
                open.extend(readable(parse(command.value(), A_COMMAND)).transpose()?);
            }
        }
        Ok(open)
    }

    /// Stores a template in place of the one of the same finger.
    pub async fn put_template(&self, template: Template) -> Result<(), StoreError> {
        self.write(move |tx| put_template(tx, &template)).await
    }

    /// A user's templates.
    pub fn templates(&self, user: &UserId) -> Result<Vec<Template>, StoreError> {
        let table = self.read()?.open_table(TEMPLATES)?;
        let end = format!("{user}\0");
        table
            .range((user.as_str(), "")..(end.as_str(), ""))?
            .map(|row| parse(row?.1.value(), "a template"))
            .collect()
    }

    /// Deletes a user's templates; how many there were.
    pub async fn delete_templates(&self, user: UserId) -> Result<u64, StoreError> {
        self.write(move |tx| {
            let mut table = tx.open_table(TEMPLATES)?;
            let end = format!("{user}\0");
            let mut count = 0;
            table.retain_in((user.as_str(), "")..(end.as_str(), ""), |_, _| {
                count += 1;
                false
            })?;
            Ok(count)
        })
        .await
    }

    /// Up to which event the cloud's broker has all.
    pub fn published(&self) -> Result<u64, StoreError> {
        Ok(self.read()?.open_table(SETTINGS)?.get(PUBLISHED)?.map_or(0, |row| row.value()))
    }

    /// Notes up to which event the cloud's broker has all.
    pub async fn set_published(&self, index: u64) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.open_table(SETTINGS)?.insert(PUBLISHED, index)?;
            Ok(())
        })
        .await
    }

    /// Records set aside, oldest first.
    pub fn set_aside(&self, limit: usize) -> Result<Vec<SetAside>, StoreError> {
        let table = self.read()?.open_table(SET_ASIDE)?;
        let rows = table.iter()?.map(|row| parse(row?.1.value(), "a record set aside"));
        rows.filter_map(readable).take(limit).collect()
    }

    fn read(&self) -> Result<ReadTransaction, StoreError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(guard.as_ref().ok_or(StoreError::Closed)?.begin_read()?)
    }

    async fn write<T: Send + 'static>(
        &self,
        apply: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match self.refusal() {
            Some(reason) => Err(reason),
            None => self.submit(apply).await,
        }
    }

    /// Also during an outage.
    async fn submit<T: Send + 'static>(
        &self,
        apply: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, answer) = Job::new(apply);
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::GivenUp)?
    }
}

fn make_tables(database: &Database) -> Result<(), StoreError> {
    let tx = database.begin_write()?;
    tx.open_table(EVENTS)?;
    tx.open_table(EVENT_IDS)?;
    tx.open_table(AGENT_EVENTS)?;
    tx.open_table(CURSORS)?;
    tx.open_table(SET_ASIDE)?;
    tx.open_table(AGENTS)?;
    tx.open_table(PROBES)?;
    tx.open_table(COMMANDS)?;
    tx.open_table(AGENT_COMMANDS)?;
    tx.open_table(COMMAND_AGES)?;
    tx.open_table(OPEN_COMMANDS)?;
    tx.open_table(TEMPLATES)?;
    tx.open_table(SETTINGS)?;
    Ok(tx.commit()?)
}

fn json<T: Serialize>(row: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(row).map_err(|error| StoreError::Database(error.to_string()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Corrupt(what))
}

/// A cursor whose counts add up.
fn sound(cursor: Cursor) -> Result<Cursor, StoreError> {
    if cursor.is_sound() { Ok(cursor) } else { Err(StoreError::Corrupt(A_CURSOR)) }
}

/// A row that can't be read is told of and passed over, so that it holds up none of the others.
fn readable<T>(row: Result<T, StoreError>) -> Option<Result<T, StoreError>> {
    match row {
        Err(StoreError::Corrupt(what)) => {
            tracing::error!("{what} can't be read, and is passed over");
            None
        }
        row => Some(row),
    }
}

#[cfg(test)]
mod tests;
