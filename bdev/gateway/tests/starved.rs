//! Commands that read behind their data, on a node without memory to spare: none waits for frames that another one holds that waits for
//! it.

mod host;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use engine::{Pages, Pool, PoolConfig};
use host::{GOOD, Host, World};
use iscsi::TaskId;
use iscsi::keys::Choice;

/// A frame, the longest.
const LEN: usize = 1 << 20;
const BYTE_CHECK: u8 = 2;
const WRITE: (u8, u8) = (0x8a, 0);
const OR_WRITE: (u8, u8) = (0x8b, 0);
const VERIFY: (u8, u8) = (0x8f, BYTE_CHECK);
const WRITE_AND_VERIFY: (u8, u8) = (0x8e, BYTE_CHECK);
const WRITE_AND_EXAMINE: (u8, u8) = (0x8e, 0);

/// So many large frames, and hosts that send data when they are asked to.
fn starved(hosts: u8, large: usize) -> World {
    let config = PoolConfig { frames: [64, 16, large], pages: Pages::Ordinary };
    let mut world = World::empty_on(Pool::new(config).expect("memory"));
    for host in 0..hosts {
        world.add(host, |config| {
            config.preferences.initial_r2t = Choice::Yes;
            config.preferences.immediate_data = Choice::No;
        });
    }
    world.until("logins", |world| world.hosts.iter().all(Host::is_in));
    world
}

/// Zeroes, at the beginning: whatever is done with them, it is good.
fn send(world: &mut World, host: usize, (opcode, flags): (u8, u8), len: usize) -> TaskId {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[10..14].copy_from_slice(&u32::try_from(len / 512).expect("short").to_be_bytes());
    world.hosts[host].send(&cdb, &vec![0; len], 0)
}

/// All that have a frame wait for the blocks of one that wants to read there.
#[test]
fn a_place_at_the_blocks_is_for_those_that_have_their_frames() {
    for atomic in [OR_WRITE, WRITE_AND_VERIFY] {
        let mut world = starved(6, 4);
        // It waits for a short write to end, and the others come meanwhile.
        world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
        let before = world.write(5);
        world.run_for(Duration::from_millis(5));
        let first = send(&mut world, 0, atomic, LEN);
        world.run_for(Duration::from_millis(50));
        let others: Vec<TaskId> = (1..5).map(|host| send(&mut world, host, WRITE, LEN)).collect();
        world.run_for(Duration::from_millis(50));
        world.fault.plan().clear(FaultTarget::Write);
        assert_eq!(world.end(5, before), GOOD);
        assert_eq!(world.end(0, first), GOOD, "{atomic:x?}");
        for (host, task) in (1..).zip(others) {
            assert_eq!(world.end(host, task), GOOD, "{atomic:x?}");
        }
    }
}

/// Reads that wait for blocks, with the frames that they will be read into, have a session's share of them and no more.
#[test]
fn reads_that_wait_for_blocks_leave_something_for_the_next() {
    let mut world = starved(3, 8);
    world.fault.plan().arm(FaultTarget::Read, Fault::Silence, 1);
    let atomic = send(&mut world, 0, OR_WRITE, LEN);
    world.run_for(Duration::from_millis(50));
    let mut cdb = [0; 16];
    cdb[0] = 0x88;
    cdb[10..14].copy_from_slice(&u32::try_from(LEN / 512).expect("short").to_be_bytes());
    let room = u32::try_from(LEN).expect("short");
    let reads: Vec<TaskId> = (0..10).map(|_| world.hosts[1].send(&cdb, &[], room)).collect();
    world.run_for(Duration::from_millis(50));
    // Other blocks.
    (cdb[0], cdb[8]) = (WRITE.0, 0x20);
    let other = world.hosts[2].send(&cdb, &vec![0; LEN], 0);
    assert_eq!(world.end(2, other), GOOD);
    world.fault.plan().clear(FaultTarget::Read);
    assert_eq!(world.end(0, atomic), GOOD);
    for read in reads {
        assert_eq!(world.end(1, read), GOOD);
    }
}

/// Each has a frame and wants another one.
#[test]
fn what_is_compared_has_room_for_what_it_is_compared_with() {
    for each in [VERIFY, WRITE_AND_EXAMINE, WRITE_AND_VERIFY, OR_WRITE] {
        let mut world = starved(6, 4);
        for _ in 0..3 {
            let tasks: Vec<TaskId> = (0..6).map(|host| send(&mut world, host, each, LEN)).collect();
            for (host, task) in (0..).zip(tasks) {
                assert_eq!(world.end(host, task), GOOD, "{each:x?}");
            }
        }
        assert_eq!(world.target.luns()[0].active, 0);
    }
}

/// The same of more than a frame, on the smallest pool that lets a command have that: they wait for their turn and for frames, beside
/// shorter ones.
#[test]
fn what_is_longer_than_a_frame_has_that_room_too() {
    for each in [VERIFY, WRITE_AND_EXAMINE, WRITE_AND_VERIFY, OR_WRITE] {
        let mut world = starved(6, 8);
        for _ in 0..3 {
            let len = |host: usize| LEN << (host % 2);
            let tasks: Vec<TaskId> = (0..6).map(|host| send(&mut world, host, each, len(host))).collect();
            for (host, task) in (0..).zip(tasks) {
                assert_eq!(world.end(host, task), GOOD, "{each:x?}");
            }
        }
        assert_eq!(world.target.luns()[0].active, 0);
    }
}

/// Echoes that a host does not take are nobody's share of the pool: they are in two frames of it at the most.
#[test]
fn echoes_that_nobody_takes_leave_the_pool_to_others() {
    for len in [60_000_u32, 200_000] {
        let mut world = starved(2, 8);
        world.hosts[0].stop_listening();
        let mut ping = vec![0; 48 + len as usize];
        (ping[0], ping[1]) = (0x40, 0x80);
        ping[5..8].copy_from_slice(&len.to_be_bytes()[1..]);
        ping[16..24].copy_from_slice(&[0, 0, 0x77, 0x77, 0xff, 0xff, 0xff, 0xff]);
        for _ in 0..40 {
            world.hosts[0].send_raw(&ping);
        }
        world.run_for(Duration::from_secs(1));
        for blocks in [100_u32, 2048] {
            let mut cdb = [0; 16];
            cdb[0] = 0x88;
            cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
            let read = world.hosts[1].send(&cdb, &[], blocks * 512);
            assert_eq!(world.end(1, read), GOOD, "{len} bytes, {blocks} blocks");
        }
    }
}
