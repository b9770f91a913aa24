//! Commands: once, never late, with a durable result.
