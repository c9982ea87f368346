//! PERSISTENT RESERVE OUT: what each service action makes of the table (SPC-4 sections 5.12.7 to 5.12.11).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::cdb::ScopeType;
use super::list::{Move, Mover, Named, Parameters, Through};
use super::{Action, Change, InitiatorPort, Kind, Nexus, REGISTRATIONS_MAX, Refusal, Reservation, Table};
use crate::sense::Sense;

/// The target ports that a registration is for.
fn through(nexus: &Nexus, parameters: &Parameters, ports: &BTreeSet<u16>) -> Vec<u16> {
    match parameters.through {
        Through::This => [nexus.port].into(),
        Through::All => ports.iter().copied().chain([nexus.port]).collect(),
    }
}

fn nexuses(initiator: &InitiatorPort, through: &[u16]) -> Vec<Nexus> {
    through.iter().map(|port| Nexus { initiator: initiator.clone(), port: *port }).collect()
}

impl Table {
    /// What a PERSISTENT RESERVE OUT changes. `ports` are the target ports of the device, for ALL_TG_PT and REGISTER AND
    /// MOVE.
    ///
    /// # Errors
    /// [`Refusal`]: nothing changes.
    pub fn change(
        &self,
        nexus: &Nexus,
        action: Action,
        scope_type: ScopeType,
        parameters: &Parameters,
        ports: &BTreeSet<u16>,
    ) -> Result<Change, Refusal> {
        if self.older.is_some() {
            return Err(Refusal::Conflict);
        }
        match action {
            Action::Register | Action::RegisterAndIgnore => self.register(nexus, action, parameters, ports),
            _ if self.key_of(nexus) != Some(parameters.key) => Err(Refusal::Conflict),
            Action::Reserve => self.reserve_persistently(nexus, scope_type.kind()?),
            Action::Release => self.release_persistent(nexus, scope_type.kind()?),
            Action::Clear => Ok(self.clear(nexus)),
            Action::Preempt => self.preempt(nexus, scope_type, parameters.new_key),
            Action::PreemptAndAbort => {
                let mut change = self.preempt(nexus, scope_type, parameters.new_key)?;
                change.aborted = self.identified_by(parameters.new_key);
                change.aborted.remove(nexus);
                Ok(change)
            }
            Action::RegisterAndMove => {
                let moved = parameters.moved.as_ref().ok_or(Sense::PARAMETER_LENGTH)?;
                self.register_and_move(nexus, parameters, moved, ports)
            }
        }
    }

    fn counted(&self) -> Self {
        Self { generation: self.generation.wrapping_add(1), ..self.clone() }
    }

    // --- REGISTER ---

    fn register(
        &self,
        nexus: &Nexus,
        action: Action,
        parameters: &Parameters,
        ports: &BTreeSet<u16>,
    ) -> Result<Change, Refusal> {
        let registered = self.key_of(nexus);
        if action == Action::Register && registered.unwrap_or(0) != parameters.key {
            return Err(Refusal::Conflict);
        }
        if registered.is_some() && parameters.others.is_some() {
            // SPEC_I_PT is for a nexus that is not registered yet.
            return Err(Sense::invalid_parameter_byte(20).into());
        }
        let through = through(nexus, parameters, ports);
        let mut nexuses = nexuses(&nexus.initiator, &through);
        if parameters.new_key == 0 {
            return Ok(self.unregister(nexus, &nexuses, registered.is_some()));
        }
        for named in parameters.others.iter().flatten() {
            nexuses.extend(self.unregistered(named, &through)?);
        }
        let mut next = self.counted();
        next.power_loss = parameters.power_loss;
        next.registrations.extend(nexuses.into_iter().map(|nexus| (nexus, parameters.new_key)));
        next.bounded().map(Change::to)
    }

    /// The nexuses of an initiator port that a list names: each is to be registered for the first time (SPC-5 section 5.13.7).
    fn unregistered(&self, named: &Named, through: &[u16]) -> Result<Vec<Nexus>, Refusal> {
        let nexuses = nexuses(&named.port, through);
        if nexuses.iter().any(|nexus| self.registrations.contains_key(nexus)) {
            return Err(Sense::invalid_parameter_byte(named.at).into());
        }
        Ok(nexuses)
    }

    fn bounded(self) -> Result<Self, Refusal> {
        if self.registrations.len() > REGISTRATIONS_MAX {
            return Err(Sense::INSUFFICIENT_REGISTRATION_RESOURCES.into());
        }
        Ok(self)
    }

    fn unregister(&self, nexus: &Nexus, nexuses: &[Nexus], was_registered: bool) -> Change {
        if !was_registered {
            // Nothing to remove: SPC-4 has it end GOOD without a change.
            return Change::to(self.clone());
        }
        let mut next = self.counted();
        for gone in nexuses {
            next.registrations.remove(gone);
        }
        let released = next.drop_orphaned();
        let change = Change::to(next);
        match released {
            // Registrants learn that what let them in is gone (SPC-4 section 5.12.11.2.3).
            Some(kind) if kind.admits_registrants() => {
                change.tell_registrants(nexus, Sense::RESERVATIONS_RELEASED)
            }
            _ => change,
        }
    }

    /// Drops a reservation whose holder is not registered any more; says of which type it was.
    fn drop_orphaned(&mut self) -> Option<Kind> {
        let registrations = &self.registrations;
        let orphaned = |held: &mut Reservation| match &held.holder {
            None => registrations.is_empty(),
            Some(holder) => !registrations.contains_key(holder),
        };
        self.reservation.take_if(orphaned).map(|held| held.kind)
    }

    // --- RESERVE, RELEASE, CLEAR ---

    fn reserve_persistently(&self, nexus: &Nexus, kind: Kind) -> Result<Change, Refusal> {
        match &self.reservation {
            Some(held) if held.kind == kind && self.holds(nexus) => Ok(Change::to(self.clone())),
            Some(_) => Err(Refusal::Conflict),
            None => {
                let reservation = Some(Reservation::new(kind, nexus));
                Ok(Change::to(Self { reservation, ..self.clone() }))
            }
        }
    }

    fn release_persistent(&self, nexus: &Nexus, kind: Kind) -> Result<Change, Refusal> {
        let Some(held) = self.reservation.as_ref().filter(|_| self.holds(nexus)) else {
            return Ok(Change::to(self.clone()));
        };
        if held.kind != kind {
            return Err(Sense::INVALID_RELEASE.into());
        }
        let change = Change::to(Self { reservation: None, ..self.clone() });
        let tells = kind.admits_registrants();
        Ok(if tells { change.tell_registrants(nexus, Sense::RESERVATIONS_RELEASED) } else { change })
    }

    fn clear(&self, nexus: &Nexus) -> Change {
        let mut next = self.counted();
        next.reservation = None;
        next.registrations.clear();
        let mut change = Change::to(next);
        let others = self.registrations.keys().filter(|other| *other != nexus);
        change.attentions = others.map(|other| (other.clone(), Sense::RESERVATIONS_PREEMPTED)).collect();
        change
    }

    // --- PREEMPT ---

    /// The nexuses that a key names: with key zero, where all registrants hold the reservation, every one.
    fn identified_by(&self, key: u64) -> BTreeSet<Nexus> {
        let named = |(_, registered): &(&Nexus, &u64)| **registered == key || key == 0;
        self.registrations.iter().filter(named).map(|(nexus, _)| nexus.clone()).collect()
    }

    fn preempt(&self, nexus: &Nexus, scope_type: ScopeType, key: u64) -> Result<Change, Refusal> {
        let takes_over = match &self.reservation {
            Some(Reservation { holder: None, .. }) => key == 0,
            Some(Reservation { holder: Some(holder), .. }) => self.key_of(holder) == Some(key),
            None => false,
        };
        if key == 0 && !takes_over {
            return Err(Sense::invalid_parameter_byte(8).into());
        }
        let removed = self.identified_by(key);
        if removed.is_empty() {
            return Err(Refusal::Conflict);
        }
        if takes_over {
            self.take_over(nexus, scope_type.kind()?, removed)
        } else {
            Ok(self.remove(nexus, &removed))
        }
    }

    /// The nexus preempts the reservation (SPC-4 section 5.12.11.2.4).
    fn take_over(&self, nexus: &Nexus, kind: Kind, mut removed: BTreeSet<Nexus>) -> Result<Change, Refusal> {
        removed.remove(nexus);
        let changes_kind = self.reservation.as_ref().is_some_and(|held| held.kind != kind);
        let mut next = self.counted();
        next.registrations.retain(|registered, _| !removed.contains(registered));
        next.reservation = Some(Reservation::new(kind, nexus));
        let mut change = Change::to(next);
        if changes_kind {
            change = change.tell_registrants(nexus, Sense::RESERVATIONS_RELEASED);
        }
        change.attentions.extend(removed.into_iter().map(|gone| (gone, Sense::REGISTRATIONS_PREEMPTED)));
        Ok(change)
    }

    /// Registrations go, which may include the nexus's own; the reservation stays unless nobody holds it any more.
    fn remove(&self, nexus: &Nexus, removed: &BTreeSet<Nexus>) -> Change {
        let mut next = self.counted();
        next.registrations.retain(|registered, _| !removed.contains(registered));
        let released = next.drop_orphaned();
        let mut change = Change::to(next);
        if released.is_some_and(Kind::admits_registrants) {
            change = change.tell_registrants(nexus, Sense::RESERVATIONS_RELEASED);
        }
        let others = removed.iter().filter(|gone| *gone != nexus);
        change.attentions.extend(others.map(|gone| (gone.clone(), Sense::REGISTRATIONS_PREEMPTED)));
        change
    }

    // --- REGISTER AND MOVE ---

    fn register_and_move(
        &self,
        nexus: &Nexus,
        parameters: &Parameters,
        moved: &Move,
        ports: &BTreeSet<u16>,
    ) -> Result<Change, Refusal> {
        let Some(held) = &self.reservation else { return Err(Sense::invalid_cdb_byte(1).into()) };
        if held.holder.as_ref() != Some(nexus) {
            return Err(Refusal::Conflict);
        }
        if parameters.new_key == 0 {
            return Err(Sense::invalid_parameter_byte(8).into());
        }
        if !ports.contains(&moved.port) && moved.port != nexus.port {
            return Err(Sense::invalid_parameter_byte(18).into());
        }
        if moved.to == nexus.initiator {
            // Through whatever port (SPC-5 section 5.13.8).
            return Err(Sense::invalid_parameter_byte(24).into());
        }
        let to = Nexus { initiator: moved.to.clone(), port: moved.port };
        let mut next = self.counted();
        next.power_loss = parameters.power_loss;
        next.reservation = Some(Reservation::new(held.kind, &to));
        next.registrations.insert(to, parameters.new_key);
        if moved.mover == Mover::Unregisters {
            next.registrations.remove(nexus);
        }
        next.bounded().map(Change::to)
    }
}
