//! REPORT SUPPORTED OPERATION CODES (SPC-4 section 6.35), from the command table.

use alloc::vec;
use alloc::vec::Vec;

use crate::command::{Row, TABLE};
use crate::sense::Sense;

/// Bytes of a command timeouts descriptor.
const TIMEOUTS_LEN: usize = 12;

/// The whole answer, not cut.
///
/// # Errors
/// A reporting option that does not fit the operation code.
pub fn report(option: u8, opcode: u8, service_action: u16, timeouts: bool) -> Result<Vec<u8>, Sense> {
    match option {
        0 => Ok(all(timeouts)),
        1 => one(opcode, None, timeouts),
        2 => one(opcode, Some(service_action), timeouts),
        3 => Ok(describe(find_any(opcode, service_action), timeouts)),
        _ => Err(Sense::invalid_cdb_byte(2)),
    }
}

fn has_actions(opcode: u8) -> bool {
    TABLE.iter().any(|row| row.opcode == opcode && row.service_action.is_some())
}

fn find_any(opcode: u8, service_action: u16) -> Option<&'static Row> {
    TABLE
        .iter()
        .find(|row| row.opcode == opcode && row.service_action.is_none_or(|action| action == service_action))
}

fn one(opcode: u8, service_action: Option<u16>, timeouts: bool) -> Result<Vec<u8>, Sense> {
    let known = TABLE.iter().any(|row| row.opcode == opcode);
    // Option 1 is for codes without service actions, option 2 for those with.
    if known && has_actions(opcode) != service_action.is_some() {
        return Err(Sense::invalid_cdb_byte(2));
    }
    Ok(describe(find_any(opcode, service_action.unwrap_or(0)), timeouts))
}

fn timeouts_descriptor() -> [u8; TIMEOUTS_LEN] {
    let mut descriptor = [0; TIMEOUTS_LEN];
    descriptor[1] = 0x0a;
    descriptor
}

fn describe(row: Option<&Row>, timeouts: bool) -> Vec<u8> {
    let Some(row) = row else { return vec![0, 0x01, 0, 0] };
    let mut data = vec![0, if timeouts { 0x83 } else { 0x03 }, 0, row.length];
    data.extend_from_slice(&row.usage[..usize::from(row.length)]);
    if timeouts {
        data.extend_from_slice(&timeouts_descriptor());
    }
    data
}

fn all(timeouts: bool) -> Vec<u8> {
    let mut list = Vec::new();
    for row in &TABLE {
        let action = row.service_action.unwrap_or(0).to_be_bytes();
        let flags = u8::from(row.service_action.is_some()) | if timeouts { 2 } else { 0 };
        list.extend_from_slice(&[row.opcode, 0, action[0], action[1], 0, flags, 0, row.length]);
        if timeouts {
            list.extend_from_slice(&timeouts_descriptor());
        }
    }
    let len = u32::try_from(list.len()).expect("a short table");
    let mut data = len.to_be_bytes().to_vec();
    data.append(&mut list);
    data
}
