//! What a command still has to do, in order. Most commands do one thing, which takes no memory of its own.

use std::collections::VecDeque;

use super::Step;

/// See the module. Invariant: what follows is there only behind a first.
#[derive(Debug, Default)]
pub(in crate::export) struct Steps {
    first: Option<Step>,
    rest: VecDeque<Step>,
}

impl Steps {
    /// What is done now.
    pub(in crate::export) fn front(&self) -> Option<&Step> {
        self.first.as_ref()
    }

    /// All, in order.
    pub(in crate::export) fn iter(&self) -> impl Iterator<Item = &Step> {
        self.first.iter().chain(&self.rest)
    }

    /// It is done.
    pub(in crate::export) fn pop_front(&mut self) -> Option<Step> {
        let done = self.first.take();
        self.first = self.rest.pop_front();
        done
    }

    /// This comes first.
    pub(in crate::export) fn push_front(&mut self, step: Step) {
        if let Some(second) = self.first.replace(step) {
            self.rest.push_front(second);
        }
    }

    /// This comes last.
    pub(in crate::export) fn push_back(&mut self, step: Step) {
        match &self.first {
            None => self.first = Some(step),
            Some(_) => self.rest.push_back(step),
        }
    }

    /// Nothing is to be done.
    pub(in crate::export) fn clear(&mut self) {
        self.first = None;
        self.rest.clear();
    }
}

impl Extend<Step> for Steps {
    fn extend<I: IntoIterator<Item = Step>>(&mut self, steps: I) {
        steps.into_iter().for_each(|step| self.push_back(step));
    }
}

impl FromIterator<Step> for Steps {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        let mut all = Self::default();
        all.extend(steps);
        all
    }
}

impl<const COUNT: usize> From<[Step; COUNT]> for Steps {
    fn from(steps: [Step; COUNT]) -> Self {
        steps.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use bdev::BlockRange;

    use super::*;

    fn step(lba: u64) -> Step {
        Step::Read(BlockRange::new(lba, 1))
    }

    fn rest(mut steps: Steps) -> Vec<u64> {
        let lbas = std::iter::from_fn(|| steps.pop_front());
        lbas.map(|step| if let Step::Read(range) = step { range.lba } else { panic!("a read") }).collect()
    }

    #[test]
    fn steps_keep_their_order_at_both_ends() {
        let mut steps = Steps::from([step(2), step(3)]);
        steps.push_front(step(1));
        steps.push_back(step(4));
        assert!(matches!(steps.front(), Some(Step::Read(range)) if range.lba == 1));
        assert_eq!(rest(steps), [1, 2, 3, 4]);
        let mut steps: Steps = (1..4).map(step).collect();
        steps.clear();
        assert!(steps.front().is_none());
        steps.push_back(step(7));
        steps.push_front(step(6));
        assert_eq!(rest(steps), [6, 7]);
    }
}
