//! To the dashboards: a broadcast of events in the order of their commits, and one of everything else.
//! Nobody waits for a socket that can't keep up. Of events it reads what it missed from the store (a
//! gateway's backlog can be larger than any queue); of the rest, which is little, it would have to
//! miss thousands, and is closed then.

use std::sync::Arc;

use tokio::sync::broadcast;
use topics::{GatewayId, ReaderId};

use crate::command::Command;

/// What dashboards are told.
#[derive(Debug, Clone)]
pub enum Told {
    /// An event, as the message to send.
    Event {
        /// Its place in the store.
        index: u64,
        /// Whose.
        agent: GatewayId,
        /// Of which reader.
        device: Option<ReaderId>,
        /// `{"type":"event",…}`
        message: String,
    },
    /// A command ended. Who sees the template is decided where it is sent.
    Ended(Box<Command>),
    /// A gateway came, went, or said something of itself.
    Agent {
        /// Which.
        agent: GatewayId,
        /// `{"type":"agent:…",…}`
        message: String,
    },
}

/// Messages other than events that a socket may be behind: one per command or change of a gateway.
const OTHER_MESSAGES: usize = 4096;

/// Where dashboards listen.
#[derive(Debug, Clone)]
pub struct Hub {
    events: broadcast::Sender<Arc<Told>>,
    other: broadcast::Sender<Arc<Told>>,
}

/// What one dashboard listens to. Events are to be taken first: what ends a command is told after the
/// command's events.
#[derive(Debug)]
pub struct Listening {
    /// Events.
    pub events: broadcast::Receiver<Arc<Told>>,
    /// Everything else.
    pub other: broadcast::Receiver<Arc<Told>>,
}

impl Hub {
    /// A hub whose sockets may be `depth` events behind before they read the store.
    pub fn new(depth: usize) -> Self {
        Self { events: broadcast::channel(depth).0, other: broadcast::channel(OTHER_MESSAGES).0 }
    }

    /// Tells all.
    pub fn tell(&self, told: Told) {
        let channel = match &told {
            Told::Event { .. } => &self.events,
            Told::Ended(_) | Told::Agent { .. } => &self.other,
        };
        // Fails only when nobody listens.
        let _ = channel.send(Arc::new(told));
    }

    /// Whether anybody listens to events. Who comes later finds in the store what was not told.
    pub fn is_heard(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Listens from now on.
    pub fn listen(&self) -> Listening {
        Listening { events: self.events.subscribe(), other: self.other.subscribe() }
    }
}
