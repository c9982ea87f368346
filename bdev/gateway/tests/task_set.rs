//! Task attributes (SAM-5 section 8): whom a command waits for, and whom it does not.

mod host;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use host::{GOOD, World, attention};
use iscsi::TaskId;

const SIMPLE: u8 = 1;
const ORDERED: u8 = 2;
const HEAD_OF_QUEUE: u8 = 3;
const ACA: u8 = 4;

const READY: [u8; 6] = [0; 6];
const ABORT_TASK_SET: u8 = 2;

/// WRITE(10) of one block.
fn write(lba: u8) -> [u8; 10] {
    [0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0]
}

/// A write of a host that the medium keeps until the fault is cleared.
fn held_write(world: &mut World, host: usize) -> TaskId {
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let held = world.hosts[host].send(&write(9), &[7; 512], 0);
    world.run_for(Duration::from_millis(5));
    held
}

fn release(world: &mut World) {
    world.fault.plan().clear(FaultTarget::Write);
}

/// Those of a host's tasks that have been answered a while later.
fn answered(world: &mut World, host: usize, tasks: &[TaskId]) -> Vec<bool> {
    world.run_for(Duration::from_millis(20));
    tasks.iter().map(|task| world.hosts[host].take(*task).is_some()).collect()
}

#[test]
fn an_ordered_command_waits_for_all_before_it_and_holds_all_after_it() {
    let mut world = World::new(2);
    let held = held_write(&mut world, 0);
    let beside = world.hosts[1].send_as(SIMPLE, 0, &READY, &[], 0);
    assert_eq!(world.end(1, beside), GOOD, "simple commands go beside each other");
    // It comes through another nexus: the task set is the unit's.
    let ordered = world.hosts[1].send_as(ORDERED, 0, &write(1), &[1; 512], 0);
    world.run_for(Duration::from_millis(5));
    let after = world.hosts[0].send_as(SIMPLE, 0, &write(1), &[2; 512], 0);
    let elsewhere = world.hosts[0].send_as(SIMPLE, 1, &READY, &[], 0);
    assert_eq!(answered(&mut world, 1, &[ordered]), [false]);
    assert_eq!(answered(&mut world, 0, &[held, after, elsewhere]), [false, false, true]);
    // Its commands that have no attribute of their own are simple ones, and INQUIRY waits for nobody.
    let untagged = world.hosts[1].send_as(0, 0, &READY, &[], 0);
    let inquiry = world.hosts[1].send(&[0x12, 0, 0, 0, 36, 0], &[], 36);
    assert_eq!(answered(&mut world, 1, &[untagged, inquiry]), [false, true]);
    release(&mut world);
    for (host, task) in [(0, held), (1, ordered), (0, after), (1, untagged)] {
        assert_eq!(world.end(host, task), GOOD);
    }
    let last = world.medium.snapshot(bdev::BlockRange::new(1, 1));
    assert_eq!(last[0], 2, "the later write came later");
    assert_eq!(world.target.luns()[0].active, 0);
}

#[test]
fn a_head_of_queue_command_goes_past_those_that_wait() {
    let mut world = World::new(1);
    held_write(&mut world, 0);
    let ordered = world.hosts[0].send_as(ORDERED, 0, &READY, &[], 0);
    let head = world.hosts[0].send_as(HEAD_OF_QUEUE, 0, &READY, &[], 0);
    assert_eq!(answered(&mut world, 0, &[ordered, head]), [false, true]);
    // And holds up those that have not begun.
    release(&mut world);
    world.until("nothing", |world| world.target.luns()[0].active == 0);
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let head = world.hosts[0].send_as(HEAD_OF_QUEUE, 0, &write(9), &[7; 512], 0);
    world.run_for(Duration::from_millis(5));
    let simple = world.hosts[0].send_as(SIMPLE, 0, &READY, &[], 0);
    assert_eq!(answered(&mut world, 0, &[head, simple]), [false, false]);
    release(&mut world);
    assert_eq!((world.end(0, head), world.end(0, simple)), (GOOD, GOOD));
}

#[test]
fn what_waits_is_looked_at_when_its_time_comes() {
    let mut world = World::new(2);
    held_write(&mut world, 0);
    // SWP, by an ordered MODE SELECT: a write that comes after it is refused, and the attention is told before.
    let swp = [&[0, 0, 0, 0, 0x0a, 10, 0, 0x10, 8][..], &[0; 7]].concat();
    let select = [0x15, 0x10, 0, 0, 16, 0];
    let ordered = world.hosts[0].send_as(ORDERED, 0, &select, &swp, 0);
    world.run_for(Duration::from_millis(5));
    let own = world.hosts[0].send(&write(3), &[3; 512], 0);
    let other = world.hosts[1].send(&write(3), &[3; 512], 0);
    world.run_for(Duration::from_millis(5));
    release(&mut world);
    assert_eq!(world.end(0, ordered), GOOD);
    assert_eq!(world.end(0, own), attention(0x2702));
    assert_eq!(world.end(1, other), attention(0x2a01));
}

#[test]
fn what_waits_can_be_aborted() {
    let mut world = World::new(2);
    let held = held_write(&mut world, 0);
    let ordered = world.hosts[1].send_as(ORDERED, 0, &write(1), &[1; 512], 0);
    let after = world.hosts[1].send(&write(1), &[1; 512], 0);
    assert_eq!(answered(&mut world, 1, &[ordered, after]), [false, false]);
    assert_eq!(world.managed(1, ABORT_TASK_SET, 0, None), 0);
    let ready = world.hosts[1].send(&READY, &[], 0);
    assert_eq!(world.end(1, ready), GOOD, "nothing ordered is left");
    release(&mut world);
    assert_eq!(world.end(0, held), GOOD);
    // A session that ends takes its own out of the set.
    held_write(&mut world, 0);
    world.hosts[1].send_as(ORDERED, 0, &write(1), &[1; 512], 0);
    world.run_for(Duration::from_millis(5));
    world.hosts[1].hang_up();
    world.run_for(Duration::from_millis(5));
    release(&mut world);
    world.until("the rest", |world| world.target.luns()[0].active == 0);
    assert_eq!(world.ready(0), GOOD);
}

/// An ordered write needs a buffer: those that wait behind it do not hold one.
#[test]
fn many_large_writes_behind_an_ordered_one_come_to_their_end() {
    const LARGE: usize = 136 * 512;
    let mut world = World::new(3);
    held_write(&mut world, 0);
    let large = |attribute, world: &mut World, host: usize, lba: u8| {
        let cdb = [0x2a, 0, 0, 0, lba, 0, 0, 0, 136, 0];
        world.hosts[host].send_as(attribute, 0, &cdb, &vec![lba + 1; LARGE], 0)
    };
    let mut all = vec![(1, large(ORDERED, &mut world, 1, 0))];
    world.run_for(Duration::from_millis(5));
    for lba in 1..10 {
        for host in [0, 1, 2] {
            all.push((host, large(SIMPLE, &mut world, host, lba)));
        }
    }
    world.run_for(Duration::from_millis(20));
    release(&mut world);
    for (host, task) in all {
        assert_eq!(world.end(host, task), GOOD);
    }
    for lba in 0..10u8 {
        let written = world.medium.snapshot(bdev::BlockRange::new(u64::from(lba) << 8, 136));
        assert!(written.iter().all(|byte| *byte == lba + 1), "place {lba}");
    }
}

/// Two hosts that send data when they are asked for them, and not before.
fn who_sends_when_asked() -> World {
    let mut world = World::empty();
    for host in [0, 1] {
        world.add(host, |config| {
            config.preferences.immediate_data = iscsi::keys::Choice::No;
            config.preferences.initial_r2t = iscsi::keys::Choice::Yes;
        });
    }
    world.until("logins", |world| world.hosts.iter().all(host::Host::is_in));
    world
}

/// A host that does not send what it was asked for, because it has died perhaps, holds up its own commands for long, and nobody else's.
#[test]
fn data_that_do_not_come_hold_up_no_other_host() {
    const READ_ONE: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    // What is withheld, and what waits for it: the second is there before what waits, where it is a simple one.
    for (attribute, waiting) in [(ORDERED, SIMPLE), (HEAD_OF_QUEUE, SIMPLE), (SIMPLE, ORDERED)] {
        let mut world = who_sends_when_asked();
        world.hosts[0].withhold_data();
        let withheld = world.hosts[0].send_as(attribute, 0, &write(1), &[1; 512], 0);
        world.run_for(Duration::from_millis(1000));
        // Nobody waits, and it may take its time.
        world.run_for(Duration::from_secs(5));
        let ready = world.hosts[1].send_as(waiting, 0, &READ_ONE, &[], 512);
        let before = world.now;
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.hosts[1].take(ready), None, "{attribute}: it waits");
        world.until("the other host's turn", |world| world.hosts[1].take(ready).is_some());
        assert!(world.now - before < Duration::from_secs(6), "{attribute}: {:?}", world.now - before);
        assert_eq!(world.hosts[0].take(withheld), None, "{attribute}: what it owes comes before its status");
        assert_eq!(world.hosts[0].closed(), None);
    }
}

/// Nor does one that sends the data of its other commands.
#[test]
fn data_that_do_not_come_hold_up_nobody_while_others_do() {
    let mut world = who_sends_when_asked();
    world.hosts[0].withhold_data();
    world.hosts[0].send_as(SIMPLE, 0, &write(1), &[1; 512], 0);
    world.run_for(Duration::from_millis(100));
    world.hosts[0].send_data();
    let ordered = world.hosts[1].send_as(ORDERED, 0, &READY, &[], 0);
    let before = world.now;
    while world.hosts[1].take(ordered).is_none() {
        world.hosts[0].send_to(1, &write(2), &[2; 512], 0);
        world.run_for(Duration::from_secs(1));
        assert!(world.now - before < Duration::from_secs(25), "it waits for ever");
    }
    assert_eq!(world.hosts[0].closed(), None);
}

#[test]
fn attributes_that_mean_nothing_here_are_refused() {
    let mut world = World::new(1);
    for attribute in [ACA, 5, 6, 7] {
        let task = world.hosts[0].send_as(attribute, 0, &READY, &[], 0);
        assert_eq!(world.end(0, task), attention(0x4900), "{attribute}");
        let task = world.hosts[0].send_as(attribute, 0, &write(0), &[1; 512], 0);
        assert_eq!(world.end(0, task), attention(0x4900), "{attribute}");
    }
    assert_eq!(world.first_byte(), 0);
}
