//! PERSISTENT RESERVE OUT parameter lists (SPC-4 sections 6.16.3 and 6.16.4).

use alloc::vec::Vec;

use super::{Action, InitiatorPort, PowerLoss, transport};
use crate::sense::Sense;

/// Bytes of the longest list that is read.
pub const LIST_MAX: u32 = 16 << 10;
/// Bytes of a list without TransportIDs.
const BASIC_LEN: usize = 24;
/// Bytes before the TransportIDs of SPEC_I_PT, with their length.
const IDS_AT: usize = 28;
/// Bytes before the TransportID of REGISTER AND MOVE.
const MOVE_ID_AT: usize = 24;

const SPEC_I_PT: u8 = 0x08;
const ALL_TG_PT: u8 = 0x04;
const APTPL: u8 = 0x01;
const UNREG: u8 = 0x02;

/// Which target ports a registration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    /// The one that the command came through.
    This,
    /// All of them (ALL_TG_PT).
    All,
}

/// What becomes of the registration of whoever moves a reservation away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mover {
    /// It stays.
    Stays,
    /// It goes (UNREG).
    Unregisters,
}

/// Where REGISTER AND MOVE moves a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) mover: Mover,
    pub(super) port: u16,
    pub(super) to: InitiatorPort,
}

/// An initiator port that a list names, and the byte where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) at: u16,
    pub(super) port: InitiatorPort,
}

/// A parameter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub(super) key: u64,
    pub(super) new_key: u64,
    pub(super) power_loss: PowerLoss,
    pub(super) through: Through,
    /// Other initiator ports to register: `None` without SPEC_I_PT.
    pub(super) others: Option<Vec<Named>>,
    pub(super) moved: Option<Move>,
}

fn u64_at(list: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(list[at..at + 8].try_into().expect("eight bytes"))
}

fn len_at(list: &[u8], at: usize) -> Result<usize, Sense> {
    let bytes = list.get(at..at + 4).ok_or(Sense::PARAMETER_LENGTH)?;
    Ok(u32::from_be_bytes(bytes.try_into().expect("four bytes")) as usize)
}

fn power_loss(flags: u8) -> PowerLoss {
    if flags & APTPL != 0 { PowerLoss::Persists } else { PowerLoss::Forgets }
}

impl Parameters {
    /// Reads a list.
    ///
    /// # Errors
    /// A length that does not fit, or a field with its byte.
    pub fn parse(action: Action, list: &[u8]) -> Result<Self, Sense> {
        if list.len() < BASIC_LEN {
            return Err(Sense::PARAMETER_LENGTH);
        }
        match action {
            Action::RegisterAndMove => Self::parse_move(list),
            _ => Self::parse_basic(action, list),
        }
    }

    fn parse_basic(action: Action, list: &[u8]) -> Result<Self, Sense> {
        let flags = list[20];
        let registers = matches!(action, Action::Register | Action::RegisterAndIgnore);
        let others = match (flags & SPEC_I_PT != 0, action) {
            (false, _) if list.len() != BASIC_LEN => return Err(Sense::PARAMETER_LENGTH),
            (false, _) => None,
            // SPEC_I_PT is for REGISTER, with a list behind it.
            (true, Action::Register) if list.len() >= IDS_AT => Some(named(list)?),
            (true, _) => return Err(Sense::invalid_parameter_byte(20)),
        };
        Ok(Self {
            key: u64_at(list, 0),
            new_key: u64_at(list, 8),
            power_loss: power_loss(flags),
            through: if registers && flags & ALL_TG_PT != 0 { Through::All } else { Through::This },
            others,
            moved: None,
        })
    }

    fn parse_move(list: &[u8]) -> Result<Self, Sense> {
        let (flags, len) = (list[17], len_at(list, 20)?);
        if list.len() != MOVE_ID_AT + len {
            return Err(Sense::PARAMETER_LENGTH);
        }
        let (to, used) = transport::decode(&list[MOVE_ID_AT..]).ok_or(Sense::invalid_parameter_byte(24))?;
        if used != len {
            return Err(Sense::invalid_parameter_byte(20));
        }
        let port = u16::from_be_bytes([list[18], list[19]]);
        let mover = if flags & UNREG != 0 { Mover::Unregisters } else { Mover::Stays };
        Ok(Self {
            key: u64_at(list, 0),
            new_key: u64_at(list, 8),
            power_loss: power_loss(flags),
            through: Through::This,
            others: None,
            moved: Some(Move { mover, port, to }),
        })
    }

    /// SERVICE ACTION RESERVATION KEY.
    pub fn new_key(&self) -> u64 {
        self.new_key
    }

    /// What to say where APTPL cannot be had.
    pub fn power_loss_unsupported(&self) -> Sense {
        Sense::invalid_parameter_byte(if self.moved.is_some() { 17 } else { 20 })
    }

    /// Whether the registrations are to outlive a loss of power; SPC-4 looks at it when something is registered.
    pub fn power_loss(&self) -> PowerLoss {
        self.power_loss
    }
}

fn named(list: &[u8]) -> Result<Vec<Named>, Sense> {
    let len = len_at(list, BASIC_LEN)?;
    if list.len() != IDS_AT + len {
        return Err(Sense::PARAMETER_LENGTH);
    }
    let (mut all, mut next) = (Vec::new(), IDS_AT);
    while next < list.len() {
        let at = u16::try_from(next).unwrap_or(u16::MAX);
        let (port, used) = transport::decode(&list[next..]).ok_or(Sense::invalid_parameter_byte(at))?;
        all.push(Named { at, port });
        next += used;
    }
    Ok(all)
}
