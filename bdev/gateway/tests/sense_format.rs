//! D_SENSE (SPC-4 section 7.5.8): sense data have the format that the control mode page says, whatever it is that refuses a command.

mod host;

use bdev::fault::{Fault, FaultTarget};
use host::World;
use iscsi::TaskId;
use scsi::copy::token::{Delete, Immediate, Range, Source, WriteUsing};

const SIMPLE: u8 = 1;
const ACA: u8 = 4;
const LOGICAL_UNIT_RESET: u8 = 5;

const FIXED: u8 = 0x70;
const DESCRIPTORS: u8 = 0x72;

/// What a host sends, with what is to come of it.
struct Refused {
    by: &'static str,
    code: u16,
    attribute: u8,
    cdb: Vec<u8>,
    data: Vec<u8>,
    room: u32,
}

fn refused(by: &'static str, code: u16, cdb: &[u8]) -> Refused {
    Refused { by, code, attribute: SIMPLE, cdb: cdb.to_vec(), data: Vec::new(), room: 0 }
}

/// PERSISTENT RESERVE OUT.
fn reserve_out(
    by: &'static str,
    code: u16,
    action: u8,
    scope_type: u8,
    keys: [u64; 2],
    flags: u8,
) -> Refused {
    let list = [&keys[0].to_be_bytes()[..], &keys[1].to_be_bytes(), &[0, 0, 0, 0, flags, 0, 0, 0]].concat();
    Refused { data: list, ..refused(by, code, &[0x5f, action, scope_type, 0, 0, 0, 0, 0, 24, 0]) }
}

/// A list that writes zeroes to the first block.
fn zeroes() -> Vec<u8> {
    let (immediate, delete, source) = (Immediate::No, Delete::No, Source::Zeroes);
    WriteUsing { immediate, delete, offset: 0, source, ranges: vec![Range { lba: 0, blocks: 1 }] }.encode()
}

/// The command for it, with list identifier 0.
fn write_using_token() -> [u8; 16] {
    let len = u8::try_from(zeroes().len() - 512).expect("one range");
    [0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, len, 0, 0]
}

/// One command for each place of the code that refuses any.
fn all() -> Vec<Refused> {
    let report_luns = |select: u8, allocation: u8| [0xa0, 0, select, 0, 0, 0, 0, 0, 0, allocation, 0, 0];
    let mut unknown_token = zeroes();
    unknown_token[16..24].fill(9);
    vec![
        refused("the table of commands", 0x2000, &[0xc1; 6]),
        refused("the CONTROL byte", 0x2400, &[0, 0, 0, 0, 0, 4]),
        Refused { attribute: ACA, ..refused("the attribute", 0x4900, &[0; 6]) },
        Refused { room: 255, ..refused("a page that is none", 0x2400, &[0x12, 1, 0x55, 0, 255, 0]) },
        Refused { room: 512, ..refused("the size", 0x2100, &[0x28, 0, 0, 0xff, 0xff, 0, 0, 0, 1, 0]) },
        Refused { room: 255, ..refused("REPORT LUNS, what", 0x2400, &report_luns(0x33, 255)) },
        Refused { room: 255, ..refused("REPORT LUNS, how much", 0x2400, &report_luns(0, 4)) },
        Refused { data: vec![0; 4], ..refused("a length", 0x1a00, &[0x15, 0x10, 0, 0, 3, 0]) },
        Refused { data: vec![0, 0, 0, 9], ..refused("a list", 0x2600, &[0x15, 0x10, 0, 0, 4, 0]) },
        Refused {
            data: vec![0; 100],
            ..refused("a part of a block", 0x0e03, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0])
        },
        Refused { data: vec![9; 512], ..refused("a comparison", 0x1d00, &[0x2f, 2, 0, 0, 0, 0, 0, 0, 1, 0]) },
        Refused { data: unknown_token, ..refused("a token", 0x230a, &write_using_token()) },
        Refused {
            data: vec![0; 23],
            ..refused("the length of PERSISTENT RESERVE OUT", 0x1a00, &[0x5f, 0, 0, 0, 0, 0, 0, 0, 23, 0])
        },
        reserve_out("a promise that cannot be kept", 0x2600, 0, 0, [1, 1], 1),
        reserve_out("a release of another type", 0x2604, 2, 3, [1, 0], 0),
        reserve_out("a scope", 0x2400, 4, 0x11, [1, 1], 0),
    ]
}

/// The sense data that a task ends with.
fn sense(world: &mut World, host: usize, task: TaskId) -> Vec<u8> {
    let mut ended = None;
    world.until("an answer", |world| {
        ended = world.hosts[host].take(task);
        ended.is_some()
    });
    ended.expect("waited for").sense
}

fn ready(world: &mut World, host: usize) -> Vec<u8> {
    let task = world.hosts[host].send(&[0; 6], &[], 0);
    sense(world, host, task)
}

/// MODE SELECT of the control mode page with these bits of its bytes 2 and 4: D_SENSE, SWP.
fn select(world: &mut World, bits: [u8; 2]) {
    let list = [0, 0, 0, 0, 0x0a, 10, bits[0], 0x10, bits[1], 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(world.run(0, &[0x15, 0x10, 0, 0, 16, 0], &list), host::GOOD);
}

fn check(sense: &[u8], (format, code): (u8, u16), by: &str) {
    let found = (sense.first().map(|byte| byte & 0x7f), scsi::sense::decode(sense).map(|(_, code)| code));
    assert_eq!(found, (Some(format), Some(code)), "{by}");
}

#[test]
fn whoever_refuses_a_command_keeps_the_format() {
    for (bit, format) in [(4, DESCRIPTORS), (0, FIXED)] {
        let mut world = World::new(2);
        // It is told to the other host, and takes back the one before.
        select(&mut world, [4 - bit, 0]);
        select(&mut world, [bit, 0]);
        check(&ready(&mut world, 1), (format, 0x2a01), "a unit attention");
        assert_eq!(ready(&mut world, 1), []);
        let list = [&[0; 8][..], &1u64.to_be_bytes(), &[0; 8]].concat();
        assert_eq!(world.run(0, &[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list), host::GOOD, "REGISTER");
        let list = [&1u64.to_be_bytes()[..], &[0; 16]].concat();
        assert_eq!(world.run(0, &[0x5f, 1, 1, 0, 0, 0, 0, 0, 24, 0], &list), host::GOOD, "RESERVE");
        for Refused { by, code, attribute, cdb, data, room } in all() {
            let task = world.hosts[0].send_as(attribute, 0, &cdb, &data, room);
            let sense = sense(&mut world, 0, task);
            check(&sense, (format, code), by);
        }
        world.fault.plan().arm(FaultTarget::Read, Fault::Error, 1);
        check(&ready(&mut world, 0), (format, 0x1100), "the medium");
        world.fault.plan().arm(FaultTarget::Write, Fault::Error, 1);
        let copy = world.hosts[0].send(&write_using_token(), &zeroes(), 0);
        let failed = sense(&mut world, 0, copy);
        check(&failed, (format, 0x0d01), "a copy");
        let told = world.hosts[0].send(&[0x84, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], &[], 64);
        assert_eq!(world.end(0, told), host::GOOD);
        check(&world.hosts[0].data(told)[32..50], (format, 0x0d01), "what is told of a copy");
        select(&mut world, [bit, 8]);
        let write = world.write(0);
        let protected = sense(&mut world, 0, write);
        check(&protected, (format, 0x2702), "protection");
        // What was not saved ends with a reset.
        assert_eq!(world.managed(0, LOGICAL_UNIT_RESET, 0, None), 0);
        check(&ready(&mut world, 0), (FIXED, 0x2903), "a reset");
    }
}

/// What is not there has no control mode page; and whatever is asked of it, that is what is wrong.
#[test]
fn at_a_lun_that_is_not_there_nothing_else_is_wrong() {
    let mut world = World::new(1);
    for cdb in [[0xc1; 6], [0, 0, 0, 0, 0, 4], [0x1b, 0, 0, 0, 0, 4]] {
        let task = world.hosts[0].send_to(9, &cdb, &[], 0);
        let sense = sense(&mut world, 0, task);
        check(&sense, (FIXED, 0x2500), "a LUN that is not there");
    }
    // These are looked at all the same.
    for (cdb, room) in
        [(&[0x12, 0, 7, 0, 255, 0][..], 255), (&[0xa0, 0, 0x33, 0, 0, 0, 0, 0, 0, 255, 0, 0], 255)]
    {
        let task = world.hosts[0].send_to(9, cdb, &[], room);
        let sense = sense(&mut world, 0, task);
        check(&sense, (FIXED, 0x2400), "a field");
    }
}
