//! The `pagewarden` command.
fn main() {}
