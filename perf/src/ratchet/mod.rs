//! What a 4 KiB operation costs in instructions and in memory asked for: figures that no other program on the machine changes.
//!
//! [`Work`] is done in one thread over a transport of its own and on virtual time, so that two runs of a build count the same. The
//! program `gemel-ratchet` does it under callgrind ([`callgrind`]; [`copies`] says what is copied) and holds what was counted against a file ([`counts`]), which is
//! raised only on purpose and lowered with each gain.

pub mod callgrind;
pub mod copies;
pub mod counts;
mod node;
mod piece;
mod wire;
mod world;

use core::fmt;

pub use piece::Piece;
use world::World;

/// Whose instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The initiator, with the little that makes the load.
    Host,
    /// The node that the host is at: session, SCSI, gateway, device; of a pair, the mirror and the session with the peer, too.
    Node,
    /// The other node of a pair.
    Peer,
    /// A piece of the way by itself.
    Piece,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Host, Self::Node, Self::Peer, Self::Piece];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Node => "node",
            Self::Peer => "peer",
            Self::Piece => "piece",
        }
    }

    /// What the function is called in which it works.
    fn function(self) -> &'static str {
        match self {
            Self::Host => "::host_turn",
            Self::Node => "::node_turn",
            Self::Peer => "::peer_turn",
            Self::Piece => "::counted_piece",
        }
    }
}

/// What an operation is done on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A RAM disk behind one node.
    Ram,
    /// A pair with a RAM leg each.
    Mirror,
}

/// Whether the intent log holds where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It does, or there is no log.
    Hot,
    /// Each write costs a transaction.
    Cold,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 4 KiB of what was written.
    Read,
    /// 4 KiB.
    Write(Extent),
}

/// Operations, so many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    place: Place,
    kind: Kind,
    depth: u64,
}

/// Operations that are counted: enough that what happens once in a while has its share.
const OPERATIONS: u64 = 96;

impl Work {
    const ALL: [Self; 8] = [
        Self { place: Place::Ram, kind: Kind::Read, depth: 1 },
        Self { place: Place::Ram, kind: Kind::Read, depth: 32 },
        Self { place: Place::Ram, kind: Kind::Write(Extent::Hot), depth: 1 },
        Self { place: Place::Ram, kind: Kind::Write(Extent::Hot), depth: 32 },
        Self { place: Place::Mirror, kind: Kind::Read, depth: 1 },
        Self { place: Place::Mirror, kind: Kind::Write(Extent::Hot), depth: 1 },
        Self { place: Place::Mirror, kind: Kind::Write(Extent::Hot), depth: 32 },
        Self { place: Place::Mirror, kind: Kind::Write(Extent::Cold), depth: 1 },
    ];

    fn parts(self) -> &'static [Part] {
        match self.place {
            Place::Ram => &[Part::Host, Part::Node],
            Place::Mirror => &[Part::Host, Part::Node, Part::Peer],
        }
    }

    /// Makes a world, warms it up, and does it.
    fn carry_out(self) -> Counted {
        let mut world = World::new(self.place);
        world.warm_up(self, OPERATIONS);
        world.counted(self, OPERATIONS)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place {
            Place::Ram => "ram",
            Place::Mirror => "mirror",
        };
        let kind = match (self.place, self.kind) {
            (_, Kind::Read) => "read",
            (Place::Ram, Kind::Write(_)) => "write",
            (Place::Mirror, Kind::Write(Extent::Hot)) => "write-hot",
            (Place::Mirror, Kind::Write(Extent::Cold)) => "write-cold",
        };
        write!(f, "{place}-{kind}-{}", self.depth)
    }
}

/// What was done, and what was asked of the allocator meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Operations.
    pub operations: u64,
    /// Of each part, in the order of [`Part::ALL`].
    pub allocations: [u64; Part::ALL.len()],
}

/// What is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Operations from end to end.
    Work(Work),
    /// A piece of the way.
    Piece(Piece),
}

impl Subject {
    /// All that are held against the file, in its order.
    pub fn all() -> impl Iterator<Item = Self> {
        Work::ALL.map(Self::Work).into_iter().chain(Piece::ALL.map(Self::Piece))
    }

    /// Those whose work it is.
    pub fn parts(self) -> &'static [Part] {
        match self {
            Self::Work(work) => work.parts(),
            Self::Piece(_) => &[Part::Piece],
        }
    }

    /// Does it, warmed up.
    pub fn carry_out(self) -> Counted {
        match self {
            Self::Work(work) => work.carry_out(),
            Self::Piece(piece) => piece.carry_out(OPERATIONS),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(work) => work.fmt(f),
            Self::Piece(piece) => f.write_str(piece.name()),
        }
    }
}
