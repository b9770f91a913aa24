//! Master key, link secret, sealing.
