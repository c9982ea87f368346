//! Copies by the target: tokens (POPULATE TOKEN, WRITE USING TOKEN), EXTENDED COPY with four-byte identifiers, copies in the
//! background, and what is told of them.

mod host;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use host::{GOOD, World, attention};
use iscsi::TaskId;
use scsi::copy::token::{Delete, Immediate, Populate, Range, Source, TOKEN_LEN, WriteUsing};

const DONE: u8 = 0x01;
const FAILED: u8 = 0x02;
const PARTIAL: u8 = 0x03;
const BACKGROUND: u8 = 0x12;
const TERMINATED: u8 = 0x60;

fn cdb(opcode: u8, action: u8, id_at: usize, id: u32, len: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, action);
    cdb[10..14].copy_from_slice(&len.to_be_bytes());
    cdb[id_at..id_at + 4].copy_from_slice(&id.to_be_bytes());
    cdb
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("short")
}

fn range(lba: u64, blocks: u32) -> Range {
    Range { lba, blocks }
}

/// A WRITE USING TOKEN list with a token's bytes, or the zero token.
fn using(token: Option<&[u8]>, offset: u64, immediate: Immediate, ranges: &[Range]) -> Vec<u8> {
    deleting(Delete::No, token, offset, immediate, ranges)
}

/// The same, with DEL_TKN.
fn deleting(
    delete: Delete,
    token: Option<&[u8]>,
    offset: u64,
    immediate: Immediate,
    ranges: &[Range],
) -> Vec<u8> {
    let source = Source::Zeroes;
    let mut list = WriteUsing { immediate, delete, offset, source, ranges: ranges.to_vec() }.encode();
    if let Some(token) = token {
        list[16..16 + TOKEN_LEN].copy_from_slice(token);
    }
    list
}

impl World {
    fn fill(&mut self, host: usize, lba: u8, blocks: u8, byte: u8) {
        let data = vec![byte; usize::from(blocks) * 512];
        assert_eq!(self.run(host, &[0x2a, 0, 0, 0, 0, lba, 0, 0, blocks, 0], &data), GOOD);
    }

    fn blocks(&mut self, lun: u16, lba: u8, blocks: u8) -> Vec<u8> {
        let room = u32::from(blocks) * 512;
        let task = self.hosts[0].send_to(lun, &[0x28, 0, 0, 0, 0, lba, 0, 0, blocks, 0], &[], room);
        assert_eq!(self.end(0, task), GOOD);
        self.hosts[0].data(task).chunks(512).map(|block| block[0]).collect()
    }

    fn populate(&mut self, host: usize, id: u32, timeout: u32, ranges: &[Range]) -> (u8, u16) {
        let list = Populate { immediate: Immediate::No, timeout, ranges: ranges.to_vec() }.encode();
        self.run(host, &cdb(0x83, 0x10, 6, id, len(&list)), &list)
    }

    fn send_using(&mut self, host: usize, lun: u16, id: u32, list: &[u8]) -> TaskId {
        self.hosts[host].send_to(lun, &cdb(0x83, 0x11, 6, id, len(list)), list, 0)
    }

    fn use_token(&mut self, host: usize, lun: u16, id: u32, list: &[u8]) -> (u8, u16) {
        let task = self.send_using(host, lun, id, list);
        self.end(host, task)
    }

    /// RECEIVE ROD TOKEN INFORMATION.
    fn information(&mut self, host: usize, lun: u16, id: u32) -> Vec<u8> {
        let task = self.hosts[host].send_to(lun, &cdb(0x84, 0x07, 2, id, 600), &[], 600);
        assert_eq!(self.end(host, task), GOOD);
        let data = self.hosts[host].data(task).to_vec();
        let whole = 4 + u32::from_be_bytes(data[..4].try_into().expect("four bytes")) as usize;
        data[..whole].to_vec()
    }

    /// COPY OPERATION STATUS and TRANSFER COUNT.
    fn outcome(&mut self, host: usize, lun: u16, id: u32) -> (u8, u64) {
        let data = self.information(host, lun, id);
        (data[5], u64::from_be_bytes(data[16..24].try_into().expect("eight bytes")))
    }

    fn token(&mut self, host: usize, id: u32) -> Vec<u8> {
        let data = self.information(host, 0, id);
        assert_eq!((data[5], data.len()), (DONE, 36 + 2 + TOKEN_LEN));
        data[38..].to_vec()
    }
}

#[test]
fn what_a_token_stands_for_is_written_at_either_lun_by_whoever_has_it() {
    let mut world = World::new(2);
    world.fill(0, 0, 4, 1);
    world.fill(0, 40, 4, 2);
    assert_eq!(world.populate(0, 7, 0, &[range(40, 4), range(0, 4)]), GOOD);
    assert_eq!(world.outcome(0, 0, 7), (DONE, 8));
    let token = world.token(0, 7);
    let list = using(Some(&token), 0, Immediate::No, &[range(80, 3), range(100, 5)]);
    assert_eq!(world.use_token(1, 0, 1, &list), GOOD);
    assert_eq!((world.blocks(0, 80, 4), world.blocks(0, 100, 6)), (vec![2, 2, 2, 0], vec![2, 1, 1, 1, 1, 0]));
    assert_eq!(world.outcome(1, 0, 1), (DONE, 8));
    let list = using(Some(&token), 3, Immediate::No, &[range(8, 2)]);
    assert_eq!(world.use_token(0, 1, 2, &list), GOOD);
    assert_eq!(world.blocks(1, 8, 3), [2, 1, 0]);
    // More than there is: as much as there is.
    let list = using(Some(&token), 6, Immediate::No, &[range(20, 4)]);
    assert_eq!(world.use_token(0, 1, 3, &list), GOOD);
    assert_eq!((world.outcome(0, 1, 3), world.blocks(1, 20, 3)), ((PARTIAL, 2), vec![1, 1, 0]));
    let beyond = using(Some(&token), 8, Immediate::No, &[range(20, 4)]);
    assert_eq!(world.use_token(0, 1, 4, &beyond), attention(0x2600));
}

#[test]
fn a_write_to_its_blocks_revokes_a_token_and_no_other_write_does() {
    let mut world = World::new(2);
    world.fill(0, 0, 8, 1);
    assert_eq!(world.populate(0, 7, 0, &[range(0, 4)]), GOOD);
    let token = world.token(0, 7);
    let list = using(Some(&token), 0, Immediate::No, &[range(80, 4)]);
    world.fill(1, 4, 4, 9);
    assert_eq!(world.use_token(0, 0, 1, &list), GOOD);
    // UNMAP of the last block.
    let unmap = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &3u64.to_be_bytes(), &1u32.to_be_bytes(), &[0; 4]].concat();
    assert_eq!(world.run(1, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &unmap), GOOD);
    assert_eq!(world.use_token(0, 0, 2, &list), attention(0x2306));
    let mut forged = list;
    forged[200] ^= 1;
    assert_eq!(world.use_token(0, 0, 3, &forged), attention(0x2304));
}

#[test]
fn a_token_that_nobody_uses_expires_and_a_write_that_waits_for_it_is_not_in_it() {
    let mut world = World::new(2);
    world.fill(0, 0, 1, 1);
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let write = world.write(0);
    world.until("the write is under way", |world| world.target.luns()[0].active == 1);
    let list = Populate { immediate: Immediate::No, timeout: 1, ranges: vec![range(0, 1)] }.encode();
    let populate = world.hosts[1].send(&cdb(0x83, 0x10, 6, 7, len(&list)), &list, 0);
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.hosts[1].take(populate), None, "a write is under way at its blocks");
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!((world.end(0, write), world.end(1, populate)), (GOOD, GOOD));
    let token = world.token(1, 7);
    let list = using(Some(&token), 0, Immediate::No, &[range(80, 1)]);
    assert_eq!((world.use_token(1, 0, 1, &list), world.blocks(0, 80, 1)), (GOOD, vec![7]));
    world.run_for(Duration::from_millis(1100));
    assert_eq!(world.use_token(1, 0, 2, &list), attention(0x2307));
    assert_eq!(world.use_token(1, 0, 3, &list), attention(0x2304));
}

/// DEL_TKN: the token goes with the copy that was made, and not with one that was refused or failed.
#[test]
fn a_token_is_deleted_when_its_copy_is_made() {
    let mut world = World::new(1);
    world.fill(0, 0, 4, 5);
    assert_eq!(world.populate(0, 7, 0, &[range(0, 4)]), GOOD);
    let token = world.token(0, 7);
    let list = |immediate| deleting(Delete::Yes, Some(&token), 0, immediate, &[range(80, 4)]);
    // A copy in the background has the identifier.
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let zeroes = using(None, 0, Immediate::Yes, &[range(40, 1)]);
    assert_eq!(world.use_token(0, 0, 1, &zeroes), GOOD);
    assert_eq!(world.use_token(0, 0, 1, &list(Immediate::No)), attention(0x0016));
    // There are as many in the background as may be.
    for id in 2..=8 {
        assert_eq!(world.use_token(0, 0, id, &zeroes), GOOD);
    }
    assert_eq!(world.use_token(0, 0, 9, &list(Immediate::Yes)), attention(0x0016));
    world.fault.plan().clear(FaultTarget::Write);
    world.until("the end of all", |world| (1..=8).all(|id| world.outcome(0, 0, id).0 == DONE));
    // The device fails.
    world.fault.plan().arm(FaultTarget::Write, Fault::Error, 1);
    assert_eq!(world.use_token(0, 0, 10, &list(Immediate::No)), attention(0x0d01));
    assert_eq!(world.blocks(0, 80, 4), [0; 4]);
    // It is made, before the status and behind it.
    assert_eq!(world.use_token(0, 0, 11, &list(Immediate::No)), GOOD);
    assert_eq!(world.blocks(0, 80, 4), [5; 4]);
    assert_eq!(world.use_token(0, 0, 12, &list(Immediate::No)), attention(0x2304));

    assert_eq!(world.populate(0, 8, 0, &[range(0, 4)]), GOOD);
    let token = world.token(0, 8);
    let list = |delete| deleting(delete, Some(&token), 0, Immediate::Yes, &[range(120, 4)]);
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    assert_eq!(world.use_token(0, 0, 13, &list(Delete::Yes)), GOOD);
    assert_eq!(world.use_token(0, 0, 14, &list(Delete::No)), GOOD, "it is there as long as it is needed");
    world.fault.plan().clear(FaultTarget::Write);
    world.until("the end of both", |world| [13, 14].iter().all(|id| world.outcome(0, 0, *id).0 == DONE));
    assert_eq!(world.blocks(0, 120, 4), [5; 4]);
    assert_eq!(world.use_token(0, 0, 15, &list(Delete::No)), attention(0x2304));
}

/// What is remembered has its bounds, and one host that makes many tokens costs no other one its own.
#[test]
fn a_host_that_makes_many_tokens_loses_its_own() {
    let mut world = World::new(2);
    world.fill(0, 0, 4, 5);
    assert_eq!(world.populate(1, 7, 0, &[range(0, 4)]), GOOD);
    for id in 100..164 {
        assert_eq!(world.populate(0, id, 0, &[range(0, 1)]), GOOD);
    }
    let token = world.token(1, 7);
    let first = world.hosts[0].send(&cdb(0x84, 0x07, 2, 100, 600), &[], 600);
    assert_eq!(world.end(0, first), attention(0x2400), "64 copies are remembered");
    for _ in 0..256 {
        assert_eq!(world.populate(0, 100, 0, &[range(0, 1)]), GOOD);
    }
    let list = using(Some(&token), 0, Immediate::No, &[range(80, 4)]);
    assert_eq!(world.use_token(1, 0, 1, &list), GOOD);
}

#[test]
fn the_zero_token_writes_zeroes() {
    let mut world = World::new(1);
    world.fill(0, 0, 8, 1);
    let list = using(None, 0, Immediate::No, &[range(2, 3)]);
    assert_eq!(world.use_token(0, 0, 1, &list), GOOD);
    assert_eq!((world.blocks(0, 0, 8), world.outcome(0, 0, 1)), (vec![1, 1, 0, 0, 0, 1, 1, 1], (DONE, 3)));
}

#[test]
fn a_copy_in_the_background_goes_on_behind_its_status_and_can_be_ended() {
    let mut world = World::new(1);
    world.fill(0, 0, 4, 5);
    assert_eq!(world.populate(0, 7, 0, &[range(0, 4)]), GOOD);
    let token = world.token(0, 7);
    let list = using(Some(&token), 0, Immediate::Yes, &[range(80, 4)]);
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    assert_eq!(world.use_token(0, 0, 1, &list), GOOD);
    assert_eq!(world.outcome(0, 0, 1), (BACKGROUND, 0));
    assert_eq!(world.use_token(0, 0, 1, &list), attention(0x0016), "the identifier is in use");
    world.fault.plan().clear(FaultTarget::Write);
    world.until("its end", |world| world.outcome(0, 0, 1).0 != BACKGROUND);
    assert_eq!((world.outcome(0, 0, 1), world.blocks(0, 80, 4)), ((DONE, 4), vec![5; 4]));

    world.fault.plan().arm(FaultTarget::Read, Fault::Silence, 1);
    assert_eq!(world.use_token(0, 0, 2, &list), GOOD);
    let abort = cdb(0x83, 0x1c, 2, 2, 0);
    assert_eq!(world.run(0, &abort, &[]), GOOD);
    assert_eq!(world.outcome(0, 0, 2).0, TERMINATED);
    world.fault.plan().clear(FaultTarget::Read);
    world.run_for(Duration::from_millis(5));
    world.fill(0, 0, 4, 6);

    assert_eq!(world.populate(0, 8, 0, &[range(0, 4)]), GOOD);
    let token = world.token(0, 8);
    let list = using(Some(&token), 0, Immediate::Yes, &[range(120, 4)]);
    world.fault.plan().arm(FaultTarget::Read, Fault::Error, 1);
    assert_eq!(world.use_token(0, 0, 3, &list), GOOD);
    world.until("its end", |world| world.outcome(0, 0, 3).0 != BACKGROUND);
    let data = world.information(0, 0, 3);
    assert_eq!((data[5], data[12], scsi::sense::decode(&data[32..50])), (FAILED, 2, Some((0xa, 0x0d01))));
}

#[test]
fn a_reset_ends_what_goes_on_in_the_background_before_it_is_answered() {
    let mut world = World::new(1);
    world.fill(0, 0, 4, 5);
    let list = using(None, 0, Immediate::Yes, &[range(0, 4)]);
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    assert_eq!(world.use_token(0, 0, 1, &list), GOOD);
    let reset = world.hosts[0].manage(5, 0, None);
    world.run_for(Duration::from_millis(20));
    let early = world.hosts[0].take_managed(reset);
    world.fault.plan().clear(FaultTarget::Write);
    if early.is_none() {
        world.until("the reset", |world| world.hosts[0].take_managed(reset) == Some(0));
    }
    assert_eq!(world.ready(0), attention(0x2903));
    let gone = world.hosts[0].send(&cdb(0x84, 0x07, 2, 1, 600), &[], 600);
    assert_eq!(world.end(0, gone), attention(0x2400), "nothing is known of copies before a reset");
}

#[test]
fn extended_copy_with_a_long_identifier_copies_and_tells() {
    let mut world = World::new(1);
    world.fill(0, 0, 4, 3);
    // Header; no descriptors of units: FFFFh is the one that the command is for; a block to block segment.
    let mut list = vec![0; 48];
    (list[0], list[3], list[16]) = (1, 0x20, 0xff);
    list[20..24].copy_from_slice(&0x0102_0304u32.to_be_bytes());
    list[45] = 28;
    let mut segment = vec![0x02, 0, 0, 24, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 4];
    segment.extend_from_slice(&0u64.to_be_bytes());
    segment.extend_from_slice(&60u64.to_be_bytes());
    list.append(&mut segment);
    assert_eq!(world.run(0, &cdb(0x83, 0x01, 6, 0, len(&list)), &list), GOOD);
    assert_eq!(world.blocks(0, 60, 5), [3, 3, 3, 3, 0]);
    let status = world.hosts[0].send(&cdb(0x84, 0x05, 2, 0x0102_0304, 32), &[], 32);
    assert_eq!(world.end(0, status), GOOD);
    let data = world.hosts[0].data(status).to_vec();
    assert_eq!(
        (data[4], data[5], data[15], &data[16..26]),
        (1, DONE, 0, &[0, 0, 0, 0, 0, 0, 8, 0, 0, 1][..])
    );
}
