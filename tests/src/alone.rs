//! One at a time, of the tests that bound a stall and of those that load the machine: on two cores they would measure each other.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::{Mutex, MutexGuard, PoisonError};

static ALONE: Mutex<()> = Mutex::new(());

thread_local! {
    /// The turn of this thread's test, while it has one.
    static TURN: RefCell<Weak<MutexGuard<'static, ()>>> = const { RefCell::new(Weak::new()) };
}

/// While this is held, no other test that asks for it runs. A test may ask more than once.
#[derive(Debug)]
pub struct Alone {
    _turn: Rc<MutexGuard<'static, ()>>,
}

/// Waits for its turn. A test that failed does not keep the others from theirs.
pub fn alone() -> Alone {
    TURN.with_borrow_mut(|held| {
        let turn =
            held.upgrade().unwrap_or_else(|| Rc::new(ALONE.lock().unwrap_or_else(PoisonError::into_inner)));
        *held = Rc::downgrade(&turn);
        Alone { _turn: turn }
    })
}
