//! The ZKFinger SDK (`libzkfp`): loaded with libloading, run in a child process.
//!
//! Vendor code may crash, hang or leak; the process that uses it must not. So the library is loaded
//! by a child (the *host*), which the parent starts, watches and starts again:
//!
//! ```no_run
//! # async fn example() -> Result<(), zkfp::ReaderError> {
//! use tokio::sync::mpsc;
//! use zkfp::{HostConfig, HostEvent, ReaderHost};
//!
//! let (events, mut inbox) = mpsc::channel(64);
//! let host = ReaderHost::spawn(HostConfig::default(), events);
//! while let Some(event) = inbox.recv().await {
//!     match event {
//!         HostEvent::Devices(devices) => {
//!             for device in devices {
//!                 host.arm(&device.serial, true).await?;
//!             }
//!         }
//!         HostEvent::Touch(touch) => println!("{}: quality {}", touch.serial, touch.quality),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The executable that [`HostConfig::exe`] names must call [`host::run`] when it is started with
//! [`HostConfig::args`].
//!
//! | module | holds |
//! |---|---|
//! | [`parent`] | [`ReaderHost`]: start, watch, restart; requests with a deadline |
//! | [`host`] | the child: one thread for all SDK calls, one for each direction of the socket |
//! | [`config`], [`event`], [`error`], [`template`] | what goes in and comes out |
//! | [`find`] | where the libraries lie |
//! | `library`, `sdk`, `codes` | the SDK's symbols, and its calls as safe functions |
//! | `frame`, `message` | what parent and child say to each other |
//!
//! Unix only: the two sides share a socket pair.

#![warn(clippy::undocumented_unsafe_blocks, unsafe_op_in_unsafe_fn)]

pub mod codes;
pub mod config;
pub mod error;
pub mod event;
pub mod find;
mod frame;
pub mod host;
mod library;
mod message;
pub mod parent;
mod sdk;
pub mod serial;
pub mod template;

pub use config::HostConfig;
pub use error::ReaderError;
pub use event::{Device, DownReason, HostEvent, Touch};
pub use library::LoadError;
pub use parent::{Fid, Match, ReaderHost};
pub use serial::Serial;
pub use template::SdkTemplate;
