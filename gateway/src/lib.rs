//! The edge: readers, sessions, journal, uplink, local API.
