//! Pieces of the way that are counted by themselves: what all operations share, and what only some sessions pay for.

use core::hint::black_box;

use engine::allocations;
use iscsi::deframe::{Deframer, Sink, Step};
use iscsi::digest;
use iscsi::pdu::{BHS_LEN, Header, flag, opcode};

use super::{Counted, Part};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The header of a SCSI command is taken in, and what is in it read.
    Header,
    /// The digest of 4 KiB.
    Digest,
}

impl Piece {
    pub(super) const ALL: [Self; 2] = [Self::Header, Self::Digest];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Digest => "digest-4k",
        }
    }

    pub(super) fn carry_out(self, times: u64) -> Counted {
        match self {
            Self::Header => {
                let header = Header::new(opcode::SCSI_COMMAND, flag::FINAL | flag::READ).with_edtl(4096);
                let mut deframer = Deframer::new();
                let mut once = || take_in(&mut deframer, black_box(&header.0));
                once();
                counted_piece(times, &mut once)
            }
            Self::Digest => {
                let bytes = vec![0x5a; 4096];
                let mut once = || {
                    black_box(digest::append(0, black_box(&bytes)));
                };
                once();
                counted_piece(times, &mut once)
            }
        }
    }
}

fn take_in(deframer: &mut Deframer, bytes: &[u8; BHS_LEN]) {
    let complete = deframer.handle(bytes);
    assert_eq!(complete, Step::Header, "a header is as long as it says");
    let header = deframer.header();
    black_box((header.opcode(), header.itt(), header.lun(), header.edtl(), header.cmd_sn(), header.cdb()));
    deframer.accept(Sink::Discard);
}

/// The profiler knows it by its name.
#[inline(never)]
fn counted_piece(times: u64, once: &mut dyn FnMut()) -> Counted {
    let mut counted = Counted { operations: times, allocations: [0; Part::ALL.len()] };
    let before = allocations::asked();
    for _ in 0..times {
        once();
    }
    counted.allocations[Part::Piece as usize] = allocations::asked() - before;
    counted
}
