//! From the link to the store: what gateways send is checked, stored once, and acknowledged after
//! the commit.
//!
//! [`cursor`] and [`link`] decide without I/O or clock; `reader` decodes what comes; `driver` waits for inputs
//! and commits them in rounds.

pub mod cursor;
pub(crate) mod driver;
pub mod link;
pub(crate) mod reader;
pub(crate) mod round;
pub(crate) mod unreadable;

#[cfg(test)]
mod tests;
