//! Registrations by name: the lists that SPEC_I_PT and REGISTER AND MOVE come with, and what READ FULL STATUS answers (SPC-5 sections
//! 6.15.5, 6.16.3, 6.16.4 and 7.6.4.6). Laid out here apart from the product.

use crate::host::{Host, Outcome, ReserveOut};

/// PERSISTENT RESERVE OUT is for the initiator ports of a list, too.
pub const SPEC_I_PT: u8 = 0x08;
/// It is for all target ports.
pub const ALL_TG_PT: u8 = 0x04;
/// What is registered outlives a loss of power.
pub const APTPL: u8 = 0x01;
/// Who moves a reservation away is not registered any more.
pub const UNREG: u8 = 0x02;

/// The ISID of every [`Host`].
const ISID: &str = "800000740001";

/// A full status descriptor: an I_T nexus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// The initiator's name.
    pub name: String,
    /// The relative identifier of the target port.
    pub port: u16,
    /// Its key.
    pub key: u64,
    /// The type of the reservation, where it holds it.
    pub holds: Option<u8>,
}

/// Where a reservation goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// To whom,
    pub name: &'a str,
    /// and through which target port.
    pub port: u16,
    /// The key there.
    pub key: u64,
}

/// The TransportID of a [`Host`].
///
/// # Panics
/// With a name that is longer than any.
pub fn transport_id(name: &str) -> Vec<u8> {
    let mut text = format!("{name},i,0x{ISID}\0").into_bytes();
    text.resize(text.len().max(20).next_multiple_of(4), 0);
    let [high, low] = u16::try_from(text.len()).expect("short").to_be_bytes();
    [&[0x45, 0, high, low], &text[..]].concat()
}

fn reserve_out(host: &mut Host, action: u8, list: &[u8]) -> Outcome {
    let [a, b, c, d] = length(list.len());
    host.run(&[0x5f, action, 0, 0, 0, a, b, c, d, 0], list)
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("short").to_be_bytes()
}

/// REGISTER, or REGISTER AND IGNORE EXISTING KEY: from one key to another, with flags, and for whoever is named.
pub fn register(host: &mut Host, action: ReserveOut, keys: [u64; 2], flags: u8, names: &[&str]) -> Outcome {
    let ids: Vec<u8> = names.iter().flat_map(|name| transport_id(name)).collect();
    let mut list = [&keys[0].to_be_bytes()[..], &keys[1].to_be_bytes(), &[0; 4], &[flags, 0, 0, 0]].concat();
    if flags & SPEC_I_PT != 0 {
        list.extend_from_slice(&length(ids.len()));
        list.extend_from_slice(&ids);
    }
    reserve_out(host, action as u8, &list)
}

/// REGISTER AND MOVE.
pub fn register_and_move(host: &mut Host, key: u64, flags: u8, to: Destination<'_>) -> Outcome {
    let id = transport_id(to.name);
    let [high, low] = to.port.to_be_bytes();
    let keys = [key.to_be_bytes(), to.key.to_be_bytes()].concat();
    let list = [&keys[..], &[0, flags, high, low], &length(id.len()), &id].concat();
    reserve_out(host, 7, &list)
}

/// PRgeneration, and who is registered, in the order of names and ports (READ FULL STATUS).
///
/// # Panics
/// When the command fails, or its answer is not laid out as it should be.
pub fn full_status(host: &mut Host) -> (u32, Vec<Registrant>) {
    let data = host.fetch(&[0x5e, 3, 0, 0, 0, 0, 0, 0x10, 0, 0], 4096);
    let (header, mut rest) = data.split_at(8);
    assert_eq!(number(&header[4..]), rest.len() as u64, "ADDITIONAL LENGTH");
    let mut all = Vec::new();
    while !rest.is_empty() {
        let len = 24 + number(&rest[20..24]) as usize;
        let (one, next) = rest.split_at(len);
        all.push(registrant(one));
        rest = next;
    }
    all.sort_unstable_by_key(|one| (one.name.clone(), one.port));
    (u32::try_from(number(&header[..4])).expect("four bytes"), all)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn registrant(descriptor: &[u8]) -> Registrant {
    let (fixed, id) = descriptor.split_at(24);
    assert_eq!((&fixed[8..12], fixed[12] & 0xfe, &fixed[14..18]), (&[0; 4][..], 0, &[0; 4][..]), "reserved");
    let text = String::from_utf8_lossy(&id[4..]).into_owned();
    let name = text.split(",i,0x").next().unwrap_or_default().to_owned();
    assert_eq!(id, transport_id(&name), "the TransportID of {text:?}");
    let holds = (fixed[12] & 1 != 0).then_some(fixed[13]);
    assert!(holds.is_some() || fixed[13] == 0, "a type for the holder alone");
    let port = u16::try_from(number(&fixed[18..20])).expect("two bytes");
    Registrant { name, port, key: number(&fixed[..8]), holds }
}

/// The relative identifier of the target port that a host has come through (VPD page 83h).
///
/// # Panics
/// When it is not told.
pub fn own_port(host: &mut Host) -> u16 {
    /// Association with the target port; relative target port identifier.
    const RELATIVE_PORT: u8 = 0x14;
    let page = host.fetch(&[0x12, 1, 0x83, 4, 0, 0], 1024);
    let mut rest = &page[4..];
    while let [_, kind, _, len, ..] = *rest {
        let (designator, next) = rest.split_at(4 + usize::from(len));
        if kind & 0x3f == RELATIVE_PORT {
            return u16::from_be_bytes([designator[6], designator[7]]);
        }
        rest = next;
    }
    panic!("no relative target port identifier: {page:02x?}");
}

/// The relative identifiers of all target ports (VPD page 88h).
pub fn all_ports(host: &mut Host) -> Vec<u16> {
    let page = host.fetch(&[0x12, 1, 0x88, 4, 0, 0], 1024);
    let (mut rest, mut ports) = (&page[4..], Vec::new());
    while let [_, _, high, low, _, _, a, b, ..] = *rest {
        ports.push(u16::from_be_bytes([high, low]));
        let initiator = 8 + usize::from(u16::from_be_bytes([a, b]));
        let target = 4 + number(&rest[initiator + 2..initiator + 4]) as usize;
        rest = &rest[initiator + target..];
    }
    ports.sort_unstable();
    ports
}
