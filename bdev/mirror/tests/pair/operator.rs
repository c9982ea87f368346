//! What the operator and the cluster manager ask for: switchover, demotion, promotion.

use bdev::sim::SimFault;
use bdev::{AccessState, Bdev, IoError, NotReady, Op};
use core::time::Duration;

use mirror::TRANSITION_MAX;
use mirror::command::{Command, Demotion, Refusal};
use mirror::decide::{HolderState, PromoteMode, PromoteRefusal};
use mirror::events::Codes;
use mirror::format::{ArbiterKind, ConfigFlags, LegIndex, LegMask, Reason};
use mirror::setup::DegradedPolicy;
use mirror::status::{PeerSight, RoleKind};

use super::unit_state::Front;
use super::world::World;
use super::{FORCE, PROMOTE, SECOND, millis, pair, settle};

fn command(world: &mut World, index: usize, command: Command) -> Result<(), Refusal> {
    let now = world.now;
    world.nodes[index].as_mut().expect("runs").driver.command(command, now)
}

fn code(world: &World, index: usize, mode: PromoteMode) -> &'static str {
    let driver = &world.nodes[index].as_ref().expect("runs").driver;
    driver.may_promote(mode, HolderState::Unknown).map_or_else(|refusal| refusal.code(), |_| "ok")
}

fn role(world: &World, index: usize) -> RoleKind {
    world.status(index).role
}

fn has_event(world: &World, index: usize, code: &str, reason: &str) -> bool {
    let status = world.status(index);
    status.events.iter().any(|event| event.kind.code() == code && event.kind.reason() == reason)
}

/// Load on both nodes until one serves; the time without a holder.
fn switch(world: &mut World, from: usize) -> Duration {
    command(world, from, Command::Switchover).expect("in sync");
    let began = world.now;
    while !world.is_holder(1 - from) {
        assert!(world.now - began < 5 * SECOND, "{}", world.describe());
        world.load(from, Duration::from_micros(100));
    }
    world.now - began
}

fn switchovers(policy: ArbiterKind) {
    let mut world = World::new(400, policy);
    world.create();
    for round in 0..10 {
        let from = round % 2;
        let before = world.status(from).config.expect("one").generation();
        let time = millis(1 + world.prng.below(30));
        world.load(from, time);
        let outage = switch(&mut world, from);
        assert!(outage < millis(200), "{outage:?}: {}", world.describe());
        let status = world.status(1 - from);
        let config = status.config.expect("one");
        assert_eq!((config.in_sync, config.reason), (LegMask::both(), Reason::SwitchedOver));
        assert!(config.generation() > before && status.dirty_bytes == 0);
        assert_eq!(role(&world, from), RoleKind::Standby);
        world.check_acknowledged(0);
        world.check_acknowledged(1);
        world.load(1 - from, millis(20));
        settle(&mut world, 1 - from);
        // No resync: neither has copied anything since the pair was made.
        assert!(world.status(1 - from).last_resync.is_none_or(|last| last.copied == 0));
    }
}

#[test]
fn a_switchover_swaps_the_holder_without_a_resync() {
    switchovers(ArbiterKind::Biased);
}

#[test]
fn a_switchover_with_an_arbiter_is_as_short() {
    switchovers(ArbiterKind::Etcd);
}

#[test]
fn a_switchover_needs_a_peer_in_sync_and_the_holder() {
    let mut world = pair(401);
    assert_eq!(command(&mut world, 1, Command::Switchover), Err(Refusal::NotHolder));
    world.kill(1);
    world.load(0, SECOND);
    assert_eq!(command(&mut world, 0, Command::Switchover), Err(Refusal::PeerNotInSync));
    let acks = world.acks;
    world.load(0, millis(50));
    assert!(world.acks > acks);
}

/// As SET TARGET PORT GROUPS asks through the volume.
#[test]
fn a_host_may_ask_for_the_switchover() {
    let mut world = pair(402);
    let ask = |world: &mut World, node| {
        Front::open(world, node).run(world, Op::HandOver, SECOND).map(|(_, done)| done)
    };
    assert_eq!(ask(&mut world, 1), Some(Err(IoError::NotReady(NotReady::Standby))));
    assert_eq!(ask(&mut world, 0), Some(Ok(())));
    world.wait("holder", SECOND, |world| world.is_holder(1));
    assert_eq!(world.status(1).config.expect("one").reason, Reason::SwitchedOver);
    world.kill(0);
    world.load(1, SECOND);
    assert_eq!(ask(&mut world, 1), Some(Err(IoError::NotReady(NotReady::Frozen))), "there is nobody");
    world.load(1, millis(50));
    assert!(world.is_holder(1));
}

/// Cut or killed at any moment of it: one of the two holds in the end, with everything that was acknowledged.
#[test]
fn a_switchover_that_is_cut_off_leaves_one_holder() {
    for seed in 0..60 {
        let policy = if seed % 2 == 0 { ArbiterKind::Etcd } else { ArbiterKind::Biased };
        let mut world = World::new(500 + seed, policy);
        world.create();
        world.load(0, millis(10));
        command(&mut world, 0, Command::Switchover).expect("in sync");
        let moment = Duration::from_micros(world.prng.below(30_000));
        world.load(0, moment);
        match seed % 6 {
            0 | 1 => world.cut(),
            2 | 3 => world.kill(0),
            _ => world.kill(1),
        }
        let pause = millis(world.prng.below(4000));
        world.run(pause);
        world.heal();
        for index in 0..2 {
            if world.nodes[index].is_none() {
                world.start(index);
            }
        }
        world.wait("one holder in sync", 20 * SECOND, |world| {
            (0..2).any(|index| world.is_holder(index) && world.is_in_sync(index))
        });
        let holder = if world.is_holder(0) { 0 } else { 1 };
        assert!(!world.is_holder(1 - holder), "{}", world.describe());
        world.load(holder, millis(20));
        settle(&mut world, holder);
    }
}

/// How a node that waits for its peer was allowed to go on without it, before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowance {
    /// By its policy, after a while.
    Policy,
    /// By a command, long ago.
    Command,
}

/// A pair in sync whose holder may go on alone, or might once.
fn allowed(seed: u64, policy: ArbiterKind, how: Allowance) -> World {
    let mut world = World::new(seed, policy);
    if how == Allowance::Policy {
        world.degraded = DegradedPolicy::After(millis(100));
        world.create();
        return world;
    }
    world.create();
    world.kill(1);
    world.kill(0);
    world.start(0);
    world.wait("hold", 5 * SECOND, |world| role(world, 0) == RoleKind::Holding);
    command(&mut world, 0, Command::StartDegraded).expect("it holds");
    world.wait("service", 5 * SECOND, |world| world.is_holder(0));
    world.start(1);
    world.wait("sync", 10 * SECOND, |world| world.is_in_sync(0));
    world.load(0, millis(10));
    world.drain();
    world
}

/// The peer knows that it is the holder now, and whoever told it does not hear that.
#[test]
fn a_switchover_that_is_cut_off_is_no_reason_to_go_on_alone() {
    for (policy, how) in [
        (ArbiterKind::Biased, Allowance::Policy),
        (ArbiterKind::Biased, Allowance::Command),
        (ArbiterKind::Manual, Allowance::Command),
    ] {
        let mut world = allowed(570, policy, how);
        command(&mut world, 0, Command::Switchover).expect("in sync");
        let told =
            |world: &World| world.status(1).config.is_some_and(|config| config.holder == LegIndex::One);
        world.wait("the peer's superblock", SECOND, told);
        world.cut();
        for _ in 0..4 {
            world.run(SECOND);
            assert!(!world.is_holder(0), "{policy:?}, {how:?}: {}", world.describe());
        }
        world.heal();
        world.wait("service", 10 * SECOND, |world| world.is_in_sync(1));
        settle(&mut world, 1);
    }
}

/// The link is there all the time, and the peer is slow to write what it was told.
#[test]
fn a_slow_switchover_is_no_reason_to_go_on_alone() {
    for seed in 580..584 {
        let mut world = allowed(seed, ArbiterKind::Biased, Allowance::Command);
        command(&mut world, 0, Command::Switchover).expect("in sync");
        world.run(Duration::from_micros(500 + (seed - 580) * 350));
        world.disks[1].inject(SimFault::DelayWrites { count: 1000, extra: millis(2500) });
        world.run(SECOND);
        world.disks[1].heal();
        world.wait("service", 10 * SECOND, |world| (0..2).any(|node| world.is_in_sync(node)));
        let holder = world.holder().expect("one serves");
        world.load(holder, millis(20));
        settle(&mut world, holder);
    }
}

/// The arbiter has heard of it, and no superblock has.
#[test]
fn a_standby_that_the_arbiter_made_the_holder_says_so() {
    let mut world = World::new(560, ArbiterKind::Etcd);
    world.create();
    command(&mut world, 0, Command::Switchover).expect("in sync");
    let swapped = |world: &World| world.arbiter.config().is_some_and(|config| config.holder == LegIndex::One);
    world.wait("the swap", SECOND, swapped);
    world.kill(0);
    world.wait("service", 10 * SECOND, |world| world.is_holder(1));
    assert!(has_event(&world, 1, "arbiter-decided", "named-holder"), "{}", world.describe());
    world.start(0);
    settle(&mut world, 1);
}

#[test]
fn a_holder_that_is_demoted_in_order_lets_the_other_be_promoted() {
    let mut world = pair(410);
    world.load(0, millis(50));
    assert_eq!(
        (code(&world, 0, PromoteMode::Ordinary), code(&world, 1, PromoteMode::Ordinary)),
        ("already-holder", "holder-alive")
    );
    command(&mut world, 0, Command::Demote(Demotion::Orderly)).expect("a holder");
    world.wait("demotion", SECOND, |world| role(world, 0) == RoleKind::Standby);
    world.drain();
    assert!(has_event(&world, 0, "demoting", "orderly"), "{}", world.describe());
    // By itself it does not come back.
    world.run(5 * SECOND);
    assert_eq!(role(&world, 0), RoleKind::Standby);
    assert_eq!(
        (code(&world, 0, PromoteMode::Ordinary), code(&world, 1, PromoteMode::Ordinary)),
        ("ok", "ok")
    );
    command(&mut world, 1, PROMOTE).expect("nobody holds");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
    world.load(1, millis(50));
    settle(&mut world, 1);
}

#[test]
fn a_demoted_holder_may_be_promoted_again() {
    let mut world = pair(411);
    world.load(0, millis(50));
    command(&mut world, 0, Command::Demote(Demotion::Orderly)).expect("a holder");
    world.wait("demotion", SECOND, |world| role(world, 0) == RoleKind::Standby);
    world.drain();
    command(&mut world, 0, PROMOTE).expect("its own");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(0));
    assert_eq!(world.status(0).config.expect("one").reason, Reason::Promoted);
    world.load(0, millis(50));
    settle(&mut world, 0);
    assert_eq!(world.status(0).last_resync.map_or(0, |last| last.copied), 0, "{}", world.describe());
}

/// A frozen holder cannot end in order; at once it can, and acknowledges nothing from then on.
#[test]
fn a_frozen_holder_is_demoted_at_once_and_acknowledges_nothing_more() {
    let mut world = World::new(412, ArbiterKind::Manual);
    world.create();
    world.load(0, millis(50));
    world.drain();
    world.cut();
    world.load(0, 3 * SECOND);
    assert_eq!(role(&world, 0), RoleKind::Frozen, "{}", world.describe());
    assert!(has_event(&world, 0, "frozen", "operator-decides"), "{}", world.describe());
    let acks = world.acks;
    command(&mut world, 0, Command::Demote(Demotion::Orderly)).expect("a holder");
    world.run(SECOND);
    assert_eq!(role(&world, 0), RoleKind::Demoting, "{}", world.describe());
    command(&mut world, 0, Command::Demote(Demotion::AtOnce)).expect("always");
    world.wait("demotion", 3 * SECOND, |world| role(world, 0) == RoleKind::Standby);
    world.drain();
    world.load(0, SECOND);
    assert_eq!(world.acks, acks, "{}", world.describe());
    command(&mut world, 1, PROMOTE).expect("in sync");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
    world.check_acknowledged(1);
    world.heal();
    world.load(1, millis(100));
    settle(&mut world, 1);
}

fn access(world: &World, index: usize) -> AccessState {
    world.nodes[index].as_ref().expect("runs").volumes.front.access().state()
}

/// Hosts hear "transitioning" for a bounded time, and "unavailable" until somebody says who serves.
#[test]
fn a_standby_without_a_holder_is_unavailable_after_a_while() {
    let mut world = World::new(413, ArbiterKind::Manual);
    world.create();
    assert_eq!((access(&world, 0), access(&world, 1)), (AccessState::Optimized, AccessState::NonOptimized));
    world.kill(0);
    world.run(3 * SECOND);
    assert_eq!(access(&world, 1), AccessState::Transitioning);
    // Nothing but the node's own deadline wakes it.
    world.run(TRANSITION_MAX);
    assert_eq!(access(&world, 1), AccessState::Unavailable);
    command(&mut world, 1, PROMOTE).expect("in sync");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
    assert_eq!(access(&world, 1), AccessState::Optimized);
    // And anew.
    world.start(0);
    settle(&mut world, 1);
    world.kill(1);
    world.run(3 * SECOND);
    assert_eq!(access(&world, 0), AccessState::Transitioning);
}

/// A cluster manager says who holds: at the start, after a crash, and when the peer is gone.
#[test]
fn with_a_cluster_manager_nothing_happens_by_itself() {
    let mut world = World::new(420, ArbiterKind::ClusterManager);
    world.start(0);
    world.start(1);
    world.run(SECOND);
    assert_eq!((role(&world, 0), code(&world, 0, PromoteMode::Ordinary)), (RoleKind::Standby, "ok"));
    assert_eq!(code(&world, 1, PromoteMode::Ordinary), "no-data");
    assert!(has_event(&world, 0, "standing-by", "awaiting-promotion"));
    command(&mut world, 0, PROMOTE).expect("a new array");
    world.wait("sync", 5 * SECOND, |world| world.is_in_sync(0));
    world.load(0, millis(50));
    world.kill(0);
    world.run(5 * SECOND);
    assert_eq!(role(&world, 1), RoleKind::Standby);
    command(&mut world, 1, PROMOTE).expect("fenced by the manager");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
    world.check_acknowledged(1);
    world.start(0);
    settle(&mut world, 1);
    // The peer is gone: I/O stands still until the manager has fenced it and says so.
    world.kill(0);
    world.load(1, 3 * SECOND);
    assert_eq!(role(&world, 1), RoleKind::Frozen, "{}", world.describe());
    command(&mut world, 1, Command::Degrade).expect("frozen");
    world.load(1, millis(100));
    assert_eq!(role(&world, 1), RoleKind::Holder, "{}", world.describe());
    assert!(has_event(&world, 1, "thawed", "decided"));
    world.start(0);
    settle(&mut world, 1);
}

#[test]
fn an_arbiter_that_is_gone_when_the_peer_is_freezes_with_an_alarm() {
    let mut world = World::new(430, ArbiterKind::Etcd);
    world.create();
    world.arbiter.reach = [false; 2];
    world.kill(1);
    world.load(0, 4 * SECOND);
    assert_eq!(role(&world, 0), RoleKind::Frozen, "{}", world.describe());
    assert!(
        has_event(&world, 0, "frozen", "arbiter-silent")
            && has_event(&world, 0, "arbiter-silent", "no-answer")
    );
    world.arbiter.reach = [true; 2];
    world.load(0, SECOND);
    assert_eq!(role(&world, 0), RoleKind::Holder, "{}", world.describe());
    assert!(has_event(&world, 0, "thawed", "decided"));
}

/// Each loss of the link, and each return, is an event of its own, whatever its words.
#[test]
fn a_link_that_flaps_leaves_an_event_each_time() {
    let mut world = pair(431);
    world.load(0, millis(50));
    for _ in 0..3 {
        world.cut();
        world.load(0, millis(20));
        world.heal();
        world.load(0, SECOND);
    }
    let events = world.status(0).events;
    let told = |codes: &[&str]| events.iter().filter(|event| codes.contains(&event.kind.code())).count();
    // By the session, or by an I/O that was under way.
    assert_eq!(told(&["peer-unreachable", "peer-failed"]), 3, "{}", world.describe());
    assert_eq!(told(&["peer-joined"]), 1 + 3, "{}", world.describe());
}

/// A record that was lost, or is from an old backup, and is there again: who waited for it as the holder is first.
#[test]
fn an_arbiter_that_is_right_again_hears_the_holder_first() {
    for seed in 0..20 {
        let mut world = World::new(460 + seed, ArbiterKind::Etcd);
        world.create();
        let old = world.arbiter.record;
        world.kill(1);
        world.load(0, 2 * SECOND);
        world.start(1);
        settle(&mut world, 0);
        let right = world.arbiter.record;
        world.cut();
        world.arbiter.record = if seed % 2 == 0 { None } else { old };
        let away = millis(4000 + world.prng.below(1500));
        world.load(0, away);
        assert_eq!(role(&world, 0), RoleKind::Frozen, "{}", world.describe());
        let trouble = if seed % 2 == 0 { "arbiter-vacant" } else { "arbiter-older" };
        assert!(has_event(&world, 0, "frozen", trouble), "{}", world.describe());
        world.arbiter.record = right;
        world.load(0, 3 * SECOND);
        assert!(
            world.is_holder(0) && role(&world, 1) == RoleKind::Standby,
            "seed {seed}: {}",
            world.describe()
        );
        world.heal();
        settle(&mut world, 0);
    }
}

/// Node 1 has locked node 0 out, and the link goes before that can look who it was.
fn locked_out(policy: ArbiterKind) -> World {
    let mut world = World::new(470, policy);
    world.create();
    world.load(0, millis(20));
    let down = Command::Promote { mode: PromoteMode::Ordinary, holder: HolderState::ConfirmedDown };
    command(&mut world, 1, down).expect("in sync");
    let is_locked_out = |world: &World| {
        world.status(0).reason.is_some_and(|reason| reason.contains("has locked this node out"))
    };
    let began = world.now;
    while !is_locked_out(&world) {
        assert!(world.now - began < 2 * SECOND, "{}", world.describe());
        world.load(0, Duration::from_micros(50));
    }
    world.cut();
    world.arbiter.reach = [false; 2];
    world.run(millis(50));
    assert!(is_locked_out(&world), "{}", world.describe());
    world
}

/// Whoever is locked out may have been followed by somebody already: an arbiter knows, and the operator does not.
#[test]
fn a_holder_that_is_locked_out_goes_on_alone_by_an_arbiters_word_only() {
    for policy in [ArbiterKind::Manual, ArbiterKind::Biased] {
        let mut world = locked_out(policy);
        assert_eq!(command(&mut world, 0, Command::Degrade), Err(Refusal::LockedOut), "{policy:?}");
    }
    let mut world = locked_out(ArbiterKind::Etcd);
    let acks = world.acks;
    assert_eq!(command(&mut world, 0, Command::Degrade), Ok(()), "{}", world.describe());
    world.load(0, SECOND);
    assert_eq!(world.acks, acks, "nobody has answered: {}", world.describe());
    world.arbiter.reach = [true; 2];
    world.heal();
    world.wait("one holder", 20 * SECOND, |world| (0..2).any(|index| world.is_in_sync(index)));
    let holder = if world.is_holder(0) { 0 } else { 1 };
    assert!(!world.is_holder(1 - holder), "{}", world.describe());
    settle(&mut world, holder);
}

/// The way out when the arbiter's newer data are lost for good.
#[test]
fn force_gets_an_array_over_an_arbiter_that_was_restored_or_emptied() {
    for lost in [false, true] {
        let mut world = World::new(440, ArbiterKind::Etcd);
        world.create();
        let old = world.arbiter.record;
        world.kill(1);
        world.load(0, 2 * SECOND);
        world.drain();
        world.kill(0);
        world.arbiter.record = if lost { None } else { old };
        world.start(0);
        world.run(4 * SECOND);
        let reason = if lost { "arbiter-vacant" } else { "arbiter-older" };
        assert!(has_event(&world, 0, "holding", reason), "{}", world.describe());
        for asked in [PROMOTE, Command::StartDegraded] {
            assert_eq!(command(&mut world, 0, asked), Err(Refusal::ArbiterFirst));
        }
        let before = world.status(0).config.expect("one").generation();
        command(&mut world, 0, FORCE).expect("the operator's word");
        world.wait("promotion", 5 * SECOND, |world| world.is_holder(0));
        let config = world.status(0).config.expect("one");
        assert_eq!((config.flags, config.reason), (ConfigFlags::FORCED, Reason::ForcePromoted));
        assert!(config.generation() >= before + (1 << 32));
        assert_eq!(world.arbiter.config(), Some(config));
        world.check_acknowledged(0);
        world.start(1);
        world.load(0, millis(50));
        settle(&mut world, 0);
    }
}

/// The old holder gave it the array, and died before it could say so: what the arbiter names is not at work yet.
#[test]
fn a_node_that_the_arbiter_names_is_not_the_holder_before_it_serves() {
    let mut world = World::new(445, ArbiterKind::Etcd);
    world.create();
    world.load(0, millis(50));
    world.drain();
    let mut record = world.arbiter.record.expect("one");
    let given = record.current().successor(7, LegIndex::One, LegMask::both(), Reason::SwitchedOver);
    record.push(given.expect("some left"));
    world.arbiter.record = Some(record);
    world.kill(0);
    world.wait("a look at its own log", 10 * SECOND, |world| world.status(1).role == RoleKind::Holding);
    world.run(millis(100));
    assert_eq!(code(&world, 1, PromoteMode::Ordinary), "waiting", "{}", world.describe());
    assert_eq!(command(&mut world, 1, PROMOTE), Err(Refusal::Waiting));
    world.wait("service", 10 * SECOND, |world| world.is_holder(1));
    assert_eq!(command(&mut world, 1, PROMOTE), Err(PromoteRefusal::AlreadyHolder.into()));
    world.start(0);
    settle(&mut world, 1);
}

#[test]
fn a_stale_leg_says_so_and_is_promoted_by_force_alone() {
    let mut world = pair(450);
    world.load(0, millis(50));
    world.cut();
    world.load(0, 2 * SECOND);
    world.heal();
    world.wait("sync", 5 * SECOND, |world| world.is_in_sync(0));
    world.kill(1);
    world.load(0, 2 * SECOND);
    world.drain();
    world.start(1);
    world.wait("resync", SECOND, |world| {
        world.status(0).peer.is_some_and(|peer| peer.sight == PeerSight::Resync)
    });
    world.kill(0);
    world.run(2 * SECOND);
    assert_eq!(code(&world, 1, PromoteMode::Ordinary), "not-in-sync");
    assert_eq!(command(&mut world, 1, PROMOTE), Err(PromoteRefusal::NotInSync.into()));
    assert_eq!(code(&world, 1, PromoteMode::Forced), "ok");
    command(&mut world, 1, FORCE).expect("the operator's word");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
    assert!(has_event(&world, 1, "promoting", "forced-data-mixed"), "{}", world.describe());
}

/// A promotion that its own disk fails locks nobody out: what is on no superblock, no holder can outrank.
#[test]
fn a_forced_promotion_that_cannot_be_written_down_leaves_the_leg_to_its_holder() {
    for (seed, policy) in (470..).zip([ArbiterKind::Biased, ArbiterKind::Etcd]) {
        let mut world = World::new(seed, policy);
        world.create();
        world.load(0, millis(50));
        world.kill(0);
        world.run(millis(300));
        world.disks[1].inject(SimFault::FailWrites { count: 1 });
        command(&mut world, 1, FORCE).expect("the operator's word");
        world.wait("no promotion", SECOND, |world| {
            let status = world.status(1);
            status.role == RoleKind::Standby
                && status.events.iter().any(|event| event.kind.code() == "promotion-failed")
        });
        world.start(0);
        world.wait("both legs", 5 * SECOND, |world| world.is_in_sync(0));
        world.load(0, millis(50));
        settle(&mut world, 0);
    }
}
