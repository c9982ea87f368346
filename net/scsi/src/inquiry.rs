//! Standard INQUIRY data and vital product data pages (SPC-4 sections 6.6 and 7.8, SBC-3 section 6.6).

use alloc::vec;
use alloc::vec::Vec;

use crate::sense::Sense;
use crate::unit::{Encryption, Medium, Provisioning, Unit, ZeroCount};
use crate::{copy, thresholds};

/// The pages, in order, as page 00h lists them.
const PAGES: [u8; 11] = [0x00, 0x80, 0x83, 0x85, 0x86, 0x87, 0x88, 0x8f, 0xb0, 0xb1, 0xb2];

/// Most UNMAP descriptors in one parameter list.
pub const UNMAP_DESCRIPTORS_MAX: u32 = 256;
/// Most blocks of one UNMAP.
pub const UNMAP_BLOCKS_MAX: u32 = 1 << 20;
/// Most blocks of one WRITE SAME: bounded, because a pattern that is not zero is written piece by piece.
pub const WRITE_SAME_BLOCKS_MAX: u32 = 1 << 15;

/// Most blocks of one COMPARE AND WRITE: one, which is what hosts lock with.
pub const COMPARE_AND_WRITE_BLOCKS_MAX: u32 = 1;

/// INQUIRY data of a page, or the standard data.
///
/// # Errors
/// No such page.
pub fn data(page: Option<u8>, unit: &Unit) -> Result<Vec<u8>, Sense> {
    match page {
        None => Ok(standard(unit)),
        Some(0x00) => Ok(page_of(0x00, &supported(unit))),
        Some(0x80) => Ok(page_of(0x80, unit.identity.serial.as_bytes())),
        Some(0x83) => Ok(page_of(0x83, &designators(unit))),
        Some(0x85) => Ok(page_of(0x85, &management_addresses(unit))),
        Some(0x87) => Ok(page_of(0x87, &MODE_PAGE_POLICY)),
        Some(0x88) => Ok(page_of(0x88, &ports(unit))),
        Some(0x86) => Ok(page_of(0x86, &extended())),
        Some(0x8f) => Ok(page_of(0x8f, &copy::third_party_copy(unit))),
        Some(0xb0) => Ok(page_of(0xb0, &block_limits(unit))),
        Some(0xb1) => Ok(page_of(0xb1, &characteristics(unit))),
        Some(0xb2) if unit.provisioning == Provisioning::Thin => {
            Ok(page_of(0xb2, &[threshold_exponent(unit), 0xe4, 2, 0]))
        }
        Some(_) => Err(Sense::invalid_cdb_byte(2)),
    }
}

/// INQUIRY data of a logical unit that does not exist (SPC-4 section 6.6.2: qualifier 3, type 1Fh). Of vital product data it has the
/// list of its pages alone.
///
/// # Errors
/// No such page.
pub fn absent(page: Option<u8>) -> Result<Vec<u8>, Sense> {
    match page {
        None => {
            let mut data = vec![0; 36];
            data[0] = 0x7f;
            data[2] = 6;
            data[3] = 2;
            data[4] = 31;
            data[8..].fill(b' ');
            Ok(data)
        }
        Some(0) => Ok(vec![0x7f, 0, 0, 1, 0]),
        Some(_) => Err(Sense::invalid_cdb_byte(2)),
    }
}

/// THRESHOLD EXPONENT; zero where there are no thresholds.
fn threshold_exponent(unit: &Unit) -> u8 {
    if unit.counts_resources() { thresholds::exponent(unit.blocks) } else { 0 }
}

fn supported(unit: &Unit) -> Vec<u8> {
    let thin = unit.provisioning == Provisioning::Thin;
    PAGES.iter().copied().filter(|page| *page != 0xb2 || thin).collect()
}

fn page_of(page: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut data = vec![0, page, len[0], len[1]];
    data.extend_from_slice(payload);
    data
}

fn padded(text: &str, len: usize) -> impl Iterator<Item = u8> + '_ {
    let printable = |byte: u8| if (0x20..0x7f).contains(&byte) { byte } else { b'?' };
    text.bytes().map(printable).chain(core::iter::repeat(b' ')).take(len)
}

fn standard(unit: &Unit) -> Vec<u8> {
    // Direct access; version SPC-4; response format 2, HiSup; CmdQue.
    let mut data = vec![0, 0, 0x06, 0x12, 0, 0, 0, 0x02];
    // 3PC: third-party copy. TPGS.
    data[5] = 0x08 | unit.management.code() << 4;
    // MULTIP: there are more ports than the one that answers.
    if unit.identity.ports.len() > 1 {
        data[6] = 0x10;
    }
    if unit.medium == Medium::Removable {
        data[1] = 0x80;
    }
    data.extend(padded(&unit.identity.vendor, 8));
    data.extend(padded(&unit.identity.product, 16));
    data.extend(padded(&unit.identity.revision, 4));
    data.resize(58, 0);
    // Version descriptors: SAM-5, SPC-4, SBC-3, iSCSI.
    for descriptor in [0x00a0u16, 0x0460, 0x04c0, 0x0960] {
        data.extend_from_slice(&descriptor.to_be_bytes());
    }
    data.resize(74, 0);
    data[4] = u8::try_from(data.len() - 5).expect("short");
    data
}

fn designator(code_set: u8, association_and_type: u8, value: &[u8]) -> Vec<u8> {
    let len = u8::try_from(value.len()).unwrap_or(u8::MAX);
    let mut data = vec![code_set, association_and_type, 0, len];
    data.extend_from_slice(&value[..usize::from(len)]);
    data
}

fn designators(unit: &Unit) -> Vec<u8> {
    let identity = &unit.identity;
    let mut t10: Vec<u8> = padded(&identity.vendor, 8).collect();
    t10.extend_from_slice(identity.serial.as_bytes());
    let mut name: Vec<u8> = identity.port_name.bytes().collect();
    // A SCSI name string ends with a NUL and has a multiple of four bytes.
    name.resize((name.len() + 1).next_multiple_of(4), 0);
    let port = identity.relative_port.to_be_bytes();
    let group = identity.port_group.to_be_bytes();
    [
        // The logical unit: NAA and T10 vendor identification.
        designator(0x01, 0x03, &identity.naa.to_be_bytes()),
        designator(0x02, 0x01, &t10),
        // The target port (protocol iSCSI): relative port, port group, name.
        designator(0x51, 0x94, &[0, 0, port[0], port[1]]),
        designator(0x51, 0x95, &[0, 0, group[0], group[1]]),
        designator(0x53, 0x98, &name),
    ]
    .concat()
}

/// One descriptor for all pages (3Fh, FFh): shared by all nexuses, and by this unit's alone.
const MODE_PAGE_POLICY: [u8; 4] = [0x3f, 0xff, 0, 0];

/// Management network addresses (SPC-4 section 7.8.8): one, of the service that the administrator named, if he did.
fn management_addresses(unit: &Unit) -> Vec<u8> {
    let Some(url) = &unit.identity.management_url else { return Vec::new() };
    let mut address = url.as_bytes().to_vec();
    // It ends with a NUL, and has a multiple of four bytes.
    address.resize((address.len() + 1).next_multiple_of(4), 0);
    let len = u16::try_from(address.len()).unwrap_or(u16::MAX).to_be_bytes();
    // Association: the logical unit; service: storage configuration.
    [&[0x01, 0, len[0], len[1]][..], &address].concat()
}

/// The target ports of the device (SPC-4 section 7.8.14), each with its name.
fn ports(unit: &Unit) -> Vec<u8> {
    let mut payload = Vec::new();
    for (number, name) in &unit.identity.ports {
        let mut text = name.as_bytes().to_vec();
        text.resize((text.len() + 1).next_multiple_of(4), 0);
        let name = designator(0x53, 0x98, &text);
        let number = number.to_be_bytes();
        let len = u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes();
        payload.extend_from_slice(&[0, 0, number[0], number[1], 0, 0, 0, 0, 0, 0, len[0], len[1]]);
        payload.extend_from_slice(&name);
    }
    payload
}

fn extended() -> Vec<u8> {
    let mut payload = vec![0; 60];
    // HEADSUP, ORDSUP, SIMPSUP.
    payload[1] = 0x07;
    payload
}

fn block_limits(unit: &Unit) -> Vec<u8> {
    let mut payload = vec![0; 60];
    let mut put = |at: usize, value: u32| payload[at - 4..at].copy_from_slice(&value.to_be_bytes());
    let granularity = unit.physical_block_size / unit.block_size;
    // Offsets of the page's fields, less its four-byte header.
    put(8, unit.transfer_max);
    put(12, unit.transfer_optimal);
    if unit.provisioning == Provisioning::Thin {
        put(20, UNMAP_BLOCKS_MAX);
        put(24, UNMAP_DESCRIPTORS_MAX);
        put(28, granularity);
        put(32, 0x8000_0000);
    }
    put(16, unit.transfer_optimal);
    put(40, WRITE_SAME_BLOCKS_MAX);
    if unit.atomic_max > 0 {
        // Whole physical blocks; no boundary.
        put(44, unit.atomic_max);
        put(48, granularity);
        put(52, granularity);
    }
    // WSNZ.
    payload[0] = u8::from(unit.write_same_zero == ZeroCount::Refused);
    payload[1] = u8::try_from(COMPARE_AND_WRITE_BLOCKS_MAX).expect("one byte");
    payload[3] = u8::try_from(granularity).unwrap_or(0);
    payload
}

fn characteristics(unit: &Unit) -> Vec<u8> {
    let mut payload = vec![0; 60];
    // Non-rotating medium.
    payload[1] = 1;
    // WABEREQ: after SANITIZE, BLOCK ERASE blocks can be read.
    payload[3] = 0x40;
    // WACEREQ: after SANITIZE, CRYPTOGRAPHIC ERASE, too; zero where there is none.
    if unit.encryption == Encryption::Erasable {
        payload[3] |= 0x10;
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::unit;

    #[test]
    fn a_device_with_several_ports_says_so_wherever_it_tells_of_them() {
        let mut unit = unit();
        for (ports, multiple) in [(2, 0x10), (1, 0)] {
            unit.identity.ports.truncate(ports);
            assert_eq!(data(None, &unit).expect("standard data")[6], multiple);
            let names = data(Some(0x88), &unit).expect("its ports");
            assert_eq!(names.windows(4).filter(|bytes| bytes == b"iqn.").count(), ports);
        }
    }
}
