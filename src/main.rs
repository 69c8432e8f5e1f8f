//! The command `outrigger`: see `cli/`.

fn main() {}
