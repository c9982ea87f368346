//! Error recovery level 1: data that are damaged on their way arrive all the same, once, and the connection stays.

use iscsi::keys::{Choice, DigestPreference};
use iscsi::{CloseReason, Preferences, Protocol, TaskId};

use crate::world::{Damage, World};
use crate::{session, several};

fn recovering() -> Preferences {
    Preferences { error_recovery_level: 1, data_digest: DigestPreference::Require, ..several() }
}

pub(crate) fn load(world: &mut World, links: u64, rounds: usize, what: &str) {
    let mut model = world.medium.clone();
    for _ in 0..rounds {
        let mut reads: Vec<(TaskId, usize, usize)> = Vec::new();
        // Ranges apart from each other: simple tasks have no order among themselves.
        for slot in 0..8 {
            let link = world.prng.below(links) as usize;
            let offset = slot * 100_000 + world.prng.below(50_000) as u32;
            let len = 1 + world.prng.below(30_000) as u32;
            let range = offset as usize..(offset + len) as usize;
            if world.prng.below(2) == 0 {
                let task = world.submit(link, b'W', offset, len).expect("window");
                model[range].copy_from_slice(&world.initiator_buffers[&task]);
            } else {
                let task = world.submit(link, b'R', offset, len).expect("window");
                reads.push((task, offset as usize, len as usize));
            }
        }
        world.drive();
        for link in &world.links {
            assert_eq!((link.initiator.closed(), link.target.closed()), (None, None), "{what}");
        }
        assert_eq!(world.completed.len(), 8, "{what}");
        for (task, offset, len) in reads {
            assert!(world.initiator_buffers[&task] == model[offset..offset + len], "{what}");
        }
        assert!(world.completed.values().all(|completion| completion.status == 0), "{what}");
        world.completed.clear();
    }
    assert!(world.medium == model, "{what}");
}

/// What is damaged is the header: nothing of it is believed, at either end and at any level.
#[test]
fn a_damaged_header_ends_its_connection_at_any_level() {
    for (level, to_target) in (0..3).flat_map(|level| [(level, true), (level, false)]) {
        let digests = Preferences { header_digest: DigestPreference::Require, ..recovering() };
        let preferences = Preferences { error_recovery_level: level, ..digests };
        let mut world = World::new(preferences, preferences, u64::from(level));
        let read = world.submit(0, b'R', 0, 4096).expect("window");
        let wire = match to_target {
            true => {
                world.send_only(0);
                &mut world.links[0].to_target
            }
            false => {
                world.drive_target_only(0);
                &mut world.links[0].to_initiator
            }
        };
        // A byte that says nothing of how long the PDU is.
        wire.bytes[33] ^= 4;
        world.drive();
        let link = &world.links[0];
        let closed = if to_target { link.target.closed() } else { link.initiator.closed() };
        assert_eq!(closed, Some(&CloseReason::HeaderDigest), "level {level}, to the target: {to_target}");
        assert!(!world.completed.contains_key(&read));
    }
}

#[test]
fn damaged_data_arrive_whole_on_one_connection_and_on_several() {
    for seed in 0..60 {
        let links = 1 + seed % 3;
        let preferences = Preferences {
            immediate_data: if seed % 2 == 0 { Choice::Yes } else { Choice::No },
            initial_r2t: if seed % 4 < 2 { Choice::No } else { Choice::Yes },
            max_outstanding_r2t: 1 + (seed % 5) as u32,
            data_pdu_in_order: if seed % 7 < 3 { Choice::No } else { Choice::Yes },
            ..recovering()
        };
        let mut world = session(links as u16, preferences, seed);
        assert_eq!(world.links[0].target.parameters().error_recovery_level, 1);
        world.damage = Damage(60);
        load(&mut world, links, 12, &format!("seed {seed}"));
        assert_eq!(world.order, (0..96).collect::<Vec<_>>(), "seed {seed}: each command once, in order");
    }
}

#[test]
fn texts_and_sense_data_are_repeated_until_they_arrive() {
    for seed in 0..40 {
        let mut world = session(1, recovering(), seed);
        world.damage = Damage(300);
        for _ in 0..10 {
            let task = world.submit(0, b'R', 2_000_000, 512).expect("window");
            world.links[0].initiator.send_targets("");
            world.drive();
            let ended = world.completed.remove(&task).expect("answered");
            assert_eq!((ended.status, ended.sense.len()), (2, 18));
            let texts = world
                .events
                .drain(..)
                .filter(|event| *event == iscsi::initiator::Event::Text(b"TargetName=own\0".to_vec()));
            assert_eq!(texts.count(), 1, "seed {seed}");
        }
        assert_eq!(world.links[0].initiator.closed(), None);
    }
}

#[test]
fn buffers_go_when_the_initiator_has_acknowledged_their_answers() {
    let mut world = session(1, recovering(), 1);
    for slot in 0..20 {
        world.submit(0, b'R', slot * 4096, 4096).expect("window");
        world.drive();
        assert!(world.target_buffers.len() <= 1, "the last one is not acknowledged yet");
    }
    world.links[0].initiator.ping();
    world.drive();
    assert!(world.target_buffers.is_empty());
}

#[test]
fn level_0_is_level_0() {
    let preferences = Preferences { error_recovery_level: 0, ..recovering() };
    let mut world = session(1, preferences, 2);
    world.damage = Damage(1000);
    world.submit(0, b'R', 0, 4096).expect("window");
    world.drive();
    assert!(world.links[0].initiator.closed().is_some());
}
