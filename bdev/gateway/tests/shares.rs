//! One pool for all sessions: nobody takes it all, and whoever waits for his share still hears what he is told.

mod host;

use std::time::Duration;

use bdev::BlockRange;
use gateway::Limits;
use host::{GOOD, World};
use iscsi::keys::Choice;
use iscsi::{Preferences, TaskId};

/// Bytes of a write that takes a frame of the largest class.
const LARGE: usize = 136 * 512;
const ABORT_TASK: u8 = 1;
const LOGICAL_UNIT_RESET: u8 = 5;

/// Writes of this host are asked for, and never come.
fn withholds(config: &mut iscsi::initiator::Config) {
    config.preferences =
        Preferences { immediate_data: Choice::No, initial_r2t: Choice::Yes, ..config.preferences };
}

fn send_large(world: &mut World, host: usize, lba: u8) -> TaskId {
    let cdb = [0x2a, 0, 0, 0, lba, 0, 0, 0, 136, 0];
    world.hosts[host].send(&cdb, &vec![lba; LARGE], 0)
}

/// Commands go out, and no data.
fn send_commands_alone(world: &mut World, host: usize, count: u8) -> Vec<TaskId> {
    world.hosts[host].withhold_data();
    let tasks = (0..count).map(|lba| send_large(world, host, lba)).collect();
    world.run_for(Duration::from_millis(20));
    tasks
}

#[test]
fn one_session_does_not_starve_the_others() {
    let mut world = World::empty();
    let stingy = world.add(0, withholds);
    world.until("a login", |world| world.hosts[stingy].is_in());
    let open = send_commands_alone(&mut world, stingy, 30);
    // It has read them all, and others write large blocks beside it.
    for host in [1, 2] {
        let honest = world.add(host, |_| {});
        world.until("a login", |world| world.hosts[honest].is_in());
        for round in 0..4 {
            let write = send_large(&mut world, honest, round);
            assert_eq!(world.end(honest, write), GOOD, "host {host}, round {round}");
        }
    }
    // What waits for a frame hears of its end.
    let last = *open.last().expect("some");
    assert_eq!(world.managed(stingy, ABORT_TASK, 0, Some(last)), 0);
    assert_eq!(world.managed(stingy, LOGICAL_UNIT_RESET, 0, None), 0);
    assert_eq!(world.target.luns()[0].active, 0);
}

#[test]
fn more_than_the_pool_holds_is_written_all_the_same() {
    for first in [0, 65536] {
        let mut world = World::empty();
        let host = world.add(0, |config| {
            if first == 0 {
                withholds(config);
            }
        });
        world.until("a login", |world| world.hosts[host].is_in());
        let all: Vec<TaskId> = (0..30).map(|lba| send_large(&mut world, host, lba % 8)).collect();
        for task in all {
            assert_eq!(world.end(host, task), GOOD);
        }
        assert_eq!(world.target.luns()[0].written_bytes, 30 * LARGE as u64);
        for place in 0..8u8 {
            let written = world.medium.snapshot(BlockRange::new(u64::from(place) << 8, 136));
            assert!(written.iter().all(|byte| *byte == place), "place {place}");
        }
    }
}

#[test]
fn data_that_do_not_come_are_not_waited_for_without_end() {
    let mut world = World::empty();
    let stingy = world.add(0, withholds);
    world.until("a login", |world| world.hosts[stingy].is_in());
    send_commands_alone(&mut world, stingy, 3);
    let silence = Limits::default().silence;
    // It answers pings all the while.
    for _ in 0..=silence.as_secs() {
        world.now += Duration::from_secs(1);
        world.run_for(Duration::from_millis(1));
    }
    world.until("the end", |world| world.hosts[stingy].closed().is_some());
}

/// A host that is only slow keeps its connection: something comes again and again, of whichever of its commands.
#[test]
fn data_that_come_slowly_are_waited_for() {
    let mut world = World::empty();
    let slow = world.add(0, withholds);
    world.until("a login", |world| world.hosts[slow].is_in());
    let all: Vec<TaskId> = (0..30).map(|lba| send_large(&mut world, slow, lba % 8)).collect();
    world.run_for(Duration::from_millis(1));
    let rounds = Limits::default().silence.as_secs() / 5 + 4;
    for _ in 0..rounds {
        world.hosts[slow].sleep();
        world.now += Duration::from_secs(5);
        world.run_for(Duration::from_millis(1));
        world.hosts[slow].wake();
        world.run_for(Duration::from_micros(20));
    }
    assert_eq!(world.hosts[slow].closed(), None);
    let last = *all.last().expect("some");
    assert_eq!(world.hosts[slow].take(last), None, "it was slow");
    for task in all {
        assert_eq!(world.end(slow, task), GOOD);
    }
}

/// Where answers are kept until they are acknowledged, many reads at once do not stand still for want of an acknowledgement.
#[test]
fn many_large_reads_at_once_come_to_their_end() {
    for level in [0, 1, 2] {
        let mut world = World::empty();
        let host = world.add(0, |config| config.preferences.error_recovery_level = level);
        world.until("a login", |world| world.hosts[host].is_in());
        let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 136, 0];
        let room = u32::try_from(LARGE).expect("short");
        let all: Vec<TaskId> = (0..30).map(|_| world.hosts[host].send(&read, &[], room)).collect();
        for task in all {
            assert_eq!(world.end(host, task), GOOD, "level {level}");
        }
    }
}
