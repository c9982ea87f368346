//! Copies between LUNs of which one is removed, masked, taken by another host, or reset meanwhile: nothing more is read there or
//! written. And how many copies go on behind their commands.

mod host;

use std::sync::Arc;
use std::time::Duration;

use bdev::fault::{Fault, FaultBdev, FaultTarget};
use bdev::malloc::MallocBdev;
use bdev::{BlockRange, Geometry};
use engine::{Pages, Pool, PoolConfig};
use gateway::{InitiatorGroup, LunConfig, LunMask, LunMode, Map, NetMask};
use host::{GOOD, TARGET, World, attention};
use iscsi::TaskId;
use scsi::copy::token::{Delete, Immediate, Populate, Range, Source, TOKEN_LEN, WriteUsing};
use uuid::Uuid;

/// Blocks of two pieces.
const BLOCKS: u16 = 1024;
const UNREACHABLE: (u8, u16) = attention(0x0804);

/// A world whose target has LUN 2, too.
struct Three {
    world: World,
    fault: Arc<FaultBdev>,
    medium: Arc<MallocBdev>,
}

fn medium(id: u128) -> Arc<MallocBdev> {
    let geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 16384 };
    MallocBdev::new(format!("m{id}"), Uuid::from_u128(id), geometry)
}

/// How a copy is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    ExtendedCopy,
    /// The same, and its command does not wait.
    Background,
}

impl Three {
    fn new(hosts: u8) -> Self {
        Self::of(World::new(hosts))
    }

    fn of(mut world: World) -> Self {
        let medium = medium(9);
        let fault = FaultBdev::new("f2", "fault", Uuid::from_u128(9), medium.clone());
        world.target.add_lun(TARGET, 2, LunConfig::new(fault.clone(), LunMode::SyncDurable)).expect("new");
        let mut three = Self { world, fault, medium };
        for host in 0..three.world.hosts.len() {
            for lun in [0, 1, 2] {
                three.world.run_at(host, lun, &[0; 6], &[]);
            }
        }
        three
    }

    fn write(&mut self, host: usize, lun: u16, lba: u16, byte: u8) -> (u8, u16) {
        let [high, low] = lba.to_be_bytes();
        self.world.run_at(host, lun, &[0x2a, 0, 0, 0, high, low, 0, 0, 1, 0], &[byte; 512])
    }

    /// The NAA designator of a LUN.
    fn naa(&mut self, lun: u16) -> [u8; 8] {
        let task = self.world.hosts[0].send_to(lun, &[0x12, 1, 0x83, 0, 255, 0], &[], 255);
        self.world.until("the page", |world| world.hosts[0].take(task).is_some());
        self.world.hosts[0].data(task)[8..16].try_into().expect("eight bytes")
    }

    /// A copy of everything from one LUN's beginning to another's, by a command at LUN 0.
    fn copy(&mut self, by: By, from: u16, to: u16) -> TaskId {
        let mut segment = vec![2, 0, 0, 24, 0, 0, 0, 1, 0, 0];
        segment.extend(BLOCKS.to_be_bytes());
        segment.extend([0; 16]);
        self.copy_segment(by, from, to, &segment)
    }

    /// The same of what a segment descriptor says.
    fn copy_segment(&mut self, by: By, from: u16, to: u16, segment: &[u8]) -> TaskId {
        let names = [self.naa(from), self.naa(to)];
        let cscd = |name: &[u8; 8]| [&[0xe4, 0, 0, 0, 1, 3, 0, 8][..], name, &[0; 16]].concat();
        let mut list = vec![0; 48];
        (list[0], list[3], list[16]) = (1, 0x20, 0xff);
        list[15] = u8::from(by == By::Background);
        // No list identifier: nobody asks how it ended.
        list[1] = 0x18;
        (list[43], list[45]) = (64, u8::try_from(segment.len()).expect("short"));
        list.extend(names.iter().flat_map(cscd));
        list.extend(segment);
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[13]) = (0x83, 0x01, u8::try_from(list.len()).expect("short"));
        self.world.hosts[0].send(&cdb, &list, 0)
    }

    /// A token of what a LUN begins with.
    fn token(&mut self, lun: u16) -> Vec<u8> {
        let ranges = vec![Range { lba: 0, blocks: BLOCKS.into() }];
        let list = Populate { immediate: Immediate::No, timeout: 600, ranges }.encode();
        assert_eq!(self.world.run_at(0, lun, &token_cdb(0x83, 0x10, 6, &list), &list), GOOD);
        let mut cdb = token_cdb(0x84, 0x07, 2, &[]);
        cdb[12..14].copy_from_slice(&600u16.to_be_bytes());
        let task = self.world.hosts[0].send_to(lun, &cdb, &[], 600);
        assert_eq!(self.world.end(0, task), GOOD);
        self.world.hosts[0].data(task)[38..][..TOKEN_LEN].to_vec()
    }

    /// WRITE USING TOKEN at a LUN's beginning.
    fn use_token(&mut self, host: usize, lun: u16, token: &[u8]) -> TaskId {
        let ranges = vec![Range { lba: 0, blocks: BLOCKS.into() }];
        let (immediate, delete, source) = (Immediate::No, Delete::No, Source::Zeroes);
        let mut list = WriteUsing { immediate, delete, offset: 0, source, ranges }.encode();
        list[16..16 + TOKEN_LEN].copy_from_slice(token);
        self.world.hosts[host].send_to(lun, &token_cdb(0x83, 0x11, 6, &list), &list, 0)
    }

    /// The first byte of LUN 2's block in the second piece.
    fn second_piece(&self) -> u8 {
        self.medium.snapshot(BlockRange::new(512, 1))[0]
    }

    fn run(&mut self) {
        self.world.run_for(Duration::from_millis(20));
    }

    /// Another device comes as LUN 2, and what is written there lands on it.
    fn replace(&mut self) {
        let other = medium(10);
        self.world
            .target
            .add_lun(TARGET, 2, LunConfig::new(other.clone(), LunMode::SyncDurable))
            .expect("free");
        self.world.run_at(0, 2, &[0; 6], &[]);
        assert_eq!(self.write(0, 2, 3, 0x77), GOOD);
        assert_eq!(other.snapshot(BlockRange::new(3, 1))[0], 0x77, "the write is where the LUN is");
        assert_ne!(self.medium.snapshot(BlockRange::new(3, 1))[0], 0x77, "and not where it was");
    }
}

fn token_cdb(opcode: u8, action: u8, id_at: usize, list: &[u8]) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, action);
    cdb[10..14].copy_from_slice(&u32::try_from(list.len()).expect("short").to_be_bytes());
    cdb[id_at..id_at + 4].copy_from_slice(&7u32.to_be_bytes());
    cdb
}

#[test]
fn a_copy_ends_with_the_lun_that_it_reads() {
    for by in [By::ExtendedCopy, By::Background] {
        let mut three = Three::new(1);
        three.world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
        let copy = three.copy(by, 2, 0);
        three.run();
        three.fault.plan().arm(FaultTarget::Read, Fault::Error, u32::MAX);
        three.world.target.remove_lun(TARGET, 2).expect("there");
        three.world.fault.plan().clear(FaultTarget::Write);
        let expected = if by == By::Background { GOOD } else { UNREACHABLE };
        assert_eq!(three.world.end(0, copy), expected, "{by:?}");
        three.run();
        three.replace();
    }
}

#[test]
fn a_copy_ends_with_the_lun_that_it_writes() {
    for by in [By::ExtendedCopy, By::Background] {
        let mut three = Three::new(1);
        assert_eq!(three.write(0, 0, 0, 5), GOOD);
        three.world.fault.plan().arm(FaultTarget::Read, Fault::Silence, 1);
        let copy = three.copy(by, 0, 2);
        three.run();
        three.world.target.remove_lun(TARGET, 2).expect("there");
        three.world.fault.plan().clear(FaultTarget::Read);
        let expected = if by == By::Background { GOOD } else { UNREACHABLE };
        assert_eq!(three.world.end(0, copy), expected, "{by:?}");
        three.run();
        assert_eq!(three.medium.snapshot(BlockRange::new(0, 1))[0], 0, "{by:?}: it is nobody's LUN any more");
        three.replace();
    }
}

/// The host that uses the token does not see the LUN that it is of.
#[test]
fn a_copy_by_token_ends_with_the_lun_that_it_reads() {
    let mut three = Three::new(2);
    let token = three.token(2);
    mask(&mut three.world, 1);
    three.run();
    assert_eq!(three.world.ready(1), attention(0x3f0e));
    three.world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let copy = three.use_token(1, 0, &token);
    three.run();
    three.world.target.remove_lun(TARGET, 2).expect("there");
    three.world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(three.world.end(1, copy), UNREACHABLE);
    three.replace();
}

/// LUN 2 is hidden from one of two hosts.
fn mask(world: &mut World, hidden: u8) {
    let luns = LunMask::Only([0, 1].into());
    for (tag, host, luns) in [(2, hidden, luns), (3, 1 - hidden, LunMask::All)] {
        let initiators = vec![format!("iqn.2026-11.example:h{host}")];
        let group = InitiatorGroup { tag, initiators, netmasks: vec![NetMask::Any] };
        world.target.add_initiator_group(group).expect("new");
        world.target.add_map(TARGET, Map { portal_group: 1, initiator_group: tag, luns }).expect("new");
    }
    world.target.remove_map(TARGET, 1, 1).expect("there");
}

#[test]
fn what_a_host_may_not_see_any_more_it_does_not_copy() {
    let mut three = Three::new(2);
    let token = three.token(2);
    three.world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let copy = three.copy(By::ExtendedCopy, 2, 0);
    three.run();
    mask(&mut three.world, 0);
    three.run();
    three.world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(three.world.end(0, copy), UNREACHABLE);
    assert_eq!(three.world.ready(0), attention(0x3f0e));
    // Its own token of what it cannot read any more is worth nothing; whoever was given it may use it.
    let used = three.use_token(0, 0, &token);
    assert_eq!(three.world.end(0, used), attention(0x2306));
    let used = three.use_token(1, 0, &token);
    assert_eq!(three.world.end(1, used), GOOD);
}

#[test]
fn preempt_and_abort_ends_copies_to_the_unit_through_others() {
    for by in [By::ExtendedCopy, By::Background] {
        let mut three = Three::new(2);
        assert_eq!(three.write(0, 0, 512, 5), GOOD);
        let reserve = |three: &mut Three, host: usize, action: u8, kind: u8, keys: [u64; 2]| {
            let list = [keys[0].to_be_bytes(), keys[1].to_be_bytes(), [0; 8]].concat();
            let cdb = [0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0];
            three.world.hosts[host].send_to(2, &cdb, &list, 0)
        };
        for (host, key) in [(0, 1), (1, 2)] {
            let register = reserve(&mut three, host, 0, 0, [0, key]);
            assert_eq!(three.world.end(host, register), GOOD);
        }
        let held = reserve(&mut three, 0, 1, 3, [1, 0]);
        assert_eq!(three.world.end(0, held), GOOD);
        // The first piece is being written: nobody says that the host is fenced before that has landed.
        three.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
        let copy = three.copy(by, 0, 2);
        three.run();
        let preempt = reserve(&mut three, 1, 5, 3, [2, 1]);
        three.run();
        assert_eq!(three.world.hosts[1].take(preempt), None, "{by:?}: a piece may still land");
        three.fault.plan().clear(FaultTarget::Write);
        assert_eq!(three.world.end(1, preempt), GOOD);
        let expected = if by == By::Background { GOOD } else { UNREACHABLE };
        assert_eq!(three.world.end(0, copy), expected, "{by:?}");
        three.run();
        assert_eq!(three.second_piece(), 0, "{by:?}: it is fenced");
    }
}

/// A reservation that comes while a copy is under way, and aborts nothing, keeps it out from then on.
#[test]
fn a_copy_goes_no_further_than_a_reservation_lets_its_initiator() {
    let mut three = Three::new(2);
    assert_eq!(three.write(0, 0, 512, 5), GOOD);
    three.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let copy = three.copy(By::ExtendedCopy, 0, 2);
    three.run();
    assert_eq!(three.world.run_at(1, 2, &[0x16, 0, 0, 0, 0, 0], &[]), GOOD);
    three.fault.plan().clear(FaultTarget::Write);
    assert_eq!(three.world.end(0, copy), UNREACHABLE);
    assert_eq!(three.second_piece(), 0);
}

#[test]
fn a_reset_of_a_unit_ends_copies_to_it_through_others() {
    let mut three = Three::new(2);
    assert_eq!(three.write(0, 0, 512, 5), GOOD);
    three.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let copy = three.copy(By::ExtendedCopy, 0, 2);
    three.run();
    let reset = three.world.hosts[1].manage(5, scsi::lun::encode(2), None);
    three.run();
    assert_eq!(three.world.hosts[1].take_managed(reset), None, "a piece may still land");
    three.fault.plan().clear(FaultTarget::Write);
    assert_eq!(three.world.end(0, copy), UNREACHABLE);
    three.world.until("the reset", |world| world.hosts[1].take_managed(reset) == Some(0));
    assert_eq!(three.second_piece(), 0);
}

/// Whoever sends copies without end has a few at a time.
#[test]
fn copies_in_the_background_are_bounded_and_leave_the_pool_to_others() {
    let mut three = Three::new(2);
    three.world.fault.plan().arm(FaultTarget::Read, Fault::Silence, u32::MAX);
    for number in 0..20 {
        let copy = three.copy(By::Background, 0, 2);
        let expected = if number < 8 { GOOD } else { attention(0x0016) };
        assert_eq!(three.world.end(0, copy), expected, "copy {number}");
    }
    assert_eq!(three.write(1, 1, 0, 3), GOOD);
    three.world.fault.plan().clear(FaultTarget::Read);
    three.world.run_for(Duration::from_millis(100));
    let copy = three.copy(By::Background, 0, 2);
    assert_eq!(three.world.end(0, copy), GOOD, "they have ended");
}

/// Its session's share of the pool is held by what waits for the blocks that it has.
#[test]
fn a_copy_in_the_background_goes_on_at_the_blocks_that_it_holds() {
    const LEN: u32 = 1 << 20;
    let few = PoolConfig { frames: [64, 16, 7], pages: Pages::Ordinary };
    let mut world = World::empty_on(Pool::new(few).expect("memory"));
    world.add(0, |_| {});
    world.until("a login", |world| world.hosts[0].is_in());
    let mut three = Three::of(world);
    assert_eq!(three.write(0, 2, 0, 5), GOOD);
    three.world.fault.plan().arm(FaultTarget::Read, Fault::Silence, 1);
    // 200 000 bytes, from the beginning to byte 100.
    let mut segment = vec![0x0a, 0, 0, 28, 0, 0, 0, 1];
    segment.extend(200_000_u32.to_be_bytes());
    segment.extend([0; 19]);
    segment.push(100);
    let copy = three.copy_segment(By::Background, 2, 0, &segment);
    assert_eq!(three.world.end(0, copy), GOOD);
    three.run();
    let mut cdb = [0; 16];
    cdb[0] = 0x88;
    cdb[10..14].copy_from_slice(&(LEN / 512).to_be_bytes());
    let reads: Vec<TaskId> = (0..8).map(|_| three.world.hosts[0].send(&cdb, &[], LEN)).collect();
    three.run();
    three.world.fault.plan().clear(FaultTarget::Read);
    for read in reads {
        assert_eq!(three.world.end(0, read), GOOD);
    }
    assert_eq!(three.world.medium.snapshot(BlockRange::new(0, 1))[99..102], [0, 5, 5]);
}
