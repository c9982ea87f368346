//! Two data sets: what the legs' own metadata say of their difference, and how one of them is given up.

use bdev::{Op, StateHealth};
use mirror::command::{Command, Overwrite, Refusal};
use mirror::decide::{DataAge, HolderState, PromoteMode, PromoteRefusal, StandbyReason, SyncPlan};
use mirror::events::Codes;
use mirror::format::{ArbiterKind, ConfigId};
use mirror::range::ByteRange;
use mirror::split::{Author, Comparison, Kinship, Survey, side_by_side, survey};
use mirror::status::{PeerSight, RoleKind};

use super::unit_state::{Front, Keeper, found};
use super::world::{ARRAY, LEG_BYTES, World};
use super::{FORCE, PROMOTE, SECOND, millis, pair, settle};

fn surveyed(world: &World, index: usize) -> Survey {
    let size = |bytes: u64| usize::try_from(bytes).expect("small");
    let read = |range: ByteRange| {
        Ok::<_, core::convert::Infallible>(world.disks[index].peek(size(range.start), size(range.len)))
    };
    survey(LEG_BYTES as u64, Some(ARRAY), read).expect("a leg")
}

/// Every byte in which the legs differ is in the comparison.
fn compared(world: &World) -> Comparison {
    let found = side_by_side(&surveyed(world, 0), &surveyed(world, 1)).expect("a pair");
    let (a, b) = (world.data(0), world.data(1));
    let mut at = 0;
    for difference in &found.differences {
        let start = usize::try_from(difference.range.start).expect("small");
        assert!(a[at..start] == b[at..start], "before {difference:?}: {}", world.describe());
        at = usize::try_from(difference.range.end()).expect("small");
    }
    assert!(a[at..] == b[at..], "behind the last difference: {}", world.describe());
    found
}

/// Node 1 is promoted by force, and writes elsewhere than node 0 did. What was acknowledged before and since is given up.
fn promote_by_force(world: &mut World) {
    world.command(1, FORCE).expect("the operator's word");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(1));
    world.give_up();
    world.base = 100;
    world.load(1, millis(100));
    world.drain();
    world.give_up();
}

/// The link is cut, node 0 goes on, node 1 is promoted by force; both write.
fn tear_apart(world: &mut World) {
    world.spread = 24;
    world.load(0, millis(50));
    world.drain();
    world.cut();
    world.load(0, 2 * SECOND);
    world.drain();
    promote_by_force(world);
}

/// A pair to which that has happened. Then they see each other.
fn torn_apart(seed: u64, policy: ArbiterKind) -> World {
    let mut world = if policy == ArbiterKind::Biased { pair(seed) } else { World::new(seed, policy) };
    if policy != ArbiterKind::Biased {
        world.create();
    }
    tear_apart(&mut world);
    world
}

fn tip(world: &World, index: usize) -> ConfigId {
    world.status(index).config.expect("one").id
}

/// Both see each other; what the holder sees of the other one.
pub(crate) fn meet(world: &mut World, holder: usize) -> ConfigId {
    world.heal();
    world.wait("a split", 5 * SECOND, |world| {
        world.status(holder).peer.is_some_and(|peer| peer.diverged.is_some())
    });
    let seen = world.status(holder).peer.and_then(|peer| peer.diverged).expect("just seen");
    assert_eq!(seen, tip(world, 1 - holder));
    seen
}

/// The arbiter's config was made without what a node has: that one knows it before it has seen the other leg.
#[test]
fn a_node_whose_data_the_arbiters_config_left_out_goes_on_by_force_alone() {
    let mut world = torn_apart(830, ArbiterKind::Etcd);
    let forced = tip(&world, 1);
    world.kill(0);
    world.start(0);
    let stands_by = |world: &World| {
        let status = world.status(0);
        let why = StandbyReason::Diverged { newer: world.arbiter.config().expect("one") };
        status.role == RoleKind::Standby && status.reason.is_some_and(|reason| reason == why.to_string())
    };
    world.wait("the arbiter's word", 5 * SECOND, stands_by);
    world.kill(1);
    world.run(5 * SECOND);
    assert!(stands_by(&world), "{}", world.describe());
    assert_eq!(world.command(0, PROMOTE), Err(Refusal::Promote(PromoteRefusal::Split)));
    world.run(5 * SECOND);
    assert!(stands_by(&world), "{}", world.describe());
    let may =
        |mode| world.nodes[0].as_ref().expect("runs").driver.may_promote(mode, HolderState::ConfirmedDown);
    assert_eq!(may(PromoteMode::Ordinary), Err(Refusal::Promote(PromoteRefusal::Split)));
    assert_eq!(may(PromoteMode::Forced).map(|promotion| promotion.data), Ok(DataAge::Past));
    assert!(
        world
            .status(0)
            .events
            .iter()
            .any(|event| (event.kind.code(), event.kind.reason()) == ("split", "diverged"))
    );
    world.command(0, FORCE).expect("the operator's word");
    world.wait("promotion", 5 * SECOND, |world| world.is_holder(0));
    assert!(tip(&world, 0).generation > forced.generation, "{}", world.describe());
    world.start(1);
    let theirs = meet(&mut world, 0);
    resolve(&mut world, 0, theirs, Overwrite::Tracked).expect("it is there");
    world.load(0, millis(50));
    settle(&mut world, 0);
}

/// Both machines lose their power, and see each other before the arbiter answers.
fn both_start_again(world: &mut World) {
    world.power_off(0);
    world.power_off(1);
    world.heal();
    world.arbiter.reach = [false; 2];
    world.start(0);
    world.start(1);
    world.run(SECOND);
    world.arbiter.reach = [true; 2];
}

/// The one that was promoted by force is the holder by the arbiter's word, and alone: it goes on, and the other leg is kept as it is.
#[test]
fn the_side_that_the_arbiter_has_serves_after_both_have_lost_power() {
    let mut world = torn_apart(840, ArbiterKind::Etcd);
    both_start_again(&mut world);
    let kept = world.data(0);
    world.wait("service", 10 * SECOND, |world| world.is_holder(1));
    assert_eq!(world.status(0).role, RoleKind::Standby, "{}", world.describe());
    let theirs = meet(&mut world, 1);
    world.base = 200;
    world.load(1, millis(50));
    world.drain();
    assert!(world.data(0) == kept, "overwritten: {}", world.describe());
    resolve(&mut world, 1, theirs, Overwrite::Tracked).expect("it is there");
    settle(&mut world, 1);
}

/// The arbiter was restored from before the promotion by force, and names the other side: that one sees at its peer that it is old. What the
/// operator cannot do he is told, and what he can.
#[test]
fn a_side_that_an_older_arbiter_names_waits_for_the_operator() {
    let mut world = World::new(841, ArbiterKind::Etcd);
    world.create();
    world.spread = 24;
    world.load(0, millis(50));
    world.cut();
    world.load(0, 2 * SECOND);
    world.drain();
    let backup = world.arbiter.record;
    promote_by_force(&mut world);
    world.arbiter.record = backup;
    both_start_again(&mut world);
    let is_split =
        |event: &mirror::events::Event| (event.kind.code(), event.kind.reason()) == ("split", "split");
    world.wait("a split", 10 * SECOND, |world| world.status(0).events.iter().any(is_split));
    world.run(5 * SECOND);
    assert_eq!(world.status(0).role, RoleKind::Holding, "{}", world.describe());
    assert_eq!(world.command(0, Command::StartDegraded), Err(Refusal::Split));
    assert_eq!(world.command(0, PROMOTE), Err(Refusal::Split));
    world.run(5 * SECOND);
    assert!(world.holder().is_none(), "{}", world.describe());
    world.command(0, FORCE).expect("the operator's word");
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    let theirs = meet(&mut world, 0);
    resolve(&mut world, 0, theirs, Overwrite::Tracked).expect("it is there");
    world.load(0, millis(50));
    settle(&mut world, 0);
}

/// The word is given until the node has time for it.
pub(crate) fn resolve(
    world: &mut World,
    keeps: usize,
    theirs: ConfigId,
    how: Overwrite,
) -> Result<(), Refusal> {
    loop {
        match world.command(keeps, Command::ResolveSplit { theirs, how }) {
            Err(Refusal::Busy) => world.step(),
            done => return done,
        }
    }
}

#[test]
fn a_split_is_told_in_full_and_resolved_either_way() {
    for (seed, keeps) in [(800, 0), (801, 1), (802, 0), (803, 1)] {
        let mut world = torn_apart(seed, ArbiterKind::Biased);
        let found = compared(&world);
        let Kinship::Diverged(Some(_)) = found.kinship else { panic!("{found:#?}") };
        assert_eq!(found.plan, SyncPlan::Delta);
        for author in [Author::Zero, Author::One] {
            assert!(found.differences.iter().any(|one| one.author == author), "{author:?}: {found:#?}");
        }
        let theirs = meet(&mut world, keeps);
        // A word for something else than what is there overwrites nothing.
        let other = ConfigId { nonce: theirs.nonce ^ 1, ..theirs };
        assert_eq!(resolve(&mut world, keeps, other, Overwrite::Tracked), Err(Refusal::PeerMoved));
        world.base = 200;
        world.load(keeps, millis(50));
        resolve(&mut world, keeps, theirs, Overwrite::Tracked).expect("it is there");
        world.load(keeps, millis(300));
        settle(&mut world, keeps);
        assert!(!world.is_holder(1 - keeps));
        let copied = world.status(keeps).last_resync.expect("a resync").copied;
        let most: u64 = found.differences.iter().map(|one| one.range.len).sum();
        assert!(copied < 2 * most + (8 << 20) && copied < world.data(0).len() as u64, "{copied} of {most}");
        assert_eq!(compared(&world).kinship, Kinship::Same);
        assert_eq!(resolve(&mut world, keeps, theirs, Overwrite::Tracked), Err(Refusal::NotSplit));
    }
}

/// What the unit was told on the side that is given up was told under a larger generation: it does not come back.
#[test]
fn the_state_of_the_side_that_is_given_up_is_gone() {
    for (seed, how) in [(804, Overwrite::Tracked), (805, Overwrite::Everything)] {
        let mut world = pair(seed);
        let mut kept = Keeper::default();
        let mut front = Front::open(&world, 0);
        kept.load(&mut world, &mut front, SECOND);
        kept.store(&mut world, &mut front, SECOND);
        drop(front);
        tear_apart(&mut world);
        let mut front = Front::open(&world, 1);
        for _ in 0..3 {
            let mut from = world.core.pool().alloc(8).expect("frames");
            from.copy_from_slice(&99u64.to_le_bytes());
            let stored = front.run(&mut world, Op::StoreState { from: from.freeze() }, SECOND);
            stored.expect("an answer").1.expect("it serves");
        }
        drop(front);
        let theirs = meet(&mut world, 0);
        resolve(&mut world, 0, theirs, how).expect("it is there");
        settle(&mut world, 0);
        assert_eq!(world.state_on(0).content, world.state_on(1).content);
        world.kill(0);
        world.run(5 * SECOND);
        let promote = Command::Promote { mode: PromoteMode::Ordinary, holder: HolderState::ConfirmedDown };
        world.command(1, promote).expect("its holder is down");
        world.wait("service", 5 * SECOND, |world| world.is_holder(1));
        assert_eq!(found(&mut world, 1), (StateHealth::Whole, Some(1)), "{}", world.describe());
    }
}

#[test]
fn everything_is_copied_on_request() {
    let mut world = torn_apart(810, ArbiterKind::Biased);
    let theirs = meet(&mut world, 0);
    resolve(&mut world, 0, theirs, Overwrite::Everything).expect("it is there");
    settle(&mut world, 0);
    assert_eq!(world.status(0).last_resync.expect("a resync").copied, world.data(0).len() as u64);
}

/// Wherever it is cut off, the legs are as diverged as before, or the copy goes on; a word that is given again is good.
#[test]
fn a_resolution_that_is_cut_off_can_be_given_again() {
    let mut again = 0;
    for moment in 0..8_u64 {
        let mut world = torn_apart(820 + moment, ArbiterKind::Biased);
        let theirs = meet(&mut world, 0);
        resolve(&mut world, 0, theirs, Overwrite::Tracked).expect("it is there");
        for _ in 0..moment * 14 {
            world.step();
        }
        let victim = usize::try_from(moment % 2).expect("small");
        world.kill(victim);
        world.run(millis(200));
        world.start(victim);
        let state =
            |world: &World| (world.is_in_sync(0), world.status(0).peer.and_then(|peer| peer.diverged));
        if victim == 0 {
            // It was alone in its config: it serves again by itself.
            world.wait("service", 10 * SECOND, |world| world.is_holder(0));
        }
        world.wait("an end", 10 * SECOND, |world| matches!(state(world), (true, _) | (_, Some(_))));
        if let (false, Some(theirs)) = state(&world) {
            again += 1;
            resolve(&mut world, 0, theirs, Overwrite::Tracked).expect("as diverged as before");
        }
        settle(&mut world, 0);
    }
    assert!(again > 0, "no moment came before the peer's superblock was written");
}

/// With an arbiter the node that it knows serves alone; the other one keeps its data, and stops.
#[test]
fn a_forced_promotion_under_an_arbiter_is_a_split_that_one_node_serves() {
    for (seed, keeps) in [(840, 1), (841, 0)] {
        let mut world = torn_apart(seed, ArbiterKind::Etcd);
        let before = [0, 1].map(|index| world.data(index));
        let theirs = meet(&mut world, 1);
        world.wait("one holder", 5 * SECOND, |world| !world.is_holder(0));
        world.run(5 * SECOND);
        assert!(world.is_holder(1), "{}", world.describe());
        for (index, before) in before.iter().enumerate() {
            assert!(world.data(index) == *before, "leg {index} was overwritten: {}", world.describe());
        }
        let theirs = if keeps == 1 {
            theirs
        } else {
            // The other data set is chosen by promoting its node.
            world.command(0, FORCE).expect("by force");
            world.wait("promotion", 5 * SECOND, |world| world.is_holder(0) && !world.is_holder(1));
            meet(&mut world, 0)
        };
        resolve(&mut world, keeps, theirs, Overwrite::Tracked).expect("it is there");
        settle(&mut world, keeps);
    }
}

/// Nothing but the operator's word lets either data set go, whatever the legs' own metadata say of the one that was promoted:
/// its own superblock may have heard of the config that has it out, and what it holds is a mixture (I11).
fn forced_on_half_a_copy(seed: u64, policy: ArbiterKind, disk: OldDisk) {
    let mut world = World::new(seed, policy);
    world.create();
    world.spread = 24;
    world.load(0, millis(50));
    world.kill(1);
    if disk == OldDisk::Lost {
        world.replace_disk(1);
    }
    world.load(0, 2 * SECOND);
    world.drain();
    world.start(1);
    world.wait("a resync", 5 * SECOND, |world| {
        world.status(0).peer.is_some_and(|peer| peer.sight == PeerSight::Resync)
    });
    let kept = world.data(0);
    world.kill(0);
    world.run(SECOND);
    promote_by_force(&mut world);
    world.start(0);
    meet(&mut world, 1);
    world.run(5 * SECOND);
    assert!(world.data(0) == kept, "overwritten: {}", world.describe());
    // Also for whoever starts again beside it.
    world.kill(1);
    world.run(SECOND);
    world.start(1);
    world.run(5 * SECOND);
    assert!(world.data(0) == kept, "overwritten: {}", world.describe());
    if world.is_holder(1) {
        let theirs = meet(&mut world, 1);
        resolve(&mut world, 1, theirs, Overwrite::Tracked).expect("it is there");
        settle(&mut world, 1);
    }
}

/// What is at a node that comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OldDisk {
    Kept,
    Lost,
}

#[test]
fn a_half_copied_leg_that_is_promoted_by_force_is_a_split() {
    let policies = [ArbiterKind::Biased, ArbiterKind::Etcd];
    for (seed, policy) in (850..).zip(policies.into_iter().cycle()).take(4) {
        let disk = if seed < 852 { OldDisk::Kept } else { OldDisk::Lost };
        forced_on_half_a_copy(seed, policy, disk);
    }
}
