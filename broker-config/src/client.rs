//! What the MQTT clients of both sides share: rumqttc's options with its traps closed, and a back-off.
//!
//! rumqttc's packet limit is 10 KiB unless told otherwise, a keep-alive below a second panics, and
//! pending publishes are lost on its own reconnect: make a new event loop for each connection, after
//! [`Backoff::next`].

use std::{sync::Arc, time::Duration};

use rumqttc::{NetworkOptions, TlsConfiguration, Transport, tokio_rustls::rustls::ClientConfig};

use crate::Secret;

/// A broker to connect to, and as whom.
#[derive(Clone)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// 1883 or 8883, usually.
    pub port: u16,
    /// Unique among the broker's clients, without `/ + # $`.
    pub client_id: String,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// At least a second.
    pub keep_alive: Duration,
    /// Both ways.
    pub max_packet_bytes: usize,
    /// For `mqtts`.
    pub tls: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{} as {}", self.user, self.host, self.port, self.client_id)
    }
}

/// Messages of an MQTT 5 client that may be unacknowledged, more than ours send. rumqttc has room for
/// each from the start, and for 65 535 of them without a limit: 12 MB.
const IN_FLIGHT: u16 = 256;

impl Target {
    /// A target without TLS, with a keep-alive of 15 s and packets up to 288 KiB.
    pub fn new(host: impl Into<String>, port: u16, client_id: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            client_id: client_id.into(),
            user: String::new(),
            password: Secret::from(""),
            keep_alive: Duration::from_secs(15),
            max_packet_bytes: 288 << 10,
            tls: None,
        }
    }

    /// With a user.
    #[must_use]
    pub fn login(mut self, user: impl Into<String>, password: Secret) -> Self {
        self.user = user.into();
        self.password = password;
        self
    }

    /// Options for MQTT 3.1.1, clean session.
    pub fn v4(&self) -> rumqttc::MqttOptions {
        let mut options = rumqttc::MqttOptions::new(&self.client_id, &self.host, self.port);
        options
            .set_keep_alive(self.keep_alive.max(Duration::from_secs(1)))
            .set_clean_session(true)
            .set_credentials(&self.user, self.password.expose())
            .set_max_packet_size(self.max_packet_bytes, self.max_packet_bytes);
        if let Some(tls) = &self.tls {
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls.clone())));
        }
        options
    }

    /// Options for MQTT 5, clean start.
    pub fn v5(&self) -> rumqttc::v5::MqttOptions {
        let mut options = rumqttc::v5::MqttOptions::new(&self.client_id, &self.host, self.port);
        options
            .set_keep_alive(self.keep_alive.max(Duration::from_secs(1)))
            .set_clean_start(true)
            .set_credentials(&self.user, self.password.expose())
            .set_max_packet_size(u32::try_from(self.max_packet_bytes).ok())
            .set_outgoing_inflight_upper_limit(IN_FLIGHT);
        options.set_network_options(at_once(options.network_options()));
        if let Some(tls) = &self.tls {
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls.clone())));
        }
        options
    }
}

/// Network options under which a small packet does not wait for the acknowledgement of the one before
/// it (40 ms each way on Linux). [`Target::v5`] has them; a 3.1.1 event loop is to be given them.
#[must_use]
pub fn at_once(mut options: NetworkOptions) -> NetworkOptions {
    options.set_tcp_nodelay(true);
    options
}

/// Exponential back-off with full jitter: each wait is anywhere between nothing and the ceiling, and the
/// ceiling doubles up to the cap. Thousands of gateways that lost the same broker come back spread out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// The first ceiling.
    pub base: Duration,
    /// The last.
    pub cap: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// A back-off that starts below `base`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, ceiling: base.min(cap) }
    }

    /// The next wait, from a random number.
    pub fn next(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.cap);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random % nanos.saturating_add(1))
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.ceiling = self.base.min(self.cap);
    }
}

impl Default for Backoff {
    /// From half a second to 30 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_below_a_ceiling_that_doubles_up_to_the_cap(randoms in prop::collection::vec(any::<u64>(), 1..40)) {
            let mut backoff = Backoff::default();
            let mut ceiling = backoff.base;
            for random in randoms {
                prop_assert!(backoff.next(random) <= ceiling);
                ceiling = (ceiling * 2).min(backoff.cap);
            }
            backoff.reset();
            prop_assert!(backoff.next(u64::MAX) <= backoff.base);
        }
    }

    #[test]
    fn a_target_prints_no_password() {
        let target = Target::new("h", 1883, "c").login("u", Secret::from("hidden"));
        assert_eq!(format!("{target:?}"), "u@h:1883 as c");
        assert!(!format!("{:?}", target.password).contains("hidden"));
    }
}
