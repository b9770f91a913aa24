//! The redb file: one writer thread, group commit, lanes, cursors, tables.
