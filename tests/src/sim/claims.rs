//! PERSISTENT RESERVE commands of a contender: which it chooses, and how they and their answers look on the wire.

use engine::Prng;

use super::spc::{Answer, Ask, Key, Kind, Nexus, Running, Table};
use super::swarm::pick;

/// Room for the answer to READ KEYS.
pub(crate) const ROOM: usize = 512;

/// A nexus that asks, and how many keys it has had.
pub(crate) struct Asker<'a> {
    pub(crate) nexus: Nexus,
    pub(crate) keys: &'a mut u64,
}

impl Asker<'_> {
    pub(crate) fn new_key(&mut self) -> Key {
        *self.keys += 1;
        self.nexus.key(*self.keys)
    }

    /// What a node of a cluster might ask where this is likely to be there; at times what it must not.
    pub(crate) fn choose(&mut self, prng: &mut Prng, table: &Table) -> Ask {
        let own = table.registrations.get(&self.nexus).copied();
        let key = if prng.percent(4) { self.nexus.key(0) ^ 1 << 20 } else { own.unwrap_or_default() };
        if prng.percent(15) {
            return pick(prng, &[Ask::ReadKeys, Ask::ReadReservation]);
        }
        if own.is_none() && prng.percent(80) {
            let new = self.new_key();
            return if prng.percent(50) { Ask::Ignore(new) } else { Ask::Register(key, new) };
        }
        let held = table.reservation.map(|(kind, _)| kind);
        match (held, table.holds(self.nexus)) {
            (None, _) => self.claim(prng, key),
            (Some(kind), true) => self.keep(prng, key, kind, table),
            (Some(kind), false) => self.wrest(prng, key, kind, table),
        }
    }

    fn claim(&mut self, prng: &mut Prng, key: Key) -> Ask {
        match prng.below(10) {
            0 => Ask::Clear(key),
            1 => Ask::Register(key, 0),
            2 => Ask::Register(key, self.new_key()),
            _ => Ask::Reserve(key, pick(prng, &Kind::ALL)),
        }
    }

    fn keep(&mut self, prng: &mut Prng, key: Key, kind: Kind, table: &Table) -> Ask {
        match prng.below(10) {
            0 => Ask::Reserve(key, pick(prng, &[kind, Kind::WriteExclusive])),
            1 => Ask::Clear(key),
            2 => Ask::Register(key, 0),
            3 => Ask::Release(key, pick(prng, &Kind::ALL)),
            4..=6 => Ask::Release(key, kind),
            _ => self.preempt(prng, key, kind, table),
        }
    }

    fn wrest(&mut self, prng: &mut Prng, key: Key, kind: Kind, table: &Table) -> Ask {
        match prng.below(10) {
            0 => Ask::Reserve(key, pick(prng, &Kind::ALL)),
            1 => Ask::Release(key, kind),
            2 => Ask::Register(key, 0),
            3 => Ask::Clear(key),
            _ => self.preempt(prng, key, kind, table),
        }
    }

    /// Mostly the holder.
    fn preempt(&mut self, prng: &mut Prng, key: Key, kind: Kind, table: &Table) -> Ask {
        let others = table.registrations.iter().filter(|(nexus, _)| **nexus != self.nexus);
        let others: Vec<Key> = others.map(|(_, key)| *key).collect();
        let holder = table.shown().map(|(_, key)| key).filter(|_| !table.holds(self.nexus));
        let victim = match holder {
            Some(holder) if prng.percent(75) => holder,
            _ if others.is_empty() => self.nexus.key(0),
            _ => pick(prng, &others),
        };
        let kind = if prng.percent(50) { kind } else { pick(prng, &Kind::ALL) };
        let running = if prng.percent(70) { Running::Aborted } else { Running::Stays };
        Ask::Preempt(key, victim, kind, running)
    }
}

const OUT: u8 = 0x5f;
const IN: u8 = 0x5e;
const LIST: usize = 24;

/// A command descriptor block, data to the target, and room for data from it.
pub(crate) fn encode(ask: Ask) -> ([u8; 16], Vec<u8>, usize) {
    let (action, kind, keys) = match ask {
        Ask::Register(had, new) => (0, 0, [had, new]),
        Ask::Reserve(key, kind) => (1, kind as u8, [key, 0]),
        Ask::Release(key, kind) => (2, kind as u8, [key, 0]),
        Ask::Clear(key) => (3, 0, [key, 0]),
        Ask::Preempt(key, victim, kind, Running::Stays) => (4, kind as u8, [key, victim]),
        Ask::Preempt(key, victim, kind, Running::Aborted) => (5, kind as u8, [key, victim]),
        Ask::Ignore(new) => (6, 0, [0, new]),
        Ask::ReadKeys | Ask::ReadReservation => return (read(ask), Vec::new(), ROOM),
    };
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[2], cdb[8]) = (OUT, action, kind, LIST as u8);
    let mut list = keys.map(Key::to_be_bytes).concat();
    list.resize(LIST, 0);
    // APTPL: what is granted outlives a loss of power.
    list[20] = u8::from(matches!(ask, Ask::Register(..) | Ask::Ignore(_)));
    (cdb, list, 0)
}

fn read(ask: Ask) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (IN, u8::from(ask == Ask::ReadReservation));
    cdb[7..9].copy_from_slice(&u16::try_from(ROOM).expect("short").to_be_bytes());
    cdb
}

fn word(data: &[u8], at: usize) -> Option<Key> {
    Some(Key::from_be_bytes(data.get(at..at + 8)?.try_into().ok()?))
}

/// What a GOOD answer says.
///
/// # Errors
/// Its data are none of that command's.
pub(crate) fn decode(ask: Ask, data: &[u8]) -> Result<Answer, String> {
    let len = |data: &[u8]| Some(u32::from_be_bytes(data.get(4..8)?.try_into().ok()?) as usize);
    let answer = match ask {
        Ask::ReadKeys => len(data).and_then(|len| {
            let mut keys: Vec<Key> = (0..len / 8).map(|at| word(data, 8 + at * 8)).collect::<Option<_>>()?;
            keys.sort_unstable();
            Some(Answer::Keys(keys))
        }),
        Ask::ReadReservation => len(data).and_then(|len| match len {
            0 => Some(Answer::Reservation(None)),
            _ => {
                let kind = Kind::of_code(data.get(21)? & 0x0f)?;
                Some(Answer::Reservation(Some((kind, word(data, 8)?))))
            }
        }),
        _ => Some(Answer::Good),
    };
    answer.ok_or_else(|| format!("reservations: {ask:?} was answered with {data:?}"))
}
