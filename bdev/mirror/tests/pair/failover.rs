//! Automatic promotion, with an arbiter that orders the generations.

use core::time::Duration;

use mirror::command::{Command, Demotion};
use mirror::decide::{HolderState, PromoteMode};
use mirror::events::Codes;
use mirror::format::{ArbiterKind, LegIndex, LegMask, Reason};
use mirror::status::RoleKind;

use super::world::{World, seeds_to_run};
use super::{FORCE, SECOND, millis, settle};

fn arbitrated(seed: u64) -> World {
    let mut world = World::new(seed, ArbiterKind::Etcd);
    world.create();
    world
}

/// Time until a node serves.
fn outage(world: &mut World, index: usize) -> Duration {
    let began = world.now;
    world.wait("takeover", 10 * SECOND, |world| world.is_holder(index));
    world.now - began
}

#[test]
fn a_holder_that_dies_is_taken_over_by_itself_twenty_times() {
    let mut world = arbitrated(300);
    let mut holder = 0;
    for _ in 0..20 {
        let time = 1 + world.prng.below(60);
        world.load(holder, millis(time));
        world.kill(holder);
        let next = 1 - holder;
        let outage = outage(&mut world, next);
        assert!(outage < 5 * SECOND, "{outage:?}");
        world.check_acknowledged(next);
        assert_eq!(world.status(next).config.expect("one").reason, Reason::TakenOver);
        world.load(next, millis(30));
        world.start(holder);
        holder = next;
        settle(&mut world, holder);
    }
}

/// Its own superblock is two configs behind: of the one the peer was told, before both died, and of the other the arbiter.
#[test]
fn a_node_that_dies_with_its_config_at_the_arbiter_alone_knows_its_peer_again() {
    for moment in 0..10 {
        let mut world = arbitrated(330 + moment);
        world.load(0, millis(20 + moment));
        world.drain();
        world.command(0, Command::Switchover).expect("in sync");
        let told =
            |world: &World| world.status(1).config.is_some_and(|config| config.holder == LegIndex::One);
        world.wait("the peer's superblock", SECOND, told);
        world.kill(0);
        world.kill(1);
        world.start(0);
        let swapped =
            |world: &World| world.arbiter.config().is_some_and(|config| config.reason == Reason::TakenOver);
        world.wait("the swap", 10 * SECOND, swapped);
        let unheard = world.arbiter.config().expect("one").generation();
        world.kill(0);
        world.start(0);
        world.wait("its own leg", SECOND, |world| world.status(0).config.is_some());
        let heard = world.status(0).config.expect("one").generation();
        assert!(heard + 2 <= unheard, "moment {moment}: {heard} and {unheard}");
        world.start(1);
        world.wait("service", 10 * SECOND, |world| world.is_holder(0));
        world.load(0, millis(20));
        settle(&mut world, 0);
    }
}

/// Both live and both can ask: the holder keeps the array, because it asks first.
#[test]
fn a_link_that_is_cut_leaves_the_array_with_its_holder() {
    let mut world = arbitrated(301);
    world.load(0, millis(50));
    world.cut();
    world.load(0, 6 * SECOND);
    assert!(world.is_holder(0) && !world.is_holder(1), "{}", world.describe());
    assert_eq!(world.arbiter.config().expect("one").in_sync, LegMask::ZERO);
    let acks = world.acks;
    world.load(0, millis(100));
    assert!(world.acks > acks);
    world.heal();
    settle(&mut world, 0);
    assert_eq!(world.errors, 0, "{}", world.describe());
}

/// The holder is cut off from its peer and from the arbiter: it acknowledges nothing, and the peer goes on.
#[test]
fn a_holder_that_is_cut_off_from_both_loses_the_array_and_acknowledges_nothing() {
    let mut world = arbitrated(302);
    world.load(0, millis(50));
    world.drain();
    world.cut();
    world.arbiter.reach[0] = false;
    let acks = world.acks;
    world.load(0, 4 * SECOND);
    assert_eq!(world.acks, acks, "{}", world.describe());
    assert!(world.is_holder(1), "{}", world.describe());
    world.read(0, 3);
    world.run(SECOND);
    world.arbiter.reach[0] = true;
    world.run(3 * SECOND);
    assert_eq!(world.status(0).role, RoleKind::Standby, "{}", world.describe());
    world.drain();
    world.load(1, millis(50));
    world.heal();
    settle(&mut world, 1);
}

/// Nothing happens while the arbiter is away and both legs are well; a failure meanwhile freezes, and never guesses.
#[test]
fn an_arbiter_that_is_gone_is_missed_only_when_something_fails() {
    let mut world = arbitrated(303);
    world.arbiter.reach = [false; 2];
    let acks = world.acks;
    world.load(0, 5 * SECOND);
    assert!(world.acks > acks + 1000 && world.errors == 0, "{}", world.describe());
    world.drain();
    world.kill(1);
    world.load(0, SECOND);
    let acks = world.acks;
    world.load(0, 5 * SECOND);
    assert_eq!(world.acks, acks, "{}", world.describe());
    assert!(world.status(0).reason.is_some_and(|reason| reason.contains("arbiter")));
    world.arbiter.reach = [true; 2];
    world.load(0, 3 * SECOND);
    assert!(world.acks > acks, "{}", world.describe());
    world.start(1);
    settle(&mut world, 0);
}

/// Both wait for the arbiter, with the link cut: whenever it answers again, the holder is the first to be heard.
#[test]
fn an_arbiter_that_is_back_hears_the_holder_first() {
    for moment in 0..12 {
        let mut world = arbitrated(340 + moment);
        world.load(0, millis(20));
        world.drain();
        world.arbiter.reach = [false; 2];
        world.cut();
        world.run(3 * SECOND + millis(211 * moment));
        assert!(!world.is_holder(1));
        world.arbiter.reach = [true; 2];
        world.run(6 * SECOND);
        assert!(world.is_holder(0) && !world.is_holder(1), "{moment}: {}", world.describe());
        assert_eq!(world.in_sync(0), LegMask::ZERO);
        world.heal();
        settle(&mut world, 0);
        // One that died meanwhile is taken over all the same.
        world.arbiter.reach = [false; 2];
        world.kill(0);
        world.run(3 * SECOND + millis(211 * moment));
        world.arbiter.reach = [true; 2];
        assert!(outage(&mut world, 1) < 8 * SECOND);
        world.start(0);
        settle(&mut world, 1);
    }
}

/// A standby that cannot ask locks nobody out.
#[test]
fn a_peer_without_the_arbiter_leaves_a_frozen_holder_alone() {
    let mut world = arbitrated(304);
    world.load(0, millis(50));
    world.arbiter.reach = [false; 2];
    world.cut();
    world.load(0, 6 * SECOND);
    assert!(!world.is_holder(1), "{}", world.describe());
    world.heal();
    world.load(0, SECOND);
    world.arbiter.reach = [true; 2];
    settle(&mut world, 0);
    assert_eq!(world.errors, 0, "{}", world.describe());
}

#[test]
fn a_holder_that_wakes_up_after_a_takeover_has_acknowledged_nothing() {
    let mut world = arbitrated(305);
    world.load(0, millis(50));
    world.drain();
    let sleeper = world.pause(0);
    world.cut();
    outage(&mut world, 1);
    world.load(1, millis(50));
    world.drain();
    world.resume(0, sleeper);
    let acks = world.acks;
    world.load(0, millis(500));
    assert_eq!(world.acks, acks, "{}", world.describe());
    world.heal();
    world.run(3 * SECOND);
    assert_eq!(world.status(0).role, RoleKind::Standby, "{}", world.describe());
    world.drain();
    settle(&mut world, 1);
}

/// The peer restarts, and does not know any more what it granted: the old holder's lease still runs (I19).
#[test]
fn a_peer_that_was_restarted_waits_for_the_end_of_the_lease_that_it_granted() {
    let mut world = arbitrated(308);
    world.load(0, millis(50));
    world.drain();
    world.cut();
    world.arbiter.reach[0] = false;
    world.kill(1);
    world.start(1);
    outage(&mut world, 1);
    world.load(1, millis(20));
    world.drain();
    let answered = world.answered;
    world.read(0, 5);
    world.run(SECOND);
    assert_eq!(world.answered, answered, "a read by the old holder: {}", world.describe());
}

#[test]
fn an_arbiter_that_was_restored_from_a_backup_is_not_believed() {
    let mut world = arbitrated(306);
    let old = world.arbiter.record;
    world.kill(1);
    world.load(0, 2 * SECOND);
    world.drain();
    world.arbiter.record = old;
    world.kill(0);
    world.start(0);
    world.run(4 * SECOND);
    let status = world.status(0);
    assert_eq!(status.role, RoleKind::Holding, "{}", world.describe());
    assert!(status.reason.is_some_and(|reason| reason.contains("restored from a backup")));
    // The peer's leg is older than the backup too, and says so.
    world.start(1);
    world.run(4 * SECOND);
    assert!(!world.is_holder(1), "{}", world.describe());
}

#[test]
fn both_die_and_the_holder_goes_on_without_a_command() {
    let mut world = arbitrated(307);
    world.load(0, millis(50));
    world.kill(0);
    world.kill(1);
    world.start(0);
    world.wait("service", 6 * SECOND, |world| world.is_holder(0));
    world.check_acknowledged(0);
    world.load(0, millis(50));
    world.start(1);
    settle(&mut world, 0);
}

/// Random faults by seed: kills of either, cuts of each of the three ways, lost disks, write errors.
#[test]
fn seeds() {
    for seed in seeds_to_run(1..11) {
        random_run(seed);
    }
}

fn random_run(seed: u64) {
    let mut world = arbitrated(seed);
    world.spread = [600, 24][usize::from(seed % 2 == 1)];
    for _ in 0..5 {
        let at = world.holder().unwrap_or(0);
        let before = world.prng.below(40);
        world.load(at, millis(before));
        for _ in 0..=world.prng.below(2) {
            match world.prng.below(7) {
                0 => world.cut(),
                1 => world.arbiter.reach[at] = false,
                2 => world.arbiter.reach[1 - at] = false,
                3 | 4 => world.kill(at),
                5 => world.kill(1 - at),
                _ => world.disks[1 - at].inject(bdev::sim::SimFault::FailWrites { count: 2 }),
            }
        }
        let pause = world.prng.below(6000);
        let serves = world.holder().unwrap_or(1 - at);
        world.load(serves, millis(pause));
        world.heal();
        world.arbiter.reach = [true; 2];
        for index in 0..2 {
            if world.nodes[index].is_none() {
                world.start(index);
            }
        }
        world.wait("a holder", 20 * SECOND, |world| world.holder().is_some());
        let at = world.drained();
        world.check_acknowledged(at);
        let rest = world.prng.below(100);
        world.load(at, millis(rest));
    }
    world.wait("one holder in sync", 20 * SECOND, |world| {
        world.holder().is_some_and(|at| world.is_in_sync(at))
    });
    let at = world.holder().expect("just seen");
    settle(&mut world, at);
}

/// The holder's thread is stopped in the middle of a turn, whose time it has; what it finds when it goes on came long after. Another
/// thread, which takes the hosts' commands, is at work again before it.
#[test]
fn a_holder_that_is_stopped_in_the_middle_of_a_turn_answers_nothing_old() {
    let mut world = World::new(610, ArbiterKind::Etcd);
    world.create();
    world.load(0, millis(100));
    world.drain();
    let then = world.now;
    let sleeper = world.pause(0);
    world.wait("takeover", 10 * SECOND, |world| world.is_holder(1));
    world.load(1, SECOND);
    world.drain();
    world.resume(0, sleeper);
    for block in 0..16 {
        world.read(0, block * 5);
    }
    world.end_turn(0, then);
    world.run(5 * SECOND);
    settle(&mut world, 1);
}

/// Whoever was told that the peer went on does not believe an arbiter that has not heard of it any more.
#[test]
fn a_node_that_heard_of_its_peers_service_does_not_believe_an_older_arbiter() {
    let mut world = World::new(613, ArbiterKind::Etcd);
    world.create();
    world.load(0, millis(50));
    world.drain();
    let backup = world.arbiter.record;
    world.kill(0);
    world.wait("takeover", 20 * SECOND, |world| world.is_holder(1));
    world.load(1, millis(50));
    world.drain();
    // Its leg is not told anything.
    world.cut();
    world.start(0);
    world.wait("the arbiter's word", 10 * SECOND, |world| world.status(0).role == RoleKind::Standby);
    let right = core::mem::replace(&mut world.arbiter.record, backup);
    world.run(10 * SECOND);
    assert!(world.is_holder(1) && !world.is_holder(0), "{}", world.describe());
    world.arbiter.record = right;
    world.heal();
    world.load(1, SECOND);
    settle(&mut world, 1);
}

/// What the operator has taken back does not come to pass when the arbiter answers at last.
#[test]
fn a_promotion_that_was_taken_back_is_not_made() {
    let mut world = World::new(614, ArbiterKind::Etcd);
    world.create();
    world.load(0, millis(50));
    world.drain();
    world.kill(0);
    world.arbiter.reach[1] = false;
    world.run(SECOND);
    world.command(1, FORCE).expect("the arbiter is asked first");
    world.command(1, Command::Demote(Demotion::AtOnce)).expect("it stands by as it did");
    world.arbiter.reach[1] = true;
    world.run(millis(1500));
    let events = world.status(1).events;
    assert!(!events.iter().any(|event| event.kind.reason().starts_with("forced")), "{events:?}");
}

/// Both nodes have died, in sync.
fn both_down(seed: u64) -> World {
    let mut world = arbitrated(seed);
    world.load(0, millis(20));
    world.drain();
    world.kill(1);
    world.kill(0);
    world
}

/// The arbiter is asked while the node looks for its peer. What it says then is no answer to the holder that the node is by the time.
#[test]
fn a_start_without_the_peer_raises_no_alarm() {
    for seed in 340..350 {
        let mut world = both_down(seed);
        world.arbiter.delay = millis(40 * (seed - 340));
        world.start(0);
        world.wait("service", 10 * SECOND, |world| world.is_holder(0));
        world.run(SECOND);
        let events = world.status(0).events;
        assert!(!events.iter().any(|event| event.kind.code().starts_with("arbiter-")), "{seed}: {events:?}");
    }
}

/// The question of a hold is on its way when the operator takes the node out of service.
#[test]
fn an_answer_does_not_undo_a_demotion() {
    for seed in 380..400 {
        let mut world = both_down(seed);
        world.start(0);
        let asks = |world: &World| world.status(0).role == RoleKind::Holding && world.arbiter.is_asked();
        world.wait("a question", SECOND, asks);
        world.run(core::time::Duration::from_micros(100 * (seed - 380)));
        world.command(0, Command::Demote(Demotion::AtOnce)).expect("it stands by");
        world.run(5 * SECOND);
        assert_eq!(world.status(0).role, RoleKind::Standby, "{seed}: {}", world.describe());
        world.start(1);
        world
            .command(0, Command::Promote { mode: PromoteMode::Ordinary, holder: HolderState::Unknown })
            .expect("it is counted");
        world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    }
}
