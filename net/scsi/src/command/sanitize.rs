//! SANITIZE (SBC-3 section 5.24).

use super::field::{u16_at, usage};
use super::{Command, Immediate, Row, row};
use crate::sense::Sense;

/// How the medium is made unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanitizeMethod {
    /// Patterns of the parameter list are written.
    Overwrite,
    /// Blocks are given back and read as zeroes.
    BlockErase,
    /// The key that the medium is encrypted with is changed.
    CryptoErase,
    /// The failure of an earlier operation is acknowledged.
    ExitFailureMode,
}

/// AUSE: how a failed operation may be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowUnrestrictedExit {
    /// Only by another sanitize operation that succeeds.
    No,
    /// By EXIT FAILURE MODE too.
    Yes,
}

/// A SANITIZE command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sanitize {
    /// The service action.
    pub method: SanitizeMethod,
    /// When its status comes.
    pub immediate: Immediate,
    /// What follows a failure.
    pub exit: AllowUnrestrictedExit,
    /// Bytes of the parameter list.
    pub length: u32,
}

fn parse(cdb: &[u8; 16], method: SanitizeMethod) -> Result<Command, Sense> {
    // ZNR is of zoned devices.
    if cdb[1] & 0x40 != 0 {
        return Err(Sense::invalid_cdb_byte(1));
    }
    if let Some(at) = (2..7).find(|at| cdb[*at] != 0) {
        return Err(Sense::invalid_cdb_byte(at as u16));
    }
    let length = u32::from(u16_at(cdb, 7));
    let legal = match method {
        SanitizeMethod::Overwrite => length >= 5,
        SanitizeMethod::BlockErase | SanitizeMethod::CryptoErase | SanitizeMethod::ExitFailureMode => {
            length == 0
        }
    };
    if !legal {
        return Err(Sense::invalid_cdb_byte(7));
    }
    let immediate = if cdb[1] & 0x80 != 0 { Immediate::Yes } else { Immediate::No };
    // AUSE is of the operations, not of what follows their failure.
    let exit = match (cdb[1] & 0x20, method) {
        (0, _) | (_, SanitizeMethod::ExitFailureMode) => AllowUnrestrictedExit::No,
        _ => AllowUnrestrictedExit::Yes,
    };
    Ok(Command::Sanitize(Sanitize { method, immediate, exit, length }))
}

/// The rows.
pub(super) const ROWS: &[Row] = &[
    row!(0x48, Some(0x01), 10, usage::block(0x48, 0xa1, [(7, 9), (0, 0)]), "SANITIZE, OVERWRITE", |cdb| {
        parse(cdb, SanitizeMethod::Overwrite)
    }),
    row!(0x48, Some(0x02), 10, usage::block(0x48, 0xa2, [(7, 9), (0, 0)]), "SANITIZE, BLOCK ERASE", |cdb| {
        parse(cdb, SanitizeMethod::BlockErase)
    }),
    row!(
        0x48,
        Some(0x03),
        10,
        usage::block(0x48, 0xa3, [(7, 9), (0, 0)]),
        "SANITIZE, CRYPTOGRAPHIC ERASE",
        |cdb| { parse(cdb, SanitizeMethod::CryptoErase) }
    ),
    row!(
        0x48,
        Some(0x1f),
        10,
        usage::block(0x48, 0x9f, [(7, 9), (0, 0)]),
        "SANITIZE, EXIT FAILURE MODE",
        |cdb| { parse(cdb, SanitizeMethod::ExitFailureMode) }
    ),
];
