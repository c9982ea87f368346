//! Small-scope exhaustive models: every order of events over one or two blocks, two nodes and an arbiter, with the
//! project's own decision functions, and with each rule broken in turn.

mod config;
mod log;
