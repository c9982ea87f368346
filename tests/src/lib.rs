//! Tests across crates: tidy, proto, sim, end to end.
