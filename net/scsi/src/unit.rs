//! A logical unit as commands that need no medium see it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::alua::Management;
use crate::command::{Command, DefectList};
use crate::sense::{Sense, SenseFormat};
use crate::thresholds::Thresholds;
use crate::{copy, inquiry, mode, opcodes};

/// Who a logical unit is. The same through every path to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// T10 vendor identification, at most 8 ASCII characters.
    pub vendor: String,
    /// Product identification, at most 16.
    pub product: String,
    /// Product revision level, at most 4.
    pub revision: String,
    /// Unit serial number.
    pub serial: String,
    /// NAA designator: eight bytes, first nibble 3 (locally assigned).
    pub naa: u64,
    /// Relative target port identifier of the path.
    pub relative_port: u16,
    /// Target port group of the path.
    pub port_group: u16,
    /// SCSI name string of the target port.
    pub port_name: String,
    /// All target ports of the device: relative identifiers and SCSI name strings.
    pub ports: Vec<(u16, String)>,
    /// Where the unit is managed.
    pub management_url: Option<String>,
}

/// How blocks are provisioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provisioning {
    /// Every block is backed.
    Full,
    /// Blocks can be given back; unmapped ones read as zeroes.
    Thin,
}

/// Whether completed writes may sit in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCache {
    /// WCE is zero: a write's status means that it is stable.
    Disabled,
    /// WCE is one: SYNCHRONIZE CACHE makes writes stable.
    Enabled,
}

/// Whether writes are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteProtection {
    /// They are.
    Writable,
    /// They are not: a host has set SWP in the control mode page.
    Software,
    /// They are not: the device or its administrator says so.
    Protected,
}

/// Whether the medium can be taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// It is part of the unit.
    #[default]
    Fixed,
    /// RMB is one: it can be ejected and loaded.
    Removable,
}

/// What a WRITE SAME of zero blocks means (SBC-3 section 5.43).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCount {
    /// WSNZ is zero: from the LBA to the end of the medium, within MAXIMUM WRITE SAME LENGTH.
    #[default]
    ToTheEnd,
    /// WSNZ is one: nothing; it is refused.
    Refused,
}

/// Whether it is known how many blocks are backed, and how many more can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounting {
    /// The device below tells.
    Known,
    /// It does not.
    Unknown,
}

/// Whether the medium is encrypted with a key that can be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// It is not, or the key is somebody else's.
    #[default]
    None,
    /// SANITIZE, CRYPTOGRAPHIC ERASE changes it.
    Erasable,
}

/// Whether a transport has QUERY TASK, QUERY TASK SET, QUERY ASYNCHRONOUS EVENT and I_T NEXUS RESET: iSCSI, where it was agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Queries {
    /// It has not.
    #[default]
    No,
    /// It has.
    Yes,
}

/// A logical unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Who it is.
    pub identity: Identity,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Physical block size in bytes: `block_size` times a power of two.
    pub physical_block_size: u32,
    /// Number of logical blocks.
    pub blocks: u64,
    /// Longest transfer of one command in blocks.
    pub transfer_max: u32,
    /// Longest transfer that meets no delay of its own, in blocks.
    pub transfer_optimal: u32,
    /// How blocks are provisioned.
    pub provisioning: Provisioning,
    /// Whether it is known how many of them have storage.
    pub accounting: Accounting,
    /// Thresholds of provisioning, unless a host changes them.
    pub default_thresholds: Thresholds,
    /// WCE, unless a host leaves the cache.
    pub write_cache: WriteCache,
    /// Write protection.
    pub protection: WriteProtection,
    /// What MODE SELECT may change.
    pub settings: mode::Settings,
    /// What it falls back to at a reset; `None` where nothing can be saved.
    pub saved_settings: Option<mode::Settings>,
    /// Whether the medium can be taken out.
    pub medium: Medium,
    /// What a WRITE SAME of zero blocks means.
    pub write_same_zero: ZeroCount,
    /// Most blocks of a WRITE ATOMIC; zero when the device may tear writes.
    pub atomic_max: u32,
    /// Who changes which way to it is the best.
    pub management: Management,
    /// Whether a change of its key erases it.
    pub encryption: Encryption,
    /// Whether the way to it has the newer task management functions.
    pub queries: Queries,
}

impl Unit {
    /// Whether the unit takes a command of the table: some need a power of the device below.
    pub fn supports(&self, opcode: u8, service_action: Option<u16>) -> bool {
        match opcode {
            // Identifying information is written to be there again.
            0xa3 if service_action == Some(0x05) => self.saved_settings.is_some(),
            0xa4 if service_action == Some(0x06) => self.saved_settings.is_some(),
            0xa4 if service_action == Some(0x0a) => self.management == Management::ImplicitAndExplicit,
            0x42 => self.provisioning == Provisioning::Thin,
            0x9c => self.atomic_max > 0,
            0x48 if service_action == Some(0x03) => self.encryption == Encryption::Erasable,
            0x1e => self.medium == Medium::Removable,
            _ => true,
        }
    }

    /// Why the unit does not take a command of the table.
    pub fn refusal(&self, cdb: &[u8; 16]) -> Option<Sense> {
        match (self.supports(cdb[0], Some(u16::from(cdb[1] & 0x1f))), cdb[0]) {
            (true, _) => None,
            // An operation code with service actions is there; this one of them is not (SPC-4 section 4.2.5.1).
            (false, 0x48 | 0x9e | 0x9f | 0xa3 | 0xa4) => Some(Sense::invalid_cdb_byte(1)),
            (false, _) => Some(Sense::INVALID_OPCODE),
        }
    }

    /// Whether the storage behind a thin unit is counted: then there are thresholds of it, too.
    pub fn counts_resources(&self) -> bool {
        (self.provisioning, self.accounting) == (Provisioning::Thin, Accounting::Known)
    }

    /// The thresholds in force.
    pub fn thresholds(&self) -> Thresholds {
        self.settings.thresholds.unwrap_or(self.default_thresholds)
    }

    /// Format of sense data: D_SENSE.
    pub fn sense_format(&self) -> SenseFormat {
        self.settings.sense_format
    }

    /// Checks a run of blocks against the unit.
    ///
    /// # Errors
    /// Out of range.
    pub fn check_range(&self, lba: u64, blocks: u32) -> Result<(), Sense> {
        match lba.checked_add(u64::from(blocks)) {
            Some(end) if end <= self.blocks && (lba < self.blocks || blocks == 0) => Ok(()),
            _ => Err(Sense::LBA_OUT_OF_RANGE),
        }
    }
}

/// Answers a command that needs no medium: the data, cut at the allocation length. `None` for other commands.
///
/// # Errors
/// An illegal field.
pub fn answer(command: &Command, unit: &Unit) -> Option<Result<Vec<u8>, Sense>> {
    let (data, allocation) = match *command {
        Command::Inquiry { page, allocation } => (inquiry::data(page, unit), allocation),
        Command::ModeSense { allocation, .. } => (mode::sense(command, unit), allocation),
        Command::ReadCapacity10 => (Ok(read_capacity10(unit)), u32::MAX),
        Command::ReadCapacity16 { allocation } => (Ok(read_capacity16(unit)), allocation),
        Command::ReportSupportedOpcodes { option, opcode, service_action, timeouts, allocation } => {
            (opcodes::report(unit, option, opcode, service_action, timeouts), allocation)
        }
        Command::ReportSupportedTaskManagement { extended, allocation } => {
            (Ok(task_management(extended, unit.queries)), allocation)
        }
        Command::ReceiveCopyParameters { allocation } => (Ok(copy::operating_parameters()), allocation),
        Command::ReceiveDiagnostic { page: 0, allocation } => (Ok(alloc::vec![0, 0, 0, 1, 0]), allocation),
        Command::ReceiveDiagnostic { .. } => (Err(Sense::invalid_cdb_byte(2)), u32::MAX),
        Command::ReadDefectData { list, allocation } => (Ok(no_defects(list)), allocation),
        _ => return None,
    };
    Some(data.map(|mut data| {
        data.truncate(allocation as usize);
        data
    }))
}

/// What REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS says (SPC-4 section 6.36): ABORT TASK, ABORT TASK SET, CLEAR TASK SET and
/// LOGICAL UNIT RESET; and QUERY TASK, QUERY ASYNCHRONOUS EVENT, QUERY TASK SET and I_T NEXUS RESET.
fn task_management(extended: bool, queries: Queries) -> Vec<u8> {
    let mut data = match queries {
        Queries::No => alloc::vec![0xd8, 0, 0, 0],
        Queries::Yes => alloc::vec![0xdc, 0x07, 0, 0],
    };
    if extended {
        data.resize(16, 0);
        data[3] = 12;
    }
    data
}

/// An empty defect list in the format that was asked for: such a device has none to show.
fn no_defects(list: DefectList) -> Vec<u8> {
    let mut data = alloc::vec![0; usize::from(list.header)];
    data[1] = list.request;
    data
}

fn read_capacity10(unit: &Unit) -> Vec<u8> {
    let last = u32::try_from(unit.blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    [last.to_be_bytes(), unit.block_size.to_be_bytes()].concat()
}

/// Logical blocks per physical block, as a power of two.
fn physical_exponent(unit: &Unit) -> u8 {
    (unit.physical_block_size / unit.block_size).max(1).ilog2() as u8
}

fn read_capacity16(unit: &Unit) -> Vec<u8> {
    let mut data = alloc::vec![0; 32];
    data[..8].copy_from_slice(&unit.blocks.saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&unit.block_size.to_be_bytes());
    data[13] = physical_exponent(unit);
    if unit.provisioning == Provisioning::Thin {
        // LBPME and LBPRZ.
        data[14] = 0xc0;
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::unit;

    #[test]
    fn supported_task_management_is_what_was_agreed_on() {
        let report = |queries, extended| {
            let command = Command::ReportSupportedTaskManagement { extended, allocation: 16 };
            answer(&command, &Unit { queries, ..unit() }).expect("an answer")
        };
        assert_eq!(report(Queries::No, false), Ok(alloc::vec![0xd8, 0, 0, 0]));
        assert_eq!(report(Queries::Yes, false), Ok(alloc::vec![0xdc, 7, 0, 0]));
        let extended = report(Queries::Yes, true).expect("an answer");
        assert_eq!((extended.len(), &extended[..4]), (16, &[0xdc, 7, 0, 12][..]));
    }
}
