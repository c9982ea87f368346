//! REPORT SUPPORTED OPERATION CODES (SPC-4 section 6.35), from the command table.

use alloc::vec;
use alloc::vec::Vec;

use crate::command::{Row, TABLE};
use crate::sense::Sense;
use crate::unit::Unit;

/// Bytes of a command timeouts descriptor.
const TIMEOUTS_LEN: usize = 12;

/// The whole answer, not cut.
///
/// # Errors
/// A reporting option that does not fit the operation code.
pub fn report(
    unit: &Unit,
    option: u8,
    opcode: u8,
    service_action: u16,
    timeouts: bool,
) -> Result<Vec<u8>, Sense> {
    match option {
        0 => Ok(all(unit, timeouts)),
        1 => one(unit, opcode, None, timeouts),
        2 => one(unit, opcode, Some(service_action), timeouts),
        3 => Ok(describe(find_any(unit, opcode, service_action), timeouts)),
        _ => Err(Sense::invalid_cdb_byte(2)),
    }
}

fn rows(unit: &Unit) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(|row| unit.supports(row.opcode, row.service_action))
}

fn find_any(unit: &Unit, opcode: u8, service_action: u16) -> Option<&'static Row> {
    rows(unit)
        .find(|row| row.opcode == opcode && row.service_action.is_none_or(|action| action == service_action))
}

fn one(unit: &Unit, opcode: u8, service_action: Option<u16>, timeouts: bool) -> Result<Vec<u8>, Sense> {
    let has_actions = rows(unit).find(|row| row.opcode == opcode).map(|row| row.service_action.is_some());
    // Option 1 is for codes without service actions, option 2 for those with.
    if has_actions.is_some_and(|has_actions| has_actions != service_action.is_some()) {
        return Err(Sense::invalid_cdb_byte(2));
    }
    Ok(describe(find_any(unit, opcode, service_action.unwrap_or(0)), timeouts))
}

/// Seconds after which a host may ask what became of a command, and after which it may give it up (SPC-4 section 6.35.4).
fn timeouts_of(row: &Row) -> (u32, u32) {
    match (row.opcode, row.service_action) {
        // The time of these depends on the size of the unit and on its rate.
        (0x48, Some(0x01 | 0x02)) => (60, 0),
        // These may move all that a command can name.
        (0x2f | 0x8f | 0xaf | 0x41 | 0x93 | 0x42 | 0x83 | 0x35 | 0x91, _) => (5, 120),
        _ => (1, 30),
    }
}

fn timeouts_descriptor(row: &Row) -> [u8; TIMEOUTS_LEN] {
    let (nominal, recommended) = timeouts_of(row);
    let mut descriptor = [0; TIMEOUTS_LEN];
    descriptor[1] = 0x0a;
    descriptor[4..8].copy_from_slice(&nominal.to_be_bytes());
    descriptor[8..].copy_from_slice(&recommended.to_be_bytes());
    descriptor
}

/// The usage map as it is reported: in place of the service action's bits, its value (SPC-4 section 6.35.3).
fn usage(row: &Row) -> Vec<u8> {
    let mut map = row.usage[..usize::from(row.length)].to_vec();
    if let Some(action) = row.service_action {
        map[1] = map[1] & 0xe0 | (action & 0x1f) as u8;
    }
    map
}

fn describe(row: Option<&Row>, timeouts: bool) -> Vec<u8> {
    let Some(row) = row else { return vec![0, 0x01, 0, 0] };
    let mut data = vec![0, if timeouts { 0x83 } else { 0x03 }, 0, row.length];
    data.extend(usage(row));
    if timeouts {
        data.extend_from_slice(&timeouts_descriptor(row));
    }
    data
}

fn all(unit: &Unit, timeouts: bool) -> Vec<u8> {
    let mut list = Vec::new();
    for row in rows(unit) {
        let action = row.service_action.unwrap_or(0).to_be_bytes();
        let flags = u8::from(row.service_action.is_some()) | if timeouts { 2 } else { 0 };
        list.extend_from_slice(&[row.opcode, 0, action[0], action[1], 0, flags, 0, row.length]);
        if timeouts {
            list.extend_from_slice(&timeouts_descriptor(row));
        }
    }
    let len = u32::try_from(list.len()).expect("a short table");
    let mut data = len.to_be_bytes().to_vec();
    data.append(&mut list);
    data
}
