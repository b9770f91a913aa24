//! One client's session: who it is, what it may do, how it ends.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rumqttd::protocol::PublishProperties;
use tokio_util::sync::CancellationToken;
use topics::{Role, Root};

use crate::{
    front::Peer,
    guard::Subscriptions,
    notices::Say,
    refusal::Refusal,
    shared::{Shared, Who},
    traffic,
    wire::Version,
};

/// Locks, also after a panic of another holder: what the lock guards is valid between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a session may do.
#[derive(Debug, Clone)]
pub(crate) enum Rights {
    Role(Role),
    /// Our own line to the inner broker: the beat, and the wills of others.
    Internal {
        /// What it publishes counts as published with this QoS.
        qos: u8,
        /// It speaks for the session's user, who is charged as if it did so itself.
        charged: bool,
    },
}

/// Where the watchdog's beat goes: outside every root and the link, so nobody is granted it.
pub(crate) const BEAT_TOPIC: &str = "ridgeway-broker/beat";

impl Rights {
    pub(crate) fn may_publish(&self, root: &Root, topic: &str) -> bool {
        match self {
            Rights::Role(role) => role.may_publish(root, topic),
            Rights::Internal { .. } => true,
        }
    }

    pub(crate) fn may_subscribe(&self, root: &Root, filter: &str) -> bool {
        match self {
            Rights::Role(role) => role.may_subscribe(root, filter),
            Rights::Internal { .. } => filter == BEAT_TOPIC,
        }
    }
}

/// A client's will. rumqttd never sees it: it publishes the wrong one when a client comes back
/// quickly, so the front publishes it when the session is over.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) topic: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Option<PublishProperties>,
    pub(crate) delay: Duration,
}

/// What CONNECT and CONNACK agree beyond what rumqttd knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Granted {
    pub(crate) assigned_client_id: Option<String>,
    pub(crate) keep_alive_secs: Option<u16>,
    /// How long the session goes on when the connection is over.
    pub(crate) expiry_secs: u32,
    /// The largest packet that the client takes.
    pub(crate) max_packet_bytes: Option<u32>,
    /// How many messages with QoS 1 and 2 it takes at a time.
    pub(crate) receive_max: Option<u16>,
}

/// Why the front ends a session that did nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kick {
    TakenOver,
    Shutdown,
    /// Its user was removed or changed.
    Revoked,
    /// The inner broker was: the last packet may be half sent, so there is nothing more to say.
    Replaced,
}

impl Kick {
    pub(crate) fn reason_code(self) -> Option<u8> {
        match self {
            Kick::TakenOver => Some(0x8E),
            Kick::Shutdown => Some(0x8B),
            Kick::Revoked => Some(0x98),
            Kick::Replaced => None,
        }
    }
}

/// What went through one connection, since it began.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Packets from the client other than acknowledgements.
    pub(crate) packets: AtomicU64,
    /// Messages that rumqttd dropped because the client took them too slowly.
    pub(crate) lost: AtomicU64,
}

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) user: String,
    pub(crate) client_id: String,
    pub(crate) rights: Rights,
    pub(crate) version: Version,
    pub(crate) peer: Peer,
    pub(crate) granted: Granted,
    /// What it is subscribed to; with a session that goes on, from earlier connections too.
    pub(crate) subscriptions: Mutex<Subscriptions>,
    /// How long the session goes on when the connection is over; DISCONNECT may change it.
    pub(crate) expiry_secs: AtomicU32,
    will: Mutex<Option<Will>>,
    refused: OnceLock<Refusal>,
    /// Its user is not what it was.
    pub(crate) revoked: CancellationToken,
    /// What went through this connection.
    pub(crate) meter: Meter,
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
        rights: Rights,
        version: Version,
        peer: Peer,
        granted: Granted,
        will: Option<Will>,
    ) -> Arc<Self> {
        Arc::new(Self {
            user,
            client_id,
            rights,
            version,
            peer,
            expiry_secs: AtomicU32::new(granted.expiry_secs),
            granted,
            subscriptions: Mutex::default(),
            will: Mutex::new(will),
            refused: OnceLock::new(),
            revoked: CancellationToken::new(),
            meter: Meter::default(),
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
    pub(crate) fn refuse(&self, shared: &Shared, refusal: Refusal, what: &str) {
        if self.refused.set(refusal).is_ok() {
            self.warn(shared, refusal, what);
        }
    }

    /// Refuses something that the protocol can answer, so that the client may stay.
    pub(crate) fn warn(&self, shared: &Shared, refusal: Refusal, what: &str) {
        shared.tell_refusal(refusal, self.who(), what);
    }

    /// Counts messages that rumqttd dropped on their way here.
    pub(crate) fn lose(&self, shared: &Shared, messages: u64) {
        shared.counters.lost.fetch_add(messages, Ordering::Relaxed);
        let all = self.meter.lost.fetch_add(messages, Ordering::Relaxed) + messages;
        let key = format!("slow|{}|{}", self.user, self.client_id);
        if shared.notices.note(Instant::now(), key) != Say::No {
            tracing::warn!(
                broker = %shared.name, user = %self.user, client = %self.client_id.escape_debug(),
                peer = %self.peer.address, lost = all,
                "a subscriber is too slow and loses messages; it finds them at GET /api/events"
            );
        }
    }

    /// The QoS that a PUBLISH of this session with `qos` counts as.
    pub(crate) fn published_qos(&self, qos: u8) -> u8 {
        match self.rights {
            Rights::Internal { qos, .. } => qos,
            Rights::Role(_) => qos,
        }
    }

    /// For log lines.
    pub(crate) fn who(&self) -> Who<'_> {
        Who { user: &self.user, client: &self.client_id, address: self.peer.address }
    }

    /// To whom is charged what it makes us keep: names, retained messages.
    pub(crate) fn charged(&self) -> traffic::User<'_> {
        match &self.rights {
            Rights::Internal { charged: false, .. }
            | Rights::Role(Role::EdgeGateway(_) | Role::Bridge) => traffic::User::Own,
            Rights::Internal { charged: true, .. }
            | Rights::Role(
                Role::CloudGateway(_)
                | Role::Platform
                | Role::Panel(_)
                | Role::Viewer
                | Role::Custom { .. },
            ) => traffic::User::Other(&self.user),
        }
    }
}
