//! Every reason to turn a client or a packet away, with its name in counters and its MQTT codes.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $v5:literal;)*) => {
        /// Why a client or a packet was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)*];

            /// Its name in counters and log lines.
            pub fn name(self) -> &'static str {
                match self { $(Refusal::$name => $text,)* }
            }

            /// MQTT 5's reason code, in CONNACK or DISCONNECT.
            pub(crate) fn reason_code(self) -> u8 {
                match self { $(Refusal::$name => $v5,)* }
            }
        }
    };
}

refusals! {
    /// As many clients as may be are there.
    TooManyConnections, "too_many_connections", 0x97;
    /// As many clients as may be from this address are there.
    TooManyFromAddress, "too_many_from_address", 0x97;
    /// As many clients of this user as may be are there.
    TooManyOfUser, "too_many_of_user", 0x97;
    /// No PROXY header where one is needed, or not from a proxy that may send one.
    Proxy, "proxy_header", 0x87;
    /// No TLS handshake, or none with a certificate that we trust.
    Tls, "tls_handshake", 0x87;
    /// No WebSocket handshake for the subprotocol `mqtt`.
    WebSocket, "websocket_handshake", 0x87;
    /// A web page of an origin that may not connect.
    Origin, "origin", 0x87;
    /// CONNECT didn't arrive in time.
    SlowConnect, "slow_connect", 0x87;
    /// The first bytes are no CONNECT.
    NotMqtt, "not_mqtt", 0x81;
    /// Neither MQTT 3.1.1 nor 5.
    ProtocolVersion, "protocol_version", 0x84;
    /// Unknown user or wrong password.
    BadCredentials, "bad_credentials", 0x86;
    /// Too many wrong passwords came from this address; those who are known still get in.
    TooManyFailures, "too_many_failures", 0x86;
    /// MQTT 5's extended authentication is not offered.
    AuthMethod, "auth_method", 0x8C;
    /// A client id with `/ + # $`, control characters, or too long (K4).
    ClientId, "client_id", 0x85;
    /// The will's topic isn't one this user may publish to.
    Will, "will", 0x87;
    /// As many kept sessions as may be are there.
    TooManySessions, "too_many_sessions", 0x97;
    /// The broker behind the front doesn't answer just now.
    Unavailable, "unavailable", 0x88;
    /// A packet that can't be decoded.
    Malformed, "malformed", 0x81;
    /// A packet that has no place here: a second CONNECT, UNSUBACK from a client (K8)…
    Protocol, "protocol", 0x82;
    /// Larger than allowed.
    TooLarge, "too_large", 0x95;
    /// No topic that exists in MQTT, or one that rumqttd can't bear (K1).
    TopicName, "topic_name", 0x90;
    /// The user has used as many different topics as it may.
    TooManyTopics, "too_many_topics", 0x97;
    /// The user's retained messages take as much as they may.
    RetainedFull, "retained_full", 0x97;
    /// The user may not publish there.
    Publish, "publish", 0x87;
    /// A retained command would be carried out again by everyone who subscribes.
    RetainedCommand, "retained_command", 0x9A;
    /// A topic alias that was not agreed.
    TopicAlias, "topic_alias", 0x94;
    /// No filter that exists in MQTT.
    TopicFilter, "topic_filter", 0x8F;
    /// The user may not subscribe that.
    Subscribe, "subscribe", 0x87;
    /// Shared subscriptions aren't offered (K3).
    SharedSubscription, "shared_subscription", 0x9E;
    /// One client holds as many filters, or its user has used as many different ones, as may be.
    TooManyFilters, "too_many_filters", 0x97;
    /// More in flight than may be: QoS 2 messages, or packets behind an UNSUBSCRIBE.
    ReceiveMaximum, "receive_maximum", 0x93;
    /// Nothing was heard of it for one and a half times its keep-alive.
    KeepAlive, "keep_alive", 0x8D;
    /// It takes no bytes any more.
    Stalled, "stalled", 0x80;
}

impl Refusal {
    /// MQTT 3.1.1's CONNACK return code.
    pub(crate) fn return_code(self) -> u8 {
        match self {
            Refusal::ProtocolVersion => 1,
            Refusal::ClientId => 2,
            Refusal::TooManyConnections
            | Refusal::TooManyFromAddress
            | Refusal::TooManyOfUser
            | Refusal::TooManySessions
            | Refusal::Unavailable => 3,
            Refusal::BadCredentials | Refusal::TooManyFailures => 4,
            Refusal::SlowConnect
            | Refusal::Proxy
            | Refusal::Tls
            | Refusal::WebSocket
            | Refusal::Origin
            | Refusal::TooManyTopics
            | Refusal::RetainedFull
            | Refusal::NotMqtt
            | Refusal::AuthMethod
            | Refusal::Will
            | Refusal::Malformed
            | Refusal::Protocol
            | Refusal::TooLarge
            | Refusal::TopicName
            | Refusal::Publish
            | Refusal::RetainedCommand
            | Refusal::TopicAlias
            | Refusal::TopicFilter
            | Refusal::Subscribe
            | Refusal::SharedSubscription
            | Refusal::TooManyFilters
            | Refusal::ReceiveMaximum
            | Refusal::KeepAlive
            | Refusal::Stalled => 5,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) wills: AtomicU64,
    pub(crate) rebuilds: AtomicU64,
    /// The watchdog's beats that were answered.
    pub(crate) beats: AtomicU64,
    /// Messages that clients published.
    pub(crate) published: AtomicU64,
    /// Messages handed to subscribers, each once a subscriber.
    pub(crate) delivered: AtomicU64,
    /// Messages that slow subscribers lost.
    pub(crate) lost: AtomicU64,
    /// How often a client that sent too fast was made to wait.
    pub(crate) throttled: AtomicU64,
    refusals: [AtomicU64; Refusal::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            accepted: zero(),
            wills: zero(),
            rebuilds: zero(),
            beats: zero(),
            published: zero(),
            delivered: zero(),
            lost: zero(),
            throttled: zero(),
            refusals: std::array::from_fn(|_| zero()),
        }
    }
}

impl Counters {
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Reasons that never occurred are left out.
    pub(crate) fn refusals(&self) -> BTreeMap<&'static str, u64> {
        Refusal::ALL
            .iter()
            .map(|r| (r.name(), self.refusals[*r as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
