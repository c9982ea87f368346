//! gemeld: the node.

fn main() {}
