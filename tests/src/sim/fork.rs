//! Two data sets that have gone on without each other, as hosts know them: which write each may hold (I11).
//!
//! A promotion by force sends hosts to a leg that lacks what was acknowledged without it. What that leg holds in each block is
//! then what was there first, and whatever hosts had been told before is lost by the operator's word: no more than that, as
//! long as the leg has all that was acknowledged while it counted. The other data set is known as it was, so that nothing of
//! the one shows in the other; and hosts may be sent back to it.
//!
//! A write that was under way at such a moment may show in either, or never: nobody can tell to which it went.

use std::collections::BTreeMap;

use engine::Instant;

use super::history::{Fate, History, Line, Value};

/// What hosts know of the data set that they do not use.
#[derive(Debug)]
pub(crate) struct DataSet {
    lines: BTreeMap<u64, Line>,
}

/// What was acknowledged in each block at some moment.
pub(crate) type Acknowledged = BTreeMap<u64, (Instant, Value)>;

impl History {
    /// What a leg that counts has, whatever comes.
    pub(crate) fn all_acknowledged(&self) -> Acknowledged {
        self.lines.iter().filter_map(|(block, line)| Some((*block, line.acknowledged?))).collect()
    }

    /// A leg that counted once, and holds this now, lacks nothing that was acknowledged then.
    ///
    /// # Errors
    /// It does.
    pub(crate) fn check_had(&self, had: &Acknowledged, held: &BTreeMap<u64, Value>) -> Result<(), String> {
        for (block, value) in held {
            if let Some(newer) = self.overwritten(&self.lines[block], *value, had.get(block).copied()) {
                return Err(format!(
                    "block {block} holds {value}, and {newer} had been acknowledged when the leg counted"
                ));
            }
        }
        Ok(())
    }

    /// From now on hosts use another data set, which holds this in each block that was ever used. Gives the one that they used.
    pub(crate) fn fork(&mut self, held: &BTreeMap<u64, Value>, now: Instant) -> DataSet {
        self.lead_astray();
        let lines = core::mem::take(&mut self.lines);
        for (block, line) in &lines {
            let base = held.get(block).copied().unwrap_or_default();
            let writes = self.strays(line).collect();
            let acknowledged = Some((now, base));
            let line = Line { base, since: now, writes, acknowledged, ..Line::default() };
            self.lines.insert(*block, line);
        }
        self.epoch = now;
        DataSet { lines }
    }

    /// From now on they use this one again. Gives the one that they used.
    pub(crate) fn go_back(&mut self, to: DataSet, now: Instant) -> DataSet {
        self.lead_astray();
        let lines = core::mem::replace(&mut self.lines, to.lines);
        for (block, left) in &lines {
            let strays: Vec<Value> = self.strays(left).collect();
            let line = self.lines.entry(*block).or_default();
            let others = strays.into_iter().filter(|value| !line.writes.contains(value)).collect::<Vec<_>>();
            line.writes.extend(others);
        }
        self.epoch = now;
        DataSet { lines }
    }

    /// A block of the leg that hosts do not use: what it held when they were sent away, or a write that was under way.
    ///
    /// # Errors
    /// It holds something else.
    pub(crate) fn check_kept(&self, kept: &DataSet, block: u64, value: Value) -> Result<(), String> {
        kept.lines.get(&block).map_or(Ok(()), |line| self.check_line_holds(line, block, value))
    }

    fn lead_astray(&mut self) {
        let open = |write: &super::history::Write| self.end(write).is_none();
        let astray: Vec<usize> = (0..self.writes.len()).filter(|at| open(&self.writes[*at])).collect();
        astray.into_iter().for_each(|at| self.writes[at].fate = Fate::Astray);
    }

    fn strays<'a>(&'a self, line: &'a Line) -> impl Iterator<Item = Value> + 'a {
        let stray = |value: &Value| self.writes[*value as usize - 1].fate == Fate::Astray;
        line.writes.iter().copied().filter(stray)
    }
}

#[cfg(test)]
mod tests {
    use gateway::StandbyMode;

    use super::super::history::Outcome;
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn written(history: &mut History, node: usize, from: u64, to: u64) -> Value {
        let value = history.invoke_write(7..8, 0, (node, 1), at(from));
        history.acknowledge(7..8, value, at(to));
        value
    }

    fn read(history: &mut History, value: Value, from: u64) -> Result<(), String> {
        history.read(7, value, (at(from), at(from + 1)), history.acknowledged(7))
    }

    /// Two writes, of which the leg that is promoted by force has the first.
    fn forked() -> (History, [Value; 2], DataSet) {
        let mut history = History::new(StandbyMode::Refuse);
        let first = written(&mut history, 0, 1, 2);
        let had = history.all_acknowledged();
        let second = written(&mut history, 0, 3, 4);
        let held = BTreeMap::from([(7, first)]);
        history.check_had(&had, &held).expect("it has what it had");
        assert!(
            history.check_had(&had, &BTreeMap::from([(7, 0)])).is_err(),
            "that was acknowledged while it counted"
        );
        assert!(history.check_had(&history.all_acknowledged(), &held).is_err());
        let kept = history.fork(&held, at(10));
        (history, [first, second], kept)
    }

    #[test]
    fn what_the_forced_leg_lacks_is_lost_and_nothing_else() {
        let (mut history, [first, second], kept) = forked();
        read(&mut history, first, 11).expect("it is there");
        assert!(read(&mut history, second, 11).is_err(), "it is not");
        assert!(read(&mut history, 0, 11).is_err(), "that was overwritten before");
        assert!(history.check_leg(7, second).is_err() && history.check_leg(7, first).is_ok());
        let third = written(&mut history, 1, 13, 14);
        read(&mut history, third, 15).expect("it is there");
        assert!(read(&mut history, first, 15).is_err(), "no more");
        assert!(history.check_kept(&kept, 7, second).is_ok());
        assert!(history.check_kept(&kept, 7, first).is_err() && history.check_kept(&kept, 7, third).is_err());
        assert_eq!(history.check(), Ok(()));
    }

    #[test]
    fn nothing_of_the_promoted_data_set_is_in_the_old_one() {
        let (mut history, [_, second], kept) = forked();
        let third = written(&mut history, 1, 13, 14);
        let promoted = history.go_back(kept, at(20));
        read(&mut history, second, 21).expect("it was acknowledged");
        assert!(read(&mut history, third, 21).is_err() && history.check_leg(7, third).is_err());
        assert!(history.check_kept(&promoted, 7, third).is_ok());
        assert!(history.check_kept(&promoted, 7, second).is_err());
        assert_eq!(history.check(), Ok(()));
    }

    #[test]
    fn a_write_under_way_may_be_in_either() {
        let mut history = History::new(StandbyMode::Refuse);
        let lost = history.invoke_write(7..8, 0, (0, 1), at(1));
        let kept = history.fork(&BTreeMap::from([(7, 0)]), at(10));
        history.acknowledge(7..8, lost, at(11));
        let again = history.invoke_write(7..8, 0, (1, 1), at(12));
        read(&mut history, 0, 12).expect("it went to the other one");
        read(&mut history, lost, 14).expect("it was sent again");
        history.give_up(again, Outcome::Unknown, at(15));
        let _ = history.go_back(kept, at(20));
        for value in [0, lost, again] {
            assert!(history.check_leg(7, value).is_ok(), "{value}");
        }
        read(&mut history, again, 21).expect("it was on the way");
        assert_eq!(history.check(), Ok(()));
    }
}
