//! How long a reactor's thread runs at a time, where it shares its core.
//!
//! Beside a thread that never gives its core away a reactor sleeps, and is to be let in when there is work, not when that thread's slice
//! ends, which takes milliseconds: a thread with a short slice is (Linux 6.12). A thread that yields needs an ordinary one: with a short
//! one its yields give the core away for so short a time that the others it waits for come to nothing. Where the system cannot, slices
//! stay what they are.

use ::core::time::Duration;

use engine_sys::schedule;

/// As short as Linux has them.
const SHORT: Duration = Duration::from_micros(100);

/// What kind of slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// As the thread had them.
    Ordinary,
    /// So that it is let in.
    Short,
}

/// Of the thread that carries out what they say.
#[derive(Debug)]
pub(crate) struct Slices {
    ordinary: Option<Duration>,
    now: Slice,
}

impl Slices {
    /// Those of the calling thread.
    pub(crate) fn of_this_thread() -> Self {
        let ordinary = schedule::slice().ok().filter(|slice| !slice.is_zero());
        Self { ordinary, now: Slice::Ordinary }
    }

    /// From now on it has these.
    pub(crate) fn have(&mut self, slice: Slice) {
        let Some(ordinary) = self.ordinary.filter(|_| self.now != slice) else { return };
        let wanted = if slice == Slice::Short { SHORT } else { ordinary };
        // It is not tried again where it is not permitted.
        if schedule::ask_for_slices_of(wanted).is_err() {
            self.ordinary = None;
        }
        self.now = slice;
    }
}
