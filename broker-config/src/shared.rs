//! What front, guard, watchdog and wills share: the configuration, who is connected, who waits.
//!
//! rumqttd is confused by a client that comes back while its earlier connection ends. So the front ends
//! the earlier one first, and gives ids of its own ([`crate::slots`]).

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Instant,
};

use topics::Root;

use crate::{
    config::{BrokerConfig, Limits, StartError},
    notices::{Notices, Say},
    places::Places,
    rate::Throttle,
    refusal::{Counters, Refusal},
    retained::Retained,
    session::{Session, lock},
    slots::{Seat, Slots, Wish},
    tls::Acceptor,
    traffic::Traffic,
    users::Users,
};

/// One user may keep a quarter of all sessions that outlive their connection.
const USERS_SHARE: usize = 4;

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
    /// By user; there are only as many as users.
    throttles: Mutex<HashMap<String, Arc<Mutex<Throttle>>>>,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    /// By user, then by client id.
    live: HashMap<String, HashMap<String, Arc<Session>>>,
    slots: Slots,
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
            throttles: Mutex::default(),
            sessions: Mutex::default(),
            limits,
        }))
    }

    /// What all connections of the session's user share.
    pub(crate) fn throttle_of(&self, session: &Session, now: Instant) -> Arc<Mutex<Throttle>> {
        let new = || {
            let of_user = Throttle::of_user(&session.rights, self.limits.client_rates, now);
            Arc::new(Mutex::new(of_user))
        };
        lock(&self.throttles).entry(session.user.clone()).or_insert_with(new).clone()
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

    /// Ends the sessions of a user that isn't what it was, and those that wait for it to come back.
    pub(crate) fn revoke(&self, user: &str) {
        let mut sessions = lock(&self.sessions);
        if let Some(of_user) = sessions.live.get(user) {
            of_user.values().for_each(|session| session.revoked.cancel());
        }
        // What it was subscribed to, it may not be any more.
        sessions.slots.forget_user(user);
    }

    /// A place in rumqttd for a registered session, which learns what it is subscribed to there.
    pub(crate) fn take_seat(&self, session: &Session, wish: Wish) -> Result<Seat, Refusal> {
        let max = self.limits.max_kept_sessions;
        let max = (max, max.div_ceil(USERS_SHARE));
        let (user, client_id) = (&session.user, &session.client_id);
        let (seat, subscriptions) =
            lock(&self.sessions).slots.take(user, client_id, wish, Instant::now(), max)?;
        *lock(&session.subscriptions) = subscriptions;
        Ok(seat)
    }

    /// Gives a place back when the connection is over; `safe` if rumqttd is through with it.
    pub(crate) fn leave_seat(&self, session: &Session, seat: &Seat, safe: bool) {
        let subscriptions = std::mem::take(&mut *lock(&session.subscriptions));
        let (user, client_id) = (&session.user, &session.client_id);
        let slots = &mut lock(&self.sessions).slots;
        if safe {
            let expiry_secs = match session.revoked.is_cancelled() {
                true => 0,
                false => session.expiry_secs.load(Ordering::Relaxed),
            };
            slots.leave(user, client_id, seat, subscriptions, expiry_secs, Instant::now());
        } else {
            slots.lose(user, client_id, seat);
        }
    }

    /// How many client ids rumqttd has seen.
    #[cfg(test)]
    pub(crate) fn slots_used(&self) -> u32 {
        lock(&self.sessions).slots.last()
    }

    /// Bytes of a packet after its fixed header: payload, topic and properties.
    pub(crate) fn max_packet_bytes(&self) -> usize {
        self.limits.max_payload_bytes + MAX_OVERHEAD_BYTES
    }

    /// A new inner broker knows no sessions and no names.
    pub(crate) fn forget_inner(&self) {
        lock(&self.sessions).slots.forget_all();
        self.traffic.forget();
    }

    /// Logs a refusal, unless the same was logged a moment ago.
    pub(crate) fn tell_refusal(&self, refusal: Refusal, who: Who<'_>, what: &str) {
        self.counters.refuse(refusal);
        // A name that nobody has proved yet is no key: there are as many as somebody likes to make up.
        let user = if who.client.is_empty() { "" } else { who.user };
        let key = format!("{}|{}|{user}", refusal.name(), who.address.ip());
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
