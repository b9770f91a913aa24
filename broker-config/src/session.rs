//! One client's session, shared by the front that let it in and the guard that reads its packets.
//!
//! The front knows who the client is; rumqttd behind it doesn't, and any process of this machine can
//! reach rumqttd's loopback port. So the front leaves the session here under a random ticket, puts the
//! ticket into the CONNECT that it forwards, and the guard takes the session for it: once. Without a
//! ticket nobody gets further.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rumqttd::protocol::PublishProperties;
use tokio_util::sync::CancellationToken;
use topics::{Role, Root};

use crate::{
    config::{BrokerConfig, Limits, Secret},
    refusal::{Counters, Refusal},
    wire::Version,
};

/// Room for topic and properties beside the payload.
const MAX_OVERHEAD_BYTES: usize = 8 << 10;

/// Locks, also after a panic of another holder: what the lock guards is valid between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a session may do.
#[derive(Debug, Clone)]
pub(crate) enum Rights {
    Role(Role),
    /// Our own line to the inner broker: the beat, and the wills of others.
    Internal,
}

/// Where the watchdog's beat goes: outside every root and the link, so nobody is granted it.
pub(crate) const BEAT_TOPIC: &str = "ridgeway-broker/beat";

impl Rights {
    pub(crate) fn may_publish(&self, root: &Root, topic: &str) -> bool {
        match self {
            Rights::Role(role) => role.may_publish(root, topic),
            Rights::Internal => true,
        }
    }

    pub(crate) fn may_subscribe(&self, root: &Root, filter: &str) -> bool {
        match self {
            Rights::Role(role) => role.may_subscribe(root, filter),
            Rights::Internal => filter == BEAT_TOPIC,
        }
    }
}

/// A client's will. rumqttd never sees it: it publishes the wrong one when a client comes back
/// quickly, so the front publishes it when the session is over.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    pub(crate) properties: Option<PublishProperties>,
    pub(crate) delay: Duration,
}

/// What CONNACK says beyond rumqttd's own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Granted {
    pub(crate) assigned_client_id: Option<String>,
    pub(crate) keep_alive_secs: Option<u16>,
    pub(crate) session_expiry_secs: Option<u32>,
}

/// Why the front ends a session that did nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kick {
    TakenOver,
    Shutdown,
    /// The inner broker was: the last packet may be half sent, so there is nothing more to say.
    Replaced,
}

impl Kick {
    pub(crate) fn reason_code(self) -> Option<u8> {
        match self {
            Kick::TakenOver => Some(0x8E),
            Kick::Shutdown => Some(0x8B),
            Kick::Replaced => None,
        }
    }
}

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) user: String,
    pub(crate) client_id: String,
    /// The client id that rumqttd sees.
    pub(crate) inner_id: String,
    pub(crate) rights: Rights,
    pub(crate) version: Version,
    pub(crate) peer: SocketAddr,
    pub(crate) granted: Granted,
    will: Mutex<Option<Will>>,
    refused: OnceLock<Refusal>,
    /// rumqttd's task for it panicked: its inner id must not be used again.
    pub(crate) tainted: AtomicBool,
    /// The guard won't read any more: it saw DISCONNECT, or refused.
    pub(crate) closing: CancellationToken,
    /// The guard is gone, and rumqttd's router was told before.
    pub(crate) ended: CancellationToken,
    /// The client has come again on another connection.
    pub(crate) taken_over: CancellationToken,
    /// All is over, the will published.
    pub(crate) gone: CancellationToken,
}

impl Session {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        user: String,
        client_id: String,
        inner_id: String,
        rights: Rights,
        version: Version,
        peer: SocketAddr,
        granted: Granted,
        will: Option<Will>,
    ) -> Arc<Self> {
        Arc::new(Self {
            user,
            client_id,
            inner_id,
            rights,
            version,
            peer,
            granted,
            will: Mutex::new(will),
            refused: OnceLock::new(),
            tainted: AtomicBool::new(false),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            taken_over: CancellationToken::new(),
            gone: CancellationToken::new(),
        })
    }

    /// The client said goodbye: no will.
    pub(crate) fn disarm_will(&self) {
        lock(&self.will).take();
    }

    pub(crate) fn take_will(&self) -> Option<Will> {
        lock(&self.will).take()
    }

    /// Why it was turned away, if it was.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.refused.get().copied()
    }

    /// Refuses a packet for good: the first reason is logged and counted.
    pub(crate) fn refuse(&self, core: &Core, refusal: Refusal, what: &str) {
        if self.refused.set(refusal).is_ok() {
            self.warn(core, refusal, what);
        }
        self.closing.cancel();
    }

    /// Refuses something that the protocol can answer, so that the client may stay.
    pub(crate) fn warn(&self, core: &Core, refusal: Refusal, what: &str) {
        core.counters.refuse(refusal);
        tracing::warn!(
            broker = %core.name, user = %self.user, client = %self.client_id.escape_debug(),
            peer = %self.peer, reason = refusal.name(), what = %what.escape_debug(), "refused"
        );
    }
}

/// What front, guard, watchdog and wills share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) name: String,
    pub(crate) root: Root,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    users: HashMap<String, (Secret, Role)>,
    waiting: Mutex<HashMap<String, Arc<Session>>>,
    sessions: Mutex<Sessions>,
    /// Sessions refused at the inner port are logged once, then only counted.
    pub(crate) intruder_logged: AtomicBool,
}

#[derive(Debug, Default)]
struct Sessions {
    /// By user and client id.
    live: HashMap<(String, String), Arc<Session>>,
    per_address: HashMap<IpAddr, usize>,
    connections: usize,
    /// Who left state behind in rumqttd.
    kept: HashSet<(String, String)>,
    free_slots: Vec<u32>,
    next_slot: u32,
}

impl Core {
    pub(crate) fn new(config: &BrokerConfig, max_connections: usize) -> Arc<Self> {
        let limits = Limits {
            max_connections: config.limits.max_connections.min(max_connections),
            ..config.limits.clone()
        };
        let users = config
            .users
            .iter()
            .map(|user| (user.name.clone(), (user.password.clone(), user.role.clone())))
            .collect();
        Arc::new(Self {
            name: config.name.clone(),
            root: config.root.clone(),
            limits,
            counters: Counters::default(),
            users,
            waiting: Mutex::default(),
            sessions: Mutex::default(),
            intruder_logged: AtomicBool::new(false),
        })
    }

    /// The role of a user whose password this is. An unknown user costs a comparison too.
    pub(crate) fn authenticate(&self, name: &str, password: &str) -> Option<Role> {
        match self.users.get(name) {
            Some((secret, role)) => secret.matches(password).then(|| role.clone()),
            None => {
                let _ = Secret::from("no such user").matches(password);
                None
            }
        }
    }

    /// Leaves a session for the guard. Dropping the ticket takes it back.
    pub(crate) fn admit(self: &Arc<Self>, session: Arc<Session>) -> io::Result<Ticket> {
        let name = crate::random_hex()?;
        lock(&self.waiting).insert(name.clone(), session);
        Ok(Ticket { core: self.clone(), name })
    }

    /// The guard's side: the session for a ticket, once.
    pub(crate) fn claim(&self, ticket: &str) -> Option<Arc<Session>> {
        lock(&self.waiting).remove(ticket)
    }

    /// Counts a connection in, if there is room.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refusal> {
        let mut sessions = lock(&self.sessions);
        if sessions.connections >= self.limits.max_connections {
            return Err(Refusal::TooManyConnections);
        }
        let here = sessions.per_address.entry(address).or_default();
        if *here >= self.limits.max_connections_per_address {
            return Err(Refusal::TooManyFromAddress);
        }
        *here += 1;
        sessions.connections += 1;
        Ok(Place { core: self.clone(), address })
    }

    pub(crate) fn connections(&self) -> usize {
        lock(&self.sessions).live.len()
    }

    /// Registers `session` as the only one of its client, or gives the one that is there.
    pub(crate) fn register(&self, session: &Arc<Session>) -> Result<(), Arc<Session>> {
        let key = (session.user.clone(), session.client_id.clone());
        let mut sessions = lock(&self.sessions);
        match sessions.live.get(&key) {
            Some(earlier) => Err(earlier.clone()),
            None => {
                sessions.live.insert(key, session.clone());
                Ok(())
            }
        }
    }

    /// Ends what [`register`](Self::register) began.
    pub(crate) fn unregister(&self, session: &Session) {
        let key = (session.user.clone(), session.client_id.clone());
        lock(&self.sessions).live.remove(&key);
        session.gone.cancel();
    }

    /// The client id that rumqttd shall see. It keeps something for every id it ever saw, so clients
    /// with clean sessions take turns with numbered ones; kept sessions have their own.
    pub(crate) fn inner_id(
        &self,
        user: &str,
        client_id: &str,
        clean: bool,
    ) -> Result<InnerId, Refusal> {
        let key = (user.to_owned(), client_id.to_owned());
        let mut sessions = lock(&self.sessions);
        let was_kept = sessions.kept.contains(&key);
        if clean && !was_kept {
            let slot = sessions.free_slots.pop().unwrap_or_else(|| {
                sessions.next_slot += 1;
                sessions.next_slot
            });
            return Ok(InnerId::Slot(slot));
        }
        if clean {
            sessions.kept.remove(&key);
        } else if !was_kept {
            if sessions.kept.len() >= self.limits.max_kept_sessions {
                return Err(Refusal::TooManySessions);
            }
            sessions.kept.insert(key);
        }
        Ok(InnerId::Kept(format!("kept|{user}|{client_id}")))
    }

    /// Gives a numbered id back once rumqttd is through with it.
    pub(crate) fn release(&self, id: &InnerId, session: &Session) {
        if let InnerId::Slot(slot) = id
            && session.ended.is_cancelled()
            && !session.tainted.load(Ordering::Relaxed)
        {
            lock(&self.sessions).free_slots.push(*slot);
        }
    }

    /// Bytes of a packet after its fixed header: payload, topic and properties.
    pub(crate) fn max_packet_bytes(&self) -> usize {
        self.limits.max_payload_bytes + MAX_OVERHEAD_BYTES
    }

    /// A new inner broker knows no session.
    pub(crate) fn forget_kept_sessions(&self) {
        lock(&self.sessions).kept.clear();
    }
}

/// A client id inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InnerId {
    Slot(u32),
    Kept(String),
}

impl std::fmt::Display for InnerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InnerId::Slot(slot) => write!(f, "slot|{slot}"),
            InnerId::Kept(id) => f.write_str(id),
        }
    }
}

/// The right to one CONNECT at the inner port.
#[derive(Debug)]
pub(crate) struct Ticket {
    core: Arc<Core>,
    name: String,
}

impl Ticket {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the guard has taken the session: then it was really our guard that we reached.
    pub(crate) fn is_claimed(&self) -> bool {
        !lock(&self.core.waiting).contains_key(&self.name)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.core.waiting).remove(&self.name);
    }
}

/// A connection's place among those allowed.
#[derive(Debug)]
pub(crate) struct Place {
    core: Arc<Core>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = lock(&self.core.sessions);
        sessions.connections -= 1;
        if let Some(here) = sessions.per_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                sessions.per_address.remove(&self.address);
            }
        }
    }
}
