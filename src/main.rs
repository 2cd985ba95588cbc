//! The `targetwatch` command.

fn main() {}
