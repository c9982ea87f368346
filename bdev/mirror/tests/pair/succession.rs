//! Two nodes that both might serve: fences against promotions, leases against restarts.

use mirror::command::Command;
use mirror::decide::{HolderState, PromoteMode};
use mirror::events::Codes;
use mirror::format::{ArbiterKind, LegMask, LegState};
use mirror::status::{PeerSight, RoleKind};

use super::world::World;
use super::{PROMOTE, SECOND, millis, pair, settle};

const TAKE: Command = Command::Promote { mode: PromoteMode::Ordinary, holder: HolderState::ConfirmedDown };

/// The holder has found its peer, and its fence is on its way; some steps later.
fn wait_for_joining(world: &mut World, steps: u64) {
    world.wait("a fence", 5 * SECOND, |world| {
        world.status(0).peer.is_some_and(|peer| peer.sight == PeerSight::Joining)
    });
    for _ in 0..steps {
        world.step();
    }
}

/// Whatever the moment, one of the two serves in the end, and the other resyncs from it.
fn one_serves(world: &mut World, moment: u64) -> usize {
    world.wait("one holder", 10 * SECOND, |world| {
        let holder = |index: usize| world.is_holder(index) && world.is_in_sync(index);
        holder(0) != holder(1)
    });
    let at = usize::from(world.is_holder(1));
    world.drain();
    let acks = world.acks;
    world.load(at, millis(100));
    assert!(world.acks > acks, "moment {moment}: {}", world.describe());
    settle(world, at);
    at
}

/// The holder reconnects, and its fence is under way: it is at work, whatever its session says.
#[test]
fn a_promotion_is_refused_while_the_holders_fence_is_pending() {
    let mut refused = 0;
    for moment in 0..20 {
        let mut world = pair(500 + moment);
        world.spread = 24;
        world.load(0, millis(20));
        world.cut();
        world.load(0, millis(10));
        world.heal();
        wait_for_joining(&mut world, moment);
        let answer = world.command(1, PROMOTE);
        refused += u64::from(answer.is_err());
        if answer.is_ok() {
            world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
        }
        world.load(usize::from(answer.is_ok()), millis(50));
        let at = one_serves(&mut world, moment);
        assert_eq!(at, usize::from(answer.is_ok()), "moment {moment}: {}", world.describe());
    }
    assert!(refused > 0);
}

/// A holder that crashed is started while its peer is promoted: only one of them acknowledges.
#[test]
fn a_holder_that_restarts_while_its_peer_is_promoted_acknowledges_nothing_beside_it() {
    let mut promoted = 0;
    for moment in 0..25 {
        let mut world = pair(600 + moment);
        world.spread = 24;
        world.load(0, millis(20));
        world.kill(0);
        world.run(2 * SECOND);
        world.start(0);
        for _ in 0..4 * moment {
            world.step();
        }
        let answer = world.command(1, PROMOTE);
        for _ in 0..4_000 {
            for index in 0..2 {
                if world.is_holder(index) {
                    world.write(index);
                }
            }
            world.step();
        }
        promoted += u64::from(answer.is_ok());
        one_serves(&mut world, moment);
    }
    assert!(promoted > 0);
}

/// The old holder may read under the lease that the standby granted before its own restart.
#[test]
fn a_lease_that_was_granted_before_a_restart_is_waited_out() {
    let mut world = World::new(510, ArbiterKind::Manual);
    world.create();
    world.spread = 8;
    world.load(0, millis(50));
    world.drain();
    world.cut();
    world.kill(1);
    world.start(1);
    world.wait("standby", SECOND, |world| world.status(1).role == RoleKind::Standby);
    world.run(millis(5));
    world.command(1, TAKE).expect("in sync");
    for _ in 0..80_000 {
        if world.is_holder(1) {
            world.write(1);
        }
        let block = world.prng.below(8) * 5;
        world.read(0, block);
        world.step();
    }
    assert!(world.is_holder(1), "{}", world.describe());
}

/// What the peer became while its fence was under way counts: it went on without us, and nothing is overwritten.
#[test]
fn a_peer_that_was_promoted_behind_a_paused_holder_is_reported_and_not_overwritten() {
    let mut splits = 0;
    for moment in 0..12 {
        let mut world = pair(520 + moment);
        world.spread = 24;
        world.load(0, millis(20));
        world.kill(1);
        world.load(0, SECOND);
        world.drain();
        world.start(1);
        wait_for_joining(&mut world, moment);
        let sleeper = world.pause(0);
        world.run(3 * SECOND);
        if world.command(1, TAKE).is_err() {
            continue;
        }
        world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
        world.base = 200;
        world.give_up();
        world.load(1, millis(50));
        world.drain();
        world.resume(0, sleeper);
        world.run(5 * SECOND);
        let cause = world.status(0).peer.and_then(|peer| peer.cause);
        if world.is_holder(0) {
            assert!(cause.is_some_and(|cause| cause.contains("diverged")), "{moment}: {}", world.describe());
            let legs = world.status(0).legs.expect("a config");
            assert_eq!(legs[1].state, LegState::Split, "the superblock remembers");
            splits += 1;
        }
        world.check_acknowledged(1);
        assert_ne!(world.in_sync(0), LegMask::both(), "{}", world.describe());
    }
    assert!(splits > 0, "no moment met the fence under way");
}

/// Hosts' commands have every frame, and may be waiting for the lease: neither it nor a look at the peer waits for them.
#[test]
fn a_peer_that_comes_back_is_known_again_without_a_frame_of_the_pool() {
    let mut world = pair(450);
    world.load(0, millis(50));
    world.drain();
    let pool = world.core.pool().clone();
    let mut taken = Vec::new();
    for size in [1 << 20, 64 << 10, 4096] {
        taken.extend(core::iter::from_fn(|| pool.alloc(size)));
    }
    world.run(5 * SECOND);
    let events = world.status(0).events;
    assert!(!events.iter().any(|event| event.kind.code().starts_with("peer-un")), "{events:?}");
    world.cut();
    world.run(3 * SECOND);
    world.heal();
    world.run(SECOND);
    let sight = world.status(0).peer.expect("one").sight;
    assert_eq!(sight, PeerSight::Resync, "copies need frames, and nothing else: {}", world.describe());
    drop(taken);
    world.load(0, millis(50));
    settle(&mut world, 0);
}
