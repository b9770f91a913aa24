//! The guard: stands between a client's bytes and rumqttd's router.
//!
//! Each connection has its own, which knows whose it is. After CONNECT, which the front judges, every
//! packet gets its verdict here, and the router sees only what it can bear.
//!
//! | packet | verdict |
//! |---|---|
//! | CONNECT | a second one is refused |
//! | PUBLISH | topic is UTF-8, ASCII at its start (K1), without wildcards; alias resolved (5); granted; not a retained command; not too large; one topic of as many as the user may have; numbered (`stamp`); a repeated QoS 2 one is answered, not passed on |
//! | PUBACK, PUBREC, PUBCOMP | put in order; what nobody waits for is dropped |
//! | PUBREL | without properties; an unknown one is answered, not passed on |
//! | SUBSCRIBE | each filter that is not valid, not granted, shared (K3), or one too many for the client or its user, fails in SUBACK; the client stays |
//! | UNSUBSCRIBE | passed on when the router has seen the messages before it; one UNSUBACK comes back, whatever rumqttd sends |
//! | PINGREQ | passed on |
//! | DISCONNECT | ends the connection, not passed on: rumqttd's router dies of it (K2) |
//! | CONNACK, SUBACK, UNSUBACK, PINGRESP, AUTH | refused (K8) |
//! | anything malformed, or with wrong flags | refused |
//!
//! A refusal ends the connection; the front tells MQTT 5 clients why. In the other direction properties
//! are taken off for 3.1.1 clients (K7), and nothing is written any more once the end was seen.
//!
//! rumqttd offers no way to answer a client from here, at the right place in the order. So an *echo*, a
//! SUBSCRIBE without filters, makes the router send a SUBACK, which becomes the real answer on its way out.

use crate::{names, refusal::Refusal, session::Rights, shared::Shared};

mod delivery;
mod link;
mod losses;
mod output;
mod replay;
mod room;
mod stamp;
mod subscription;
mod verdicts;
mod window;

pub(crate) use link::{End, Link};
pub(crate) use subscription::{Subscriptions, number as qos_number};

/// Whether someone with `rights` may publish to `topic`.
pub(crate) fn check_topic(shared: &Shared, rights: &Rights, topic: &[u8]) -> Result<(), Refusal> {
    let topic = std::str::from_utf8(topic).map_err(|_| Refusal::TopicName)?;
    if !names::is_topic(topic) {
        return Err(Refusal::TopicName);
    }
    if !rights.may_publish(&shared.root, topic) {
        return Err(Refusal::Publish);
    }
    Ok(())
}

/// Whether `topic` is where commands are asked for.
pub(crate) fn is_command_request(shared: &Shared, topic: &[u8]) -> bool {
    std::str::from_utf8(topic)
        .ok()
        .and_then(|topic| topics::Topic::parse(&shared.root, topic).ok())
        .is_some_and(|topic| matches!(topic, topics::Topic::CommandRequest { .. }))
}

#[cfg(test)]
mod tests;
