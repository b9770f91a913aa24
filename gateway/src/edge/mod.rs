//! The on-site broker: publishes what the journal holds, takes commands.
