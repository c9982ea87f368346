//! One rule broken on purpose: the switch, which layers share, is the engine's.

pub use engine::mutation::*;
