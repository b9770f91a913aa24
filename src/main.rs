//! The `ridgeway` command.

fn main() {}
