//! The whole gateway as its clients see it: HTTP, WebSocket and MQTT, simulated readers behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod edge;
mod http;
mod socket;
mod start;
mod support;

/// Not a test: the readers' child process.
#[test]
#[ignore = "started by the gateways of the other tests"]
fn reader_host() {
    support::be_the_host();
}
