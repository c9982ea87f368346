//! gemel-perf: load with verification and percentiles.
