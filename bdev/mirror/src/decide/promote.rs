//! Whether this node may become the holder by the operator's hand (I10).

use thiserror::Error;

use crate::format::{LegState, Superblock, config::FORCED_JUMP, config::GENERATION_MAX};

/// How the operator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PromoteMode {
    /// Only if nothing acknowledged can be missing.
    Ordinary,
    /// Even if acknowledged writes are missing: the other side will be `split`.
    Forced,
}

/// The old holder's session on our leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HolderSession {
    /// It is there and answers.
    Alive,
    /// There is none, or it does not answer.
    Absent,
}

/// What the operator says about the old holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HolderState {
    /// Nothing.
    Unknown,
    /// It is down.
    ConfirmedDown,
}

/// How old the data is that the new holder serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataAge {
    /// Every acknowledged write is there.
    Current,
    /// A moment in the past: later acknowledged writes are missing.
    Past,
    /// A mixture of old and new, from a copy that was cut off: file systems on it need a check.
    Mixed,
}

/// A promotion that may go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Promotion {
    /// The new generation: fence the own leg with it first.
    pub generation: u64,
    /// What is served.
    pub data: DataAge,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum PromoteRefusal {
    /// Nothing to do.
    #[error("this node is the holder already")]
    AlreadyHolder,
    /// The old holder is at work.
    #[error("the holder is alive and connected to this node: stop it first, or confirm that it is down")]
    HolderAlive,
    /// The leg may miss acknowledged writes.
    #[error(
        "this node's leg is not in sync and may miss acknowledged writes: start the other node, or use force and lose them"
    )]
    NotInSync,
    /// The leg has never held the array's data.
    #[error("this node's leg has never held the array's data")]
    NoData,
    /// The leg's history diverged.
    #[error("the two legs have diverged: choose one side by hand")]
    Split,
    /// No generation left.
    #[error("the array has used up its generations: copy the data to a new array")]
    GenerationsExhausted,
}

/// Decides on a promotion of the node with superblock `own`.
///
/// # Errors
/// The first reason against it.
pub fn may_promote(
    own: &Superblock,
    mode: PromoteMode,
    session: HolderSession,
    holder: HolderState,
) -> Result<Promotion, PromoteRefusal> {
    let config = own.config();
    if config.generation() == 0 || matches!(own.own().state, LegState::Spare | LegState::Joining) {
        return Err(PromoteRefusal::NoData);
    }
    if config.holder == own.index && own.is_in_sync() && mode == PromoteMode::Ordinary {
        return Err(PromoteRefusal::AlreadyHolder);
    }
    if session == HolderSession::Alive && holder == HolderState::Unknown {
        return Err(PromoteRefusal::HolderAlive);
    }
    let data = data_age(own);
    if mode == PromoteMode::Ordinary && own.own().state == LegState::Split {
        return Err(PromoteRefusal::Split);
    }
    if mode == PromoteMode::Ordinary && data != DataAge::Current {
        return Err(PromoteRefusal::NotInSync);
    }
    let jump = if mode == PromoteMode::Forced { FORCED_JUMP } else { 1 };
    let generation = config.generation().max(own.fence.generation) + jump;
    if generation > GENERATION_MAX {
        return Err(PromoteRefusal::GenerationsExhausted);
    }
    Ok(Promotion { generation, data })
}

fn data_age(own: &Superblock) -> DataAge {
    match own.own().state {
        LegState::Syncing => DataAge::Mixed,
        LegState::InSync if own.is_in_sync() => DataAge::Current,
        _ => DataAge::Past,
    }
}
