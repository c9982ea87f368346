//! Mode pages (SPC-4 section 7.5, SBC-3 section 6.5): caching, control, informational exceptions.

use alloc::vec;
use alloc::vec::Vec;

use crate::command::Command;
use crate::sense::{Sense, SenseFormat};
use crate::unit::{Unit, WriteCache, WriteProtection};

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const EXCEPTIONS: u8 = 0x1c;
const ALL: u8 = 0x3f;

/// Which values are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Current,
    Changeable,
}

fn page(code: u8, unit: &Unit, values: Values) -> Option<Vec<u8>> {
    let mut data = match code {
        CACHING => vec![0; 20],
        CONTROL | EXCEPTIONS => vec![0; 12],
        _ => return None,
    };
    data[0] = code;
    data[1] = u8::try_from(data.len() - 2).expect("short");
    match (code, values) {
        // Nothing can be changed: durability is a decision of the administrator, not of one host.
        (_, Values::Changeable) => {}
        (CACHING, Values::Current) => {
            let wce = if unit.write_cache == WriteCache::Enabled { 0x04 } else { 0 };
            data[2] = wce;
        }
        (CONTROL, Values::Current) => {
            data[2] = if unit.sense_format == SenseFormat::Descriptor { 0x04 } else { 0 };
            // Queue algorithm modifier: unrestricted reordering. TAS stays zero.
            data[3] = 0x10;
        }
        _ => {}
    }
    Some(data)
}

/// Mode parameter data for MODE SENSE.
///
/// # Errors
/// No such page, or saved values.
pub fn sense(command: &Command, unit: &Unit) -> Result<Vec<u8>, Sense> {
    let Command::ModeSense { long, page_control, page: code, subpage, no_block_descriptor, .. } = *command
    else {
        return Err(Sense::INVALID_OPCODE);
    };
    let values = match page_control {
        0 | 2 => Values::Current,
        1 => Values::Changeable,
        // Saving parameters is not supported.
        _ => return Err(Sense::new(crate::SenseKey::IllegalRequest, 0x3900)),
    };
    let codes: &[u8] = if code == ALL { &[CACHING, CONTROL, EXCEPTIONS] } else { &[code] };
    if subpage != 0 && !(code == ALL && subpage == 0xff) {
        return Err(Sense::invalid_cdb_byte(3));
    }
    let mut pages = Vec::new();
    for code in codes {
        pages.extend(page(*code, unit, values).ok_or(Sense::invalid_cdb_byte(2))?);
    }
    let descriptor = if no_block_descriptor { Vec::new() } else { block_descriptor(unit) };
    Ok(assemble(long, unit, &descriptor, &pages))
}

fn block_descriptor(unit: &Unit) -> Vec<u8> {
    let blocks = u32::try_from(unit.blocks).unwrap_or(u32::MAX);
    [blocks.to_be_bytes(), unit.block_size.to_be_bytes()].concat()
}

fn assemble(long: bool, unit: &Unit, descriptor: &[u8], pages: &[u8]) -> Vec<u8> {
    // WP and DPOFUA.
    let protected = if unit.protection == WriteProtection::Protected { 0x80 } else { 0 };
    let device = protected | 0x10;
    let descriptor_len = u8::try_from(descriptor.len()).expect("eight or none");
    let mut data = if long {
        let len = u16::try_from(6 + descriptor.len() + pages.len()).unwrap_or(u16::MAX).to_be_bytes();
        vec![len[0], len[1], 0, device, 0, 0, 0, descriptor_len]
    } else {
        let len = u8::try_from(3 + descriptor.len() + pages.len()).unwrap_or(u8::MAX);
        vec![len, 0, device, descriptor_len]
    };
    data.extend_from_slice(descriptor);
    data.extend_from_slice(pages);
    data
}

/// Checks a MODE SELECT parameter list: values that are as they are already are accepted, changes are refused.
///
/// # Errors
/// The first byte that would change something, or that is not understood.
pub fn select(long: bool, list: &[u8], unit: &Unit) -> Result<(), Sense> {
    if list.is_empty() {
        return Ok(());
    }
    let header = if long { 8 } else { 4 };
    let descriptor_len = match (long, list.len() >= header) {
        (_, false) => return Err(Sense::PARAMETER_LENGTH),
        (true, _) => usize::from(u16::from_be_bytes([list[6], list[7]])),
        (false, _) => usize::from(list[3]),
    };
    let mut at = header + descriptor_len;
    if at > list.len() {
        return Err(Sense::PARAMETER_LENGTH);
    }
    while at < list.len() {
        let pointer =
            |offset: usize| Sense::invalid_parameter_byte(u16::try_from(at + offset).unwrap_or(u16::MAX));
        let current = page(list[at] & 0x3f, unit, Values::Current).ok_or(pointer(0))?;
        let given = list.get(at..at + current.len()).ok_or(Sense::PARAMETER_LENGTH)?;
        // PS is reserved in MODE SELECT.
        let differs = |(index, byte): (usize, &u8)| {
            let mask = if index == 0 { 0x7f } else { 0xff };
            byte & mask != current[index] & mask
        };
        if let Some(index) = given.iter().enumerate().position(differs) {
            return Err(pointer(index));
        }
        at += current.len();
    }
    Ok(())
}
