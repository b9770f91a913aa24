//! What the broker did and holds, as one value, and as text for Prometheus.

use std::{collections::BTreeMap, fmt::Write as _, sync::atomic::Ordering};

use crate::{config::Transport, refusal::Refusal, session::Rights, shared::Shared, wire::Version};

/// What happened since the broker started, and what there is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Clients connected now.
    pub connections: usize,
    /// The same, by what they are.
    pub clients: BTreeMap<Clients, usize>,
    /// Connections open now, also those that haven't said who they are.
    pub sockets: usize,
    /// Clients let in so far.
    pub accepted: u64,
    /// What was refused, by reason; reasons that never occurred are left out.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Messages that clients published.
    pub published: u64,
    /// Messages handed to subscribers, each once a subscriber.
    pub delivered: u64,
    /// Messages that subscribers lost because they took them too slowly.
    pub lost: u64,
    /// Who of those connected now has lost messages, the worst first.
    pub slow: Vec<SlowClient>,
    /// How often a client that sent too fast was made to wait.
    pub throttled: u64,
    /// Wills published.
    pub wills: u64,
    /// How often the inner broker was replaced.
    pub rebuilds: u64,
    /// How often the watchdog found it well, about twice a second.
    pub beats: u64,
    /// Different topics since the inner broker began.
    pub topics: usize,
    /// Different filters since the inner broker began.
    pub filters: usize,
    /// Retained messages.
    pub retained: usize,
    /// Bytes of their payloads.
    pub retained_bytes: usize,
    /// What the inner broker's logs hold, estimated from what went in.
    pub held_bytes: u64,
}

/// A kind of clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clients {
    /// `3.1.1` or `5`.
    pub version: &'static str,
    /// The role's name.
    pub role: &'static str,
    /// `tcp`, `tls`, `ws` or `wss`.
    pub transport: &'static str,
}

/// A client that takes its messages too slowly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowClient {
    /// Its user.
    pub user: String,
    /// Its client id.
    pub client_id: String,
    /// Messages lost on this connection.
    pub lost: u64,
}

impl Stats {
    pub(crate) fn of(shared: &Shared) -> Self {
        let sessions = shared.sessions();
        let mut clients = BTreeMap::<_, usize>::new();
        let mut slow = Vec::new();
        for session in &sessions {
            let kind = Clients {
                version: match session.version {
                    Version::V311 => "3.1.1",
                    Version::V5 => "5",
                },
                role: match &session.rights {
                    Rights::Role(role) => role.name(),
                    Rights::Internal { .. } => "internal",
                },
                transport: match (session.peer.transport, session.peer.tls) {
                    (Transport::Tcp, false) => "tcp",
                    (Transport::Tcp, true) => "tls",
                    (Transport::WebSocket, false) => "ws",
                    (Transport::WebSocket, true) => "wss",
                },
            };
            *clients.entry(kind).or_default() += 1;
            let lost = session.meter.lost.load(Ordering::Relaxed);
            if lost > 0 {
                let (user, client_id) = (session.user.clone(), session.client_id.clone());
                slow.push(SlowClient { user, client_id, lost });
            }
        }
        slow.sort_by_key(|client| std::cmp::Reverse(client.lost));
        let counters = &shared.counters;
        let names = shared.traffic.amount();
        let (retained, retained_bytes) = shared.retained.amount();
        Self {
            connections: sessions.len(),
            clients,
            sockets: shared.places.taken(),
            accepted: counters.accepted.load(Ordering::Relaxed),
            refusals: counters.refusals(),
            published: counters.published.load(Ordering::Relaxed),
            delivered: counters.delivered.load(Ordering::Relaxed),
            lost: counters.lost.load(Ordering::Relaxed),
            slow,
            throttled: counters.throttled.load(Ordering::Relaxed),
            wills: counters.wills.load(Ordering::Relaxed),
            rebuilds: counters.rebuilds.load(Ordering::Relaxed),
            beats: counters.beats.load(Ordering::Relaxed),
            topics: names.topics,
            filters: names.filters,
            retained,
            retained_bytes,
            held_bytes: names.held_bytes,
        }
    }

    /// How often `refusal` occurred.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refusals.get(refusal.name()).copied().unwrap_or(0)
    }

    /// In Prometheus' text format; `broker` becomes a label, beside those that the values have. No label
    /// holds what a client chose.
    pub fn prometheus(&self, broker: &str) -> String {
        let mut text = Text { out: String::new(), broker };
        text.head("mqtt_clients", "gauge", "Clients connected now.");
        for (kind, count) in &self.clients {
            let labels =
                [("version", kind.version), ("role", kind.role), ("transport", kind.transport)];
            text.value("mqtt_clients", &labels, *count as u64);
        }
        text.head("mqtt_refusals_total", "counter", "Clients and packets refused, by reason.");
        for (reason, count) in &self.refusals {
            text.value("mqtt_refusals_total", &[("reason", reason)], *count);
        }
        let slow = self.slow.len() as u64;
        for (name, kind, help, value) in [
            ("mqtt_sockets", "gauge", "Connections open now.", self.sockets as u64),
            ("mqtt_accepted_total", "counter", "Clients let in.", self.accepted),
            ("mqtt_published_total", "counter", "Messages from clients.", self.published),
            ("mqtt_delivered_total", "counter", "Messages to subscribers.", self.delivered),
            ("mqtt_lost_total", "counter", "Messages that slow subscribers lost.", self.lost),
            ("mqtt_slow_clients", "gauge", "Clients connected now that lost messages.", slow),
            (
                "mqtt_throttled_total",
                "counter",
                "Waits of clients that send too fast.",
                self.throttled,
            ),
            ("mqtt_wills_total", "counter", "Wills published.", self.wills),
            ("mqtt_rebuilds_total", "counter", "Replacements of the inner broker.", self.rebuilds),
            ("mqtt_beats_total", "counter", "Watchdog's beats that were answered.", self.beats),
            ("mqtt_topics", "gauge", "Different topics.", self.topics as u64),
            ("mqtt_filters", "gauge", "Different filters.", self.filters as u64),
            ("mqtt_retained", "gauge", "Retained messages.", self.retained as u64),
            (
                "mqtt_retained_bytes",
                "gauge",
                "What they take: topics, payloads, properties.",
                self.retained_bytes as u64,
            ),
            ("mqtt_held_bytes", "gauge", "Held in logs, estimated.", self.held_bytes),
        ] {
            text.head(name, kind, help);
            text.value(name, &[], value);
        }
        text.out
    }
}

struct Text<'a> {
    out: String,
    broker: &'a str,
}

impl Text<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = write!(self.out, "# HELP ridgeway_{name} {help}\n# TYPE ridgeway_{name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let _ = write!(self.out, "ridgeway_{name}{{broker=\"{}\"", self.broker);
        for (label, value) in labels {
            let _ = write!(self.out, ",{label}=\"{value}\"");
        }
        let _ = writeln!(self.out, "}} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_reads_it() {
        let kind = Clients { version: "5", role: "panel", transport: "tls" };
        let stats = Stats {
            clients: [(kind, 3)].into(),
            refusals: [("topic_name", 2)].into(),
            lost: 7,
            ..Stats::default()
        };
        let text = stats.prometheus("edge");
        for line in [
            "# TYPE ridgeway_mqtt_clients gauge",
            "ridgeway_mqtt_clients{broker=\"edge\",version=\"5\",role=\"panel\",transport=\"tls\"} 3",
            "ridgeway_mqtt_refusals_total{broker=\"edge\",reason=\"topic_name\"} 2",
            "ridgeway_mqtt_lost_total{broker=\"edge\"} 7",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
