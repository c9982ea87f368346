//! A leg as a journal tells it: what is stable, what is in flight or in a cache, and what a power cut makes of it.

use std::collections::BTreeMap;

use bdev::Durability;

use super::cut::{Area, Survival, Unsettled, Way};
use super::recorder::{Bytes, Event, Number};
use super::world::LEG_BYTES;

/// What a disk writes whole or not at all, in bytes.
pub(crate) const SECTOR: usize = 512;
/// Where the data of the recorded legs begin, and end: before and behind are metadata.
pub(crate) const DATA_OFFSET: usize = 5 << 20;
/// And the log.
const LOG: usize = 1 << 20;
const LOG_END: usize = 2 << 20;
const DATA_END: usize = LEG_BYTES - (128 << 10);

/// What an event changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Touched {
    pub(crate) any: bool,
    pub(crate) metadata: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Flying(Durability),
    Cached,
}

#[derive(Clone, Debug)]
struct Pending {
    number: Number,
    at: usize,
    bytes: Bytes,
    place: Place,
    /// When it ended, among the others: later ones lie over earlier ones.
    order: u64,
    /// Sectors that a durable write has replaced since.
    replaced: Vec<usize>,
}

impl Pending {
    fn sectors(&self) -> usize {
        usize::try_from(self.bytes.len()).expect("small") / SECTOR
    }

    fn area(&self) -> Area {
        match self.at {
            LOG..LOG_END => Area::Log,
            DATA_OFFSET..DATA_END => Area::Data,
            _ => Area::Metadata,
        }
    }

    fn is_metadata(&self) -> bool {
        self.area() != Area::Data
    }

    fn sector(&self, index: usize) -> [u8; SECTOR] {
        match &self.bytes {
            Bytes::Data(data) => data[index * SECTOR..(index + 1) * SECTOR].try_into().expect("a sector"),
            Bytes::Zeroes(_) => [0; SECTOR],
        }
    }
}

/// See the module.
pub(crate) struct Disk {
    stable: Vec<u8>,
    pending: Vec<Pending>,
    /// By flush: the cached writes that it covers.
    flushes: BTreeMap<Number, Vec<Number>>,
    ended: u64,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { stable: vec![0; LEG_BYTES], pending: Vec::new(), flushes: BTreeMap::new(), ended: 0 }
    }

    fn at(&self, number: Number) -> usize {
        self.pending.iter().position(|pending| pending.number == number).expect("a write that was sent")
    }

    pub(crate) fn apply(&mut self, event: &Event) -> Touched {
        let touched = |metadata: bool| Touched { any: true, metadata };
        match event {
            Event::Write { number, at, bytes, durability, .. } => {
                let at = usize::try_from(*at).expect("small");
                let (place, bytes) = (Place::Flying(*durability), bytes.clone());
                let order = u64::MAX;
                let pending = Pending { number: *number, at, bytes, place, order, replaced: Vec::new() };
                let metadata = pending.is_metadata();
                self.pending.push(pending);
                touched(metadata)
            }
            Event::Written { number, .. } => {
                let at = self.at(*number);
                let metadata = self.pending[at].is_metadata();
                match self.pending[at].place {
                    Place::Flying(Durability::Durable) => self.settle(at),
                    Place::Flying(Durability::Accepted) | Place::Cached => self.cache(at),
                }
                touched(metadata)
            }
            Event::Landed { number, .. } => {
                let at = self.at(*number);
                self.cache(at);
                touched(self.pending[at].is_metadata())
            }
            Event::Lost { number, .. } => {
                let at = self.pending.iter().position(|pending| pending.number == *number);
                let Some(at) = at else { return Touched::default() };
                touched(self.pending.remove(at).is_metadata())
            }
            Event::Flush { number, .. } => {
                let cached = self.pending.iter().filter(|pending| pending.place == Place::Cached);
                self.flushes.insert(*number, cached.map(|pending| pending.number).collect());
                Touched::default()
            }
            Event::Flushed { number, .. } => {
                let mut covered = self.flushes.remove(number).unwrap_or_default();
                covered.retain(|number| self.pending.iter().any(|pending| pending.number == *number));
                covered.sort_by_key(|number| self.pending[self.at(*number)].order);
                let mut metadata = false;
                for number in covered {
                    let at = self.at(number);
                    metadata |= self.pending[at].is_metadata();
                    self.settle(at);
                }
                touched(metadata)
            }
            Event::Sent { .. }
            | Event::Acknowledged { .. }
            | Event::StateSent { .. }
            | Event::StateStored { .. }
            | Event::Arbitrated(_)
            | Event::GivenUp
            | Event::United => Touched::default(),
        }
    }

    fn cache(&mut self, at: usize) {
        self.ended += 1;
        (self.pending[at].place, self.pending[at].order) = (Place::Cached, self.ended);
    }

    /// It is stable now, and what the cache held of the same sectors before is gone.
    fn settle(&mut self, at: usize) {
        let done = self.pending.remove(at);
        for index in (0..done.sectors()).filter(|index| !done.replaced.contains(index)) {
            let place = done.at + index * SECTOR;
            self.stable[place..place + SECTOR].copy_from_slice(&done.sector(index));
            for earlier in self.pending.iter_mut().filter(|earlier| earlier.order < done.order) {
                let inside = place.checked_sub(earlier.at).map(|offset| offset / SECTOR);
                if let Some(index) = inside.filter(|index| *index < earlier.sectors()) {
                    earlier.replaced.push(index);
                }
            }
        }
    }

    // --- A power cut ---

    /// What is pending, as it lies one over the other: what ended earlier first, what is in flight last.
    pub(crate) fn pending(&self) -> Vec<Unsettled> {
        let mut pending: Vec<&Pending> = self.pending.iter().collect();
        pending.sort_by_key(|pending| pending.order);
        let unsettled = |pending: &&Pending| Unsettled {
            number: pending.number,
            sectors: pending.sectors(),
            area: pending.area(),
        };
        pending.iter().map(unsettled).collect()
    }

    /// The part of a way that decides what is read of the metadata.
    pub(crate) fn metadata_of(&self, way: &Way) -> Way {
        let metadata = |(number, _): &&(Number, Survival)| self.pending[self.at(*number)].is_metadata();
        way.iter().filter(metadata).copied().collect()
    }

    /// What is at these bytes if power fails this way.
    pub(crate) fn read(&self, way: &Way, offset: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.stable[offset..offset + bytes.len()]);
        for (number, survival) in way {
            let pending = &self.pending[self.at(*number)];
            let (first, last) =
                (pending.at.max(offset), (pending.at + pending.sectors() * SECTOR).min(offset + bytes.len()));
            for place in (first..last.max(first)).step_by(SECTOR) {
                let index = (place - pending.at) / SECTOR;
                if survival.keeps(index) && !pending.replaced.contains(&index) {
                    bytes[place - offset..place - offset + SECTOR].copy_from_slice(&pending.sector(index));
                }
            }
        }
    }

    /// The whole leg as it is left if power fails this way.
    pub(crate) fn image(&self, way: &Way) -> Vec<u8> {
        let mut image = vec![0; LEG_BYTES];
        self.read(way, 0, &mut image);
        image
    }
}
