//! What persistent reservations do (SPC-4 section 5.12), once more and from the standard alone: the table of a logical unit, and what
//! each PERSISTENT RESERVE OUT and IN makes of it. Nothing of the product's is used.

use std::collections::BTreeMap;

/// An I_T nexus: a host, and the node that its path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nexus {
    pub(crate) host: usize,
    pub(crate) node: usize,
}

/// A reservation key.
pub(crate) type Key = u64;

impl Nexus {
    /// The how manieth key of this nexus: each is there once, and says whose it is.
    pub(crate) fn key(self, count: u64) -> Key {
        (self.host as u64 + 1) << 40 | (self.node as u64) << 32 | count
    }

    /// Whose a key is.
    pub(crate) fn of_key(key: Key) -> Option<Self> {
        let host = usize::try_from(key >> 40).ok()?.checked_sub(1)?;
        Some(Self { host, node: (key >> 32 & 1) as usize })
    }
}

/// The type of a reservation, by its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    WriteExclusive = 1,
    ExclusiveAccess = 3,
    WriteExclusiveRegistrantsOnly = 5,
    ExclusiveAccessRegistrantsOnly = 6,
    WriteExclusiveAllRegistrants = 7,
    ExclusiveAccessAllRegistrants = 8,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrantsOnly,
        Self::ExclusiveAccessRegistrantsOnly,
        Self::WriteExclusiveAllRegistrants,
        Self::ExclusiveAccessAllRegistrants,
    ];

    pub(crate) fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    pub(crate) fn is_of_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants)
    }

    fn lets_registrants_in(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    fn lets_readers_in(self) -> bool {
        use Kind::{WriteExclusive, WriteExclusiveAllRegistrants, WriteExclusiveRegistrantsOnly};
        matches!(self, WriteExclusive | WriteExclusiveRegistrantsOnly | WriteExclusiveAllRegistrants)
    }
}

/// What a command without a say in reservations needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Demand {
    Read,
    Write,
}

/// Whether commands of the one that is preempted are aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Running {
    Stays,
    Aborted,
}

/// A PERSISTENT RESERVE command. The first key is always the one that its nexus says it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ask {
    Register(Key, Key),
    /// REGISTER AND IGNORE EXISTING KEY.
    Ignore(Key),
    Reserve(Key, Kind),
    Release(Key, Kind),
    Clear(Key),
    /// PREEMPT, or PREEMPT AND ABORT: whom, and for which type.
    Preempt(Key, Key, Kind, Running),
    ReadKeys,
    ReadReservation,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    Good,
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION, ILLEGAL REQUEST.
    Illegal,
    Keys(Vec<Key>),
    /// The type, and the holder's key; zero where all registrants hold it.
    Reservation(Option<(Kind, Key)>),
}

/// Who holds a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Held {
    By(Nexus),
    ByAll,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Table {
    pub(crate) registrations: BTreeMap<Nexus, Key>,
    pub(crate) reservation: Option<(Kind, Held)>,
}

impl Table {
    pub(crate) fn holds(&self, nexus: Nexus) -> bool {
        match self.reservation {
            Some((_, Held::By(holder))) => holder == nexus,
            Some((_, Held::ByAll)) => self.registrations.contains_key(&nexus),
            None => false,
        }
    }

    /// SPC-4 table 66.
    pub(crate) fn admits(&self, nexus: Nexus, demand: Demand) -> bool {
        let Some((kind, _)) = self.reservation else { return true };
        let registered = kind.lets_registrants_in() && self.registrations.contains_key(&nexus);
        registered || self.holds(nexus) || demand == Demand::Read && kind.lets_readers_in()
    }

    /// The type of the reservation, and the key that is shown of it.
    pub(crate) fn shown(&self) -> Option<(Kind, Key)> {
        let (kind, held) = self.reservation?;
        let key = match held {
            Held::By(holder) => self.registrations.get(&holder).copied().unwrap_or_default(),
            Held::ByAll => 0,
        };
        Some((kind, key))
    }

    /// What is there afterwards, and the answer.
    pub(crate) fn carry_out(&self, nexus: Nexus, ask: Ask) -> (Self, Answer) {
        let own = self.registrations.get(&nexus).copied();
        let named = match ask {
            Ask::Register(had, _) => (own.unwrap_or(0) == had).then_some(()),
            Ask::Reserve(key, _) | Ask::Release(key, _) | Ask::Clear(key) | Ask::Preempt(key, ..) => {
                (own == Some(key)).then_some(())
            }
            Ask::Ignore(_) | Ask::ReadKeys | Ask::ReadReservation => Some(()),
        };
        let mut next = self.clone();
        let answer = match (named, ask) {
            (None, _) => Answer::Conflict,
            (Some(()), Ask::Register(_, new) | Ask::Ignore(new)) => next.register(nexus, new),
            (Some(()), Ask::Reserve(_, kind)) => next.reserve(nexus, kind),
            (Some(()), Ask::Release(_, kind)) => next.release(nexus, kind),
            (Some(()), Ask::Clear(_)) => {
                next = Self::default();
                Answer::Good
            }
            (Some(()), Ask::Preempt(_, victim, kind, _)) => next.preempt(nexus, victim, kind),
            (Some(()), Ask::ReadKeys) => {
                let mut keys: Vec<Key> = self.registrations.values().copied().collect();
                keys.sort_unstable();
                Answer::Keys(keys)
            }
            (Some(()), Ask::ReadReservation) => Answer::Reservation(self.shown()),
        };
        (next, answer)
    }

    fn register(&mut self, nexus: Nexus, new: Key) -> Answer {
        if new == 0 {
            self.registrations.remove(&nexus);
            self.drop_orphaned();
        } else {
            self.registrations.insert(nexus, new);
        }
        Answer::Good
    }

    /// A reservation goes with its last holder's registration.
    fn drop_orphaned(&mut self) {
        let orphaned = match self.reservation {
            Some((_, Held::By(holder))) => !self.registrations.contains_key(&holder),
            Some((_, Held::ByAll)) => self.registrations.is_empty(),
            None => false,
        };
        if orphaned {
            self.reservation = None;
        }
    }

    fn held_by(nexus: Nexus, kind: Kind) -> Held {
        if kind.is_of_all() { Held::ByAll } else { Held::By(nexus) }
    }

    fn reserve(&mut self, nexus: Nexus, kind: Kind) -> Answer {
        match self.reservation {
            Some((held, _)) if held == kind && self.holds(nexus) => Answer::Good,
            Some(_) => Answer::Conflict,
            None => {
                self.reservation = Some((kind, Self::held_by(nexus, kind)));
                Answer::Good
            }
        }
    }

    fn release(&mut self, nexus: Nexus, kind: Kind) -> Answer {
        match self.reservation {
            Some((held, _)) if self.holds(nexus) && held != kind => Answer::Illegal,
            Some(_) if self.holds(nexus) => {
                self.reservation = None;
                Answer::Good
            }
            _ => Answer::Good,
        }
    }

    /// SPC-4 section 5.12.11.
    fn preempt(&mut self, nexus: Nexus, victim: Key, kind: Kind) -> Answer {
        let succeeds = match self.reservation {
            Some((_, Held::ByAll)) => victim == 0,
            Some((_, Held::By(holder))) => self.registrations.get(&holder) == Some(&victim),
            None => false,
        };
        if victim == 0 && !succeeds {
            return Answer::Illegal;
        }
        if victim != 0 && !self.registrations.values().any(|key| *key == victim) {
            return Answer::Conflict;
        }
        self.registrations.retain(|other, key| {
            let named = victim == 0 || *key == victim;
            !named || succeeds && *other == nexus
        });
        if succeeds {
            self.reservation = Some((kind, Self::held_by(nexus, kind)));
        } else {
            self.drop_orphaned();
        }
        Answer::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Nexus = Nexus { host: 0, node: 0 };
    const B: Nexus = Nexus { host: 1, node: 1 };
    const STRANGER: Nexus = Nexus { host: 2, node: 0 };

    fn after(asks: &[(Nexus, Ask)]) -> Table {
        asks.iter().fold(Table::default(), |table, (nexus, ask)| {
            let (next, answer) = table.carry_out(*nexus, *ask);
            assert_eq!(answer, Answer::Good, "{ask:?}");
            next
        })
    }

    fn both() -> [(Nexus, Ask); 2] {
        [(A, Ask::Ignore(A.key(1))), (B, Ask::Register(0, B.key(1)))]
    }

    #[test]
    fn each_type_lets_in_whom_it_should() {
        use Demand::{Read, Write};
        for kind in Kind::ALL {
            let [a, b] = both();
            let table = after(&[a, b, (A, Ask::Reserve(A.key(1), kind))]);
            assert!(table.admits(A, Write) && table.admits(A, Read));
            assert_eq!(table.admits(B, Write), kind as u8 >= 5, "{kind:?}");
            assert_eq!(table.admits(STRANGER, Read), kind as u8 % 2 == 1 && kind as u8 != 3, "{kind:?}");
            assert!(!table.admits(STRANGER, Write));
            assert_eq!(table.holds(B), kind.is_of_all());
        }
    }

    #[test]
    fn a_preempted_holder_is_out_and_his_reservation_is_another_ones() {
        let [a, b] = both();
        let kind = Kind::WriteExclusive;
        let table = after(&[
            a,
            b,
            (A, Ask::Reserve(A.key(1), kind)),
            (B, Ask::Preempt(B.key(1), A.key(1), Kind::ExclusiveAccess, Running::Aborted)),
        ]);
        assert!(table.holds(B) && !table.registrations.contains_key(&A));
        assert!(!table.admits(A, Demand::Read));
        let again = table.carry_out(A, Ask::Reserve(A.key(1), kind));
        assert_eq!(again, (table.clone(), Answer::Conflict));
        let stale = table.carry_out(B, Ask::Preempt(B.key(1), A.key(1), kind, Running::Stays));
        assert_eq!(stale, (table, Answer::Conflict), "nobody has that key");
    }

    #[test]
    fn a_reservation_goes_with_its_holders_registration() {
        let [a, b] = both();
        let held = after(&[a, b, (A, Ask::Reserve(A.key(1), Kind::ExclusiveAccessRegistrantsOnly))]);
        assert_eq!(held.carry_out(A, Ask::Register(A.key(1), 0)).0.reservation, None);
        let release = held.carry_out(A, Ask::Release(A.key(1), Kind::WriteExclusive));
        assert_eq!(release, (held.clone(), Answer::Illegal));
        assert_eq!(held.carry_out(B, Ask::Clear(B.key(1))).0, Table::default());
        let (all, _) =
            after(&both()).carry_out(A, Ask::Reserve(A.key(1), Kind::WriteExclusiveAllRegistrants));
        let (left, _) = all.carry_out(A, Ask::Register(A.key(1), 0));
        assert!(left.holds(B), "the last registrant keeps it");
    }
}
