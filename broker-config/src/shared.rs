//! What front, guard, watchdog and wills share: the configuration, who is connected, who waits.
//!
//! rumqttd keeps something for every client id that it ever saw, and is confused by one that comes back
//! while its earlier connection ends. So the front ends the earlier one first, and gives ids of its own:
//! numbered ones in turn for clean sessions, one each for kept sessions, which never meet those of
//! another user.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use topics::Root;

use crate::{
    config::{BrokerConfig, Limits, StartError},
    guard::Subscriptions,
    notices::{Notices, Say},
    places::Places,
    refusal::{Counters, Refusal},
    retained::Retained,
    session::{Session, lock},
    tls::Acceptor,
    traffic::Traffic,
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
    pub(crate) tls: Option<Acceptor>,
    pub(crate) places: Arc<Places>,
    pub(crate) traffic: Traffic,
    pub(crate) retained: Retained,
    pub(crate) notices: Notices,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    /// By user, then by client id.
    live: HashMap<String, HashMap<String, Arc<Session>>>,
    /// Who left state behind in rumqttd, by id inside; what they are subscribed to there.
    kept: HashMap<String, Arc<Mutex<Subscriptions>>>,
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
            counters: Counters::default(),
            users: Users::new(config)?,
            tls: config.tls.as_ref().map(Acceptor::new).transpose()?,
            places: Places::new(limits.max_connections, limits.max_connections_per_address),
            traffic: Traffic::new(&limits),
            retained: Retained::default(),
            notices: Notices::default(),
            sessions: Mutex::default(),
            limits,
        }))
    }

    /// Everybody who is connected.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).live.values().flat_map(HashMap::values).cloned().collect()
    }

    /// How many are connected.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.sessions).live.values().map(HashMap::len).sum()
    }

    /// Registers `session` as the only one of its client, if its user may have one more.
    pub(crate) fn register(&self, session: &Arc<Session>) -> Result<(), Taken> {
        let mut sessions = lock(&self.sessions);
        let of_user = sessions.live.entry(session.user.clone()).or_default();
        if let Some(earlier) = of_user.get(&session.client_id) {
            return Err(Taken::ByEarlier(earlier.clone()));
        }
        if of_user.len() >= self.limits.max_connections_per_user {
            return Err(Taken::ByOthers);
        }
        of_user.insert(session.client_id.clone(), session.clone());
        Ok(())
    }

    /// Ends what [`register`](Self::register) began.
    pub(crate) fn unregister(&self, session: &Session) {
        let mut sessions = lock(&self.sessions);
        if let Some(of_user) = sessions.live.get_mut(&session.user) {
            of_user.remove(&session.client_id);
            if of_user.is_empty() {
                sessions.live.remove(&session.user);
            }
        }
        drop(sessions);
        session.gone.cancel();
    }

    /// Ends the sessions of a user that isn't what it was.
    pub(crate) fn revoke(&self, user: &str) {
        if let Some(of_user) = lock(&self.sessions).live.get(user) {
            of_user.values().for_each(|session| session.revoked.cancel());
        }
    }

    /// The client id that rumqttd shall see. It keeps something for every id it ever saw, so clients
    /// with clean sessions take turns with numbered ones; kept sessions have their own.
    pub(crate) fn inner_id(
        &self,
        user: &str,
        client_id: &str,
        clean: bool,
    ) -> Result<InnerId, Refusal> {
        let kept = format!("kept|{user}|{client_id}");
        let mut sessions = lock(&self.sessions);
        let was_kept = sessions.kept.contains_key(&kept);
        if clean && !was_kept {
            let slot = sessions.free_slots.pop().unwrap_or_else(|| {
                sessions.next_slot += 1;
                sessions.next_slot
            });
            return Ok(InnerId::Slot(slot));
        }
        if clean {
            sessions.kept.remove(&kept);
        } else if !was_kept {
            if sessions.kept.len() >= self.limits.max_kept_sessions {
                return Err(Refusal::TooManySessions);
            }
            sessions.kept.insert(kept.clone(), Arc::default());
        }
        Ok(InnerId::Kept(kept))
    }

    /// What a session is subscribed to: remembered for a kept one, nothing yet for another.
    pub(crate) fn subscriptions(&self, id: &InnerId) -> Arc<Mutex<Subscriptions>> {
        match id {
            InnerId::Slot(_) => Arc::default(),
            InnerId::Kept(name) => lock(&self.sessions).kept.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Gives a numbered id back once rumqttd is through with it.
    pub(crate) fn release(&self, id: &InnerId) {
        if let InnerId::Slot(slot) = id {
            lock(&self.sessions).free_slots.push(*slot);
        }
    }

    /// Bytes of a packet after its fixed header: payload, topic and properties.
    pub(crate) fn max_packet_bytes(&self) -> usize {
        self.limits.max_payload_bytes + MAX_OVERHEAD_BYTES
    }

    /// A new inner broker knows no sessions and no names.
    pub(crate) fn forget_inner(&self) {
        lock(&self.sessions).kept.clear();
        self.traffic.forget();
    }

    /// Logs a refusal, unless the same was logged a moment ago.
    pub(crate) fn tell_refusal(&self, refusal: Refusal, who: Who<'_>, what: &str) {
        self.counters.refuse(refusal);
        let key = format!("{}|{}|{}", refusal.name(), who.address.ip(), who.user);
        if let Say::Now { unsaid } = self.notices.note(Instant::now(), key) {
            tracing::warn!(
                broker = %self.name, reason = refusal.name(), user = %who.user.escape_debug(),
                client = %who.client.escape_debug(), peer = %who.address, what = %what.escape_debug(),
                unsaid, "refused"
            );
        }
    }
}

/// Why a session can't be registered.
pub(crate) enum Taken {
    /// The client is there on another connection, which must end first.
    ByEarlier(Arc<Session>),
    /// Its user has as many connections as it may.
    ByOthers,
}

/// Of whom a log line speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    /// Empty where it isn't known.
    pub(crate) user: &'a str,
    /// Empty where it isn't known.
    pub(crate) client: &'a str,
    pub(crate) address: SocketAddr,
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
