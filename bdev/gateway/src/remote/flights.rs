//! What is under way on a session, and the commands that it is made of.

use bdev::{Durability, Io, Op};
use engine::{Buf, Instant};
use iscsi::initiator::{Command, Direction};
use iscsi::{TaskId, TaskMap};
use scsi::initiator as cdb;

use crate::payload::Parts;
use crate::wire::Buffers;

/// Bytes of the data of READ CAPACITY(16) (SBC-3 section 5.16).
pub(super) const CAPACITY_LEN: usize = 32;

/// What a command's data are, beside those of its I/O.
pub(super) enum Payload {
    /// The I/O's own buffer, or none.
    Io,
    /// A parameter list.
    List(Buf),
    /// Capacity data of a new session. They wait for no frame: whoever holds those may wait for this session.
    Capacity(Box<[u8; CAPACITY_LEN]>),
}

/// What is done when a deadline passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lateness {
    /// The session ends: whoever waits has to know by then. So it is with I/Os that bring a deadline of their own (a mirror's),
    /// and with the session's own commands.
    Ends,
    /// The task is aborted first, see `ladder`.
    Climbs,
}

pub(super) struct Flight {
    /// `None` for the session's own commands.
    pub(super) io: Option<Io>,
    pub(super) payload: Payload,
    /// Raw logical unit number.
    pub(super) lun: u64,
    pub(super) deadline: Instant,
    pub(super) lateness: Lateness,
    /// The operation is done and only its flush is missing.
    pub(super) syncing: bool,
}

impl Flight {
    /// An I/O as it is sent. Without a deadline of its own it has the one that is given.
    pub(super) fn of(io: Io, payload: Payload, lun: u64, deadline: Instant) -> Self {
        let lateness = if io.deadline.is_some() { Lateness::Ends } else { Lateness::Climbs };
        let deadline = io.deadline.unwrap_or(deadline);
        Self { io: Some(io), payload, lun, deadline, lateness, syncing: false }
    }
}

#[derive(Default)]
pub(super) struct Flights {
    pub(super) open: TaskMap<Flight>,
}

impl Buffers for Flights {
    fn store(&mut self, task: TaskId, offset: usize, bytes: &[u8]) {
        let target: &mut [u8] = match self.open.get_mut(&task) {
            Some(Flight { payload: Payload::Capacity(data), .. }) => &mut data[..],
            Some(Flight { io: Some(io), .. }) => match io.op_mut() {
                Op::Read { into, .. } => into,
                _ => return,
            },
            _ => return,
        };
        let room = target.len().saturating_sub(offset).min(bytes.len());
        if room > 0 {
            target[offset..offset + room].copy_from_slice(&bytes[..room]);
        }
    }

    fn load(&self, task: TaskId, offset: usize, len: usize) -> Option<Parts> {
        let flight = self.open.get(&task)?;
        let source = match (&flight.payload, flight.io.as_ref().map(Io::op)) {
            (Payload::List(list), _) => list,
            (_, Some(Op::Write { from, .. } | Op::CompareAndWrite { both: from, .. })) => from,
            _ => return None,
        };
        (offset + len <= source.len()).then(|| (source.slice(offset..offset + len), None))
    }
}

/// The command of an operation.
pub(super) fn command(op: &Op, block_size: u32, lun: u16) -> Command {
    let bytes = |blocks: u32| blocks * block_size;
    let (cdb, direction, len) = match op {
        Op::Read { range, .. } => {
            (cdb::read16(range.lba, range.blocks), Direction::Read, bytes(range.blocks))
        }
        Op::Write { range, durability, .. } => {
            let cdb = match durability {
                Durability::Durable => cdb::write16_fua(range.lba, range.blocks),
                Durability::Accepted => cdb::write16(range.lba, range.blocks),
            };
            (cdb, Direction::Write, bytes(range.blocks))
        }
        Op::Flush => (cdb::synchronize_cache(), Direction::None, 0),
        Op::Discard { .. } => (cdb::unmap(), Direction::Write, 24),
        Op::WriteZeroes { range, .. } => (cdb::write_zeroes(range.lba, range.blocks), Direction::None, 0),
        Op::CompareAndWrite { range, durability, .. } => {
            let cdb = cdb::compare_and_write(range.lba, range.blocks, *durability == Durability::Durable);
            (cdb, Direction::Write, 2 * bytes(range.blocks))
        }
        // Refused before it comes here.
        Op::BlockStatus { .. } => (cdb::test_unit_ready(), Direction::None, 0),
        Op::Fence { .. } => (cdb::register(), Direction::Write, 24),
        Op::StoreState { .. } | Op::LoadState { .. } | Op::HandOver | Op::CryptoErase => {
            unreachable!("refused before")
        }
    };
    Command { lun: scsi::lun::encode(lun), cdb, direction, len, attribute: Command::SIMPLE }
}

/// True for an operation that may be carried out twice as long as nobody has seen its result. Of a COMPARE AND WRITE that was carried
/// out already the second one finds what the first has written.
pub(super) fn is_repeatable(op: &Op) -> bool {
    !matches!(op, Op::CompareAndWrite { .. })
}

pub(super) fn parameter_list(op: &Op) -> Option<Vec<u8>> {
    match op {
        Op::Discard { range } => Some(cdb::unmap_list(range.lba, range.blocks)),
        Op::Fence { key } => Some(cdb::register_list(key.to_reservation_key())),
        _ => None,
    }
}
