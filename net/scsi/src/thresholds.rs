//! Logical block provisioning thresholds (SBC-4 section 4.7.3.7): a host, or the administrator, wants to be told before a thin unit
//! runs out of storage.
//!
//! Two thresholds, each over one resource that the logical block provisioning log page counts, in threshold sets. Each has a range of
//! one set around its count, so that a resource that moves to and fro at the count is not told of again and again:
//!
//! ```text
//! Disarmed --(the resource is on the near side of the range)--> Armed --(on its far side)--> Disarmed, and it is told
//! ```
//!
//! Used blocks increase: near is below. Available ones decrease: near is above. A threshold that is changed starts disarmed; so does
//! every one at a node that begins to serve, which has not seen the resource cross anything.

/// The mode page's code and subpage, and where its descriptors are.
pub(crate) const PAGE: (u8, u8) = (0x1c, 0x02);
const DESCRIPTORS_AT: usize = 16;
const DESCRIPTOR_LEN: usize = 8;
/// Bytes of the mode page.
pub(crate) const PAGE_LEN: usize = DESCRIPTORS_AT + Resource::ALL.len() * DESCRIPTOR_LEN;

const ENABLED: u8 = 0x80;

/// What a threshold is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Blocks that the unit has storage for: an armed increasing threshold.
    Used,
    /// Blocks that the store below can still take: an armed decreasing threshold.
    Available,
}

impl Resource {
    const ALL: [Self; 2] = [Self::Used, Self::Available];

    /// THRESHOLD TYPE, a count of sets, and THRESHOLD ARMING; THRESHOLD RESOURCE, which is the log parameter's code.
    fn kind(self) -> [u8; 2] {
        match self {
            Self::Used => [0x01, 0x02],
            Self::Available => [0x00, 0x01],
        }
    }

    fn descriptor_at(self) -> usize {
        DESCRIPTORS_AT + self as usize * DESCRIPTOR_LEN
    }
}

/// Whether something is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notice {
    /// It is not.
    #[default]
    Off,
    /// It is.
    On,
}

/// One threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Threshold {
    /// ENABLED.
    pub notice: Notice,
    /// THRESHOLD COUNT: the middle of the range, in threshold sets.
    pub count: u32,
}

/// What MODE SELECT may change of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// LBPERE of the read-write error recovery mode page: whether any threshold is told of.
    pub reporting: Notice,
    /// Of used blocks.
    pub used: Threshold,
    /// Of available ones.
    pub available: Threshold,
}

impl Thresholds {
    /// Told when this share of the unit has storage.
    pub fn at_percent(percent: u8, unit_blocks: u64) -> Self {
        let sets = unit_blocks >> exponent(unit_blocks);
        let count = u128::from(sets) * u128::from(percent) / 100;
        let used = Threshold { notice: Notice::On, count: u32::try_from(count).unwrap_or(u32::MAX) };
        Self { reporting: Notice::On, used, available: Threshold::default() }
    }

    fn of(&self, resource: Resource) -> Threshold {
        match resource {
            Resource::Used => self.used,
            Resource::Available => self.available,
        }
    }

    /// True when something may be told.
    pub fn is_watching(&self) -> bool {
        self.reporting == Notice::On
            && Resource::ALL.iter().any(|resource| self.of(*resource).notice == Notice::On)
    }

    /// Fills the mode page in behind its header. SITUA is zero: every nexus is told.
    pub(crate) fn fill(&self, page: &mut [u8]) {
        for resource in Resource::ALL {
            let threshold = self.of(resource);
            let descriptor = &mut page[resource.descriptor_at()..][..DESCRIPTOR_LEN];
            let [kind, code] = resource.kind();
            descriptor[0] = kind | if threshold.notice == Notice::On { ENABLED } else { 0 };
            descriptor[1] = code;
            descriptor[4..].copy_from_slice(&threshold.count.to_be_bytes());
        }
    }

    /// Which bits of the mode page can be changed.
    pub(crate) fn changeable(page: &mut [u8]) {
        for resource in Resource::ALL {
            let descriptor = &mut page[resource.descriptor_at()..][..DESCRIPTOR_LEN];
            descriptor[0] = ENABLED;
            descriptor[4..].fill(0xff);
        }
    }

    /// The thresholds of a mode page of the right length; reporting is in another page.
    pub(crate) fn read(&self, page: &[u8]) -> Self {
        let threshold = |resource: Resource| {
            let descriptor = &page[resource.descriptor_at()..][..DESCRIPTOR_LEN];
            let notice = if descriptor[0] & ENABLED != 0 { Notice::On } else { Notice::Off };
            let count = u32::from_be_bytes([descriptor[4], descriptor[5], descriptor[6], descriptor[7]]);
            Threshold { notice, count }
        };
        Self { used: threshold(Resource::Used), available: threshold(Resource::Available), ..*self }
    }
}

/// Logical blocks of a threshold set, as a power of two, for a unit of so many blocks: counts have 32 bits.
pub fn exponent(unit_blocks: u64) -> u8 {
    let bits = u64::BITS - unit_blocks.leading_zeros();
    u8::try_from(bits.saturating_sub(u32::BITS)).unwrap_or(0).max(11)
}

/// Storage behind a unit, in its logical blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Blocks that it has storage for.
    pub used: u64,
    /// Blocks that the store below can still take, from this unit or whoever else has a part of it.
    pub available: u64,
}

/// Whether a threshold is told of when it is crossed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Disarmed,
    Armed,
}

/// Watches a unit's resources. See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    thresholds: Thresholds,
    used: State,
    available: State,
}

impl Watch {
    /// Looks at the resources: which thresholds have been crossed since the last look.
    pub fn look(&mut self, thresholds: Thresholds, resources: Resources, unit_blocks: u64) -> Crossed {
        if self.thresholds != thresholds {
            *self = Self { thresholds, ..Self::default() };
        }
        let mut crossed = Crossed([None; 2]);
        if !thresholds.is_watching() {
            return crossed;
        }
        for (at, resource) in Resource::ALL.into_iter().enumerate() {
            let threshold = thresholds.of(resource);
            let place = place(resource, threshold.count, resources, unit_blocks);
            let state = match resource {
                Resource::Used => &mut self.used,
                Resource::Available => &mut self.available,
            };
            match (threshold.notice, *state, place) {
                (Notice::On, _, Place::Near) => *state = State::Armed,
                (Notice::On, State::Armed, Place::Far) => {
                    *state = State::Disarmed;
                    crossed.0[at] = Some(resource);
                }
                _ => {}
            }
        }
        crossed
    }
}

/// Thresholds that were crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossed([Option<Resource>; 2]);

impl Crossed {
    /// What the unit attention of each carries in its INFORMATION field: where its descriptor begins in the mode page.
    pub fn information(self) -> impl Iterator<Item = u64> {
        self.0.into_iter().flatten().map(|resource| resource.descriptor_at() as u64)
    }
}

/// Where a resource is, seen from a threshold's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Near,
    Inside,
    Far,
}

fn place(resource: Resource, count: u32, resources: Resources, unit_blocks: u64) -> Place {
    let set = 1u128 << exponent(unit_blocks);
    // Twice everything: the range begins and ends half a set from the count.
    let (low, high) = ((2 * u128::from(count)).saturating_sub(1) * set, (2 * u128::from(count) + 1) * set);
    let (value, below, above) = match resource {
        Resource::Used => (2 * u128::from(resources.used), Place::Near, Place::Far),
        Resource::Available => (2 * u128::from(resources.available), Place::Far, Place::Near),
    };
    match value {
        value if value < low => below,
        value if value > high => above,
        _ => Place::Inside,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const SET: u64 = 1 << 11;

    fn on(count: u32) -> Threshold {
        Threshold { notice: Notice::On, count }
    }

    fn told(watch: &mut Watch, thresholds: Thresholds, used: u64, available: u64) -> Vec<u64> {
        watch.look(thresholds, Resources { used, available }, 1 << 20).information().collect()
    }

    #[test]
    fn a_crossing_is_told_once_and_again_when_the_resource_was_back() {
        let thresholds = Thresholds { reporting: Notice::On, used: on(10), available: on(4) };
        let mut watch = Watch::default();
        let mut look = |used, available| told(&mut watch, thresholds, used, available);
        assert_eq!(look(5 * SET, 9 * SET), [0u64; 0]);
        // Inside the range nothing happens, in either direction.
        assert_eq!(look(10 * SET, 4 * SET), [0u64; 0]);
        assert_eq!(look(10 * SET + SET / 2 + 1, 4 * SET), [16]);
        assert_eq!(look(12 * SET, 4 * SET - SET / 2 - 1), [24]);
        assert_eq!(look(10 * SET, 4 * SET), [0u64; 0]);
        assert_eq!(look(12 * SET, 0), [0u64; 0], "it was not on the near side again");
        assert_eq!(look(9 * SET, 5 * SET), [0u64; 0]);
        assert_eq!(look(12 * SET, 0), [16, 24]);
    }

    #[test]
    fn nothing_is_told_that_nobody_asked_for_or_saw() {
        let thresholds = Thresholds { reporting: Notice::On, used: on(10), available: Threshold::default() };
        let off = Thresholds { reporting: Notice::Off, ..thresholds };
        let mut watch = Watch::default();
        assert_eq!(told(&mut watch, thresholds, 20 * SET, 0), [0u64; 0], "it was there before");
        assert_eq!(told(&mut watch, off, 5 * SET, 0), [0u64; 0]);
        assert_eq!(told(&mut watch, off, 20 * SET, 0), [0u64; 0]);
        assert_eq!(told(&mut watch, thresholds, 20 * SET, 0), [0u64; 0]);
        assert_eq!(told(&mut watch, thresholds, 5 * SET, 0), [0u64; 0]);
        let changed = Thresholds { used: on(11), ..thresholds };
        assert_eq!(
            told(&mut watch, changed, 20 * SET, 0),
            [0u64; 0],
            "a threshold that is changed starts anew"
        );
    }

    #[test]
    fn counts_fit_whatever_the_size() {
        for (bits, expected) in [(20, 11), (43, 12), (63, 32)] {
            assert_eq!(exponent(1 << bits), expected, "{bits}");
            assert!(u32::try_from((1u64 << bits) >> expected).is_ok());
            let thresholds = Thresholds::at_percent(80, 1 << bits);
            let sets = (1u128 << bits) >> expected;
            assert_eq!(u128::from(thresholds.used.count), sets * 80 / 100);
        }
        let extreme = Thresholds { reporting: Notice::On, used: on(u32::MAX), available: on(0) };
        assert_eq!(told(&mut Watch::default(), extreme, u64::MAX, 0), [0u64; 0]);
    }
}
