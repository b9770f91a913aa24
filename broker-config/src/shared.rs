//! What front, guard, watchdog and wills share: the configuration, who is connected, who waits.
//!
//! rumqttd keeps something for every client id that it ever saw, and is confused by one that comes back
//! while its earlier connection ends. So the front ends the earlier one first, and gives ids of its own:
//! numbered ones in turn for clean sessions, one each for kept sessions, which never meet those of
//! another user.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use topics::Root;

use crate::{
    config::{BrokerConfig, Limits, StartError},
    refusal::{Counters, Refusal},
    session::{Session, lock},
    users::Users,
};

/// Room for topic and properties beside the payload.
const MAX_OVERHEAD_BYTES: usize = 8 << 10;

/// What front, guard, watchdog and wills share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) root: Root,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    pub(crate) users: Users,
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

impl Shared {
    pub(crate) fn new(
        config: &BrokerConfig,
        max_connections: usize,
    ) -> Result<Arc<Self>, StartError> {
        let limits = Limits {
            max_connections: config.limits.max_connections.min(max_connections),
            ..config.limits.clone()
        };
        Ok(Arc::new(Self {
            name: config.name.clone(),
            root: config.root.clone(),
            limits,
            counters: Counters::default(),
            users: Users::new(config)?,
            waiting: Mutex::default(),
            sessions: Mutex::default(),
            intruder_logged: AtomicBool::new(false),
        }))
    }

    /// Leaves a session for the guard. Dropping the ticket takes it back.
    pub(crate) fn admit(self: &Arc<Self>, session: Arc<Session>) -> io::Result<Ticket> {
        let name = crate::random_hex()?;
        lock(&self.waiting).insert(name.clone(), session);
        Ok(Ticket { shared: self.clone(), name })
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
        Ok(Place { shared: self.clone(), address })
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
    shared: Arc<Shared>,
    name: String,
}

impl Ticket {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the guard has taken the session: then it was really our guard that we reached.
    pub(crate) fn is_claimed(&self) -> bool {
        !lock(&self.shared.waiting).contains_key(&self.name)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.shared.waiting).remove(&self.name);
    }
}

/// A connection's place among those allowed.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = lock(&self.shared.sessions);
        sessions.connections -= 1;
        if let Some(here) = sessions.per_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                sessions.per_address.remove(&self.address);
            }
        }
    }
}
