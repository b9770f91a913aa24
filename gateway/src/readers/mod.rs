//! Reader hosts, presence, ids, idle modes.
//!
//! | part | job |
//! |---|---|
//! | `registry` | ids by serial number, remembered; what each reader looks like now |
//! | `dispatch` | one task: what the host reports, to the reader that it is about |
//! | `reader` | one task a reader: drives its [`Session`](crate::session::Session), commits, then tells |
//! | `engine` | merge, match and search in the host; the gallery kept in step with the stored templates |
//!
//! ```text
//!   host ── events ──▶ dispatch ── inputs ──▶ reader task ── batch ──▶ journal
//!                                              ▲      │ after the commit
//!                         operations ── start ─┘      └──▶ answers, arm, calculations
//! ```

pub(crate) mod dispatch;
pub(crate) mod engine;
pub(crate) mod reader;
pub(crate) mod registry;

pub use engine::{EngineSettings, EngineState};
pub use registry::ReaderView;
