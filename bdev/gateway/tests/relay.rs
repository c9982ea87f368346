//! Two nodes, one volume: hosts at the node that does not serve, what its peer decides for them, and what becomes of their
//! commands when the peer is gone.

mod host;
mod pair;
mod volume;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use bdev::{AccessState, Power};
use gateway::{InitiatorGroup, LunMask, Map, NetMask, StandbyMode, Target};
use host::Host;
use net::sim::Halt;
use pair::{CONFLICT, EXCLUSIVE, GOOD, MASKED, NEXUS_LOSS, RESET, TARGET, World, attention, node_ip, portal};
use scsi::alua::Management;
use scsi::copy::token::{Delete, Immediate, Populate, Range, Source, TOKEN_LEN, WriteUsing};

#[test]
fn both_paths_lead_to_the_same_blocks_and_say_how_good_they_are() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    assert_eq!((world.write(0, 1, 7), world.write(1, 2, 8)), (GOOD, GOOD));
    assert_eq!((world.read(1, 1), world.read(0, 2)), (7, 8));
    let groups = [(1, 0, [0, 2]), (2, 1, [0x80, 2])];
    assert_eq!((world.groups(0), world.groups(1)), (groups.to_vec(), groups.to_vec()));
    // Allocation lengths shorter than the data, and the extended header.
    for len in [0, 3, 4, 11] {
        let task = world.hosts[1].send(&[0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 0, len, 0, 0], &[], u32::from(len));
        assert_eq!(world.end(1, task), GOOD, "{len}");
    }
}

/// More than a frame holds goes to the node that serves, and comes from it, like anything else.
#[test]
fn long_transfers_pass_through_the_other_node() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    let data: Vec<u8> = (0..(2 << 20) + 512u32).map(|at| (at / 512 * 3 + at % 251) as u8).collect();
    let blocks = 4097u32.to_be_bytes();
    let cdb = |opcode: u8| {
        let mut cdb = [0; 16];
        (cdb[0], cdb[9]) = (opcode, 8);
        cdb[10..14].copy_from_slice(&blocks);
        cdb
    };
    let write = world.hosts[1].send(&cdb(0x8a), &data, 0);
    assert_eq!(world.end(1, write), GOOD);
    for host in [0, 1] {
        let room = u32::try_from(data.len()).expect("short");
        let read = world.hosts[host].send(&cdb(0x88), &[], room);
        assert_eq!(world.end(host, read), GOOD);
        assert!(world.hosts[host].data(read) == data, "host {host}");
    }
}

/// Node 0 serves LUN 0, node 1 serves LUN 1, and both hosts are at node 1. With a read of all the room that there is.
fn one_unit_each() -> (World, [u8; 16], u32) {
    let mut world = World::new(StandbyMode::Forward, &[1, 1]);
    world.others[0].set(AccessState::NonOptimized, AccessState::Optimized, 0);
    world.others[1].set(AccessState::Optimized, AccessState::NonOptimized, 2);
    world.until("attentions", |world| world.ready(0) == GOOD);
    world.until("attentions", |world| world.run_at(1, 1, &[0; 6]) == GOOD);
    let (mut cdb, len) = ([0; 16], 4u32 << 20);
    cdb[0] = 0x88;
    cdb[10..14].copy_from_slice(&(len / 512).to_be_bytes());
    (world, cdb, len)
}

/// A long read waits for the peer, and has no frames for what comes: it keeps nobody from reading what this node serves.
#[test]
fn a_read_that_looks_for_its_way_has_no_turn() {
    let lost = |world: &mut World| {
        world.network.halt(node_ip(0), Halt::PowerOff);
        world.targets[0] = None;
    };
    for happen in [lost, World::die] {
        let (mut world, cdb, len) = one_unit_each();
        world.fault.plan().arm(FaultTarget::Read, Fault::Silence, 1);
        world.hosts[0].send(&cdb, &[], len);
        world.run_for(Duration::from_millis(20));
        let own = world.hosts[1].send_to(1, &cdb, &[], len);
        world.run_for(Duration::from_millis(20));
        assert!(world.hosts[1].take(own).is_none(), "the other one has the turn");
        happen(&mut world);
        let before = world.now;
        assert_eq!(world.end(1, own), GOOD);
        assert!(world.now < before + Duration::from_secs(4), "{:?}", world.now - before);
    }
}

/// The same, of one that the peer does not have for now.
#[test]
fn a_read_that_the_peer_would_not_have_has_no_turn() {
    let (mut world, cdb, len) = one_unit_each();
    world.volumes[0].set(AccessState::Transitioning, AccessState::Transitioning, 0);
    assert_eq!(world.ready(0), attention(0x2a06));
    let passed = world.hosts[0].send(&cdb, &[], len);
    world.run_for(Duration::from_millis(20));
    for _ in 0..3 {
        let (own, before) = (world.hosts[1].send_to(1, &cdb, &[], len), world.now);
        assert_eq!(world.end(1, own), GOOD);
        assert!(world.now < before + Duration::from_secs(1), "{:?}", world.now - before);
    }
    assert!(world.hosts[0].take(passed).is_none(), "it looks for its way");
}

/// What a host promises and what its command moves differ, or nothing is to be moved: the answer is the same through either node.
#[test]
fn residuals_pass_through_the_other_node() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    let write = |blocks: u8| [0x2a, 0, 0, 0, 0, 5, 0, 0, blocks, 0];
    for host in [0, 1] {
        for (blocks, promised, [underflow, overflow]) in
            [(1, 2, [512, 0]), (2, 1, [0, 512]), (2, 2, [0, 0]), (0, 1, [512, 0])]
        {
            let task = world.hosts[host].send(&write(blocks), &vec![7; promised * 512], 0);
            let mut ended = None;
            world.until("an answer", |world| {
                ended = world.hosts[host].take(task);
                ended.is_some()
            });
            let ended = ended.expect("waited for");
            let residuals = [ended.underflow, ended.overflow];
            assert_eq!(
                (ended.status, residuals),
                (0, [underflow, overflow]),
                "{host}: {blocks} of {promised}"
            );
        }
        // EXTENDED COPY without a list.
        let copy = world.hosts[host].send(&[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 0);
        assert_eq!(world.end(host, copy), GOOD, "{host}");
    }
}

/// Unless hosts may choose, there is no such command.
#[test]
fn without_explicit_management_the_target_decides() {
    let mut world = World::managed(StandbyMode::Forward, Management::Implicit, &[0, 1]);
    for host in [0, 1] {
        assert_eq!(choose(&mut world, host, 0, 2), attention(0x2400));
    }
    assert_eq!(world.handed_over(), 0);
}

#[test]
fn a_standby_that_does_not_forward_says_so() {
    let mut world = World::new(StandbyMode::Refuse, &[1]);
    assert_eq!(world.ready(0), attention(0x040b));
    assert_eq!(world.groups(0), [(1, 0, [0, 2]), (2, 2, [0x80, 2])]);
    assert_eq!(world.reserve_out(0, 0, 0, [0, 1]), attention(0x040b));
}

#[test]
fn reservations_are_decided_by_the_node_that_serves() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1, 1]);
    assert_eq!(world.reserve_out(0, 0, 0, [0, 1]), GOOD);
    assert_eq!(world.reserve_out(1, 0, 0, [0, 2]), GOOD);
    assert_eq!(world.keys(1), [1, 2]);
    assert_eq!(world.reserve_out(1, 1, EXCLUSIVE, [2, 0]), GOOD);
    assert_eq!(
        (world.write(0, 1, 1), world.write(2, 1, 1), world.write(1, 1, 3)),
        (CONFLICT, CONFLICT, GOOD)
    );
    // The holder of the reservation has a write under way through the other node when it is preempted.
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let held = world.send_write(1, 5, 9);
    world.until("the write is under way", |world| {
        world.targets[0].as_ref().expect("lives").luns()[0].active == 1
    });
    let preempt = world.send_reserve_out(0, 5, EXCLUSIVE, [1, 2], 0);
    world.run_for(Duration::from_millis(300));
    assert_eq!(world.hosts[0].take(preempt), None, "the write may still land");
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(world.end(0, preempt), GOOD);
    assert_eq!(world.hosts[1].take(held), None, "an aborted command has no status");
    assert_eq!(world.ready(1), attention(0x2a05), "registrations preempted");
    assert_eq!((world.write(1, 5, 9), world.write(0, 5, 4)), (CONFLICT, GOOD));
    assert_eq!(world.read(0, 5), 4);
}

/// With TAS, the status of a command that somebody else has ended comes through the other node, too; without, none does.
#[test]
fn the_status_of_a_command_that_was_ended_passes_through_the_other_node() {
    for bit in [0, 0x40] {
        let mut world = World::new(StandbyMode::Forward, &[0, 1]);
        assert_eq!((world.reserve_out(0, 0, 0, [0, 1]), world.reserve_out(1, 0, 0, [0, 2])), (GOOD, GOOD));
        // Saved, by a host at either node.
        let list = [0, 0, 0, 0, 0x0a, 10, 0, 0x10, 0, bit, 0, 0, 0, 0, 0, 0];
        let select = world.hosts[1].send(&[0x15, 0x11, 0, 0, 16, 0], &list, 0);
        assert_eq!(world.end(1, select), GOOD);
        if bit != 0 {
            assert_eq!(world.ready(0), attention(0x2a01));
        }
        for preempts in [false, true] {
            world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
            let held = world.send_write(1, 5, 9);
            world.until("the write is under way", |world| {
                world.targets[0].as_ref().expect("lives").luns()[0].active == 1
            });
            let (preempt, request) = match preempts {
                true => (Some(world.send_reserve_out(0, 5, EXCLUSIVE, [1, 2], 0)), None),
                false => (None, Some(world.hosts[0].manage(4, 0, None))),
            };
            world.run_for(Duration::from_millis(100));
            assert_eq!(world.hosts[1].take(held), None, "the write may still land");
            world.fault.plan().clear(FaultTarget::Write);
            if let Some(preempt) = preempt {
                assert_eq!(world.end(0, preempt), GOOD);
            }
            if let Some(request) = request {
                world.until("an answer", |world| world.hosts[0].is_managed(request));
            }
            world.run_for(Duration::from_millis(50));
            let ended = world.hosts[1].take(held).map(|ended| (ended.status, ended.sense));
            assert_eq!(ended, (bit != 0).then_some((0x40, Vec::new())), "TAS {bit:#x}");
            let told = match (preempts, bit) {
                (true, _) => attention(0x2a05),
                (false, 0) => attention(0x2f00),
                (false, _) => GOOD,
            };
            assert_eq!(world.ready(1), told, "TAS {bit:#x}, {preempts}");
            assert_eq!(world.ready(1), GOOD);
        }
    }
}

/// What does not fit beside the data is refused as such, and nothing has changed.
#[test]
fn what_has_no_room_beside_the_data_is_refused() {
    /// Of an iSCSI name.
    const LONGEST: usize = 223;
    let mut world = World::of_blocks(StandbyMode::Forward, &[0], 4096);
    let transport = |index: usize| {
        let name = format!("iqn.2026-11.example:{index:0width$}", width = LONGEST - 20);
        let mut id = format!("{name},i,0x800000000001").into_bytes();
        id.resize((id.len() + 1).next_multiple_of(4), 0);
        let len = u16::try_from(id.len()).expect("short").to_be_bytes();
        [&[0x45, 0, len[0], len[1]][..], &id].concat()
    };
    // The host registers itself, and with it those that its list names; 255 of them in all.
    for first in (0..255).step_by(15) {
        let ids: Vec<u8> = (first..first + 15).flat_map(transport).collect();
        let len = u32::try_from(ids.len()).expect("short").to_be_bytes();
        let header = [&[0; 8][..], &1u64.to_be_bytes(), &[0, 0, 0, 0, 0x08, 0, 0, 0], &len].concat();
        let list = [header, ids].concat();
        let all = u32::try_from(list.len()).expect("short").to_be_bytes();
        let register = [0x5f, 0, 0, 0, 0, all[0], all[1], all[2], all[3], 0];
        let task = world.hosts[0].send(&register, &list, 0);
        assert_eq!(world.end(0, task), GOOD, "from {first} on");
        if first + 15 < 255 {
            assert_eq!(world.reserve_out(0, 0, 0, [1, 0]), GOOD);
        }
    }
    world.add_host(0);
    world.until("a login", |world| world.hosts[1].is_in());
    let refused = world.reserve_out(1, 0, 0, [0, 2]);
    assert_eq!(refused, attention(0x5504), "INSUFFICIENT REGISTRATION RESOURCES");
    // The pattern of an overwrite is kept with the operation: a short one has room.
    let overwrite = |pattern: usize| {
        let len = u16::try_from(pattern).expect("short").to_be_bytes();
        let list = [&[1, 0, len[0], len[1]][..], &vec![0xa5; pattern]].concat();
        let len = u16::try_from(list.len()).expect("short").to_be_bytes();
        ([0x48, 0x01, 0, 0, 0, 0, 0, len[0], len[1], 0], list)
    };
    let (sanitize, list) = overwrite(4096);
    for _ in 0..2 {
        let task = world.hosts[0].send(&sanitize, &list, 0);
        assert_eq!(world.end(0, task), attention(0x5503), "INSUFFICIENT RESOURCES");
    }
    assert_eq!((world.ready(0), world.reserve_out(0, 0, 0, [1, 1])), (GOOD, GOOD), "nothing has changed");
    let (sanitize, list) = overwrite(16);
    let task = world.hosts[0].send(&sanitize, &list, 0);
    assert_eq!(world.end(0, task), GOOD);
}

/// The task set is the unit's, at the node that serves.
#[test]
fn task_attributes_count_through_the_other_node() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    assert_eq!((world.ready(0), world.ready(1)), (GOOD, GOOD));
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let held = world.send_write(0, 5, 9);
    world.run_for(Duration::from_millis(5));
    let read = [0x28, 0, 0, 0, 0, 5, 0, 0, 1, 0];
    let ordered = world.hosts[1].send_as(2, 0, &read, &[], 512);
    world.run_for(Duration::from_millis(5));
    let behind = world.send_write(0, 5, 10);
    let head = world.hosts[1].send_as(3, 0, &[0; 6], &[], 0);
    assert_eq!(world.end(1, head), GOOD);
    world.run_for(Duration::from_millis(100));
    assert!(world.hosts[1].take(ordered).is_none() && world.hosts[0].take(behind).is_none());
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!((world.end(0, held), world.end(1, ordered), world.end(0, behind)), (GOOD, GOOD, GOOD));
    assert_eq!(world.hosts[1].data(ordered)[0], 9);
}

/// How far the node that serves has come with a PREEMPT AND ABORT when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preempted {
    /// It has not heard of it.
    Not,
    /// It is in the table, and waits for the write of the host that is preempted.
    Waiting,
    /// It is in the table, and nobody was told.
    Unanswered,
}

/// Sent through the node that lives. Whether it has happened shows in the table; repeated, it is GOOD or has no key left to
/// preempt; and from then on nothing of the preempted host lands, neither what it had under way nor what it sends anew.
#[test]
fn a_preempt_and_abort_is_whole_or_not_at_all_when_its_node_dies() {
    for how in [Preempted::Not, Preempted::Waiting, Preempted::Unanswered] {
        let mut world = World::new(StandbyMode::Forward, &[0, 1]);
        assert_eq!((world.reserve_out(0, 0, 0, [0, 1]), world.reserve_out(1, 0, 0, [0, 2])), (GOOD, GOOD));
        assert_eq!((world.reserve_out(0, 1, EXCLUSIVE, [1, 0]), world.write(0, 5, 1)), (GOOD, GOOD));
        if how != Preempted::Unanswered {
            world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
            let _ = world.send_write(0, 5, 9);
            world.until("the write is under way", |world| {
                world.targets[0].as_ref().expect("lives").luns()[0].active == 1
            });
        }
        if how == Preempted::Not {
            world.network.freeze(node_ip(0));
        }
        let table = |world: &World| world.kept.state.lock().expect("sound").clone();
        let before = table(&world);
        let preempt = world.send_reserve_out(1, 5, EXCLUSIVE, [2, 1], 0);
        if how == Preempted::Unanswered {
            world.until("the table", |world| table(world) != before);
        } else {
            world.run_for(Duration::from_millis(200));
        }
        assert_eq!(world.hosts[1].take(preempt), None, "{how:?}: it is on its way");
        assert_eq!(table(&world) == before, how == Preempted::Not);
        world.die();
        world.fault.plan().clear(FaultTarget::Write);
        assert_eq!(world.end(1, preempt), attention(0x0006), "{how:?}: nobody guesses");
        world.serve(1, 2);
        while world.ready(1) != GOOD {}
        let (keys, again) = if how == Preempted::Not { (vec![1, 2], GOOD) } else { (vec![2], CONFLICT) };
        assert_eq!((world.keys(1), world.reserve_out(1, 5, EXCLUSIVE, [2, 1])), (keys, again), "{how:?}");
        assert_eq!((world.keys(1), world.write(1, 5, 4)), (vec![2], GOOD), "{how:?}");
        world.add_host_named(1, "iqn.2026-11.example:h0");
        world.until("a login", |world| world.hosts[2].is_in());
        while world.ready(2) != GOOD {}
        assert_eq!(world.write(2, 5, 9), CONFLICT, "{how:?}");
        world.run_for(Duration::from_millis(500));
        assert_eq!(world.read(1, 5), 4, "{how:?}");
    }
}

#[test]
fn a_host_keeps_its_session_and_its_reservation_when_the_peer_dies() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    assert_eq!(world.reserve_out(0, 0, 0, [0, 1]), GOOD);
    assert_eq!(world.reserve_out(1, 0, 0, [0, 2]), GOOD);
    assert_eq!(world.reserve_out(1, 1, EXCLUSIVE, [2, 0]), GOOD);
    assert_eq!(world.write(1, 3, 1), GOOD);
    // One write is under way when the node dies, one comes while nobody serves.
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let cut_short = world.send_write(1, 3, 2);
    world.until("the write is under way", |world| {
        world.targets[0].as_ref().expect("lives").luns()[0].active == 1
    });
    world.die();
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(world.end(1, cut_short), NEXUS_LOSS);
    assert_eq!(world.ready(1), attention(0x2a06), "asymmetric access state changed");
    let late = [world.send_write(1, 3, 2), world.send_write(1, 4, 3)];
    world.run_for(Duration::from_millis(100));
    assert_eq!(late.map(|write| world.hosts[1].take(write)), [None, None], "they are held");
    world.volumes[1].set(AccessState::Optimized, AccessState::Unavailable, 2);
    assert_eq!(late.map(|write| world.end(1, write)), [RESET; 2], "both were there before");
    assert_eq!(world.ready(1), attention(0x2a06));
    assert_eq!((world.write(1, 3, 2), world.write(1, 4, 3)), (GOOD, GOOD));
    assert_eq!((world.read(1, 3), world.read(1, 4)), (2, 3));
    assert_eq!(world.keys(1), [1, 2]);
    world.add_host(1);
    world.until("a login", |world| world.hosts[2].is_in());
    assert_eq!((world.write(2, 3, 9), world.groups(2)), (CONFLICT, vec![(1, 3, [0, 2]), (2, 0, [0x80, 2])]));
}

/// Whether a PERSISTENT RESERVE OUT was carried out is not guessed.
#[test]
fn what_cannot_be_repeated_is_ended_when_the_way_is_lost() {
    let mut world = World::new(StandbyMode::Forward, &[1]);
    assert_eq!(world.ready(0), GOOD);
    world.network.freeze(node_ip(0));
    let register = world.send_reserve_out(0, 0, 0, [0, 1], 0);
    let write = world.send_write(0, 1, 1);
    world.run_for(Duration::from_millis(500));
    world.die();
    assert_eq!(world.end(0, register), attention(0x0006));
    assert_eq!(world.end(0, write), NEXUS_LOSS);
    assert_eq!(world.ready(0), attention(0x2a06));
    let write = world.send_write(0, 1, 1);
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.hosts[0].take(write), None);
    // Nobody takes over: the host is told, in bounded time.
    assert_eq!(world.end(0, write), attention(0x040a));
}

/// It is said to serve, and nobody is there: the host is told, in bounded time.
#[test]
fn a_peer_that_cannot_be_asked_is_not_waited_for_without_end() {
    let mut world = World::new(StandbyMode::Forward, &[1]);
    assert_eq!(world.ready(0), GOOD);
    world.network.halt(node_ip(0), Halt::PowerOff);
    world.targets[0] = None;
    let mut told = Vec::new();
    while told.last() != Some(&attention(0x040a)) && told.len() < 4 {
        told.push(world.write(0, 1, 1));
    }
    assert_eq!(told.last(), Some(&attention(0x040a)), "{told:x?}");
}

/// The peer cannot be asked, and then nobody serves: the node of a command that waits for that sleeps meanwhile.
#[test]
fn a_command_that_waits_for_its_way_is_not_looked_at_in_vain() {
    let mut world = World::new(StandbyMode::Forward, &[1]);
    assert_eq!(world.ready(0), GOOD);
    world.network.halt(node_ip(0), Halt::PowerOff);
    world.targets[0] = None;
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.write(0, 2, 1), NEXUS_LOSS);
    let write = world.send_write(0, 2, 1);
    world.run_for(Duration::from_millis(5));
    world.volumes[1].set(AccessState::Transitioning, AccessState::Transitioning, 0);
    world.run_for(Duration::from_millis(200));
    assert_eq!(world.hosts[0].take(write), None, "it waits");
    let deadline = world.targets[1].as_ref().and_then(Target::next_deadline);
    assert!(deadline.is_none_or(|deadline| deadline > world.now), "{deadline:?} at {:?}", world.now);
    world.serve(1, 2);
    world.until("an answer", |world| world.hosts[0].take(write).is_some());
}

/// The peer stands still with commands in its hands: whoever serves now does not wait until it is known to be dead.
#[test]
fn what_a_frozen_peer_was_asked_is_taken_back_when_this_node_serves() {
    let mut world = World::new(StandbyMode::Forward, &[1, 1]);
    assert_eq!((world.write(0, 1, 1), world.ready(1)), (GOOD, GOOD));
    world.network.freeze(node_ip(0));
    let (write, register) = (world.send_write(0, 1, 2), world.send_reserve_out(0, 0, 0, [0, 1], 0));
    let reset = world.hosts[1].manage(5, 0, None);
    world.run_for(Duration::from_millis(300));
    world.serve(1, 2);
    world.run_for(Duration::from_millis(10));
    let ended = |world: &mut World, task| world.hosts[0].take(task).expect("at once").sense;
    assert_eq!(scsi::sense::decode(&ended(&mut world, write)).map(|(_, code)| code), Some(0x2904));
    assert_eq!(scsi::sense::decode(&ended(&mut world, register)).map(|(_, code)| code), Some(0x0006));
    assert!(world.hosts[1].is_managed(reset), "there is nothing left to end");
    assert_eq!(world.ready(0), attention(0x2a06));
    assert_eq!((world.read(0, 1), world.write(0, 1, 3)), (1, GOOD));
    // It goes on, and answers: nobody listens.
    world.network.thaw(node_ip(0));
    world.run_for(Duration::from_millis(200));
    assert_eq!((world.ready(0), world.hosts[0].closed()), (GOOD, None));
}

/// SPC-2's reservations and prevented removals live with the node that serves: when another one does, the
/// hosts of both are told of a reset.
#[test]
fn what_only_the_old_node_knew_is_gone_with_a_reset() {
    for lost in [true, false] {
        let mut world = World::new(StandbyMode::Forward, &[1, 1]);
        let reserve = |world: &mut World, host| world.command(host, &[0x16, 0, 0, 0, 0, 0]);
        assert_eq!((reserve(&mut world, 0), world.write(1, 1, 1)), (GOOD, CONFLICT));
        if lost {
            world.die();
            world.volumes[1].set(AccessState::Optimized, AccessState::Unavailable, 2);
        } else {
            // A switchover, with a host at the node that gives the array away.
            world.add_host(0);
            world.until("a login", |world| world.hosts[2].is_in());
            assert_eq!((world.write(2, 1, 1), world.write(0, 1, 4)), (CONFLICT, GOOD));
            world.serve(1, 2);
        }
        world.run_for(Duration::from_millis(10));
        for host in 0..world.hosts.len() {
            assert_eq!(world.ready(host), RESET, "host {host}, peer lost: {lost}");
            assert_eq!(world.ready(host), attention(0x2a06));
            assert_eq!((world.ready(host), world.write(host, 1, 1)), (GOOD, GOOD));
        }
        assert_eq!((reserve(&mut world, 1), world.write(0, 1, 1)), (GOOD, CONFLICT));
    }
}

/// The way to the peer, over which a host's commands went before, tells nothing a second time.
#[test]
fn a_reset_is_told_once_when_the_unit_comes_back() {
    let mut world = World::new(StandbyMode::Forward, &[1]);
    assert_eq!(world.write(0, 1, 1), GOOD);
    for (generation, serving) in [(2, 1), (3, 0), (4, 1), (5, 0)] {
        world.serve(serving, generation);
        world.run_for(Duration::from_millis(10));
        let told = [world.ready(0), world.ready(0), world.ready(0), world.write(0, 1, 1), world.ready(0)];
        assert_eq!(told, [RESET, attention(0x2a06), GOOD, GOOD, GOOD], "generation {generation}");
    }
}

/// SET TARGET PORT GROUPS: this state for this group.
fn choose(world: &mut World, host: usize, state: u8, group: u8) -> (u8, u16) {
    let list = [0, 0, 0, 0, state, 0, 0, group];
    let task = world.hosts[host].send(&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], &list, 0);
    world.end(host, task)
}

/// Through either node, and where the one that stands by passes on nothing else.
#[test]
fn a_host_chooses_which_node_serves() {
    for mode in [StandbyMode::Forward, StandbyMode::Refuse] {
        let mut world = World::new(mode, &[0, 1]);
        for host in [0, 1] {
            let before = world.handed_over();
            assert_eq!(choose(&mut world, host, 0, 1), GOOD, "it serves");
            assert_eq!(choose(&mut world, host, 0, 7), attention(0x2600), "there is none");
            assert_eq!(world.handed_over(), before);
            assert_eq!(choose(&mut world, host, 0, 2), GOOD);
            assert_eq!(choose(&mut world, host, 1, 1), GOOD, "then the other one");
            assert_eq!(world.handed_over(), before + 2, "{mode:?}, host {host}");
        }
        world.serve(1, 2);
        world.run_for(Duration::from_millis(10));
        // Those who asked know it; that the unit is served anew they are told all the same.
        for host in [0, 1] {
            assert_eq!((world.ready(host), choose(&mut world, host, 0, 1)), (RESET, GOOD));
        }
        // The medium is not asked, and the node says when it cannot.
        world.volumes[1].set(AccessState::Unavailable, AccessState::Unavailable, 0);
        world.run_for(Duration::from_millis(10));
        assert_eq!((world.ready(1), world.ready(1)), (RESET, attention(0x2a06)));
        assert_eq!(choose(&mut world, 1, 0, 1), attention(0x040c));
    }
}

/// The unit attention of a change that a host asked for is for all the others (SPC-4 section 5.15.2.7).
#[test]
fn whoever_asked_for_another_way_is_not_told_that_it_changed() {
    for asker in [0, 2] {
        let mut world = World::new(StandbyMode::Forward, &[0, 0, 1, 1]);
        for host in 0..4 {
            assert_eq!(world.ready(host), GOOD);
        }
        assert_eq!(choose(&mut world, asker, 0, 2), GOOD);
        let transition = |world: &mut World, own: usize| {
            world.volumes[own].set(AccessState::Transitioning, AccessState::Transitioning, 0);
        };
        transition(&mut world, 0);
        transition(&mut world, 1);
        world.run_for(Duration::from_millis(10));
        world.serve(1, 2);
        world.run_for(Duration::from_millis(10));
        for host in 0..4 {
            let told = if host == asker { GOOD } else { attention(0x2a06) };
            assert_eq!(
                [world.ready(host), world.ready(host), world.ready(host)],
                [RESET, told, GOOD],
                "host {host}"
            );
        }
        // The next change is nobody's wish.
        world.serve(0, 3);
        world.run_for(Duration::from_millis(10));
        assert_eq!([world.ready(asker), world.ready(asker)], [RESET, attention(0x2a06)]);
    }
}

/// Which medium is in and who keeps it there is decided by the node that serves, whichever of the two a host is at.
#[test]
fn both_nodes_agree_about_the_medium() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    let run = |world: &mut World, host: usize, cdb: &[u8]| {
        let task = world.hosts[host].send_to(1, cdb, &[], 0);
        world.end(host, task)
    };
    let (prevent, allow) = ([0x1e, 0, 0, 0, 1, 0], [0x1e, 0, 0, 0, 0, 0]);
    let (load, eject, ready) = ([0x1b, 0, 0, 0, 3, 0], [0x1b, 0, 0, 0, 2, 0], [0; 6]);
    let (prevented, absent) = (attention(0x5302), attention(0x3a00));
    // Prevented at the node that stands by: nobody ejects, through either.
    assert_eq!(run(&mut world, 1, &prevent), GOOD);
    assert_eq!((run(&mut world, 0, &eject), run(&mut world, 1, &eject)), (prevented, prevented));
    // Prevented at the one that serves.
    assert_eq!((run(&mut world, 1, &allow), run(&mut world, 0, &prevent)), (GOOD, GOOD));
    assert_eq!((run(&mut world, 1, &eject), run(&mut world, 0, &allow)), (prevented, GOOD));
    assert_eq!(run(&mut world, 1, &eject), GOOD);
    assert_eq!((run(&mut world, 0, &ready), run(&mut world, 1, &ready)), (absent, absent));
    for host in [0, 1] {
        let task = world.hosts[host].send_to(1, &[0x03, 0, 0, 0, 18, 0], &[], 18);
        assert_eq!(world.end(host, task), GOOD);
        let sense = scsi::sense::decode(world.hosts[host].data(task));
        assert_eq!(sense, Some((2, 0x3a00)), "REQUEST SENSE at node {host}");
    }
    assert_eq!(run(&mut world, 1, &load), GOOD);
    assert_eq!(run(&mut world, 0, &ready), attention(0x2800), "the medium may have changed");
    assert_eq!((run(&mut world, 0, &ready), run(&mut world, 1, &ready)), (GOOD, GOOD));
    // A node that serves again does not go by what it remembers.
    assert_eq!(run(&mut world, 0, &eject), GOOD);
    for (serving, epoch) in [(1, 2), (0, 3)] {
        world.serve(serving, epoch);
        world.run_for(Duration::from_millis(10));
        for host in [0, 1] {
            let told = [0; 3].map(|_| run(&mut world, host, &ready));
            assert_eq!(told, [RESET, attention(0x2a06), GOOD], "host {host}");
        }
        assert_eq!((run(&mut world, 0, &load), run(&mut world, 1, &load)), (GOOD, GOOD));
    }
}

/// A sanitize operation is the serving node's: the other one begins none of its own, and tells how far it is.
#[test]
fn a_sanitize_operation_is_begun_where_the_unit_is_served() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    assert_eq!(world.write(1, 3, 7), GOOD);
    assert_eq!(world.command(1, &[0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0]), GOOD, "BLOCK ERASE");
    assert_eq!((world.read(0, 3), world.read(1, 3)), (0, 0));
    world.serve(1, 2);
    world.run_for(Duration::from_millis(10));
    for host in [0, 1] {
        let told = [0; 3].map(|_| world.ready(host));
        assert_eq!(told, [RESET, attention(0x2a06), GOOD], "host {host}: no operation is left here");
    }
}

#[test]
fn a_target_reset_at_one_node_reaches_what_the_mask_shows_at_the_other_and_no_more() {
    let mut world = World::new(StandbyMode::Forward, &[0]);
    world.add_host_named(1, MASKED);
    world.until("a login", |world| world.hosts[1].is_in());
    let there = |world: &mut World| {
        let tasks = [0, 1].map(|lun| world.hosts[0].send_to(lun, &[0; 6], &[], 0));
        tasks.map(|task| world.end(0, task))
    };
    assert_eq!((world.ready(1), there(&mut world)), (GOOD, [GOOD, GOOD]));
    let hidden = world.hosts[1].send_to(1, &[0; 6], &[], 0);
    assert_eq!(world.end(1, hidden), attention(0x2500));
    for function in [6, 5] {
        let reset = world.hosts[1].manage(function, 0, None);
        world.until("the reset", |world| world.hosts[1].is_managed(reset));
        assert_eq!(there(&mut world), [attention(0x2903), GOOD], "function {function}");
        assert_eq!(there(&mut world), [GOOD, GOOD]);
    }
    assert!(world.hosts[1].closed().is_none());
    let cold = world.hosts[1].manage(7, 0, None);
    world.until("the reset", |world| world.hosts[1].is_managed(cold));
    world.until("the end", |world| world.hosts[1].closed().is_some());
    assert_eq!(there(&mut world), [attention(0x2903), GOOD]);
}

/// A token of one's own is worth what one sees, and what one sees is known at the node that one comes to.
#[test]
fn a_token_of_ones_own_is_worth_nothing_where_its_unit_is_hidden() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    let command = |action: u8, list: &[u8]| {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (0x83, action);
        cdb[10..14].copy_from_slice(&u32::try_from(list.len()).expect("short").to_be_bytes());
        cdb
    };
    let run = |world: &mut World, host: usize, lun: u16, (action, list): (u8, &[u8])| {
        let task = world.hosts[host].send_to(lun, &command(action, list), list, 0);
        world.end(host, task)
    };
    let ranges = vec![Range { lba: 0, blocks: 1 }];
    // Each has a token for a block of LUN 1.
    let tokens = [0, 1].map(|host| {
        let populate = Populate { immediate: Immediate::No, timeout: 0, ranges: ranges.clone() }.encode();
        assert_eq!(run(&mut world, host, 1, (0x10, &populate)), GOOD, "host {host}");
        let told = [0x84, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x26, 0, 0];
        let task = world.hosts[host].send_to(1, &told, &[], 0x226);
        assert_eq!(world.end(host, task), GOOD);
        world.hosts[host].data(task)[38..38 + TOKEN_LEN].to_vec()
    });
    let using = |token: &[u8]| {
        let (immediate, delete, source) = (Immediate::No, Delete::No, Source::Zeroes);
        let mut list = WriteUsing { immediate, delete, offset: 0, source, ranges: ranges.clone() }.encode();
        list[16..16 + TOKEN_LEN].copy_from_slice(token);
        list
    };
    for token in &tokens {
        assert_eq!(run(&mut world, 1, 0, (0x11, &using(token))), GOOD);
    }
    // From now on host 1 sees LUN 0 alone, where it is.
    let target = world.targets[1].as_mut().expect("lives");
    let initiators = vec!["iqn.2026-11.example:h1".to_owned()];
    target
        .add_initiator_group(InitiatorGroup { tag: 3, initiators, netmasks: vec![NetMask::Any] })
        .expect("new");
    target.add_map(TARGET, Map { luns: LunMask::Only([0].into()), ..Map::new(2, 3) }).expect("new");
    target.remove_map(TARGET, 2, 1).expect("there");
    world.run_for(Duration::from_millis(10));
    while world.ready(1) != GOOD {}
    assert_eq!(run(&mut world, 1, 0, (0x11, &using(&tokens[1]))), attention(0x2306), "its own");
    assert_eq!(run(&mut world, 1, 0, (0x11, &using(&tokens[0]))), GOOD, "it was handed this one");
    assert_eq!(run(&mut world, 0, 0, (0x11, &using(&tokens[1]))), GOOD, "and this one was handed over");
}

#[test]
fn a_reset_at_one_node_reaches_the_commands_of_the_other() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1, 1]);
    for host in 0..3 {
        assert_eq!(world.ready(host), GOOD);
    }
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 2);
    let held = [world.send_write(0, 1, 1), world.send_write(1, 2, 2)];
    world.until("the writes are under way", |world| {
        world.targets[0].as_ref().expect("lives").luns()[0].active == 2
    });
    let reset = world.hosts[2].manage(5, 0, None);
    world.run_for(Duration::from_millis(100));
    assert!(!world.hosts[2].is_managed(reset), "the writes may still land");
    world.fault.plan().clear(FaultTarget::Write);
    world.until("the reset", |world| world.hosts[2].is_managed(reset));
    assert_eq!((world.hosts[0].take(held[0]), world.hosts[1].take(held[1])), (None, None));
    assert_eq!(
        (world.ready(0), world.ready(1), world.ready(2)),
        (attention(0x2903), attention(0x2903), attention(0x2903))
    );
    assert_eq!([world.ready(0), world.ready(1), world.ready(2)], [GOOD; 3]);
    // And one command alone.
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let one = world.send_write(1, 2, 2);
    world.until("the write is under way", |world| {
        world.targets[0].as_ref().expect("lives").luns()[0].active == 1
    });
    let abort = world.hosts[1].abort(one);
    world.run_for(Duration::from_millis(100));
    assert!(!world.hosts[1].is_managed(abort));
    world.fault.plan().clear(FaultTarget::Write);
    world.until("the abort", |world| world.hosts[1].is_managed(abort));
    assert_eq!((world.hosts[1].take(one), world.ready(1)), (None, GOOD));
}

#[test]
fn registrations_outlive_a_loss_of_power_where_that_was_asked_for() {
    for (aptpl, left) in [(1, vec![5]), (0, Vec::new())] {
        let mut world = World::new(StandbyMode::Forward, &[0]);
        let register = world.send_reserve_out(0, 0, 0, [0, 5], aptpl);
        assert_eq!(world.end(0, register), GOOD);
        assert_eq!(world.keys(0), [5]);
        *world.kept.power.lock().expect("sound") = Power::Lost;
        world.serve(0, 2);
        assert_eq!((world.ready(0), world.keys(0)), (RESET, left), "APTPL {aptpl}");
    }
}

#[test]
fn whoever_says_that_he_is_relayed_has_to_prove_that_he_is_the_peer() {
    let mut world = World::new(StandbyMode::Forward, &[1]);
    assert_eq!(world.ready(0), GOOD);
    let mut end = world.network.host(node_ip(1));
    let mut config = Host::config("iqn.2026-11.example:h0", TARGET);
    config.alias = Some("gemel-relay/32770".to_owned());
    world.hosts.push(Host::new(&mut end, portal(0, 3261), config));
    world.until("the refusal", |world| world.hosts[1].closed().is_some());
    assert!(!world.hosts[1].is_in());
    // Nor has he ended whom he named.
    assert_eq!(world.ready(0), GOOD);
}
