//! Task sets: which commands of a logical unit may be carried out now, and which wait for others (SAM-5 section 8).
//!
//! ```text
//! SIMPLE         waits for every older ORDERED command, and for every HEAD OF QUEUE command
//! ORDERED        waits for every older command, and for every HEAD OF QUEUE command
//! HEAD OF QUEUE  waits for nobody
//! ```
//!
//! A command that waits is dormant, any other one is enabled; it is in the set until it has ended. SIMPLE commands beside each other
//! are counted, not listed.

use alloc::collections::VecDeque;

use crate::sense::Sense;

/// A task attribute (SAM-5 section 8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Beside others, in any order. Commands without an attribute have this one.
    Simple,
    /// After all that came before, and before all that comes after.
    Ordered,
    /// At once.
    HeadOfQueue,
}

impl Attribute {
    /// From the number that iSCSI has for it (RFC 7143 section 11.3.1(b)).
    ///
    /// # Errors
    /// ACA, where there is no auto contingent allegiance and never will be, and numbers that name nothing.
    pub fn from_code(code: u8) -> Result<Self, Sense> {
        match code {
            0 | 1 => Ok(Self::Simple),
            2 => Ok(Self::Ordered),
            3 => Ok(Self::HeadOfQueue),
            _ => Err(Sense::INVALID_MESSAGE),
        }
    }
}

/// A command's place in a task set.
#[derive(Debug, PartialEq, Eq)]
pub enum Member {
    /// It waits for nobody.
    Head,
    /// It is in this run.
    Of(u64),
}

/// Commands that stand together: one that is ORDERED, or SIMPLE ones that nothing came between.
#[derive(Debug)]
struct Run {
    attribute: Attribute,
    open: u32,
}

/// These go beside each other.
const BOTH_SIMPLE: (Attribute, Attribute) = (Attribute::Simple, Attribute::Simple);

/// See the module.
#[derive(Debug, Default)]
pub struct TaskSet {
    /// The oldest first.
    runs: VecDeque<Run>,
    /// Number of the oldest run.
    first: u64,
    /// HEAD OF QUEUE commands.
    heads: u32,
}

impl TaskSet {
    /// A command that comes.
    pub fn enter(&mut self, attribute: Attribute) -> Member {
        match attribute {
            Attribute::HeadOfQueue => {
                self.heads += 1;
                return Member::Head;
            }
            Attribute::Simple => match self.runs.back_mut() {
                Some(Run { attribute: Attribute::Simple, open }) => *open += 1,
                _ => self.runs.push_back(Run { attribute, open: 1 }),
            },
            Attribute::Ordered => {
                self.runs.push_back(Run { attribute, open: 1 });
                self.drop_empty();
            }
        }
        Member::Of(self.first + self.runs.len() as u64 - 1)
    }

    /// Whether a command may be carried out. One that may goes on, whatever comes after it.
    pub fn is_enabled(&self, member: &Member) -> bool {
        match member {
            Member::Head => true,
            Member::Of(run) => self.heads == 0 && (*run == self.first || self.is_free(self.place_of(*run))),
        }
    }

    /// Whether a command that is carried out has others of the set wait for it, or may have.
    pub fn is_waited_for(&self, member: &Member) -> bool {
        match member {
            Member::Head => self.runs.iter().any(|run| run.open > 0),
            Member::Of(run) => {
                let at = self.place_of(*run);
                let beside = |run: &Run| (self.runs[at].attribute, run.attribute) == BOTH_SIMPLE;
                self.runs.range(at + 1..).any(|run| run.open > 0 && !beside(run))
            }
        }
    }

    fn place_of(&self, run: u64) -> usize {
        usize::try_from(run - self.first).expect("runs are few")
    }

    /// Whether nothing that is open stands in the way of a run. Commands may end, by an abort, before their time.
    fn is_free(&self, at: usize) -> bool {
        let own = self.runs[at].attribute;
        let beside = |run: &Run| (own, run.attribute) == BOTH_SIMPLE;
        self.runs.range(..at).all(|run| run.open == 0 || beside(run))
    }

    /// A command that has ended.
    #[expect(clippy::needless_pass_by_value, reason = "the place is given back")]
    pub fn leave(&mut self, member: Member) {
        match member {
            Member::Head => self.heads -= 1,
            Member::Of(run) => {
                let at = self.place_of(run);
                self.runs[at].open -= 1;
                self.drop_empty();
            }
        }
    }

    /// The oldest runs that are over go; a SIMPLE one that is the last stays, for the next command.
    fn drop_empty(&mut self) {
        while let Some(run) = self.runs.front()
            && run.open == 0
            && (self.runs.len() > 1 || run.attribute == Attribute::Ordered)
        {
            self.runs.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The standard's words, over a list of all commands in the order in which they came.
    fn may_begin(older: &[Attribute], all: &[Attribute], own: Attribute) -> bool {
        let no_heads = !all.contains(&Attribute::HeadOfQueue);
        match own {
            Attribute::HeadOfQueue => true,
            Attribute::Simple => no_heads && !older.contains(&Attribute::Ordered),
            Attribute::Ordered => no_heads && older.is_empty(),
        }
    }

    /// Whether one waits for another, as far as those two go.
    fn waits(all: &[Attribute], one: usize, other: usize) -> bool {
        match (all[one], all[other]) {
            (Attribute::HeadOfQueue, _) => false,
            (_, Attribute::HeadOfQueue) => true,
            (Attribute::Simple, Attribute::Simple) => false,
            _ => other < one,
        }
    }

    fn attribute() -> impl Strategy<Value = Attribute> {
        prop_oneof![Just(Attribute::Simple), Just(Attribute::Ordered), Just(Attribute::HeadOfQueue)]
    }

    proptest! {
        #[test]
        fn a_command_is_enabled_exactly_when_the_standard_says_so(
            moves in proptest::collection::vec((attribute(), any::<bool>(), any::<usize>()), 1..60),
        ) {
            let mut set = TaskSet::default();
            let mut open: Vec<(Attribute, Member)> = Vec::new();
            for (attribute, ends, which) in moves {
                if ends && !open.is_empty() {
                    let (_, member) = open.remove(which % open.len());
                    set.leave(member);
                } else {
                    open.push((attribute, set.enter(attribute)));
                }
                let all: Vec<Attribute> = open.iter().map(|(attribute, _)| *attribute).collect();
                for (at, (own, member)) in open.iter().enumerate() {
                    let expected = may_begin(&all[..at], &all, *own);
                    prop_assert_eq!(set.is_enabled(member), expected, "{:?} at {}", &all, at);
                    let expected = (0..all.len()).any(|other| waits(&all, other, at));
                    prop_assert_eq!(set.is_waited_for(member), expected, "{:?} at {}", &all, at);
                }
            }
            for (_, member) in open {
                set.leave(member);
            }
            prop_assert!(set.heads == 0 && set.runs.len() <= 1);
        }
    }

    #[test]
    fn only_attributes_that_mean_something_are_taken() {
        assert_eq!([0, 1].map(Attribute::from_code), [Ok(Attribute::Simple); 2]);
        assert_eq!(Attribute::from_code(2), Ok(Attribute::Ordered));
        assert_eq!(Attribute::from_code(3), Ok(Attribute::HeadOfQueue));
        assert!((4..8).all(|code| Attribute::from_code(code) == Err(Sense::INVALID_MESSAGE)));
    }
}
