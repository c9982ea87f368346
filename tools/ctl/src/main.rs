//! gemel: the administrator's command.

fn main() {}
