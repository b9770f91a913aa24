//! The configuration file's keys, their defaults and units.
