//! What the proofs of the broker share: they drive it from outside, through its ports and its public
//! interface, as anybody could.
//!
//! | module | what |
//! |---|---|
//! | `packets` | MQTT's packets as bytes, also wrong ones |
//! | `client` | a client that says what it is told |
//! | `ways` | streams over TLS and WebSocket |
//! | `subject` | the broker under proof, or a bare rumqttd to show what it is proof against |
//! | `attack` | K1 to K9 |
//! | `ledger`, `load` | well-behaved clients, and whether they lost anything |
//! | `measured` | the broker in a process of its own, and how long messages take |
//! | `burden` | what fills memory or takes time |
//! | `soak` | one run: a broker, load, an attack, a verdict |
#![allow(dead_code)] // Each program uses a part of it.

pub(crate) mod attack;
pub(crate) mod burden;
pub(crate) mod client;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod measured;
pub(crate) mod packets;
pub(crate) mod random;
pub(crate) mod soak;
pub(crate) mod subject;
pub(crate) mod ways;
