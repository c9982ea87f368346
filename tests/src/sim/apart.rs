//! What holds of two data sets until the operator's word (I11): neither leg takes anything of the other, and what
//! `gemel split diff` would say of the two names every block that differs.

use core::convert::Infallible;

use bdev::sim::SimBdev;
use mirror::range::ByteRange;
use mirror::split::{Comparison, Kinship, Survey, side_by_side, survey};

use super::checks;
use super::host::BLOCK;
use super::split::Split;
use super::world::{Check, LEG, World};

fn surveyed(disk: &SimBdev) -> Check<Survey> {
    let read = |range: ByteRange| Ok::<_, Infallible>(checks::peek(disk, range));
    survey(LEG.bytes(), None, read).map_err(|why| format!("I11: no survey of a leg: {why}"))
}

impl World {
    pub(crate) fn check_apart(&self, split: &Split) -> Check {
        let (side, other) = (split.side(), 1 - split.side());
        let kept = split.other.as_ref().ok_or("no other data set")?;
        for (block, value) in self.held(other)? {
            let intact = self.history.check_kept(kept, block, value);
            intact
                .map_err(|why| format!("I11: the leg of node {other}, which nobody has given up: {why}"))?;
        }
        for (block, value) in self.held(side)? {
            let intact = self.history.check_leg(block, value);
            intact.map_err(|why| format!("I11: the leg of node {side}, which hosts use: {why}"))?;
        }
        self.check_comparison()
    }

    fn compared(&self) -> Check<Comparison> {
        let [one, other] = [0, 1].map(|node| surveyed(&self.machines[node].disk));
        side_by_side(&one?, &other?).map_err(|why| format!("I11: no comparison: {why}"))
    }

    fn differing_blocks(&self) -> Check<Vec<u64>> {
        let [one, other] = [self.held(0)?, self.held(1)?];
        Ok(one
            .iter()
            .filter(|(block, value)| other.get(block) != Some(value))
            .map(|(block, _)| *block)
            .collect())
    }

    /// Blocks in which the legs differ.
    pub(crate) fn differing(&self) -> Check<usize> {
        Ok(self.differing_blocks()?.len())
    }

    fn check_comparison(&self) -> Check {
        let found = self.compared()?;
        if !matches!(found.kinship, Kinship::Diverged(_)) {
            return Err(format!("I11: of two data sets it is said: {}", found.kinship));
        }
        let place = |block: u64| ByteRange::new(block * BLOCK as u64, BLOCK as u64);
        let named = |block: u64| found.differences.iter().any(|one| one.range.overlaps(place(block)));
        match self.differing_blocks()?.into_iter().find(|block| !named(*block)) {
            Some(block) => Err(format!(
                "I11: the two data sets differ at block {block}, and their comparison does not say so"
            )),
            None => Ok(()),
        }
    }
}
