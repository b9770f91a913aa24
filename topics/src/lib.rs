//! The wire contract of Ridgeway: what a gateway, its bridge and everyone who listens to them say
//! to each other. Nothing here does I/O, reads a clock or draws a random number.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | gateway, reader, user, command, event and store ids |
//! | [`time`] | [`Timestamp`]: UTC milliseconds |
//! | [`topic`] | every MQTT topic as one enum; formatting and parsing are inverses |
//! | [`grant`] | who may publish and subscribe what |
//! | [`lane`] | the four lanes and their order |
//! | [`event`] | the events and their lanes, as JSON |
//! | [`record`] | an event as the journal keeps it and the link carries it |
//! | [`link`] | the frames between gateway and bridge |
//! | [`command`] | requests, states and responses of commands |
//! | [`status`] | the retained state of a gateway and of a reader |
//! | [`error`] | the documented error codes |
//!
//! ```
//! use topics::{EventType, GatewayId, ReaderId, Root, Topic};
//!
//! let topic = Topic::ReaderEvent {
//!     gateway: "hq-lobby".parse()?,
//!     reader: "device-001".parse()?,
//!     event: EventType::ScanComplete,
//! };
//! let text = topic.format(&Root::default());
//! assert_eq!(text, "ridgeway/v1/hq-lobby/readers/device-001/events/scan/complete");
//! assert_eq!(Topic::parse(&Root::default(), &text)?, topic);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod command;
pub mod error;
pub mod event;
pub mod grant;
pub mod id;
pub mod lane;
pub mod link;
pub mod record;
pub mod status;
pub mod time;
pub mod topic;

pub use command::{CommandName, CommandRequest, CommandResponse, CommandStatus};
pub use error::{ErrorBody, ErrorCode};
pub use event::{Clock, Event, EventBody, EventType};
pub use grant::Role;
pub use id::{BootId, CommandId, EventId, EventIds, GatewayId, IdError, ReaderId, StoreId, UserId};
pub use lane::Lane;
pub use record::{Draft, Record, RecordKind};
pub use status::{
    ConnectionState, GatewayStatus, ReaderInfo, ReaderState, ReaderSummary, UplinkState,
};
pub use time::Timestamp;
pub use topic::{Root, Topic, TopicError};
