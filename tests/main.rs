//! End to end: the real binary in separate processes, real clients, real files. What each part does
//! by itself is tested in its crate.
#![allow(clippy::unwrap_used)] // A test fails by panicking, its support code too.

mod support;

mod broker_access;
mod command_line;
mod demo;
mod enrol_from_cloud;
mod faults;
mod full_disk;
mod hostile_clients;
mod identify_by_touch;
mod journal_tool;
mod kills;
mod link_faults;
mod local_api;
mod mosquitto_broker;
mod outage;
mod page;
mod template_tool;
