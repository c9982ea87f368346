//! Error recovery level 2: connections break off at any moment, and their tasks go on at others (RFC 7143 section 7.2).

use iscsi::initiator::Event;
use iscsi::keys::{Choice, DigestPreference};
use iscsi::{Preferences, Protocol, TaskId};

use crate::world::{Damage, World};
use crate::{session, several};

fn surviving() -> Preferences {
    Preferences { error_recovery_level: 2, default_time2wait: 0, default_time2retain: 20, ..several() }
}

/// Of the connection that was lost last: its tasks go on elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// A logout by another connection, which takes them.
    Logout,
    /// A login with the same identifier.
    Reinstatement,
}

fn recover(world: &mut World, by: By, what: &str) {
    let lost = world.lost.last().expect("one").initiator.cid();
    let taker = match by {
        By::Logout => {
            let taker = world.prng.below(world.links.len() as u64) as usize;
            world.links[taker].initiator.recover(lost);
            taker
        }
        By::Reinstatement => {
            world.reinstate();
            world.links.len() - 1
        }
    };
    // A login has no digests.
    let damage = std::mem::replace(&mut world.damage, Damage(0));
    let ready = |world: &mut World| match by {
        By::Logout => world.events.iter().any(|event| matches!(event, Event::Removed { response: 0, .. })),
        By::Reinstatement => world.links[taker].initiator.is_full_feature(),
    };
    for _ in 0..10_000 {
        if ready(world) {
            world.events.clear();
            world.damage = damage;
            return world.take_over(taker);
        }
        world.drive_for(1);
    }
    panic!("{what}: no recovery by {by:?}");
}

struct Round {
    reads: Vec<(TaskId, usize, usize)>,
    model: Vec<u8>,
}

fn submit(world: &mut World, model: &[u8]) -> Round {
    let mut round = Round { reads: Vec::new(), model: model.to_vec() };
    for slot in 0..8 {
        let link = world.prng.below(world.links.len() as u64) as usize;
        let offset = slot * 100_000 + world.prng.below(50_000) as u32;
        let len = 1 + world.prng.below(30_000) as u32;
        let range = offset as usize..(offset + len) as usize;
        if world.prng.below(2) == 0 {
            let task = world.submit(link, b'W', offset, len).expect("window");
            round.model[range].copy_from_slice(&world.initiator_buffers[&task]);
        } else {
            let task = world.submit(link, b'R', offset, len).expect("window");
            round.reads.push((task, offset as usize, len as usize));
        }
    }
    round
}

/// Connections break off in the middle of a load, some while the last loss is not made up for yet.
fn storm(seed: u64, connections: u16, preferences: Preferences) {
    let what = format!("seed {seed}, {connections} connections");
    let mut world = session(connections, preferences, seed);
    world.promptness = [100, 50, 0][seed as usize % 3];
    if preferences.data_digest == DigestPreference::Require {
        world.damage = Damage(30);
    }
    rounds(&mut world, 6, &what);
    // Each command once, in order: nothing was carried out twice.
    assert_eq!(world.order, (0..48).collect::<Vec<_>>(), "{what}");
}

/// So many loads of eight commands, with the loss of a connection or several in each.
pub(crate) fn rounds(world: &mut World, rounds: usize, what: &str) {
    let mut model = world.medium.clone();
    for _ in 0..rounds {
        let round = submit(world, &model);
        for _ in 0..1 + world.prng.below(3) {
            let pieces = world.prng.below(60);
            world.drive_for(pieces);
            let victim = world.prng.below(world.links.len() as u64) as usize;
            world.kill(victim);
            let alone = world.links.is_empty();
            let by = if alone || world.prng.below(2) == 0 { By::Reinstatement } else { By::Logout };
            recover(world, by, what);
        }
        world.drive();
        for link in &world.links {
            assert_eq!((link.initiator.closed(), link.target.closed()), (None, None), "{what}");
        }
        assert_eq!(world.completed.len(), 8, "{what}: {:?}", world.events);
        for (task, offset, len) in round.reads {
            assert!(world.initiator_buffers[&task] == round.model[offset..offset + len], "{what}");
        }
        assert!(world.completed.values().all(|completion| completion.status == 0), "{what}");
        world.completed.clear();
        model = round.model;
        assert!(world.medium == model, "{what}");
        // What is left was answered, and the initiator has the answer.
        assert!(world.lost.iter().all(|link| link.target.open_tasks() == 0), "{what}");
        world.lost.clear();
    }
}

#[test]
fn tasks_outlive_their_connections_at_every_moment() {
    for seed in 0..150 {
        let digests = seed % 3 == 0;
        let preferences = Preferences {
            immediate_data: if seed % 2 == 0 { Choice::Yes } else { Choice::No },
            initial_r2t: if seed % 4 < 2 { Choice::No } else { Choice::Yes },
            data_digest: if digests { DigestPreference::Require } else { DigestPreference::Never },
            max_outstanding_r2t: 1 + (seed % 4) as u32,
            ..surviving()
        };
        storm(seed, 1 + (seed % 3) as u16, preferences);
    }
}

/// A session of two connections, the first of which is gone with a task of its own: `drive` says how far it came.
fn broken(kind: u8, len: u32, drive: impl FnOnce(&mut World)) -> (World, TaskId) {
    let mut world = session(2, surviving(), 1);
    world.promptness = 0;
    let task = world.submit(0, kind, 4096, len).expect("window");
    drive(&mut world);
    world.kill(0);
    (world, task)
}

fn answers(world: &World) -> Vec<u8> {
    let answer = |event: &Event| match event {
        Event::NotReassigned(_, response) => Some(*response),
        _ => None,
    };
    world.events.iter().filter_map(answer).collect()
}

#[test]
fn a_task_is_allegiant_until_its_connection_is_removed_for_recovery() {
    let (mut world, task) = broken(b'H', 0, World::drive);
    // Nobody has logged the old connection out.
    world.links[0].initiator.ping();
    world.drive_for(20);
    world.take_over(0);
    world.drive();
    assert_eq!(answers(&world), [3], "task still allegiant");
    assert!(!world.completed.contains_key(&task));
}

#[test]
fn a_task_that_its_target_has_forgotten_does_not_exist() {
    let (mut world, task) = broken(b'H', 0, World::drive);
    let target = &mut world.lost[0].target;
    target.abort(task);
    drop(target.release(task));
    recover(&mut world, By::Logout, "forgotten");
    world.drive();
    assert_eq!(answers(&world), [1]);
}

#[test]
fn a_command_that_never_arrived_is_sent_again_with_its_number() {
    let (mut world, task) = broken(b'W', 20_000, |world| world.cut(0, true));
    let behind = world.submit(0, b'R', 0, 512).expect("window");
    world.drive();
    assert!(world.order.is_empty(), "it waits for the one before");
    recover(&mut world, By::Logout, "missed");
    world.drive();
    assert_eq!(world.order, [0, 1]);
    assert!(world.completed.contains_key(&task) && world.completed.contains_key(&behind));
    assert!(world.medium[4096..][..20_000] == world.initiator_buffers[&task]);
}

#[test]
fn a_status_that_was_lost_on_its_way_is_sent_again() {
    for kind in [b'R', b'W'] {
        let mut world = session(2, surviving(), 1);
        let task = world.submit(0, kind, 4096, 9000).expect("window");
        world.drive_target_only(0);
        assert_eq!(world.links[0].target.open_tasks(), 0, "it is answered");
        world.kill(0);
        recover(&mut world, By::Logout, "a lost status");
        world.drive();
        assert_eq!(world.completed[&task].status, 0);
        assert_eq!(world.order, [0], "carried out once");
        assert!(world.medium[4096..][..9000] == world.initiator_buffers[&task]);
    }
}

#[test]
fn without_a_time_to_retain_nothing_outlives_its_connection() {
    let preferences = Preferences { default_time2retain: 0, ..surviving() };
    let mut world = session(2, preferences, 3);
    assert!(!world.links[0].target.reassigns() && !world.links[0].initiator.reassigns());
    world.links[1].initiator.recover(0);
    world.drive();
    assert!(world.events.contains(&Event::Removed { response: 0, time2wait: 0, time2retain: 0 }));
}
