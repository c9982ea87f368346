//! What hosts wrote and read, and whether there is an order that explains it: linearizability per 512-byte block (I1, I2,
//! I12, I19).
//!
//! Every write has a value of its own, so each read names its write. The operations of one value (its write and the reads
//! that saw it) are a *cluster* with the zone between its first end and its last beginning (Gibbons and Korach, "Testing
//! shared memories", 1997): an order exists exactly when no two forward zones overlap, no backward zone lies inside a
//! forward one, and no read ends before its write begins.
//!
//! A write that failed may have happened, but not for ever later: its effect comes before the next service of another
//! node, or run of a node, answers (R10, R11), and before the same host is let in again at the same node. Where a node passes
//! on what it does not serve, a host cannot tell who answered it: then nobody knows when such a write is over. And a write that was on
//! the way when that was lost is answered with a unit attention, behind which an initiator sends it again: it may take effect twice.
//! So hosts leave blocks alone, then, that somebody's write has not been answered for, as a file system does. A write that its host
//! aborted, and whose abort was answered, is over with that answer wherever it went (SAM-5 section 7.2).
//!
//! What becomes of all that where the operator sends hosts to another data set: `fork`.

use std::collections::BTreeMap;

use engine::Instant;
use gateway::StandbyMode;

use super::spc::Nexus;

/// A value: the number of the write that it comes from; zero before the first.
pub(crate) type Value = u64;

/// A run of a node's process.
pub(crate) type Service = (usize, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    /// It was under way when hosts were sent to another data set: it may show in either, at any time, or never.
    Astray,
    Acknowledged(Instant),
    /// Its host does not know whether it happened, or when it is over.
    Unknown(Instant),
    /// Its host does not know whether it happened; it is over.
    Ended(Instant),
}

/// What a host knows of a write that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Unknown,
    /// It does not happen any more.
    Ended,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    invoked: Instant,
    host: usize,
    service: Service,
    pub(super) fate: Fate,
}

/// What reads saw of one value in one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    first_end: Instant,
    last_begin: Instant,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// What was there first: zero, or what a data set held when hosts were sent to it,
    pub(super) base: Value,
    /// which is this moment.
    pub(super) since: Instant,
    pub(super) writes: Vec<Value>,
    pub(super) seen: BTreeMap<Value, Seen>,
    /// The latest beginning of an acknowledged write.
    pub(super) acknowledged: Option<(Instant, Value)>,
}

impl Line {
    fn began_with(&self, value: Value) -> bool {
        value == self.base && !self.writes.contains(&value)
    }

    fn knows(&self, value: Value) -> bool {
        value == self.base || self.writes.contains(&value)
    }

    /// Each one once.
    fn values(&self) -> impl Iterator<Item = Value> + '_ {
        let base = self.began_with(self.base).then_some(self.base);
        base.into_iter().chain(self.writes.iter().copied())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct History {
    standby: StandbyMode,
    pub(super) writes: Vec<Write>,
    pub(super) lines: BTreeMap<u64, Line>,
    /// When hosts were last sent to another data set: what began before tells nothing of it.
    pub(super) epoch: Instant,
    /// When each service was first known to answer, in order.
    services: Vec<(Instant, Service)>,
    /// When each host was let in at each node again.
    logins: BTreeMap<(usize, usize), Vec<Instant>>,
    /// Nexuses that a reservation keeps out, whatever they had sent before it, and since when.
    pub(crate) barred: BTreeMap<Nexus, Instant>,
}

impl History {
    pub(crate) fn new(standby: StandbyMode) -> Self {
        Self {
            standby,
            writes: Vec::new(),
            lines: BTreeMap::new(),
            epoch: Instant::EPOCH,
            services: Vec::new(),
            logins: BTreeMap::new(),
            barred: BTreeMap::new(),
        }
    }

    fn write(&self, value: Value) -> Option<&Write> {
        self.writes.get(usize::try_from(value.checked_sub(1)?).ok()?)
    }

    /// True while a write of one of the blocks has no answer.
    pub(crate) fn is_being_written(&self, mut blocks: core::ops::Range<u64>) -> bool {
        let is_open = |value: &Value| self.write(*value).is_some_and(|write| write.fate == Fate::Open);
        blocks.any(|block| self.lines.get(&block).is_some_and(|line| line.writes.iter().rev().any(is_open)))
    }

    /// A write begins; its value.
    pub(crate) fn invoke_write(
        &mut self,
        blocks: core::ops::Range<u64>,
        host: usize,
        service: Service,
        now: Instant,
    ) -> Value {
        self.writes.push(Write { invoked: now, host, service, fate: Fate::Open });
        let value = self.writes.len() as u64;
        for block in blocks {
            self.lines.entry(block).or_default().writes.push(value);
        }
        value
    }

    /// A host got a status for its write: GOOD.
    pub(crate) fn acknowledge(&mut self, blocks: core::ops::Range<u64>, value: Value, now: Instant) {
        let write = &mut self.writes[value as usize - 1];
        if write.fate == Fate::Astray {
            return;
        }
        assert_eq!(write.fate, Fate::Open, "write {value} is answered once");
        write.fate = Fate::Acknowledged(now);
        let (invoked, service) = (write.invoked, write.service);
        self.answered(service, invoked, now);
        for block in blocks {
            let line = self.lines.entry(block).or_default();
            if line.acknowledged.is_none_or(|(before, _)| before < invoked) {
                line.acknowledged = Some((invoked, value));
            }
        }
    }

    /// A host does not know what became of its write.
    pub(crate) fn give_up(&mut self, value: Value, outcome: Outcome, now: Instant) {
        let write = &mut self.writes[value as usize - 1];
        if write.fate == Fate::Astray {
            return;
        }
        assert_eq!(write.fate, Fate::Open, "write {value} is answered once");
        write.fate = match outcome {
            Outcome::Unknown => Fate::Unknown(now),
            Outcome::Ended => Fate::Ended(now),
        };
    }

    /// A service answered an operation with GOOD. Only one that began after the last service had answered shows that
    /// this one came after it: the answer may have been long on its way.
    pub(crate) fn answered(&mut self, service: Service, invoked: Instant, now: Instant) {
        if self.services.last().is_none_or(|(first, last)| *last != service && invoked > *first) {
            self.services.push((now, service));
        }
    }

    /// A host was let in at a node.
    pub(crate) fn logged_in(&mut self, host: usize, node: usize, now: Instant) {
        self.logins.entry((host, node)).or_default().push(now);
    }

    /// What was acknowledged last in each block when a read begins: for [`History::read`].
    pub(crate) fn acknowledged(&self, block: u64) -> Option<(Instant, Value)> {
        self.lines.get(&block)?.acknowledged
    }

    /// A read of one block ended.
    ///
    /// # Errors
    /// It saw something that was overwritten before it began.
    pub(crate) fn read(
        &mut self,
        block: u64,
        value: Value,
        (invoked, ended): (Instant, Instant),
        before: Option<(Instant, Value)>,
    ) -> Result<(), String> {
        if invoked < self.epoch {
            return Ok(());
        }
        let line = self.lines.entry(block).or_default();
        if !line.knows(value) {
            return Err(format!("block {block}: a read saw {value}, which was never written there"));
        }
        if let Some(newer) = self.overwritten(&self.lines[&block], value, before) {
            return Err(format!("block {block}: a read saw {value}, after {newer} had been acknowledged"));
        }
        let first = Seen { first_end: ended, last_begin: invoked };
        let seen = self.lines.entry(block).or_default().seen.entry(value).or_insert(first);
        seen.first_end = seen.first_end.min(ended);
        seen.last_begin = seen.last_begin.max(invoked);
        Ok(())
    }

    /// The write that was acknowledged, and began after `value`'s had taken effect.
    pub(super) fn overwritten(
        &self,
        line: &Line,
        value: Value,
        acknowledged: Option<(Instant, Value)>,
    ) -> Option<Value> {
        let (begun, newer) = acknowledged?;
        let end = if line.began_with(value) { Some(line.since) } else { self.end_by_now(self.write(value)?) };
        (newer != value && end.is_some_and(|end| begun > end)).then_some(newer)
    }

    /// What a leg holds that should have everything: an error when something acknowledged is missing.
    pub(crate) fn check_leg(&self, block: u64, value: Value) -> Result<(), String> {
        self.lines.get(&block).map_or(Ok(()), |line| self.check_line_holds(line, block, value))
    }

    pub(super) fn check_line_holds(&self, line: &Line, block: u64, value: Value) -> Result<(), String> {
        if !line.knows(value) {
            return Err(format!("block {block} holds {value}, which was never written there"));
        }
        match self.overwritten(line, value, line.acknowledged) {
            Some(newer) => Err(format!("block {block} holds {value}, and {newer} was acknowledged")),
            None => Ok(()),
        }
    }

    /// Every block that was ever written or read.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = u64> + '_ {
        self.lines.keys().copied()
    }

    /// The same of one that has been seen, or is on a leg, at this moment: as long as a reservation keeps its nexus out, whose commands
    /// were aborted when that began, nothing of it happens.
    fn end_by_now(&self, write: &Write) -> Option<Instant> {
        let nexus = Nexus { host: write.host, node: write.service.0 };
        Instant::earliest(self.end(write), self.barred.get(&nexus).copied())
    }

    /// When a write had taken effect at the latest, if it had; `None`: nobody can tell.
    pub(super) fn end(&self, write: &Write) -> Option<Instant> {
        match write.fate {
            Fate::Open | Fate::Astray => None,
            Fate::Acknowledged(at) | Fate::Ended(at) => Some(at),
            Fate::Unknown(at) => self.over((write.host, write.service), write.invoked, at),
        }
    }

    /// When a command was over that a host had sent to a service, and given up at some time; `None`: nobody can tell.
    pub(crate) fn over(
        &self,
        (host, service): (usize, Service),
        invoked: Instant,
        given_up: Instant,
    ) -> Option<Instant> {
        if self.standby == StandbyMode::Forward {
            return None;
        }
        let passed = |(time, other): &&(Instant, Service)| *time > invoked && *other != service;
        let succeeded = self.services.iter().find(passed).map(|(time, _)| *time);
        let logins = self.logins.get(&(host, service.0));
        let login = logins.and_then(|all| all.iter().find(|time| **time > given_up));
        Instant::earliest(succeeded, login.copied())
    }

    /// Looks for an order of everything, block by block.
    ///
    /// # Errors
    /// There is none for a block: which, and why.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (block, line) in &self.lines {
            self.check_line(line).map_err(|why| format!("block {block}: {why}"))?;
        }
        Ok(())
    }

    fn check_line(&self, line: &Line) -> Result<(), String> {
        let zones: Vec<Zone> = line.values().filter_map(|value| self.zone(line, value)).collect();
        for zone in &zones {
            if let Some(begun) = self.write(zone.value).map(|write| write.invoked)
                && zone.end < begun
            {
                return Err(format!("{} was read before it was written", zone.value));
            }
        }
        let mut forward: Vec<Zone> = zones.iter().copied().filter(Zone::is_forward).collect();
        forward.sort_by_key(|zone| (zone.end, zone.begin));
        for pair in forward.windows(2) {
            if pair[1].end < pair[0].begin {
                return Err(format!(
                    "{} and {} were seen in turns: no order explains it",
                    pair[0].value, pair[1].value
                ));
            }
        }
        for zone in zones.iter().filter(|zone| !zone.is_forward()) {
            // Forward zones do not overlap: only the last one that ends its first operation before can hold it.
            let at = forward.partition_point(|other| other.end < zone.begin);
            if at > 0 && zone.end < forward[at - 1].begin {
                let around = forward[at - 1].value;
                return Err(format!("{} happened while {around} was seen before and after", zone.value));
            }
        }
        Ok(())
    }

    /// The zone of a value; `None` when nobody knows whether it ever was there.
    fn zone(&self, line: &Line, value: Value) -> Option<Zone> {
        let seen = line.seen.get(&value);
        let (begun, ended) = match self.write(value) {
            _ if line.began_with(value) => (line.since, Some(line.since)),
            None => return None,
            Some(write) => {
                let known = matches!(write.fate, Fate::Acknowledged(_));
                if seen.is_none() && !known {
                    return None;
                }
                (write.invoked, self.end(write))
            }
        };
        let end = ended.unwrap_or(Instant::FAR_FUTURE);
        let end = seen.map_or(end, |seen| seen.first_end.min(end));
        let begin = seen.map_or(begun, |seen| seen.last_begin.max(begun));
        Some(Zone { value, end, begin })
    }
}

#[derive(Clone, Copy, Debug)]
struct Zone {
    value: Value,
    /// The first end of an operation.
    end: Instant,
    /// The last beginning of one.
    begin: Instant,
}

impl Zone {
    fn is_forward(&self) -> bool {
        self.end < self.begin
    }
}

#[cfg(test)]
mod tests;
