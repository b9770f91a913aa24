//! The wire contract of Ridgeway: ids, topics, event payloads, link frames. No I/O.
