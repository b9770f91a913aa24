//! The edge: readers, sessions, journal, uplink, local API. See ARCHITECTURE.md for the map.
//!
//! | module | job |
//! |---|---|
//! | [`config`] | the configuration file's keys |
//! | [`journal`] | the redb file: one writer thread, group commit, lanes, cursors, tables |
//! | [`keys`] | master key, link secret, sealing |
//! | [`readers`] | reader hosts (child processes), presence, ids, idle modes |
//! | [`session`] | pure: scan, enrolment, verification, identification of one reader |
//! | [`operation`] | what callers start, await and cancel |
//! | [`templates`] | enrolled templates, sealed; scan marks |
//! | [`command`] | commands: once, never late, with a durable result |
//! | [`edge`] | the on-site broker: publishes what the journal holds, takes commands |
//! | [`uplink`] | the link to the bridge: pure core and its driver |
//! | [`api`] | the documented REST and WebSocket service |
#![forbid(unsafe_code)]

pub mod api;
pub mod command;
pub mod config;
pub mod edge;
pub mod journal;
pub mod keys;
pub mod operation;
pub mod readers;
pub mod session;
pub mod templates;
pub mod uplink;
