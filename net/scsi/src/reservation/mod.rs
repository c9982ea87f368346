//! Reservations of a logical unit: persistent (SPC-4 section 5.12) and the older RESERVE and RELEASE (SPC-2), as one table.
//!
//! Owner: whoever serves the logical unit's commands; there is one table for each logical unit, wherever its paths end.
//! A change is computed first ([`Table::change`]), made durable by the owner, then put in force together with the unit
//! attentions and aborts that it names.
//!
//! Invariants: every registration has a key that is not zero; a reservation's holder is registered, and where all registrants
//! hold it there is at least one; the older reservation and persistent ones are never there together.

mod answer;
mod cdb;
mod conflict;
mod list;
mod out;
mod record;
mod transport;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::sense::Sense;

pub use answer::Capabilities;
pub use cdb::{Action, Report, Request, ScopeType};
pub use conflict::{Demand, demand};
pub use list::{LIST_MAX, Parameters};
pub(crate) use record::Cursor;
pub use record::RecordError;

/// Registrations that one logical unit keeps: as many as its record has room for, with names of the greatest length.
pub const REGISTRATIONS_MAX: usize = 256;
/// The longest iSCSI name (RFC 7143 section 4.2.7.1).
pub const NAME_MAX: usize = 223;

/// An initiator port: name and ISID (RFC 7143 section 4.4.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InitiatorPort {
    /// iSCSI name, in lower case; never longer than [`NAME_MAX`].
    name: String,
    isid: [u8; 6],
}

impl InitiatorPort {
    /// Its TransportID (SPC-4 section 7.6.4.6).
    pub fn transport_id(&self) -> Vec<u8> {
        transport::encode(self)
    }

    /// The port of a session; names compare without regard to case. `None` when the name is empty or longer than [`NAME_MAX`].
    pub fn new(name: &str, isid: [u8; 6]) -> Option<Self> {
        (1..=NAME_MAX).contains(&name.len()).then(|| Self { name: name.to_ascii_lowercase(), isid })
    }

    /// iSCSI name, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// ISID.
    pub fn isid(&self) -> [u8; 6] {
        self.isid
    }
}

/// An I_T nexus: an initiator port and a target port.
//= rfc7143#section-4.4.3.1: these two names are what a logical unit knows a nexus by, whatever sessions it has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nexus {
    /// Who.
    pub initiator: InitiatorPort,
    /// Relative target port identifier: through which port.
    pub port: u16,
}

/// What a persistent reservation keeps from others (SPC-4 table 73).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Write Exclusive.
    WriteExclusive = 1,
    /// Exclusive Access.
    ExclusiveAccess = 3,
    /// Write Exclusive, Registrants Only.
    WriteExclusiveRegistrantsOnly = 5,
    /// Exclusive Access, Registrants Only.
    ExclusiveAccessRegistrantsOnly = 6,
    /// Write Exclusive, All Registrants.
    WriteExclusiveAllRegistrants = 7,
    /// Exclusive Access, All Registrants.
    ExclusiveAccessAllRegistrants = 8,
}

impl Kind {
    /// Every type.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrantsOnly,
        Self::ExclusiveAccessRegistrantsOnly,
        Self::WriteExclusiveAllRegistrants,
        Self::ExclusiveAccessAllRegistrants,
    ];

    /// The type of a TYPE field.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// True when every registrant holds it.
    pub fn is_of_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    /// True when registrants may do what it keeps from others.
    pub fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// True when others may read.
    pub fn admits_readers(self) -> bool {
        matches!(
            self,
            Self::WriteExclusive | Self::WriteExclusiveRegistrantsOnly | Self::WriteExclusiveAllRegistrants
        )
    }
}

/// Whether registrations outlive a loss of power (APTPL).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerLoss {
    /// They go.
    #[default]
    Forgets,
    /// They stay.
    Persists,
}

/// A persistent reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reservation {
    kind: Kind,
    /// `None` where all registrants hold it.
    holder: Option<Nexus>,
}

impl Reservation {
    fn new(kind: Kind, nexus: &Nexus) -> Self {
        Self { kind, holder: (!kind.is_of_all()).then(|| nexus.clone()) }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    generation: u32,
    power_loss: PowerLoss,
    registrations: BTreeMap<Nexus, u64>,
    reservation: Option<Reservation>,
    /// The holder of a RESERVE(6) or RESERVE(10).
    older: Option<Nexus>,
}

/// Why a command is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION.
    Check(Sense),
}

impl From<Sense> for Refusal {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

/// A change to put in force once it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The table from then on.
    pub next: Table,
    /// Unit attentions that it establishes.
    pub attentions: Vec<(Nexus, Sense)>,
    /// Nexuses whose commands must have ended before the change is answered (PREEMPT AND ABORT).
    pub aborted: BTreeSet<Nexus>,
}

impl Change {
    fn to(next: Table) -> Self {
        Self { next, attentions: Vec::new(), aborted: BTreeSet::new() }
    }

    /// A unit attention for each registered nexus but one.
    fn tell_registrants(mut self, but: &Nexus, sense: Sense) -> Self {
        let others = self.next.registrations.keys().filter(|nexus| *nexus != but);
        self.attentions.extend(others.map(|nexus| (nexus.clone(), sense)));
        self
    }
}

impl Table {
    /// PRGENERATION.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// True when nobody is registered.
    pub fn is_empty(&self) -> bool {
        self.registrations.is_empty()
    }

    /// Registrations with their keys.
    pub fn registrations(&self) -> impl Iterator<Item = (&Nexus, u64)> {
        self.registrations.iter().map(|(nexus, key)| (nexus, *key))
    }

    /// The persistent reservation's type and the key that READ RESERVATION shows: zero where all registrants hold it.
    pub fn reservation(&self) -> Option<(Kind, u64)> {
        let held = self.reservation.as_ref()?;
        let key = held.holder.as_ref().and_then(|holder| self.key_of(holder));
        Some((held.kind, key.unwrap_or(0)))
    }

    fn key_of(&self, nexus: &Nexus) -> Option<u64> {
        self.registrations.get(nexus).copied()
    }

    /// True when the nexus holds the persistent reservation.
    pub fn holds(&self, nexus: &Nexus) -> bool {
        self.reservation.as_ref().is_some_and(|held| match &held.holder {
            Some(holder) => holder == nexus,
            None => self.registrations.contains_key(nexus),
        })
    }

    /// What is left after a loss of power. PRgeneration begins anew in any case (SPC-5 section 6.15.2).
    #[must_use]
    pub fn after_power_loss(self) -> Self {
        match self.power_loss {
            PowerLoss::Forgets => Self::default(),
            PowerLoss::Persists => Self { generation: 0, older: None, ..self },
        }
    }

    // --- RESERVE and RELEASE (SPC-2 section 5.5.2) ---

    /// RESERVE(6) or RESERVE(10) of the whole unit.
    ///
    /// # Errors
    /// Somebody else has it, or there are registrations.
    pub fn reserve(&mut self, nexus: &Nexus) -> Result<(), Refusal> {
        let free = self.older.as_ref().is_none_or(|holder| holder == nexus);
        if !free || !self.registrations.is_empty() {
            return Err(Refusal::Conflict);
        }
        self.older = Some(nexus.clone());
        Ok(())
    }

    /// RELEASE(6) or RELEASE(10): nothing happens unless the nexus holds it.
    ///
    /// # Errors
    /// There are registrations.
    pub fn release(&mut self, nexus: &Nexus) -> Result<(), Refusal> {
        if !self.registrations.is_empty() {
            return Err(Refusal::Conflict);
        }
        self.forget_older(nexus);
        Ok(())
    }

    /// The nexus is gone: its older reservation goes with it. Persistent ones stay.
    pub fn forget_older(&mut self, nexus: &Nexus) {
        self.older.take_if(|holder| holder == nexus);
    }

    /// The logical unit or the target was reset.
    pub fn reset(&mut self) {
        self.older = None;
    }

    // --- Conflicts ---

    /// Whether a command may go on.
    ///
    /// # Errors
    /// [`Refusal::Conflict`].
    pub fn admit(&self, nexus: &Nexus, demand: Demand) -> Result<(), Refusal> {
        let older = self.older.as_ref().is_none_or(|holder| holder == nexus || demand.passes_older());
        let held = self.reservation.as_ref();
        let persistent = held.is_none_or(|held| {
            let registered = held.kind.admits_registrants() && self.registrations.contains_key(nexus);
            registered || self.holds(nexus) || demand.passes(held.kind)
        });
        if older && persistent { Ok(()) } else { Err(Refusal::Conflict) }
    }
}

#[cfg(test)]
mod tests;
