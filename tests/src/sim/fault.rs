//! What can go wrong, out of `mirror.md`'s fault model.

use core::time::Duration;

use mirror::command::Demotion;

use super::coverage::Phase;

/// A node, by what it is when the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The one that serves, or served last.
    Holder,
    /// The other one.
    Peer,
    /// Both.
    Both,
}

/// A way for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Between the nodes.
    Nodes,
    /// From the holder to its peer alone.
    HolderToPeer,
    /// From the peer to the holder alone.
    PeerToHolder,
    /// Between a node and the arbiter.
    Arbiter(Who),
    /// Questions get there, and answers do not come back.
    FromArbiter(Who),
    /// Between a node and all hosts.
    Hosts(Who),
    /// From a node to all hosts alone.
    ToHosts(Who),
}

/// How a node stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Still {
    /// The process: its machine's network stack goes on.
    Process,
    /// The machine.
    Machine,
}

/// How an operation of a disk goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spoilt {
    /// Reads fail.
    Reads,
    /// Writes fail and store nothing.
    Writes,
    /// Flushes fail.
    Flushes,
}

/// Where bits rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rot {
    /// One of the superblock's slots.
    Superblock,
    /// The third copy.
    Tail,
    /// A block of the intent log's ring.
    Log,
    /// One slot of a bitmap page.
    Bitmap,
    /// One copy of the logical unit's state.
    UnitState,
    /// Both copies of it on a leg.
    UnitStates,
}

impl Rot {
    /// What is drawn with the other faults.
    pub(super) const DRAWN: [Self; 4] = [Self::Superblock, Self::Tail, Self::Log, Self::Bitmap];
}

/// How a holder is out of the way when its peer is promoted by force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    /// Its node is down.
    Down,
    /// It lives, and nobody reaches it.
    CutOff,
}

/// Which of two data sets the operator keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeps {
    /// The one of the node that was promoted by force.
    Promoted,
    /// The old holder's.
    Old,
}

/// What happens while the other one is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Upset {
    /// Nothing.
    None,
    /// A node dies.
    Kill(Who),
    /// A node stands still.
    Pause(Who),
}

/// A fault. Those that last say for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies; it is started again after a while.
    Kill(Who, Duration),
    /// The power fails: what the cache held may be lost.
    PowerCut(Who, Duration),
    /// The node stands still, and goes on as if nothing had been.
    Pause(Who, Still, Duration),
    /// The operator stops a node in order; it is started again after a while.
    Stop(Who, Duration),
    /// A way is cut.
    Cut(Way, Duration),
    /// The holder's connections to its peer and to every host but the last are reset, and these ways and the one to the
    /// arbiter are cut.
    Isolate(Duration),
    /// Every connection on a way is reset.
    Reset(Way),
    /// A byte on a way is damaged.
    Corrupt(Way),
    /// A way takes longer.
    SlowWay(Way, Duration, Duration),
    /// A disk takes longer.
    SlowDisk(Who, Duration, Duration),
    /// The next writes of a disk take so much longer, and later ones pass them.
    StickWrites(Who, u32, Duration),
    /// A disk takes what it is given, and does nothing of it before that time is over.
    HangDisk(Who, Duration),
    /// The next operations of a disk fail.
    Spoil(Who, Spoilt, u32),
    /// A block of a disk's data cannot be read until it is written.
    BadBlock(Who),
    /// A bit of a leg's metadata flips.
    Rot(Who, Rot),
    /// A block of a leg's metadata is overwritten by another block of the same kind: a misdirected write.
    Misdirect(Who, Rot),
    /// The peer's disk is replaced by an empty one.
    ReplaceDisk(Duration),
    /// The peer's leg is set back to what it was a while ago.
    RevertLeg(Duration),
    /// The peer's leg becomes a copy of the holder's.
    CloneLeg(Duration),
    /// The arbiter answers late.
    SlowArbiter(Duration, Duration),
    /// The arbiter is set back to a backup.
    RestoreArbiter,
    /// The arbiter forgets everything.
    LoseArbiter,
    /// The holder dies, and the operator promotes the peer by hand.
    Promote,
    /// The same by force, with everything that was acknowledged on the peer's leg.
    ForcePromote,
    /// The peer, which has been out for a while, is promoted by force; the holder is out of the way, and comes back. The
    /// operator keeps one of the two data sets.
    ForceBehind(Gone, Keeps, Upset),
    /// The operator gives the array to the peer.
    Switchover,
    /// The operator has the holder stand by, and one of the two serve soon after.
    Demote(Demotion),
    /// Both nodes die, and the holder starts by itself without its peer when it has waited for so long.
    StartAlone(Duration),
    /// A host wants the other node to serve (SET TARGET PORT GROUPS).
    ChooseGroup,
    /// The operator holds a resync up.
    PauseResync(Duration),
}

/// A fault without its figures: a row of the coverage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "as the faults")]
pub enum Point {
    Kill,
    PowerCut,
    Pause,
    Stop,
    Cut,
    CutOneWay,
    Isolate,
    Reset,
    Corrupt,
    SlowWay,
    SlowDisk,
    StickWrites,
    HangDisk,
    Spoil,
    BadBlock,
    Rot,
    Misdirect,
    ReplaceDisk,
    RevertLeg,
    CloneLeg,
    SlowArbiter,
    RestoreArbiter,
    LoseArbiter,
    Promote,
    ForcePromote,
    ForceBehind,
    Switchover,
    Demote,
    StartAlone,
    ChooseGroup,
    PauseResync,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::Kill,
        Self::PowerCut,
        Self::Pause,
        Self::Stop,
        Self::Cut,
        Self::CutOneWay,
        Self::Isolate,
        Self::Reset,
        Self::Corrupt,
        Self::SlowWay,
        Self::SlowDisk,
        Self::StickWrites,
        Self::HangDisk,
        Self::Spoil,
        Self::BadBlock,
        Self::Rot,
        Self::Misdirect,
        Self::ReplaceDisk,
        Self::RevertLeg,
        Self::CloneLeg,
        Self::SlowArbiter,
        Self::RestoreArbiter,
        Self::LoseArbiter,
        Self::Promote,
        Self::ForcePromote,
        Self::ForceBehind,
        Self::Switchover,
        Self::Demote,
        Self::StartAlone,
        Self::ChooseGroup,
        Self::PauseResync,
    ];
}

impl Fault {
    /// Its row.
    pub fn point(&self) -> Point {
        match self {
            Self::Kill(..) => Point::Kill,
            Self::PowerCut(..) => Point::PowerCut,
            Self::Pause(..) => Point::Pause,
            Self::Stop(..) => Point::Stop,
            Self::Cut(Way::Nodes | Way::Arbiter(_) | Way::Hosts(_), _) => Point::Cut,
            Self::Cut(..) => Point::CutOneWay,
            Self::Isolate(_) => Point::Isolate,
            Self::Reset(_) => Point::Reset,
            Self::Corrupt(_) => Point::Corrupt,
            Self::SlowWay(..) => Point::SlowWay,
            Self::SlowDisk(..) => Point::SlowDisk,
            Self::StickWrites(..) => Point::StickWrites,
            Self::HangDisk(..) => Point::HangDisk,
            Self::Spoil(..) => Point::Spoil,
            Self::BadBlock(_) => Point::BadBlock,
            Self::Rot(..) => Point::Rot,
            Self::Misdirect(..) => Point::Misdirect,
            Self::ReplaceDisk(_) => Point::ReplaceDisk,
            Self::RevertLeg(_) => Point::RevertLeg,
            Self::CloneLeg(_) => Point::CloneLeg,
            Self::SlowArbiter(..) => Point::SlowArbiter,
            Self::RestoreArbiter => Point::RestoreArbiter,
            Self::LoseArbiter => Point::LoseArbiter,
            Self::Promote => Point::Promote,
            Self::ForcePromote => Point::ForcePromote,
            Self::ForceBehind(..) => Point::ForceBehind,
            Self::Switchover => Point::Switchover,
            Self::Demote(_) => Point::Demote,
            Self::StartAlone(_) => Point::StartAlone,
            Self::ChooseGroup => Point::ChooseGroup,
            Self::PauseResync(_) => Point::PauseResync,
        }
    }
}

/// A fault and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Not before this time since the array was in sync.
    pub at: Duration,
    /// Then the next moment when this is under way, if there is one soon.
    pub during: Option<Phase>,
    /// What happens.
    pub fault: Fault,
}
