//! gemel-perf: load with verification and percentiles.

fn main() {}
