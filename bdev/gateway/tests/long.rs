//! Commands that move more than a frame of the pool holds.

mod host;

use std::time::Duration;

use bdev::BlockRange;
use bdev::fault::{Fault, FaultTarget};
use host::{GOOD, World, attention};
use iscsi::TaskId;
use iscsi::keys::Choice;

const MIB: usize = 1 << 20;
/// A quarter of the pool's large frames: what commands of hosts may hold, and as much again those that the peer relays.
const BUDGET: usize = 4 * MIB;
const READ: u8 = 0x88;
const WRITE: u8 = 0x8a;
const OR_WRITE: u8 = 0x8b;
const VERIFY: u8 = 0x8f;
const BYTE_CHECK: u8 = 2;

fn cdb((opcode, flags): (u8, u8), mib: usize, len: usize) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..10].copy_from_slice(&((mib * MIB / 512) as u64).to_be_bytes());
    cdb[10..14].copy_from_slice(&u32::try_from(len / 512).expect("short").to_be_bytes());
    cdb
}

/// No two blocks alike.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at / 512 * 7 + at % 512) as u8 ^ seed).collect()
}

fn send(world: &mut World, host: usize, opcode: (u8, u8), (mib, data): (usize, &[u8])) -> TaskId {
    world.hosts[host].send(&cdb(opcode, mib, data.len()), data, 0)
}

fn send_read(world: &mut World, host: usize, mib: usize, len: usize) -> TaskId {
    let room = u32::try_from(len).expect("short");
    world.hosts[host].send(&cdb((READ, 0), mib, len), &[], room)
}

#[test]
fn the_longest_transfer_is_as_long_as_the_block_limits_say() {
    let mut world = World::new(1);
    let page = world.hosts[0].send(&[0x12, 1, 0xb0, 0, 64, 0], &[], 64);
    assert_eq!(world.end(0, page), GOOD);
    let limits = world.hosts[0].data(page).to_vec();
    let field = |at: usize| u32::from_be_bytes(limits[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((field(8), field(12)), (8192, 2048), "MAXIMUM and OPTIMAL TRANSFER LENGTH");
    let data = pattern(BUDGET, 0);
    let write = send(&mut world, 0, (WRITE, 0), (0, &data));
    assert_eq!(world.end(0, write), GOOD);
    assert!(world.medium.snapshot(BlockRange::new(0, 8192))[..] == data);
    let read = send_read(&mut world, 0, 0, BUDGET);
    assert_eq!(world.end(0, read), GOOD);
    assert!(world.hosts[0].data(read) == data);
    let beyond = world.hosts[0].send(&cdb((READ, 0), 1, 8 * MIB), &[], 512);
    assert_eq!(world.end(0, beyond), attention(0x2100));
}

/// Segments that end in the middle of a frame, at each error recovery level.
#[test]
fn segments_of_any_length_are_read() {
    for level in [0, 1, 2] {
        let mut world = World::empty();
        let host = world.add(0, |config| {
            config.preferences.error_recovery_level = level;
            config.preferences.max_recv_data_segment_length = 300_000;
        });
        world.until("a login", |world| world.hosts[host].is_in());
        let data = pattern(3 * MIB + 512, level as u8);
        let write = send(&mut world, host, (WRITE, 0), (1, &data));
        assert_eq!(world.end(host, write), GOOD, "level {level}");
        let read = send_read(&mut world, host, 1, data.len());
        assert_eq!(world.end(host, read), GOOD, "level {level}");
        assert!(world.hosts[host].data(read) == data, "level {level}");
    }
}

#[test]
fn what_is_compared_or_merged_is_the_whole() {
    let mut world = World::new(1);
    let data = pattern(2 * MIB + 1024, 3);
    let verified = send(&mut world, 0, (0x8e, BYTE_CHECK), (2, &data));
    assert_eq!(world.end(0, verified), GOOD, "WRITE AND VERIFY");
    let same = send(&mut world, 0, (VERIFY, BYTE_CHECK), (2, &data));
    assert_eq!(world.end(0, same), GOOD);
    let mut other = data.clone();
    other[MIB + 700] ^= 1;
    let task = send(&mut world, 0, (VERIFY, BYTE_CHECK), (2, &other));
    let mut ended = None;
    world.until("an answer", |world| {
        ended = world.hosts[0].take(task);
        ended.is_some()
    });
    let sense = ended.expect("waited for").sense;
    assert_eq!(scsi::sense::decode(&sense), Some((0xe, 0x1d00)));
    let information = u32::from_be_bytes(sense[3..7].try_into().expect("fixed format"));
    assert_eq!(information as usize, MIB + 700, "the offset in all of the data");
    let mask = vec![0x80; data.len()];
    let merged = send(&mut world, 0, (OR_WRITE, 0), (2, &mask));
    assert_eq!(world.end(0, merged), GOOD);
    let wanted: Vec<u8> = data.iter().map(|byte| byte | 0x80).collect();
    let blocks = u32::try_from(data.len() / 512).expect("short");
    assert!(world.medium.snapshot(BlockRange::new(4096, blocks))[..] == wanted);
}

/// A few at a time: the others wait, and other sessions' commands of any length pass them.
#[test]
fn a_queue_of_them_is_throttled_and_starves_nobody() {
    const LEN: usize = MIB + 512;
    for first in [Choice::Yes, Choice::No] {
        let mut world = World::empty();
        let greedy = world.add(0, |config| {
            config.preferences.initial_r2t = first;
            config.preferences.immediate_data = Choice::No;
        });
        let honest = world.add(1, |_| {});
        world.until("logins", |world| world.hosts.iter().all(host::Host::is_in));
        let mut open: Vec<TaskId> = Vec::new();
        for round in 0..12 {
            let data = pattern(LEN, round);
            open.push(match round % 3 {
                2 => send_read(&mut world, greedy, 0, LEN),
                _ => send(&mut world, greedy, (WRITE, 0), (usize::from(round % 2) * 2, &data)),
            });
        }
        world.run_for(Duration::from_millis(2));
        for round in 0..3 {
            let write = send(&mut world, honest, (WRITE, 0), (4, &pattern(2 * LEN, round)));
            assert_eq!(world.end(honest, write), GOOD, "as long, round {round}");
            let write = send(&mut world, honest, (WRITE, 0), (4, &pattern(MIB, round)));
            assert_eq!(world.end(honest, write), GOOD, "a frame, round {round}");
            assert_eq!(world.ready(honest), GOOD);
        }
        for task in open {
            assert_eq!(world.end(greedy, task), GOOD, "throttled, and not refused");
        }
        assert_eq!(world.target.luns()[0].active, 0);
    }
}

/// A target with a host that sends data when it is asked to, and with another one.
fn stingy_and_honest() -> (World, usize, usize) {
    at_level(0)
}

/// The same, at an error recovery level.
fn at_level(level: u32) -> (World, usize, usize) {
    let mut world = World::empty();
    let stingy = world.add(0, |config| {
        config.preferences.error_recovery_level = level;
        config.preferences.initial_r2t = Choice::Yes;
        config.preferences.immediate_data = Choice::No;
    });
    let honest = world.add(1, |_| {});
    world.until("logins", |world| world.hosts.iter().all(host::Host::is_in));
    (world, stingy, honest)
}

/// Time passes in which little happens.
fn wait(world: &mut World, time: Duration) {
    let until = world.now + time;
    while world.now < until {
        world.now += Duration::from_millis(1);
        world.step();
    }
}

/// A host is awake for a moment every two seconds, so many times.
fn dawdle(world: &mut World, host: usize, times: usize) {
    for _ in 0..times {
        world.hosts[host].sleep();
        wait(world, Duration::from_secs(2));
        world.hosts[host].wake();
        world.run_for(Duration::from_micros(40));
    }
}

/// Data that were asked for and do not come hold up no command of another session that fits in a frame; an abort gives all back.
#[test]
fn what_is_aborted_gives_back_its_turn() {
    let (mut world, stingy, honest) = stingy_and_honest();
    world.hosts[stingy].withhold_data();
    let held: Vec<TaskId> =
        (0..4).map(|_| send(&mut world, stingy, (WRITE, 0), (0, &pattern(BUDGET, 0)))).collect();
    world.run_for(Duration::from_millis(5));
    let waiting = send_read(&mut world, honest, 0, 2 * MIB);
    let short = send(&mut world, honest, (WRITE, 0), (4, &pattern(MIB, 9)));
    assert_eq!(world.end(honest, short), GOOD);
    assert_eq!(world.hosts[honest].take(waiting), None);
    assert_eq!(world.managed(stingy, 1, 0, Some(held[0])), 0);
    assert_eq!(world.end(honest, waiting), GOOD);
    assert_eq!(world.managed(stingy, 5, 0, None), 0, "LOGICAL UNIT RESET");
    assert_eq!(world.target.luns()[0].active, 0);
    assert_eq!(world.ready(honest), attention(0x2903));
    let all = send_read(&mut world, honest, 0, BUDGET);
    assert_eq!(world.end(honest, all), GOOD);
}

/// One host does not take all turns, however many long commands it has.
#[test]
fn a_host_leaves_something_for_the_next() {
    let (mut world, stingy, honest) = stingy_and_honest();
    world.hosts[stingy].withhold_data();
    for _ in 0..4 {
        send(&mut world, stingy, (WRITE, 0), (0, &pattern(BUDGET / 2, 0)));
    }
    world.run_for(Duration::from_millis(5));
    for _ in 0..3 {
        let read = send_read(&mut world, honest, 0, BUDGET / 2);
        assert_eq!(world.end(honest, read), GOOD);
    }
}

/// A host that is dead holds up the others for seconds, once, however many commands it has left behind. Should it live after all, it is
/// told BUSY, and nothing of its command was done.
#[test]
fn a_host_that_stops_in_the_middle_of_its_data_loses_its_turn() {
    (0..=2).for_each(stop_in_the_middle);
}

fn stop_in_the_middle(level: u32) {
    let (mut world, stingy, honest) = at_level(level);
    let before = world.medium.snapshot(BlockRange::new(0, 8192));
    let first = send(&mut world, stingy, (WRITE, 0), (0, &pattern(BUDGET, 1)));
    let second = send(&mut world, stingy, (WRITE, 0), (4, &pattern(BUDGET, 2)));
    // Some of the data come.
    world.run_for(Duration::from_millis(2));
    world.hosts[stingy].sleep();
    world.run_for(Duration::from_millis(5));
    let read = send_read(&mut world, honest, 0, BUDGET);
    wait(&mut world, Duration::from_secs(3));
    assert_eq!(world.hosts[honest].take(read), None, "it is waited for");
    wait(&mut world, Duration::from_secs(2));
    assert_eq!(world.hosts[honest].take(read).map(|ended| ended.status), Some(scsi::status::GOOD));
    // What it has left behind has no turn while it owes data.
    for _ in 0..5 {
        let read = send_read(&mut world, honest, 0, BUDGET);
        assert_eq!(world.end(honest, read), GOOD);
    }
    assert!(world.hosts[honest].data(read) == before);
    world.hosts[stingy].wake();
    assert_eq!(world.end(stingy, first), (scsi::status::BUSY, 0));
    assert!(world.medium.snapshot(BlockRange::new(0, 8192)) == before, "nothing of it lands");
    assert_eq!(world.end(stingy, second), GOOD, "it is in good standing again");
    let again = send(&mut world, stingy, (WRITE, 0), (0, &pattern(BUDGET, 1)));
    assert_eq!(world.end(stingy, again), GOOD);
    assert!(world.medium.snapshot(BlockRange::new(0, 8192))[..] == pattern(BUDGET, 1));
}

/// One of a host's ways is dead, and it goes on by another.
#[test]
fn a_way_that_is_dead_does_not_hold_up_its_own_host() {
    let (mut world, dead, _) = stingy_and_honest();
    let other = world.add(0, |config| config.isid[5] = 2);
    world.until("a login", |world| world.hosts[other].is_in());
    for len in [BUDGET / 2, BUDGET] {
        send(&mut world, dead, (WRITE, 0), (0, &pattern(len, 1)));
        world.run_for(Duration::from_millis(2));
        world.hosts[dead].sleep();
        let read = send_read(&mut world, other, 0, len);
        wait(&mut world, Duration::from_secs(6));
        assert_eq!(world.hosts[other].take(read).map(|ended| ended.status), Some(scsi::status::GOOD));
        world.hosts[dead].wake();
        world.run_for(Duration::from_millis(50));
    }
}

/// As long as anything comes, a host is only slow; and one that nobody waits for has all the time of its connection.
#[test]
fn a_slow_host_keeps_its_turn() {
    let (mut world, slow, honest) = stingy_and_honest();
    let write = send(&mut world, slow, (WRITE, 0), (0, &pattern(BUDGET, 1)));
    world.run_for(Duration::from_millis(1));
    world.hosts[slow].sleep();
    wait(&mut world, Duration::from_secs(10));
    world.hosts[slow].wake();
    world.step();
    let read = send_read(&mut world, honest, 0, BUDGET);
    dawdle(&mut world, slow, 5);
    assert_eq!(world.hosts[honest].take(read), None, "it waits");
    assert_eq!(world.end(slow, write), GOOD);
    assert_eq!(world.end(honest, read), GOOD);
    assert!(world.hosts[honest].data(read) == pattern(BUDGET, 1));
}

/// It is asked for its data behind all that it has yet to take, and takes that a little at a time.
#[test]
fn a_host_that_has_not_been_asked_yet_keeps_its_turn() {
    let (mut world, slow, honest) = stingy_and_honest();
    let reads: Vec<TaskId> = (0..6).map(|mib| send_read(&mut world, slow, mib, MIB)).collect();
    world.run_for(Duration::from_micros(300));
    let write = send(&mut world, slow, (WRITE, 0), (0, &pattern(BUDGET, 1)));
    world.run_for(Duration::from_micros(300));
    let read = send_read(&mut world, honest, 0, BUDGET);
    dawdle(&mut world, slow, 5);
    assert_eq!(world.hosts[honest].take(read), None, "it waits");
    assert_eq!(world.end(slow, write), GOOD);
    for task in reads {
        assert_eq!(world.end(slow, task), GOOD);
    }
    assert_eq!(world.end(honest, read), GOOD);
}

/// A host that has gone to sleep while it reads keeps its turn as long as its frames are held, whoever holds them: the answers to what
/// it has read are on their way, and it takes nothing. That costs it its connection, after seconds.
#[test]
fn a_host_that_does_not_take_what_it_reads_loses_its_connection() {
    for level in 0..=2 {
        let (mut world, sleepy, honest) = at_level(level);
        send_read(&mut world, sleepy, 0, BUDGET);
        world.run_for(Duration::from_millis(1));
        world.hosts[sleepy].sleep();
        world.run_for(Duration::from_millis(5));
        let read = send_read(&mut world, honest, 0, BUDGET);
        wait(&mut world, Duration::from_secs(3));
        assert_eq!(world.hosts[honest].take(read), None, "level {level}: its frames are held");
        // At level 2 the task might go on at another connection.
        wait(&mut world, Duration::from_secs(if level == 2 { 7 } else { 2 }));
        let ended = world.hosts[honest].take(read).map(|ended| ended.status);
        assert_eq!(ended, Some(scsi::status::GOOD), "level {level}");
        world.hosts[sleepy].wake();
        world.until("the end of it", |world| world.hosts[sleepy].closed().is_some());
    }
}

/// It reads on, a little at a time.
#[test]
fn a_host_that_reads_slowly_keeps_its_turn() {
    let (mut world, slow, honest) = stingy_and_honest();
    let own = send_read(&mut world, slow, 0, BUDGET);
    world.run_for(Duration::from_millis(1));
    let read = send_read(&mut world, honest, 0, BUDGET);
    dawdle(&mut world, slow, 5);
    assert_eq!(world.hosts[honest].take(read), None, "it waits");
    assert_eq!(world.end(slow, own), GOOD);
    assert_eq!(world.end(honest, read), GOOD);
}

/// At the levels where its data are kept, they are until it has taken them.
#[test]
fn what_a_slow_host_has_yet_to_take_is_not_forgotten() {
    const REASSIGN: u8 = 8;
    const STILL_ALLEGIANT: u8 = 3;
    let mut world = World::empty();
    let slow = world.add(0, |config| {
        config.preferences.error_recovery_level = 2;
        config.preferences.default_time2retain = 20;
    });
    let honest = world.add(1, |_| {});
    world.until("logins", |world| world.hosts.iter().all(host::Host::is_in));
    let own = send_read(&mut world, slow, 0, BUDGET / 2);
    world.run_for(Duration::from_millis(1));
    send_read(&mut world, honest, 0, BUDGET);
    dawdle(&mut world, slow, 4);
    assert_eq!(world.hosts[slow].take(own), None, "it has not taken all of it");
    assert_eq!(world.managed(slow, REASSIGN, 0, Some(own)), STILL_ALLEGIANT);
    assert_eq!(world.end(slow, own), GOOD);
}

/// Where data are kept until they are acknowledged, a host that has nothing else to say is asked to say that it has them.
#[test]
fn what_was_read_is_not_kept_from_others_for_want_of_an_acknowledgement() {
    for level in [1, 2] {
        let (mut world, idle, honest) = at_level(level);
        let own = send_read(&mut world, idle, 0, BUDGET);
        assert_eq!(world.end(idle, own), GOOD);
        let read = send_read(&mut world, honest, 0, BUDGET);
        assert_eq!(world.end(honest, read), GOOD, "level {level}");
        // One that says nothing at all is not asked for ever.
        let own = send_read(&mut world, idle, 0, BUDGET);
        assert_eq!(world.end(idle, own), GOOD);
        world.hosts[idle].sleep();
        let read = send_read(&mut world, honest, 0, BUDGET);
        wait(&mut world, Duration::from_secs(6));
        let ended = world.hosts[honest].take(read).map(|ended| ended.status);
        assert_eq!(ended, Some(scsi::status::GOOD), "level {level}");
        world.hosts[idle].wake();
        assert_eq!(world.ready(idle), GOOD, "level {level}: it has lost nothing");
    }
}

/// What was read and is forgotten, on a connection that lives or on one that is lost, does not go on at another connection: there
/// it would be answered without its data.
#[test]
fn what_was_forgotten_is_no_task_any_more() {
    const REASSIGN: u8 = 8;
    const NO_TASK: u8 = 1;
    for lost_first in [true, false] {
        let mut world = World::empty();
        let retaining = |config: &mut iscsi::initiator::Config| {
            config.preferences.error_recovery_level = 2;
            config.preferences.default_time2retain = 20;
        };
        let (idle, honest) = (world.add(0, retaining), world.add(1, |_| {}));
        world.until("logins", |world| world.hosts.iter().all(host::Host::is_in));
        let own = send_read(&mut world, idle, 0, BUDGET);
        assert_eq!(world.end(idle, own), GOOD, "and not acknowledged");
        if lost_first {
            world.hosts[idle].hang_up();
        }
        world.hosts[idle].sleep();
        let read = send_read(&mut world, honest, 0, BUDGET);
        wait(&mut world, Duration::from_secs(6));
        assert_eq!(world.hosts[honest].take(read).map(|ended| ended.status), Some(scsi::status::GOOD));
        world.hosts[idle].hang_up();
        let again = world.join(idle, 0, host::portal(3260), retaining);
        world.until("a login", |world| world.hosts[again].is_in());
        let answer = world.managed(again, REASSIGN, 0, Some(own));
        assert_eq!(answer, NO_TASK, "lost first: {lost_first}");
    }
}

/// A session that is over, while its device is at something of it, holds up nobody and is not looked at in vain.
#[test]
fn a_session_that_is_over_has_no_turns() {
    let (mut world, gone, honest) = stingy_and_honest();
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    send(&mut world, gone, (WRITE, 0), (7, &[1; 512]));
    world.run_for(Duration::from_millis(5));
    world.hosts[gone].withhold_data();
    send(&mut world, gone, (WRITE, 0), (0, &pattern(BUDGET, 1)));
    world.run_for(Duration::from_millis(5));
    let read = send_read(&mut world, honest, 0, BUDGET);
    let next = send_read(&mut world, honest, 0, BUDGET);
    world.run_for(Duration::from_millis(5));
    assert_eq!(world.hosts[honest].take(read), None, "it waits");
    world.hosts[gone].hang_up();
    wait(&mut world, Duration::from_secs(1));
    assert!(world.target.next_deadline().is_none_or(|deadline| deadline > world.now), "nobody looks in vain");
    for task in [read, next] {
        assert_eq!(world.hosts[honest].take(task).map(|ended| ended.status), Some(scsi::status::GOOD));
    }
    world.fault.plan().clear(FaultTarget::Write);
    world.until("its end", |world| world.target.luns()[0].active == 0);
}

/// A short command that waits for a frame, because its session holds so many, holds up no long one of the session that has its turn.
#[test]
fn who_has_a_turn_takes_it_whatever_waits_before_it() {
    let (mut world, stingy, honest) = stingy_and_honest();
    world.hosts[stingy].withhold_data();
    let own = send_read(&mut world, honest, 0, BUDGET);
    world.run_for(Duration::from_millis(1));
    // More than two thirds of the frames that are left: the last of them wait.
    for _ in 0..16 {
        send(&mut world, stingy, (WRITE, 0), (0, &pattern(MIB, 0)));
    }
    send(&mut world, stingy, (WRITE, 0), (0, &pattern(BUDGET / 2, 0)));
    assert_eq!(world.end(honest, own), GOOD);
    let next = send_read(&mut world, honest, 0, BUDGET);
    wait(&mut world, Duration::from_secs(6));
    assert_eq!(world.hosts[honest].take(next).map(|ended| ended.status), Some(scsi::status::GOOD));
}
