//! Command numbers of a session, which its connections share (RFC 7143 section 4.2.2.1).
//!
//! Owner: the session's connections, each of which holds a [`Numbering`]. A number is taken once: by the request that has it, or
//! by an ABORT TASK that says that the request will never come.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{RefCell, RefMut};

use crate::pdu::Header;
use crate::serial;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The request's.
    Now,
    /// That of others, which are still to come.
    Later,
    /// Never: outside the window, or taken before.
    Never,
}

/// What a session does with a request that comes before its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gaps {
    /// There is one connection, on which nothing is lost: the initiator skipped a number.
    Impossible,
    /// It waits: what is missing comes on another connection, or again.
    Wait,
}

#[derive(Debug)]
pub(super) struct Numbers {
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
    /// The last MaxCmdSN that the initiator was told of.
    told_max: u32,
    /// Numbered commands that may be open at once.
    depth: u32,
    /// Those that are.
    open: u32,
    /// Requests that the owner has not been told of.
    untold: usize,
    /// Numbers beyond the next one that were given up.
    given_up: Vec<u32>,
    gaps: Gaps,
}

/// A session's numbers in the hand of one of its connections.
#[derive(Clone, Debug)]
pub(super) struct Numbering(Rc<RefCell<Numbers>>);

impl Numbering {
    pub(super) fn new(depth: u32) -> Self {
        let numbers = Numbers {
            exp_cmd_sn: 0,
            max_cmd_sn: 0,
            told_max: 0,
            depth,
            open: 0,
            untold: 0,
            given_up: Vec::new(),
            gaps: Gaps::Impossible,
        };
        Self(Rc::new(RefCell::new(numbers)))
    }

    /// For the length of one call: nothing is called from inside.
    pub(super) fn get(&self) -> RefMut<'_, Numbers> {
        self.0.borrow_mut()
    }

    /// Puts the window into a header.
    pub(super) fn window(&self, header: Header) -> Header {
        let mut numbers = self.0.borrow_mut();
        numbers.told_max = numbers.max_cmd_sn;
        header.with_exp_cmd_sn(numbers.exp_cmd_sn).with_max_cmd_sn(numbers.max_cmd_sn)
    }
}

impl Numbers {
    /// The number of the first login request.
    pub(super) fn begin(&mut self, cmd_sn: u32) {
        (self.exp_cmd_sn, self.max_cmd_sn, self.told_max) = (cmd_sn, cmd_sn, cmd_sn);
    }

    /// The session is granted so many open commands.
    pub(super) fn set_depth(&mut self, depth: u32, gaps: Gaps) {
        (self.depth, self.gaps) = (depth, gaps);
        self.update_window();
    }

    pub(super) fn gaps(&self) -> Gaps {
        self.gaps
    }

    /// A number is missing from now on, which comes again: what is behind it waits.
    pub(super) fn wait_for_gaps(&mut self) {
        self.gaps = Gaps::Wait;
    }

    /// True when the window has opened and the initiator has not been told.
    pub(super) fn has_opened(&self) -> bool {
        self.told_max != self.max_cmd_sn
    }

    pub(super) fn expected(&self) -> u32 {
        self.exp_cmd_sn
    }

    /// Whose turn it is when a numbered request comes.
    pub(super) fn turn(&self, number: u32) -> Turn {
        //= rfc7143#section-4.2.2.1(b): requests outside the window are silently ignored.
        if serial::before(number, self.exp_cmd_sn)
            || serial::before(self.max_cmd_sn, number)
            || self.given_up.contains(&number)
        {
            Turn::Never
        } else if number == self.exp_cmd_sn {
            Turn::Now
        } else {
            Turn::Later
        }
    }

    /// Takes the number whose turn it is.
    pub(super) fn advance(&mut self) {
        loop {
            //= rfc7143#section-4.2.2.1(a): each request that is not immediate counts, once.
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
            let Some(at) = self.given_up.iter().position(|number| *number == self.exp_cmd_sn) else { return };
            self.given_up.swap_remove(at);
        }
    }

    /// Counts a number as received whose request will never come; one that was taken stays so.
    pub(super) fn give_up(&mut self, number: u32) {
        match self.turn(number) {
            Turn::Now => {
                self.advance();
                self.update_window();
            }
            // No more of them than the window has places.
            Turn::Later => self.given_up.push(number),
            Turn::Never => {}
        }
    }

    /// True for a number that nothing has taken.
    pub(super) fn is_missing(&self, number: u32) -> bool {
        self.turn(number) != Turn::Never
    }

    /// True when the owner has been told of every request that had its turn: the next may have its own.
    pub(super) fn is_told(&self) -> bool {
        self.untold == 0
    }

    /// A request waits for the owner to hear of it.
    pub(super) fn tell(&mut self) {
        self.untold += 1;
    }

    /// The owner heard of so many, or never will.
    pub(super) fn told(&mut self, count: usize) {
        self.untold -= count;
    }

    /// A numbered command is open from now on.
    pub(super) fn open(&mut self) {
        self.open += 1;
        self.update_window();
    }

    /// A numbered command is open no more.
    pub(super) fn close(&mut self) {
        self.open -= 1;
        self.update_window();
    }

    /// Moves the window; its upper edge never goes back.
    pub(super) fn update_window(&mut self) {
        let room = self.depth.saturating_sub(self.open);
        let edge = self.exp_cmd_sn.wrapping_add(room).wrapping_sub(1);
        //= rfc7143#section-4.2.2.1(d): MaxCmdSN does not go back.
        if serial::before(self.max_cmd_sn, edge) {
            self.max_cmd_sn = edge;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_taken_once_whatever_was_given_up() {
        let numbering = Numbering::new(4);
        let mut numbers = numbering.get();
        numbers.begin(u32::MAX);
        numbers.set_depth(4, Gaps::Wait);
        assert_eq!(numbers.turn(u32::MAX), Turn::Now);
        assert_eq!((numbers.turn(2), numbers.turn(3)), (Turn::Later, Turn::Never), "four places");
        numbers.give_up(0);
        numbers.give_up(1);
        numbers.give_up(7);
        assert!(!numbers.is_missing(0) && numbers.is_missing(2));
        numbers.advance();
        assert_eq!((numbers.expected(), numbers.turn(2)), (2, Turn::Now), "two were given up");
        numbers.give_up(2);
        assert_eq!(numbers.expected(), 3);
        assert_eq!(numbers.turn(2), Turn::Never);
    }
}
