//! Reader hosts, presence, ids, idle modes.
