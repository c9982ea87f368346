//! What each block may hold: nothing older than its last acknowledged write, nothing newer than its last issued one.

use thiserror::Error;

use crate::stamp::{Stamp, Unstamped};

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Sequence of the last write that was issued; zero before the first.
    issued: u64,
    /// Sequence of the last write that was acknowledged.
    acknowledged: u64,
}

/// The writes of one run.
#[derive(Clone, Debug)]
pub struct Ledger {
    writer: u64,
    lines: Vec<Line>,
}

/// A block that holds what it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// An acknowledged write is gone.
    #[error("block {address}: write {acknowledged} was acknowledged, write {found} is there")]
    Lost {
        /// The block.
        address: u64,
        /// The last acknowledged write.
        acknowledged: u64,
        /// The write that is there; zero for none.
        found: u64,
    },
    /// A write that was never issued.
    #[error("block {address}: write {found} is there and was never issued")]
    Invented {
        /// The block.
        address: u64,
        /// The write that is there.
        found: u64,
    },
    /// Another block's, another run's or no whole write.
    #[error("block {address}: holds no whole write of this run ({found:?})")]
    Damaged {
        /// The block.
        address: u64,
        /// What is there, as far as it can be told.
        found: Option<Stamp>,
    },
}

impl Ledger {
    /// A ledger of `blocks` blocks for one run.
    pub fn new(writer: u64, blocks: usize) -> Self {
        Self { writer, lines: vec![Line::default(); blocks] }
    }

    /// The stamp of the next write of a block.
    pub fn issue(&mut self, address: u64) -> Stamp {
        let line = &mut self.lines[index(address)];
        line.issued += 1;
        Stamp { writer: self.writer, sequence: line.issued, address }
    }

    /// A write was acknowledged.
    pub fn acknowledge(&mut self, stamp: Stamp) {
        let line = &mut self.lines[index(stamp.address)];
        line.acknowledged = line.acknowledged.max(stamp.sequence);
    }

    /// Blocks that were ever written.
    pub fn written(&self) -> impl Iterator<Item = u64> + '_ {
        (0u64..).zip(&self.lines).filter(|(_, line)| line.issued > 0).map(|(address, _)| address)
    }

    /// Judges a block's content.
    ///
    /// # Errors
    /// It holds what it must not.
    pub fn check(&self, address: u64, block: &[u8]) -> Result<(), Mismatch> {
        let line = self.lines[index(address)];
        let found = match Stamp::read(block) {
            Ok(stamp) if stamp.writer == self.writer && stamp.address == address => stamp.sequence,
            Ok(stamp) if line.acknowledged > 0 => {
                return Err(Mismatch::Damaged { address, found: Some(stamp) });
            }
            Err(Unstamped::Damaged) if line.acknowledged > 0 => {
                return Err(Mismatch::Damaged { address, found: None });
            }
            // Never acknowledged: what was there before may still be there.
            _ => 0,
        };
        if found < line.acknowledged {
            return Err(Mismatch::Lost { address, acknowledged: line.acknowledged, found });
        }
        if found > line.issued {
            return Err(Mismatch::Invented { address, found });
        }
        Ok(())
    }
}

fn index(address: u64) -> usize {
    usize::try_from(address).expect("a ledger's blocks fit in memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::BLOCK_LEN;

    #[test]
    fn a_block_may_hold_the_acknowledged_write_or_a_later_one() {
        let mut ledger = Ledger::new(5, 8);
        let stamps: Vec<Stamp> = (0..3).map(|_| ledger.issue(2)).collect();
        ledger.acknowledge(stamps[1]);
        let judge = |stamp: &Stamp| {
            let mut block = vec![0; BLOCK_LEN];
            stamp.write(&mut block);
            ledger.check(2, &block)
        };
        assert_eq!(judge(&stamps[0]), Err(Mismatch::Lost { address: 2, acknowledged: 2, found: 1 }));
        assert_eq!((judge(&stamps[1]), judge(&stamps[2])), (Ok(()), Ok(())));
        assert_eq!(
            judge(&Stamp { sequence: 4, ..stamps[0] }),
            Err(Mismatch::Invented { address: 2, found: 4 })
        );
        let foreign = Stamp { address: 3, ..stamps[2] };
        assert_eq!(judge(&foreign), Err(Mismatch::Damaged { address: 2, found: Some(foreign) }));
        assert_eq!(
            ledger.check(2, &[0; BLOCK_LEN]),
            Err(Mismatch::Lost { address: 2, acknowledged: 2, found: 0 })
        );
        assert_eq!(ledger.check(3, &[7; BLOCK_LEN]), Ok(()), "never written: anything may be there");
        assert_eq!(ledger.written().collect::<Vec<_>>(), [2]);
    }
}
