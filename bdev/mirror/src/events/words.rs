//! Words for people.

use core::fmt::{Display, Formatter, Result};

use super::kind::{ArbiterTrouble, EventKind, FreezeCause};
use crate::command::Demotion;
use crate::decide::{DataAge, PromoteMode};
use crate::desk::Side;
use crate::format::config::GenerationsExhausted;
use crate::format::{Config, LegIndex, LegMask};

impl DataAge {
    /// What it means for what is served.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Current => "nothing acknowledged is missing",
            Self::Unproven => {
                "nothing acknowledged is missing, as far as this node can tell: nobody who would know has said so"
            }
            Self::Past => "acknowledged writes are missing: the data are a moment of the past",
            Self::Mixed => "the data are a mixture of old and new: check the file systems",
        }
    }
}

impl Display for FreezeCause {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Policy(reason) => {
                write!(f, "{}; the policy leaves the decision to the operator", reason.words())
            }
            Self::Arbiter(reason, ArbiterTrouble::Silent) => {
                write!(f, "{}; waiting for the arbiter", reason.words())
            }
            Self::Arbiter(reason, ArbiterTrouble::Older) => {
                write!(f, "{}; the arbiter has an older config than it should", reason.words())
            }
            Self::Arbiter(reason, ArbiterTrouble::Vacant) => {
                write!(f, "{}; the arbiter does not know the array", reason.words())
            }
            Self::GenerationsExhausted => Display::fmt(&GenerationsExhausted, f),
        }
    }
}

fn config(config: &Config, f: &mut Formatter<'_>) -> Result {
    let legs = match config.in_sync {
        both if both == LegMask::both() => "both legs".to_owned(),
        one => {
            let leg = if one.has(LegIndex::Zero) { 0 } else { 1 };
            format!("leg {leg} alone")
        }
    };
    let (generation, holder) = (config.generation(), config.holder.number());
    write!(f, "generation {generation}, node {holder} with {legs}: {}", config.reason.words())
}

impl Display for EventKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::FormattingNew => write!(f, "formatting this node's leg as the first of a new array"),
            Self::FormattingToJoin => write!(f, "formatting this node's leg to join the peer's array"),
            Self::LegUnusable(why) => write!(f, "this node's leg cannot be used: {why}"),
            Self::OwnLegFailed(error) => write!(f, "this node's leg reports: {error}"),
            Self::OwnDiskHangs(limit) => {
                write!(f, "this node's disk hangs: it has not answered for {} s", limit.as_secs_f32())
            }
            Self::OwnDiskAnswers => write!(f, "this node's disk answers again"),
            Self::UnitStateLost => {
                write!(
                    f,
                    "both copies of the unit's state on this node's leg are damaged: unless the peer's leg has it, hosts are \
                     kept out until it is given up (gemel target give-up-unit-state)"
                )
            }
            Self::OwnSuperblockFailed(error) => {
                write!(f, "this leg's superblock cannot be written ({error}): trying again")
            }
            Self::Fenced { by, generation } => write!(f, "fenced by node {by} in generation {generation}"),
            Self::StandingBy(reason) => write!(f, "standing by: {reason}"),
            Self::Holding(reason) => write!(f, "holding: {reason}"),
            Self::ConfigChanged(new) => config(new, f),
            Self::ConfigAdopted(from) => write!(f, "goes on from ").and_then(|()| config(from, f)),
            Self::Serving { generation } => write!(f, "serving in generation {generation}"),
            Self::SteppingDown => write!(f, "a newer generation holds the array: stepping down"),
            Self::SwitchingOver => write!(f, "giving the array to the peer"),
            Self::SwitchoverAbandoned(why) => write!(f, "the switchover is abandoned: {why}"),
            Self::Demoting(Demotion::Orderly) => write!(f, "demoted: stopping to serve in order"),
            Self::Demoting(Demotion::AtOnce) => {
                write!(f, "demoted at once: nothing more is acknowledged here")
            }
            Self::Stopping => write!(f, "stopping"),
            Self::Stopped => write!(f, "stopped in order"),
            Self::Orphaned => write!(f, "the peer went away before this leg was in sync"),
            Self::HolderSilent => write!(f, "the holder is not heard any more"),
            Self::HolderHeard => write!(f, "the holder is heard"),
            Self::NobodyServes => write!(f, "nobody serves, for too long: hosts find the ports unavailable"),
            Self::Frozen(cause) => write!(f, "I/O is frozen: {cause}"),
            Self::Thawed => write!(f, "I/O flows again"),
            Self::Promoting { generation, mode, data } => {
                let how = if *mode == PromoteMode::Forced { "forced promotion" } else { "promotion" };
                write!(f, "{how} to generation {generation}: {}", data.words())
            }
            Self::PromotionFailed(error) => {
                write!(f, "promotion failed: this node's leg reports: {error}")
            }
            Self::PromotionRefused(refusal) => write!(f, "no promotion: {refusal}"),
            Self::ArbiterSilent(why) => write!(f, "the arbiter does not answer: {why}"),
            Self::ArbiterDecided { holder, generation } => {
                write!(f, "the arbiter gave the array to node {} in generation {generation}", holder.number())
            }
            Self::NamedHolder { generation } => {
                write!(f, "the arbiter says that this node has had the array since generation {generation}")
            }
            Self::ArbiterOlder { expected } => write!(
                f,
                "the arbiter has an older config than generation {expected}, which a leg has seen: restored from a \
                 backup? Bring the newer one back; if it is gone for good: demote the holder at once, promote it by force"
            ),
            Self::ArbiterVacant => {
                write!(
                    f,
                    "the arbiter does not know this array: it lost its data, or is another one than before. Bring \
                     them back; if they are gone for good: demote the holder at once, promote it by force"
                )
            }
            Self::PeerJoined => write!(f, "the peer's leg takes part"),
            Self::PeerUnreachable(why) => write!(f, "the peer's leg is unreachable: {why}"),
            Self::PeerFailed(error) => write!(f, "the peer's leg reports: {error}"),
            Self::PeerBarred(cause) => write!(f, "the peer's leg is refused: {cause}"),
            Self::PeerTakesOver => write!(f, "the peer takes over"),
            Self::PeerWentOn { generation } => write!(f, "the peer went on in generation {generation}"),
            Self::SplitResolving { theirs } => write!(
                f,
                "split resolved in favour of this node's data set: that of the peer, generation {}, is overwritten",
                theirs.generation
            ),
            Self::FullCopy(why) => write!(f, "the peer's leg is copied in full: {why}"),
            Self::OwnFullCopy(why) => write!(f, "this node's leg is copied in full: {why}"),
            Self::ResyncBegun { bytes } => write!(f, "resync begins: {bytes} bytes are out of sync"),
            Self::InSync { side, generation } => {
                let which = if *side == Side::Own { "this node's leg" } else { "the peer's leg" };
                write!(f, "generation {generation}: {which} is in sync")
            }
            Self::ResyncPaused => write!(f, "resync paused"),
            Self::ResyncResumed => write!(f, "resync goes on"),
            Self::ResyncStopped { at, error } => {
                write!(f, "resync stopped: this leg cannot be read at byte {at}: {error}")
            }
        }
    }
}
