//! A sanitize operation as a unit keeps it: what was ordered, until it has ended well (SBC-3 section 4.11).
//!
//! It is kept before anything is overwritten and until everything is, so that whoever serves the unit next goes on with it, and nobody
//! takes half of it for the data of the unit.

use alloc::vec::Vec;

use crate::command::AllowUnrestrictedExit;
use crate::parameter::{Inversion, Overwrite};
use crate::reservation::{Cursor, RecordError};
use crate::sense::Sense;

/// How the medium is made unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The patterns of a parameter list are written.
    Overwrite(Overwrite),
    /// Zeroes are written, and then the blocks are given back where the device can take them.
    BlockErase,
    /// The key is changed, so that what is on the medium can be read no more.
    CryptoErase,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It goes on.
    Begun,
    /// It has failed.
    Failed,
}

/// An operation that has not ended well yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sanitization {
    /// What was ordered.
    pub order: Order,
    /// How a failure may be left.
    pub exit: AllowUnrestrictedExit,
    /// How far it is.
    pub stage: Stage,
}

const BEGUN: u8 = 1;
const FAILED: u8 = 2;
const AUSE: u8 = 1;
const INVERT: u8 = 2;
const OVERWRITE: u8 = 1;
const BLOCK_ERASE: u8 = 2;
const CRYPTO_ERASE: u8 = 3;

impl Sanitization {
    /// Bytes of a record with a pattern of one block of 4096 bytes.
    pub const RECORD_MAX: usize = 6 + 4096;

    /// One that is ordered now.
    pub fn new(order: Order, exit: AllowUnrestrictedExit) -> Self {
        Self { order, exit, stage: Stage::Begun }
    }

    /// The same, failed.
    #[must_use]
    pub fn failed(self) -> Self {
        Self { stage: Stage::Failed, ..self }
    }

    /// EXIT FAILURE MODE, of what is kept; `progress` is how far one is that goes on.
    ///
    /// # Errors
    /// It goes on, or may not be left like this.
    pub fn exit_failure(kept: Option<&Self>, progress: u16) -> Result<(), Sense> {
        match kept {
            Some(Self { stage: Stage::Begun, .. }) => {
                Err(Sense::SANITIZE_IN_PROGRESS.with_progress(progress))
            }
            Some(Self { exit: AllowUnrestrictedExit::No, .. }) => Err(Sense::SANITIZE_FAILED),
            Some(_) | None => Ok(()),
        }
    }

    /// As bytes: stage, flags (bit 0 AUSE, bit 1 INVERT), method and passes u8 each, the pattern's length u16 and its bytes.
    pub(crate) fn to_record(&self) -> Vec<u8> {
        let stage = if self.stage == Stage::Begun { BEGUN } else { FAILED };
        let ause = if self.exit == AllowUnrestrictedExit::Yes { AUSE } else { 0 };
        let (invert, method, passes, pattern) = match &self.order {
            Order::Overwrite(Overwrite { passes, inversion, pattern }) => {
                let invert = if *inversion == Inversion::EachPass { INVERT } else { 0 };
                (invert, OVERWRITE, *passes, &pattern[..])
            }
            Order::BlockErase => (0, BLOCK_ERASE, 0, &[][..]),
            Order::CryptoErase => (0, CRYPTO_ERASE, 0, &[][..]),
        };
        let len = u16::try_from(pattern.len()).expect("at most a block").to_le_bytes();
        [&[stage, ause | invert, method, passes, len[0], len[1]], pattern].concat()
    }

    pub(crate) fn from_cursor(cursor: &mut Cursor<'_>) -> Result<Self, RecordError> {
        let [stage, flags, method, passes] = cursor.array()?;
        let len = usize::from(cursor.u16()?);
        let pattern = cursor.take(len)?.to_vec();
        let stage = match stage {
            BEGUN => Stage::Begun,
            FAILED => Stage::Failed,
            _ => return Err(RecordError),
        };
        let exit = if flags & AUSE != 0 { AllowUnrestrictedExit::Yes } else { AllowUnrestrictedExit::No };
        let inversion = if flags & INVERT != 0 { Inversion::EachPass } else { Inversion::None };
        let order = match method {
            OVERWRITE if passes > 0 && !pattern.is_empty() => {
                Order::Overwrite(Overwrite { passes, inversion, pattern })
            }
            BLOCK_ERASE => Order::BlockErase,
            CRYPTO_ERASE => Order::CryptoErase,
            _ => return Err(RecordError),
        };
        Ok(Self { order, exit, stage })
    }
}
