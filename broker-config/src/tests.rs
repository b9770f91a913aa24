//! The broker against real clients and raw bytes, over real sockets.

mod bounds;
mod clients;
mod conformance;
mod external;
mod front;
mod grants;
mod harness;
mod hostile;
mod protocol;
mod watchdog;
mod ways;
