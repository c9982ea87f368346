//! Command descriptor blocks: one table, one parser.
//!
//! A command is a row of its family's file and a variant of [`Command`]; the table is made of the families.

mod block;
mod copy;
mod field;
mod identity;
mod log;
mod medium;
mod primary;
mod provisioning;
mod reservation;
mod sanitize;

use crate::identifying::Kind;
use crate::mode::Save;
use crate::reservation as reserve;
use crate::sense::Sense;
use crate::{alua, log as pages};
pub use sanitize::{AllowUnrestrictedExit, Sanitize, SanitizeMethod};

/// A run of blocks on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// First logical block address.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u32,
    /// FUA: stable before the status, or read from the medium.
    pub fua: bool,
}

/// What VERIFY compares with (SBC-3 section 5.33).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// Only that the medium reads.
    Medium,
    /// Each block with the data-out buffer.
    Data,
    /// Each block with the one block of the data-out buffer.
    OneBlock,
}

/// Whether the status waits for the operation's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Immediate {
    /// IMMED=1: the status comes when the command is understood.
    Yes,
    /// IMMED=0.
    No,
}

/// What START STOP UNIT asks for (SBC-3 section 5.25).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartStop {
    /// A power condition other than START_VALID: nothing for a unit without power conditions.
    Power,
    /// Make the medium ready.
    Start,
    /// Stop the medium.
    Stop,
    /// Load the medium.
    Load,
    /// Eject the medium.
    Eject,
}

/// Whether removal of the medium is prevented (SPC-4 section 6.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Allowed, as far as this nexus goes.
    Allowed,
    /// Prevented by this nexus.
    Prevented,
}

/// Which defects READ DEFECT DATA asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefectList {
    /// PLIST, GLIST and DEFECT LIST FORMAT as in the CDB.
    pub request: u8,
    /// Bytes of the header: 4 for the 10-byte command, 8 for the 12-byte one.
    pub header: u8,
}

/// Which self-test SEND DIAGNOSTIC asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfTest {
    /// None.
    None,
    /// The default one, which is the short one in the foreground.
    Foreground,
}

/// Which priorities REPORT PRIORITY asks for (SPC-4 section 6.34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priorities {
    /// That of the nexus that asks.
    Own,
    /// Those that were set, of all nexuses.
    Set,
}

/// What touches the medium, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It does not.
    None,
    /// It needs a medium, and changes nothing on it.
    Reads,
    /// It changes the medium.
    Writes,
}

/// A parsed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields carry the names that the standards give them")]
pub enum Command {
    TestUnitReady,
    RequestSense {
        descriptor: bool,
        allocation: u32,
    },
    Inquiry {
        page: Option<u8>,
        allocation: u32,
    },
    ReportLuns {
        select: u8,
        allocation: u32,
    },
    ModeSense {
        long: bool,
        page_control: u8,
        page: u8,
        subpage: u8,
        no_block_descriptor: bool,
        allocation: u32,
    },
    ModeSelect {
        long: bool,
        save: Save,
        length: u32,
    },
    ReadCapacity10,
    ReadCapacity16 {
        allocation: u32,
    },
    Read(Transfer),
    Write(Transfer),
    WriteAndVerify {
        transfer: Transfer,
        check: ByteCheck,
    },
    Verify {
        transfer: Transfer,
        check: ByteCheck,
    },
    SynchronizeCache {
        lba: u64,
        blocks: u32,
    },
    OrWrite(Transfer),
    CompareAndWrite(Transfer),
    WriteAtomic {
        transfer: Transfer,
        boundary: u16,
    },
    PreFetch {
        lba: u64,
        blocks: u32,
    },
    ReadDefectData {
        list: DefectList,
        allocation: u32,
    },
    GetLbaStatus {
        lba: u64,
        allocation: u32,
    },
    StartStopUnit {
        action: StartStop,
        immediate: Immediate,
    },
    PreventAllow(Removal),
    Sanitize(Sanitize),
    ExtendedCopy {
        length: u32,
    },
    ExtendedCopyLid4 {
        length: u32,
    },
    PopulateToken {
        list: u32,
        length: u32,
    },
    WriteUsingToken {
        list: u32,
        length: u32,
    },
    CopyOperationAbort {
        list: u32,
    },
    ReceiveCopyStatusLid4 {
        list: u32,
        allocation: u32,
    },
    ReceiveTokenInformation {
        list: u32,
        allocation: u32,
    },
    ReceiveCopyStatus {
        list: u8,
        allocation: u32,
    },
    ReceiveCopyParameters {
        allocation: u32,
    },
    Unmap {
        length: u32,
    },
    WriteSame {
        transfer: Transfer,
        unmap: bool,
        no_data: bool,
    },
    ReportSupportedOpcodes {
        option: u8,
        opcode: u8,
        service_action: u16,
        timeouts: bool,
        allocation: u32,
    },
    ReportTargetPortGroups {
        header: alua::Header,
        allocation: u32,
    },
    SetTargetPortGroups {
        length: u32,
    },
    Reservation(reserve::Request),
    LogSense {
        request: pages::Request,
        allocation: u32,
    },
    LogSelect {
        page: u8,
        subpage: u8,
        length: u32,
    },
    LogReset,
    SendDiagnostic {
        test: SelfTest,
        length: u32,
    },
    ReceiveDiagnostic {
        page: u8,
        allocation: u32,
    },
    ReportIdentifying {
        kind: Option<Kind>,
        allocation: u32,
    },
    SetIdentifying {
        kind: Kind,
        length: u32,
    },
    ReportSupportedTaskManagement {
        extended: bool,
        allocation: u32,
    },
    ReportPriority {
        which: Priorities,
        allocation: u32,
    },
    ReportTimestamp {
        allocation: u32,
    },
}

impl Command {
    /// What it does to the medium.
    pub fn access(&self) -> Access {
        match self {
            Self::Write(_)
            | Self::WriteAndVerify { .. }
            | Self::OrWrite(_)
            | Self::CompareAndWrite(_)
            | Self::WriteAtomic { .. }
            | Self::WriteSame { .. }
            | Self::Unmap { .. }
            | Self::WriteUsingToken { .. }
            | Self::Sanitize(_) => Access::Writes,
            Self::TestUnitReady
            | Self::Read(_)
            | Self::Verify { .. }
            | Self::PreFetch { .. }
            | Self::SynchronizeCache { .. }
            | Self::ReadCapacity10
            | Self::ReadCapacity16 { .. }
            | Self::GetLbaStatus { .. }
            | Self::PopulateToken { .. }
            | Self::SendDiagnostic { test: SelfTest::Foreground, .. }
            | Self::ReadDefectData { .. } => Access::Reads,
            _ => Access::None,
        }
    }
}

/// The shape of a command descriptor block: how a row's bytes become a [`Command`].
type Parse = fn(&[u8; 16]) -> Result<Command, Sense>;

/// One command.
#[derive(Clone, Copy)]
pub struct Row {
    /// Operation code.
    pub opcode: u8,
    /// Service action, where the operation code has them.
    pub service_action: Option<u16>,
    /// Bytes of the CDB.
    pub length: u8,
    /// CDB usage map: the bits that the device server looks at (SPC-4 section 6.35.3).
    pub usage: [u8; 16],
    /// Its name in the standard.
    pub name: &'static str,
    parse: Parse,
}

macro_rules! row {
    ($opcode:expr, $sa:expr, $length:expr, $usage:expr, $name:expr, $parse:expr) => {
        Row {
            opcode: $opcode,
            service_action: $sa,
            length: $length,
            usage: $usage,
            name: $name,
            parse: $parse,
        }
    };
}

use row;

/// The families of commands, each in its own file.
const FAMILIES: [&[Row]; 9] = [
    copy::ROWS,
    identity::ROWS,
    log::ROWS,
    primary::ROWS,
    medium::ROWS,
    block::ROWS,
    provisioning::ROWS,
    reservation::ROWS,
    sanitize::ROWS,
];

const fn count() -> usize {
    let (mut family, mut count) = (0, 0);
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
}

const fn rank(row: &Row) -> u32 {
    let action = match row.service_action {
        Some(action) => action as u32 + 1,
        None => 0,
    };
    (row.opcode as u32) << 17 | action
}

/// All rows, by operation code and service action.
const fn sorted() -> [Row; count()] {
    let mut table = [FAMILIES[0][0]; count()];
    let (mut family, mut filled) = (0, 0);
    while family < FAMILIES.len() {
        let mut index = 0;
        while index < FAMILIES[family].len() {
            let row = FAMILIES[family][index];
            let mut at = filled;
            while at > 0 && rank(&table[at - 1]) > rank(&row) {
                table[at] = table[at - 1];
                at -= 1;
            }
            table[at] = row;
            filled += 1;
            index += 1;
        }
        family += 1;
    }
    table
}

/// Every command that is supported, by operation code and service action: the families' rows, put in order by the compiler.
pub static TABLE: [Row; count()] = sorted();

/// The service action of a CDB whose operation code has them.
fn service_action_of(cdb: &[u8; 16]) -> u16 {
    u16::from(cdb[1] & 0x1f)
}

/// Looks a command up and parses it.
///
/// # Errors
/// Invalid operation code, or an invalid field with its byte.
pub fn parse(cdb: &[u8; 16]) -> Result<Command, Sense> {
    let mut known = false;
    for row in TABLE.iter().filter(|row| row.opcode == cdb[0]) {
        known = true;
        if row.service_action.is_none_or(|action| action == service_action_of(cdb)) {
            // NACA asks for auto contingent allegiance, which is not supported (SAM-5 section 5.2, NORMACA is zero).
            let control = usize::from(row.length) - 1;
            if cdb[control] & 0x04 != 0 {
                return Err(Sense::invalid_cdb_byte(u16::from(row.length) - 1));
            }
            return (row.parse)(cdb);
        }
    }
    Err(if known { Sense::invalid_cdb_byte(1) } else { Sense::INVALID_OPCODE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_each_usage_map_names_its_opcode() {
        let keys: alloc::vec::Vec<_> = TABLE.iter().map(|row| (row.opcode, row.service_action)).collect();
        assert!(keys.is_sorted());
        for row in &TABLE {
            assert_eq!(row.usage[0], row.opcode, "{}", row.name);
            assert!(row.usage[usize::from(row.length)..].iter().all(|bits| *bits == 0), "{}", row.name);
            let long = match row.opcode >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                _ => 12,
            };
            assert_eq!(row.length, long, "{}", row.name);
        }
    }

    /// NORMACA is zero: whoever asks for auto contingent allegiance hears that there is none, and where he asked.
    #[test]
    fn naca_is_refused_in_every_command() {
        for row in &TABLE {
            let mut cdb = [0; 16];
            cdb[0] = row.opcode;
            cdb[1] = row.service_action.map_or(0, |action| action as u8);
            let control = usize::from(row.length) - 1;
            cdb[control] |= 0x04;
            let refused = Sense::invalid_cdb_byte(u16::from(row.length) - 1);
            assert_eq!(parse(&cdb).err(), Some(refused), "{}", row.name);
        }
    }

    #[test]
    fn any_sixteen_bytes_parse_or_are_refused() {
        let mut state = 1u64;
        for _ in 0..200_000 {
            let mut cdb = [0; 16];
            for byte in &mut cdb {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            let _ = parse(&cdb);
        }
    }

    /// REPORT SUPPORTED OPERATION CODES tells hosts which bits count.
    #[test]
    fn the_usage_maps_of_bits_that_stand_alone_name_no_reserved_bit() {
        for opcode in [0x1b, 0x1e] {
            let row = TABLE.iter().find(|row| row.opcode == opcode).expect("a row");
            let parsed = |byte: u8| parse(&[opcode, 0, 0, 0, byte, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for bit in (0..8).map(|bit| 1u8 << bit) {
                assert_eq!(row.usage[4] & bit != 0, parsed(bit) != parsed(0), "{}: {bit:02x}", row.name);
            }
        }
    }

    #[test]
    fn a_bit_outside_the_usage_map_changes_nothing_or_is_refused() {
        for row in &TABLE {
            let mut base = [0; 16];
            base[0] = row.opcode;
            base[1] = row.service_action.map_or(0, |action| action as u8);
            let meant = parse(&base);
            for byte in 1..usize::from(row.length) {
                for bit in (0..8).map(|bit| 1u8 << bit) {
                    let of_action = row.service_action.is_some() && byte == 1 && bit & 0x1f != 0;
                    if row.usage[byte] & bit != 0 || of_action {
                        continue;
                    }
                    let mut cdb = base;
                    cdb[byte] |= bit;
                    let got = parse(&cdb);
                    assert!(
                        got == meant || got.is_err(),
                        "{}: byte {byte}, bit {bit:02x}: {got:?}",
                        row.name
                    );
                }
            }
        }
    }

    #[test]
    fn logs_and_diagnostics_say_what_they_ask_for() {
        use pages::{Request, Values};
        let padded = |bytes: &[u8]| {
            let mut cdb = [0; 16];
            cdb[..bytes.len()].copy_from_slice(bytes);
            parse(&cdb)
        };
        let request = Request { page: 0x19, subpage: 7, values: Values::Cumulative, first_parameter: 3 };
        assert_eq!(
            padded(&[0x4d, 0, 0x59, 7, 0, 0, 3, 1, 0, 0]),
            Ok(Command::LogSense { request, allocation: 256 })
        );
        assert_eq!(padded(&[0x4d, 1, 0x59, 0, 0, 0, 0, 1, 0, 0]), Err(Sense::invalid_cdb_byte(1)), "SP");
        assert_eq!(padded(&[0x4c, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(Command::LogReset));
        assert_eq!(
            padded(&[0x4c, 2, 0, 0, 0, 0, 0, 0, 4, 0]),
            Err(Sense::invalid_cdb_byte(7)),
            "a list with PCR"
        );
        assert_eq!(padded(&[0x4c, 1, 0, 0, 0, 0, 0, 0, 4, 0]), Err(Sense::invalid_cdb_byte(1)), "SP");
        let test = SelfTest::Foreground;
        for byte in [0x04, 0xa0] {
            assert_eq!(padded(&[0x1d, byte, 0, 0, 0, 0]), Ok(Command::SendDiagnostic { test, length: 0 }));
        }
        for byte in [0x24, 0x20, 0x40, 0x80, 0xc0, 0xa4] {
            assert_eq!(padded(&[0x1d, byte, 0, 0, 0, 0]), Err(Sense::invalid_cdb_byte(1)), "{byte:x}");
        }
        assert_eq!(padded(&[0x1d, 0, 0, 0, 4, 0]), Err(Sense::invalid_cdb_byte(1)), "no PF");
        assert_eq!(padded(&[0xa4, 6, 0, 0, 0, 0, 0, 0, 0, 65, 0, 0]), Err(Sense::invalid_cdb_byte(6)));
        assert_eq!(padded(&[0xa3, 5, 0, 0, 0, 0, 0, 0, 0, 65, 6, 0]), Err(Sense::invalid_cdb_byte(10)));
    }

    #[test]
    fn reads_of_every_length_say_the_same() {
        let transfer = Transfer { lba: 0x12345, blocks: 8, fua: false };
        assert_eq!(
            parse(&[8, 1, 0x23, 0x45, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Ok(Command::Read(transfer))
        );
        assert_eq!(
            parse(&[0x28, 0, 0, 1, 0x23, 0x45, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]),
            Ok(Command::Read(transfer))
        );
        assert_eq!(
            parse(&[0xa8, 0, 0, 1, 0x23, 0x45, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]),
            Ok(Command::Read(transfer))
        );
        let fua = Transfer { fua: true, ..transfer };
        let cdb = [0x88, 8, 0, 0, 0, 0, 0, 1, 0x23, 0x45, 0, 0, 0, 8, 0, 0];
        assert_eq!(parse(&cdb), Ok(Command::Read(fua)));
    }

    #[test]
    fn refusals_point_at_the_byte() {
        assert_eq!(parse(&[0xff; 16]), Err(Sense::INVALID_OPCODE));
        assert_eq!(
            parse(&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
            Err(Sense::invalid_cdb_byte(1))
        );
        assert_eq!(
            parse(&[0x12, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(Sense::invalid_cdb_byte(2))
        );
        assert_eq!(
            parse(&[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(Sense::invalid_cdb_byte(1))
        );
    }
}
