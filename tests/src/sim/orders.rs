//! Reservations are linearizable: after each answer, every table that some order of the commands explains is known, and a command that
//! none explains is a failure. Orders are followed as answers come (Lowe, "Testing for linearizability", 2017): a command takes
//! effect at the latest when it is answered, and one that was lost may, until it is known to be over.
//!
//! Commands that only have to pass are watched: one that was let in must have met a table that admits it, and one that was refused
//! with RESERVATION CONFLICT one that does not.

use std::collections::{BTreeMap, BTreeSet};

use engine::Instant;

use super::spc::{Answer, Ask, Demand, Nexus, Running, Table};

/// The number of a command.
pub(crate) type Number = u64;

/// More orders than these are a mistake of whoever asks.
const ORDERS_MAX: usize = 20_000;

/// Changes of which nobody knows what became of them: each may double what may be.
const LOST_MAX: usize = 2;

/// Orders that are many.
const WIDE: usize = 24;

/// How a command without an answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    /// Nobody hears its answer.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    nexus: Nexus,
    ask: Ask,
    standing: Standing,
}

/// Tables that a watched command may have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Met {
    Admit,
    Refuse,
    Both,
}

impl Met {
    fn of(table: &Table, (nexus, demand): (Nexus, Demand)) -> Self {
        if table.admits(nexus, demand) { Self::Admit } else { Self::Refuse }
    }

    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }
}

/// One way in which everything may have gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Course {
    table: Table,
    /// Commands that have taken effect and are not answered yet.
    done: BTreeMap<Number, Answer>,
    /// What watched commands have met, of those that have met anything but tables that admit them.
    met: BTreeMap<Number, Met>,
}

impl Course {
    fn met(&self, number: Number) -> Met {
        self.met.get(&number).copied().unwrap_or(Met::Admit)
    }

    fn meet(&mut self, number: Number, met: Met) {
        if met != Met::Admit {
            self.met.insert(number, met);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Orders {
    courses: BTreeSet<Course>,
    pending: BTreeMap<Number, Pending>,
    watched: BTreeMap<Number, (Nexus, Demand)>,
    next: Number,
    /// Nexuses that were preempted with their commands aborted, and that every course keeps from writing since.
    barred: BTreeMap<Nexus, Instant>,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            courses: [Course::default()].into(),
            pending: BTreeMap::new(),
            watched: BTreeMap::new(),
            next: 0,
            barred: BTreeMap::new(),
        }
    }
}

impl Orders {
    fn number(&mut self) -> Number {
        self.next += 1;
        self.next
    }

    /// A table that may be there now.
    pub(crate) fn likely(&self) -> &Table {
        &self.courses.first().expect("there is always one").table
    }

    /// Nexuses that are kept from writing, whatever they had sent before, and since when.
    pub(crate) fn barred(&self) -> &BTreeMap<Nexus, Instant> {
        &self.barred
    }

    /// Nobody holds it, in whatever order.
    pub(crate) fn is_free(&self) -> bool {
        self.reachable().iter().all(|course| course.table.reservation.is_none())
    }

    /// So much may be that somebody should look what there is.
    pub(crate) fn is_wide(&self) -> bool {
        self.courses.len() > WIDE
    }

    /// A command sets out.
    pub(crate) fn begin(&mut self, nexus: Nexus, ask: Ask) -> Number {
        let number = self.number();
        self.pending.insert(number, Pending { nexus, ask, standing: Standing::Open });
        self.lift_bars();
        number
    }

    /// Its answer.
    ///
    /// # Errors
    /// No order explains it.
    pub(crate) fn answered(&mut self, number: Number, answer: &Answer, now: Instant) -> Result<(), String> {
        let reached = self.until(|course| course.done.contains_key(&number))?;
        let fits = |course: &Course| course.done[&number] == *answer;
        let fitting: BTreeSet<Course> = reached.into_iter().filter(fits).collect();
        let Pending { nexus, ask, .. } = self.pending[&number];
        if fitting.is_empty() {
            return Err(format!(
                "reservations: {nexus:?} was answered {answer:?} to {ask:?}: no order explains that{}",
                self.describe()
            ));
        }
        self.courses = fitting;
        self.forget(number);
        if let (Ask::Preempt(_, victim, _, Running::Aborted), Answer::Good) = (ask, answer) {
            self.barred.extend(Nexus::of_key(victim).filter(|out| *out != nexus).map(|out| (out, now)));
        }
        self.lift_bars();
        Ok(())
    }

    /// Nobody will hear its answer. True where it may change something.
    pub(crate) fn lost(&mut self, number: Number) -> bool {
        let changes = |pending: &Pending| !matches!(pending.ask, Ask::ReadKeys | Ask::ReadReservation);
        let Some(pending) = self.pending.get_mut(&number).filter(|pending| changes(pending)) else {
            self.forget(number);
            return false;
        };
        pending.standing = Standing::Lost;
        true
    }

    /// So much is uncertain that nobody should add to it.
    pub(crate) fn is_unclear(&self) -> bool {
        self.lost_commands().count() >= LOST_MAX
    }

    /// Something was lost that may still take effect.
    pub(crate) fn is_lossy(&self) -> bool {
        self.lost_commands().next().is_some()
    }

    fn lost_commands(&self) -> impl Iterator<Item = Number> + '_ {
        let lost = self.pending.iter().filter(|(_, pending)| pending.standing == Standing::Lost);
        lost.map(|(number, _)| *number)
    }

    /// It was not even sent.
    pub(crate) fn unsent(&mut self, number: Number) {
        self.forget(number);
    }

    /// It was not carried out, and will not be.
    ///
    /// # Errors
    /// Something that was answered shows that it was.
    pub(crate) fn refused(&mut self, number: Number) -> Result<(), String> {
        self.courses.retain(|course| !course.done.contains_key(&number));
        let Pending { nexus, ask, .. } = self.pending[&number];
        self.forget(number);
        if self.courses.is_empty() {
            return Err(format!("reservations: {ask:?} of {nexus:?} was not carried out, and has shown"));
        }
        Ok(())
    }

    /// It has taken effect by now, or never will.
    ///
    /// # Errors
    /// There are too many orders.
    pub(crate) fn over(&mut self, number: Number) -> Result<(), String> {
        let happened = self.until(|course| course.done.contains_key(&number))?;
        self.courses.extend(happened);
        self.forget(number);
        self.lift_bars();
        Ok(())
    }

    /// Whatever was lost has taken effect by now, or never will.
    ///
    /// # Errors
    /// There are too many orders.
    pub(crate) fn lost_are_over(&mut self) -> Result<(), String> {
        let lost: Vec<Number> = self.lost_commands().collect();
        lost.into_iter().try_for_each(|number| self.over(number))
    }

    fn forget(&mut self, number: Number) {
        self.pending.remove(&number);
        self.change_all(|course| _ = course.done.remove(&number));
    }

    fn change_all(&mut self, mut change: impl FnMut(&mut Course)) {
        let all = core::mem::take(&mut self.courses);
        self.courses = all
            .into_iter()
            .map(|mut course| {
                change(&mut course);
                course
            })
            .collect();
    }

    // --- Commands that have to pass ---

    /// A command sets out that has to pass.
    pub(crate) fn watch(&mut self, nexus: Nexus, demand: Demand) -> Number {
        let number = self.number();
        self.watched.insert(number, (nexus, demand));
        if self.courses.iter().any(|course| course.table.reservation.is_some()) {
            self.change_all(|course| course.meet(number, Met::of(&course.table, (nexus, demand))));
        }
        number
    }

    /// It was carried out.
    ///
    /// # Errors
    /// A reservation kept it out all the time.
    pub(crate) fn passed(&mut self, number: Number) -> Result<(), String> {
        self.have_met(number, |met| met != Met::Refuse, "was let in, which a reservation forbids")
    }

    /// It was answered with RESERVATION CONFLICT.
    ///
    /// # Errors
    /// No reservation kept it out at any time.
    pub(crate) fn kept_out(&mut self, number: Number) -> Result<(), String> {
        self.have_met(
            number,
            |met| met != Met::Admit,
            "met a reservation conflict, and no reservation forbids it",
        )
    }

    fn have_met(&mut self, number: Number, is: impl Fn(Met) -> bool, what: &str) -> Result<(), String> {
        let fits = |course: &Course| is(course.met(number));
        if self.courses.iter().all(fits) {
            self.unwatch(number);
            return Ok(());
        }
        let reached = self.until(fits)?;
        if reached.is_empty() {
            let (nexus, demand) = self.watched[&number];
            return Err(format!("reservations: a {demand:?} of {nexus:?} {what}{}", self.describe()));
        }
        self.courses = reached;
        self.unwatch(number);
        Ok(())
    }

    /// Nobody knows what became of it, or it says nothing.
    pub(crate) fn unwatch(&mut self, number: Number) {
        self.watched.remove(&number);
        if self.courses.iter().any(|course| course.met.contains_key(&number)) {
            self.change_all(|course| _ = course.met.remove(&number));
        }
    }

    // --- Orders ---

    fn successors(&self, course: &Course) -> Vec<Course> {
        let waits = self.pending.iter().filter(|(number, _)| !course.done.contains_key(number));
        let next = |(number, pending): (&Number, &Pending)| {
            let (table, answer) = course.table.carry_out(pending.nexus, pending.ask);
            // Whether one that changes nothing is over nobody will ask.
            if pending.standing == Standing::Lost && table == course.table {
                return None;
            }
            let mut next = course.clone();
            next.done.insert(*number, answer);
            for (watched, by) in &self.watched {
                next.meet(*watched, next.met(*watched).and(Met::of(&table, *by)));
            }
            next.table = table;
            Some(next)
        };
        waits.filter_map(next).collect()
    }

    /// Every course, gone on with until it is such a one.
    fn until(&self, is_such: impl Fn(&Course) -> bool) -> Result<BTreeSet<Course>, String> {
        let mut seen: BTreeSet<Course> = self.courses.clone();
        let mut open: Vec<Course> = self.courses.iter().cloned().collect();
        let mut reached = BTreeSet::new();
        while let Some(course) = open.pop() {
            if is_such(&course) {
                reached.insert(course);
                continue;
            }
            for next in self.successors(&course) {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
            if seen.len() > ORDERS_MAX {
                return Err(format!("reservations: more than {ORDERS_MAX} orders{}", self.describe()));
            }
        }
        Ok(reached)
    }

    /// Every course that there is, and everything that may come of it without a new command.
    fn reachable(&self) -> BTreeSet<Course> {
        let mut all = self.courses.clone();
        let mut open: Vec<Course> = self.courses.iter().cloned().collect();
        while let Some(course) = open.pop() {
            for next in self.successors(&course) {
                if all.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        all
    }

    /// A table that somebody has may be the one that is in force, or about to be.
    pub(crate) fn may_be(&self, table: &Table) -> bool {
        self.reachable().iter().any(|course| course.table == *table)
    }

    fn lift_bars(&mut self) {
        if self.barred.is_empty() {
            return;
        }
        let all = self.reachable();
        let keeps = |nexus: &Nexus| all.iter().all(|course| !course.table.admits(*nexus, Demand::Write));
        self.barred.retain(|nexus, _| keeps(nexus));
    }

    /// What is known, in words.
    pub(crate) fn describe(&self) -> String {
        let tables: BTreeSet<&Table> = self.courses.iter().map(|course| &course.table).collect();
        format!("\nit may be: {tables:?}\nwithout an answer: {:?}", self.pending)
    }
}

#[cfg(test)]
mod tests;
