//! Two legs that went on without each other: in what they may differ, as their own metadata say, and what an operator has to
//! know before he gives one of them up (I11).
//!
//! Pure: the caller reads. A leg may be in use meanwhile: a bit that is to be set is on disk before the write that needs it,
//! or the log says so (R1, R6), so a look at any moment misses nothing.

use core::fmt::{Display, Formatter};

use thiserror::Error;
use uuid::Uuid;

use crate::bitmap::Bitmap;
use crate::decide::{FullReason, SyncPlan, diverged_plan, unite};
use crate::format::{Config, ConfigId, LegIndex, Relation, Superblock, compare};
use crate::probe::{FoundLeg, LegFound, ProbeError};
use crate::range::ByteRange;
use crate::reader;

/// What a leg's metadata say.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Its superblock.
    pub superblock: Superblock,
    /// Where it may differ from the other leg, as its own log and bitmap say: ascending, apart from each other, in whole
    /// granules.
    pub ranges: Vec<ByteRange>,
}

/// Why a leg could not be surveyed.
#[derive(Debug, Error)]
pub enum SurveyError<E> {
    /// It cannot be read.
    #[error(transparent)]
    Read(E),
    /// It holds nothing.
    #[error("the device is blank: there is no leg on it")]
    Blank,
    /// It is no leg that can be used.
    #[error(transparent)]
    Refused(ProbeError),
}

/// Reads a leg's metadata. `read` gives the bytes of the device's stretches that it is asked for; `array` is the array that
/// the leg should belong to, where that is known.
///
/// # Errors
/// See [`SurveyError`].
pub fn survey<E>(
    leg_size: u64,
    array: Option<Uuid>,
    mut read: impl FnMut(ByteRange) -> Result<Vec<u8>, E>,
) -> Result<Survey, SurveyError<E>> {
    let mut images = Vec::new();
    for stretch in reader::identity(leg_size) {
        images.push(read(stretch).map_err(SurveyError::Read)?);
    }
    let superblock = match reader::found(leg_size, &images, array) {
        LegFound::Blank => return Err(SurveyError::Blank),
        LegFound::Refused(error) => return Err(SurveyError::Refused(error)),
        LegFound::Leg(leg) => {
            let FoundLeg { superblock, .. } = *leg;
            superblock
        }
    };
    for stretch in reader::details(&superblock.layout) {
        images.push(read(stretch).map_err(SurveyError::Read)?);
    }
    let (log, theirs) = reader::differences(&images, &superblock);
    let mut bitmap = Bitmap::new(superblock.array, &superblock.layout);
    unite(&mut bitmap, SyncPlan::Delta, &log, &theirs, superblock.layout.log.extent_shift);
    Ok(Survey { ranges: bitmap.runs().collect(), superblock })
}

/// What two legs are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// They have the same config.
    Same,
    /// This one's node knows the other's config and went on from it.
    Ahead(LegIndex),
    /// Both went on from this config, which is the newest that both know.
    Diverged(Option<ConfigId>),
    /// One remembers too little to tell.
    Unprovable,
}

impl Kinship {
    /// The code, for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Ahead(_) => "ahead",
            Self::Diverged(_) => "split",
            Self::Unprovable => "unprovable",
        }
    }
}

impl Display for Kinship {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Same => f.write_str("the two legs have the same config"),
            Self::Ahead(leg) => {
                write!(
                    f,
                    "the two legs have not diverged: leg {} has gone on from the other one",
                    leg.number()
                )
            }
            Self::Diverged(Some(last)) => {
                write!(
                    f,
                    "the two legs have diverged; the last config that both know is generation {}",
                    last.generation
                )
            }
            Self::Diverged(None) => f.write_str("the two legs have diverged, and know no config in common"),
            Self::Unprovable => {
                f.write_str("the histories of the two legs do not reach back far enough to be compared")
            }
        }
    }
}

/// Whose writes may have made a stretch different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Author {
    /// Leg 0's node.
    Zero,
    /// Leg 1's node.
    One,
    /// Both.
    Both,
    /// Nobody wrote it down.
    Unknown,
}

/// A stretch of the data area in which the legs may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub range: ByteRange,
    /// Whose writes.
    pub author: Author,
}

/// Two legs side by side.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What they are to each other.
    pub kinship: Kinship,
    /// Of leg 0 and leg 1: the configs that the other leg does not know, newest first.
    pub since: [Vec<Config>; 2],
    /// Whether the legs can only differ where their metadata say so; if not, why.
    pub plan: SyncPlan,
    /// In what they may differ.
    pub differences: Vec<Difference>,
}

/// Why two legs cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotComparable {
    /// Of different arrays.
    #[error("the legs belong to different arrays: {0} and {1}")]
    Arrays(Uuid, Uuid),
    /// The same place in the array, or the same leg.
    #[error("both are leg {0} of the array: name one leg of each node")]
    SamePlace(u8),
    /// Of different geometry.
    #[error("the legs have different geometries")]
    Geometry,
}

/// Compares the two legs of an array.
///
/// # Errors
/// They are not that.
pub fn side_by_side(one: &Survey, other: &Survey) -> Result<Comparison, NotComparable> {
    let (first, second) = if one.superblock.index == LegIndex::Zero { (one, other) } else { (other, one) };
    let (ours, theirs) = (&first.superblock, &second.superblock);
    if ours.array != theirs.array {
        return Err(NotComparable::Arrays(ours.array, theirs.array));
    }
    if ours.index == theirs.index {
        return Err(NotComparable::SamePlace(ours.index.number()));
    }
    if !ours.layout.same_array(&theirs.layout) {
        return Err(NotComparable::Geometry);
    }
    let (kinship, plan) = match compare(&ours.history, &theirs.history) {
        Relation::Equal => (Kinship::Same, SyncPlan::Delta),
        // What the one had before it was set back, and what it did since.
        Relation::TheyAreAncestor { at } if ours.was_set_back(theirs) => {
            (Kinship::Diverged(Some(at)), SyncPlan::Full(FullReason::Reverted))
        }
        Relation::TheyAreDescendant if theirs.was_set_back(ours) => {
            (Kinship::Diverged(Some(ours.config().id)), SyncPlan::Full(FullReason::Reverted))
        }
        Relation::TheyAreAncestor { .. } => {
            (Kinship::Ahead(LegIndex::Zero), diverged_plan(ours, theirs, Some(theirs.config().id)))
        }
        Relation::TheyAreDescendant => {
            (Kinship::Ahead(LegIndex::One), diverged_plan(theirs, ours, Some(ours.config().id)))
        }
        Relation::Newcomer => (Kinship::Ahead(LegIndex::Zero), diverged_plan(ours, theirs, None)),
        Relation::Split { last_shared } => {
            (Kinship::Diverged(last_shared), diverged_plan(ours, theirs, last_shared))
        }
        Relation::Unprovable => (Kinship::Unprovable, diverged_plan(ours, theirs, None)),
    };
    let unknown = |of: &Superblock, to: &Superblock| {
        let knows = |config: &&Config| !to.history.entries().contains(config);
        of.history.entries().iter().filter(knows).copied().collect::<Vec<_>>()
    };
    let differences = match plan {
        SyncPlan::Delta => sweep(&first.ranges, &second.ranges),
        SyncPlan::Full(_) => {
            vec![Difference { range: ByteRange::new(0, ours.layout.data_size), author: Author::Unknown }]
        }
    };
    Ok(Comparison { kinship, since: [unknown(ours, theirs), unknown(theirs, ours)], plan, differences })
}

/// The union of two lists of ranges, cut where one of them begins or ends. Ends are the only places where something changes.
fn sweep(first: &[ByteRange], second: &[ByteRange]) -> Vec<Difference> {
    let mut edges: Vec<u64> =
        first.iter().chain(second).flat_map(|range| [range.start, range.end()]).collect();
    edges.sort_unstable();
    edges.dedup();
    let (mut left, mut right) = (first.iter().peekable(), second.iter().peekable());
    let mut differences = Vec::new();
    for edge in edges.windows(2) {
        let range = ByteRange::new(edge[0], edge[1] - edge[0]);
        let has = |list: &mut core::iter::Peekable<core::slice::Iter<'_, ByteRange>>| {
            while list.next_if(|one| one.end() <= range.start).is_some() {}
            list.peek().is_some_and(|one| one.overlaps(range))
        };
        let author = match (has(&mut left), has(&mut right)) {
            (true, true) => Author::Both,
            (true, false) => Author::Zero,
            (false, true) => Author::One,
            (false, false) => continue,
        };
        differences.push(Difference { range, author });
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::FullReason;
    use crate::format::tests::example_create;
    use crate::format::{LegMask, Reason, config::FORCED_JUMP};

    fn legs() -> [Survey; 2] {
        let first = example_create(LegIndex::Zero).founder(1);
        let second = example_create(LegIndex::One).joiner();
        let both =
            first.config().successor(2, LegIndex::Zero, LegMask::both(), Reason::Rejoined).expect("left");
        let [first, second] = [first, second].map(|mut leg: Superblock| {
            leg.history = crate::format::History::new(both);
            leg
        });
        let mut legs = [first, second];
        let uuids = [legs[0].leg, legs[1].leg];
        for leg in &mut legs {
            for (record, uuid) in leg.legs.iter_mut().zip(uuids) {
                (record.uuid, record.tracked_since) = (uuid, both.generation());
            }
        }
        legs.map(|superblock| Survey { superblock, ranges: Vec::new() })
    }

    fn go_on(leg: &mut Survey, nonce: u64, jump: u64) {
        let who = leg.superblock.index;
        let next = leg
            .superblock
            .config()
            .successor(nonce, who, LegMask::only(who), Reason::LinkLost)
            .expect("left");
        let generation = next.generation() + jump;
        leg.superblock.history.push(next.raised_to(generation));
    }

    #[test]
    fn a_sweep_says_who_wrote_what() {
        let range = ByteRange::new;
        let swept = sweep(&[range(0, 4), range(8, 4)], &[range(2, 8), range(20, 1)]);
        let told: Vec<_> = swept.iter().map(|one| (one.range.start, one.range.len, one.author)).collect();
        assert_eq!(
            told,
            [
                (0, 2, Author::Zero),
                (2, 2, Author::Both),
                (4, 4, Author::One),
                (8, 2, Author::Both),
                (10, 2, Author::Zero),
                (20, 1, Author::One)
            ]
        );
        assert!(sweep(&[], &[]).is_empty());
    }

    #[test]
    fn legs_that_went_on_apart_differ_where_they_say_so() {
        let [mut zero, mut one] = legs();
        let shared = zero.superblock.config().id;
        assert_eq!(side_by_side(&zero, &one).expect("a pair").kinship, Kinship::Same);
        go_on(&mut zero, 7, 0);
        assert_eq!(side_by_side(&one, &zero).expect("a pair").kinship, Kinship::Ahead(LegIndex::Zero));
        go_on(&mut one, 8, FORCED_JUMP);
        zero.ranges = vec![ByteRange::new(0, 65536)];
        one.ranges = vec![ByteRange::new(65536, 65536)];
        for (a, b) in [(&zero, &one), (&one, &zero)] {
            let found = side_by_side(a, b).expect("a pair");
            assert_eq!((found.kinship, found.plan), (Kinship::Diverged(Some(shared)), SyncPlan::Delta));
            assert_eq!(found.since.each_ref().map(Vec::len), [1, 1]);
            let authors: Vec<_> = found.differences.iter().map(|one| one.author).collect();
            assert_eq!(authors, [Author::Zero, Author::One]);
        }
        // A leg whose bitmap does not reach back to the fork proves nothing.
        one.superblock.legs[0].tracked_since = shared.generation + 1;
        let found = side_by_side(&zero, &one).expect("a pair");
        assert_eq!(found.plan, SyncPlan::Full(FullReason::NotTracked));
        assert_eq!(found.differences[0].author, Author::Unknown);
        let refused = side_by_side(&zero, &zero.clone()).expect_err("the same leg");
        assert_eq!(refused, NotComparable::SamePlace(0));
    }
}
