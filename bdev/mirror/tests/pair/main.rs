//! Two nodes on virtual time: the production core under crashes, cuts and lost disks.

mod arbiter;
mod blocks;
mod copies;
mod crash;
mod crash_roles;
mod cut;
mod disk;
mod failover;
mod hang;
mod last_copy;
mod last_leg;
mod link;
mod lost_flush;
mod medium;
mod opened;
mod operator;
mod own_leg;
mod recorder;
mod replay;
mod restored;
mod setback;
mod split;
mod stable;
mod stop;
mod succession;
mod swarm;
mod unit_state;
mod world;

use core::time::Duration;

use bdev::sim::SimFault;
use mirror::command::{Command, Refusal};
use mirror::decide::{HolderState, PromoteMode, PromoteRefusal};
use mirror::format::{ArbiterKind, LegMask};
use mirror::status::{PeerSight, RoleKind};
use world::{World, seeds_to_run};

const SECOND: Duration = Duration::from_secs(1);
const PROMOTE: Command = Command::Promote { mode: PromoteMode::Ordinary, holder: HolderState::Unknown };
const FORCE: Command = Command::Promote { mode: PromoteMode::Forced, holder: HolderState::ConfirmedDown };

fn pair(seed: u64) -> World {
    let mut world = World::new(seed, ArbiterKind::Biased);
    world.create();
    world
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn settle(world: &mut World, holder: usize) {
    world.drain();
    world.wait("sync", 20 * SECOND, |world| world.is_in_sync(holder));
    world.run(millis(5));
    world.check_acknowledged(0);
    world.check_acknowledged(1);
    world.check_equal();
}

#[test]
fn a_new_pair_of_zeroed_legs_needs_no_copy() {
    let mut world = pair(1);
    let last = world.status(0).last_resync.expect("a resync ended");
    assert_eq!(last.copied, 0, "{}", world.describe());
    world.load(0, millis(50));
    assert!(world.acks > 50);
    settle(&mut world, 0);
}

#[test]
fn a_peer_that_dies_is_resynced_by_delta() {
    let mut world = pair(2);
    world.load(0, millis(100));
    world.kill(1);
    let acks = world.acks;
    world.load(0, 2 * SECOND);
    assert!(world.acks > acks + 100, "I/O goes on: {}", world.describe());
    assert_eq!(world.status(0).config.expect("one").in_sync, LegMask::ZERO);
    world.start(1);
    world.load(0, millis(300));
    settle(&mut world, 0);
    let last = world.status(0).last_resync.expect("a resync ended");
    assert!(last.copied > 0 && last.copied <= last.total.max(1) * 2, "{last:?}");
}

#[test]
fn a_peer_with_an_empty_disk_is_copied_in_full() {
    let mut world = pair(3);
    world.load(0, millis(100));
    world.kill(1);
    world.replace_disk(1);
    world.load(0, SECOND);
    world.start(1);
    settle(&mut world, 0);
    let last = world.status(0).last_resync.expect("a resync ended");
    assert!(last.copied >= world.status(0).data_size, "{last:?}");
}

#[test]
fn a_link_that_is_cut_and_healed_costs_a_delta() {
    let mut world = pair(4);
    world.load(0, millis(50));
    world.cut();
    world.load(0, SECOND);
    world.heal();
    world.load(0, millis(100));
    settle(&mut world, 0);
}

#[test]
fn a_short_cut_is_ridden_out_without_a_degrade() {
    let mut world = pair(5);
    let generation = world.status(0).config.expect("one").generation();
    for _ in 0..5 {
        world.load(0, millis(50));
        world.cut();
        world.load(0, millis(20));
        world.heal();
    }
    settle(&mut world, 0);
    assert_eq!(world.status(0).config.expect("one").generation(), generation, "{}", world.describe());
    assert_eq!(world.errors, 0);
}

/// What an old session left on the wire comes after what the new one wrote to the same blocks: the guard refuses it.
#[test]
fn late_writes_of_a_lost_session_do_not_land() {
    let mut world = pair(16);
    world.spread = 24;
    for _ in 0..40 {
        world.load(0, millis(10));
        world.cut();
        world.load(0, Duration::from_micros(200));
        world.heal();
        world.load(0, millis(5));
        world.drain();
        world.run(millis(120));
        world.check_acknowledged(1);
        world.check_equal();
    }
}

#[test]
fn a_holder_that_dies_is_succeeded_by_hand_twenty_times() {
    let mut world = pair(6);
    let mut holder = 0;
    for _ in 0..20 {
        let time = 1 + world.prng.below(60);
        world.load(holder, millis(time));
        world.kill(holder);
        let next = 1 - holder;
        world.run(2 * SECOND);
        let now = world.now;
        let node = world.nodes[next].as_mut().expect("runs");
        node.driver.command(PROMOTE, now).expect("in sync");
        world.wait("promotion", 5 * SECOND, |world| world.is_holder(next));
        world.check_acknowledged(next);
        world.load(next, millis(30));
        world.start(holder);
        holder = next;
        settle(&mut world, holder);
    }
}

#[test]
fn both_die_at_once_and_go_on() {
    for seed in 0..10 {
        let mut world = pair(100 + seed);
        world.load(0, millis(20 + 7 * seed));
        world.kill(0);
        world.kill(1);
        world.start(1);
        world.start(0);
        world.wait("service", 5 * SECOND, |world| world.is_holder(0));
        world.check_acknowledged(0);
        world.load(0, millis(20));
        settle(&mut world, 0);
    }
}

#[test]
fn a_clean_stop_and_start_copies_nothing() {
    let mut world = pair(7);
    world.load(0, millis(100));
    world.drain();
    let now = world.now;
    world.nodes[0].as_mut().expect("runs").driver.stop(now);
    let stopped = |index: usize| {
        move |world: &World| world.nodes[index].as_ref().is_some_and(|node| node.driver.is_stopped())
    };
    world.wait("stop", 5 * SECOND, stopped(0));
    world.kill(0);
    let now = world.now;
    world.nodes[1].as_mut().expect("runs").driver.stop(now);
    world.wait("stop", 5 * SECOND, stopped(1));
    world.kill(1);
    world.start(0);
    world.run(millis(100));
    assert_eq!(world.status(0).role, RoleKind::Holding, "it waits for its peer");
    world.start(1);
    settle(&mut world, 0);
    assert!(world.status(0).last_resync.is_none(), "{}", world.describe());
}

#[test]
fn a_start_without_the_peer_needs_a_command() {
    let mut world = pair(8);
    world.load(0, millis(50));
    world.kill(0);
    world.kill(1);
    world.start(0);
    world.run(SECOND);
    let status = world.status(0);
    assert_eq!(status.role, RoleKind::Holding);
    assert!(status.reason.expect("one").contains("start degraded by command"));
    assert_eq!(world.command(0, PROMOTE), Err(Refusal::Waiting), "what to do instead is start-degraded");
    world.command(0, Command::StartDegraded).expect("holds");
    world.wait("service", SECOND, |world| world.is_holder(0));
    world.check_acknowledged(0);
    world.load(0, millis(50));
    world.start(1);
    settle(&mut world, 0);
}

#[test]
fn a_node_that_missed_something_is_not_promoted() {
    let mut world = pair(9);
    let now = world.now;
    let alive = world.nodes[1].as_mut().expect("runs").driver.command(PROMOTE, now);
    assert_eq!(alive, Err(Refusal::Promote(PromoteRefusal::HolderAlive)));
    world.kill(1);
    world.load(0, SECOND);
    world.start(1);
    world.wait("begin of the copy", 5 * SECOND, |world| {
        world.status(0).peer.is_some_and(|peer| peer.sight == PeerSight::Resync)
    });
    assert!(world.status(0).dirty_bytes > 0, "the copy is not over");
    world.kill(0);
    world.run(2 * SECOND);
    let now = world.now;
    let stale = world.nodes[1].as_mut().expect("runs").driver.command(PROMOTE, now);
    assert_eq!(stale, Err(Refusal::Promote(PromoteRefusal::NotInSync)));
}

#[test]
fn a_holder_that_wakes_up_after_a_promotion_steps_down() {
    let mut world = pair(10);
    world.load(0, millis(50));
    world.drain();
    // Stopped: it does not run, and its sessions die.
    let sleeper = world.pause(0);
    world.cut();
    world.run(3 * SECOND);
    world.command(1, PROMOTE).expect("in sync");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
    world.load(1, millis(50));
    world.drain();
    world.resume(0, sleeper);
    world.heal();
    settle(&mut world, 1);
    assert_eq!(world.status(0).role, RoleKind::Standby, "{}", world.describe());
}

#[test]
fn the_last_legs_error_reaches_the_host_and_the_volume_stays() {
    let mut world = pair(11);
    world.kill(1);
    world.load(0, SECOND);
    world.drain();
    world.disks[0].inject(SimFault::FailWrites { count: 1 });
    let errors = world.errors;
    world.load(0, millis(20));
    world.drain();
    assert!(world.errors > errors);
    let (errors, acks) = (world.errors, world.acks);
    world.load(0, millis(50));
    world.drain();
    assert_eq!(world.errors, errors, "{}", world.describe());
    assert!(world.acks > acks);
    world.start(1);
    settle(&mut world, 0);
}

#[test]
fn a_peers_write_error_takes_its_leg_out_and_it_comes_back() {
    let mut world = pair(12);
    world.load(0, millis(20));
    world.disks[1].inject(SimFault::FailWrites { count: 1 });
    world.load(0, 2 * SECOND);
    assert_eq!(world.errors, 0, "{}", world.describe());
    settle(&mut world, 0);
}

#[test]
fn an_own_leg_that_fails_leaves_the_peers() {
    let mut world = pair(13);
    world.load(0, millis(20));
    world.disks[0].inject(SimFault::FailWrites { count: 1 });
    world.load(0, SECOND);
    world.drain();
    assert_eq!(world.errors, 0, "{}", world.describe());
    assert_eq!(world.status(0).config.expect("one").in_sync, LegMask::ONE, "{}", world.describe());
    world.check_acknowledged(1);
}

#[test]
fn the_manual_policy_freezes_until_the_operator_decides() {
    let mut world = World::new(14, ArbiterKind::Manual);
    world.create();
    world.load(0, millis(20));
    world.kill(1);
    world.load(0, SECOND);
    assert_eq!(world.status(0).role, RoleKind::Frozen, "{}", world.describe());
    let acks = world.acks;
    world.load(0, SECOND);
    assert_eq!(world.acks, acks);
    world.command(0, Command::Degrade).expect("frozen");
    world.drain();
    assert!(world.acks > acks);
    world.start(1);
    settle(&mut world, 0);
}

#[test]
fn a_bad_block_of_the_own_leg_is_read_from_the_peer_and_mended() {
    // A recorded disk still has what it was given when it answers.
    let recorded = World::recorded(15, None, ArbiterKind::Biased);
    for mut world in [World::new(15, ArbiterKind::Biased), recorded] {
        world.create();
        world.load(0, millis(20));
        world.drain();
        let lba = (world.status(0).data_offset + 5 * world::BLOCK) / 512;
        world.disks[0].inject(SimFault::BadBlock { lba });
        for _ in 0..3 {
            world.read(0, 5);
            world.run(millis(10));
        }
        assert_eq!(world.errors, 0, "{}", world.describe());
        assert_eq!(world.status(0).counters.mended, 1, "{}", world.describe());
        settle(&mut world, 0);
    }
}

/// The link is cut at every moment around the config that counts the peer again: I/O goes on, and the way back is a
/// delta.
#[test]
fn a_cut_in_the_middle_of_a_rejoin_is_a_loss_like_any_other() {
    let mut caught = 0;
    for moment in 0..40 {
        let mut world = pair(200 + moment);
        world.load(0, millis(20));
        world.kill(1);
        world.load(0, millis(500));
        world.start(1);
        world.wait("the copy's end", 5 * SECOND, |world| {
            let status = world.status(0);
            status.peer.is_some_and(|peer| peer.sight == PeerSight::Resync) && status.dirty_bytes == 0
        });
        for _ in 0..moment {
            world.step();
        }
        world.cut();
        let status = world.status(0);
        let both = status.config.expect("one").in_sync == LegMask::both();
        world.load(0, millis(200));
        caught += u64::from(!both && world.status(0).config.expect("one").in_sync == LegMask::both());
        world.load(0, SECOND);
        let acks = world.acks;
        world.load(0, millis(200));
        assert!(world.acks > acks, "moment {moment}: I/O goes on: {}", world.describe());
        world.heal();
        settle(&mut world, 0);
        let last = world.status(0).last_resync.expect("a resync ended");
        assert!(last.copied < world.status(0).data_size, "moment {moment}: {last:?} {}", world.describe());
    }
    assert!(caught > 0, "no moment met the config on its way to the own leg");
}

/// Random faults by seed: cuts, kills of either node, lost disks of the peer, write errors, promotions.
#[test]
fn seeds() {
    for seed in seeds_to_run(1000..1020) {
        random_run(seed);
    }
}

/// Cuts that are over before anybody is dropped; what was on the wire comes late.
fn short_cuts(world: &mut World, holder: usize) {
    for _ in 0..5 {
        let (cut, between) = (world.prng.below(400), world.prng.below(130));
        world.cut();
        world.load(holder, Duration::from_micros(cut));
        world.heal();
        world.load(holder, millis(between));
    }
}

fn random_run(seed: u64) {
    let mut world = pair(seed);
    // Few blocks: what comes late meets what came after it.
    world.spread = [600, 24][usize::from(seed % 2 == 1)];
    let mut holder = 0;
    for _ in 0..4 {
        let (before, fault) = (world.prng.below(40), world.prng.below(9));
        world.load(holder, millis(before));
        let pause = millis(world.prng.below(900));
        let peer = 1 - holder;
        match fault {
            0 => world.cut(),
            1 | 2 => world.kill(peer),
            3 => {
                world.kill(peer);
                world.replace_disk(peer);
            }
            4 => world.disks[peer].inject(SimFault::FailWrites { count: 2 }),
            5 => {
                world.kill(holder);
                world.start(holder);
            }
            7 => short_cuts(&mut world, holder),
            // Only a peer that nothing is missing from is promoted.
            _ if world.is_in_sync(holder) => {
                world.kill(holder);
                let now = world.now;
                let alive =
                    Command::Promote { mode: PromoteMode::Ordinary, holder: HolderState::ConfirmedDown };
                world.nodes[peer].as_mut().expect("runs").driver.command(alive, now).expect("in sync");
                world.wait("promotion", 5 * SECOND, |world| world.is_holder(peer));
                world.check_acknowledged(peer);
                world.start(holder);
                holder = peer;
            }
            _ => {}
        }
        world.load(holder, pause);
        world.heal();
        if world.nodes[1 - holder].is_none() {
            world.start(1 - holder);
        }
        let rest = millis(world.prng.below(200));
        world.load(holder, rest);
    }
    settle(&mut world, holder);
}
