//! To the dashboards: one broadcast, in the order of the commits. A socket that can't keep up loses
//! its place in the ring and is closed; nobody waits for it.

use std::sync::Arc;

use tokio::sync::broadcast;
use topics::{GatewayId, ReaderId};

use crate::command::Command;

/// What dashboards are told.
#[derive(Debug, Clone)]
pub enum Told {
    /// An event, as the message to send.
    Event {
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

/// Where dashboards listen.
#[derive(Debug, Clone)]
pub struct Hub(broadcast::Sender<Arc<Told>>);

impl Hub {
    /// A hub whose sockets may be `depth` messages behind.
    pub fn new(depth: usize) -> Self {
        Self(broadcast::channel(depth).0)
    }

    /// Tells all.
    pub fn tell(&self, told: Told) {
        // Fails only when nobody listens.
        let _ = self.0.send(Arc::new(told));
    }

    /// Listens from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Told>> {
        self.0.subscribe()
    }
}
