//! Every combination of facts has exactly one answer, and the answers that matter are these.

use uuid::Uuid;

use super::*;
use crate::format::tests::example_create;
use crate::format::{
    Access, ArbiterKind, Config, Copy, Features, History, LegFlags, LegIndex, LegMask, LegState, Reason,
    RunState, Superblock,
};
use crate::probe::{FoundLeg, LegFound, ProbeError};

/// The two superblocks of a pair that runs with both legs in sync in generation 2.
fn pair() -> (Superblock, Superblock) {
    let mut ours = example_create(LegIndex::Zero).founder(1);
    let mut theirs = example_create(LegIndex::One).joiner();
    let both =
        ours.config().successor(2, LegIndex::Zero, LegMask::both(), Reason::Rejoined).expect("some left");
    ours.history.push(both);
    theirs.history = ours.history;
    theirs.legs[1].state = LegState::InSync;
    theirs.legs[1].tracked_since = 2;
    theirs.legs[0] = *ours.own();
    ours.legs[1] = *theirs.own();
    (ours, theirs)
}

fn push(superblock: &mut Superblock, nonce: u64, mask: LegMask, reason: Reason) {
    let index = superblock.index;
    let next = superblock.config().successor(nonce, index, mask, reason).expect("some left");
    superblock.history.push(next);
}

fn found(superblock: &Superblock) -> LegFound {
    let (superblock, access) = (superblock.clone(), superblock.features.access());
    LegFound::Leg(Box::new(FoundLeg { newest: superblock.seq, superblock, from: Copy::Slot0, access }))
}

fn on(ours: &Superblock, theirs: &Superblock) -> PeerVerdict {
    on_peer(ours, &found(theirs))
}

#[test]
fn a_peer_with_the_same_config_is_a_member_unless_it_lost_something() {
    let (mut ours, theirs) = pair();
    assert_eq!(on(&ours, &theirs), PeerVerdict::Member);
    let mut rebooted = theirs.clone();
    rebooted.legs[1].incarnation = Uuid::from_u128(0xb008);
    assert_eq!(on(&ours, &rebooted), PeerVerdict::Resync(SyncPlan::Delta), "its cache is gone");
    rebooted.legs[1].flags = LegFlags::empty();
    assert_eq!(on(&ours, &rebooted), PeerVerdict::Member, "it has no volatile cache");
    ours.legs[1].seen_seq = theirs.seq + 1;
    assert_eq!(on(&ours, &theirs), PeerVerdict::Resync(SyncPlan::Full(FullReason::Reverted)));
    let access = theirs.features.access();
    let newest = theirs.seq + 1;
    let rotten = FoundLeg { superblock: theirs, from: Copy::Slot0, newest, access };
    let verdict = on_peer(&ours, &LegFound::Leg(Box::new(rotten)));
    assert_eq!(verdict, PeerVerdict::Member, "its newest superblock is damaged: it need not be older");
}

/// A start counts the peer and crashes before it tells it: nothing was acknowledged without it.
#[test]
fn a_peer_that_has_not_heard_of_configs_that_count_it_is_a_member() {
    let (mut ours, theirs) = pair();
    push(&mut ours, 3, LegMask::ONE, Reason::Restarted);
    push(&mut ours, 4, LegMask::both(), Reason::Restarted);
    assert_eq!(on(&ours, &theirs), PeerVerdict::Member);
    let mut rebooted = theirs.clone();
    rebooted.legs[1].incarnation = Uuid::from_u128(0xb008);
    assert_eq!(on(&ours, &rebooted), PeerVerdict::Resync(SyncPlan::Delta), "its cache is gone");
    push(&mut ours, 5, LegMask::ZERO, Reason::LinkLost);
    push(&mut ours, 6, LegMask::both(), Reason::Rejoined);
    assert_eq!(on(&ours, &theirs), PeerVerdict::Resync(SyncPlan::Delta), "one was without it");
    // It was being brought in sync when it last heard of us.
    let (mut ours, mut theirs) = pair();
    push(&mut ours, 3, LegMask::ZERO, Reason::LinkLost);
    theirs.history = ours.history;
    push(&mut ours, 4, LegMask::both(), Reason::Rejoined);
    assert_eq!(on(&ours, &theirs), PeerVerdict::Resync(SyncPlan::Delta));
}

#[test]
fn a_peer_left_behind_gets_a_delta_if_everything_was_tracked() {
    let (mut ours, theirs) = pair();
    push(&mut ours, 3, LegMask::ZERO, Reason::LinkLost);
    push(&mut ours, 4, LegMask::ZERO, Reason::Restarted);
    assert_eq!(on(&ours, &theirs), PeerVerdict::Resync(SyncPlan::Delta));
    ours.legs[1].tracked_since = 3;
    assert_eq!(on(&ours, &theirs), PeerVerdict::Resync(SyncPlan::Full(FullReason::Reverted)));
    ours.legs[1].tracked_since = 0;
    assert_eq!(on(&ours, &theirs), PeerVerdict::Resync(SyncPlan::Full(FullReason::NotTracked)));
    ours.legs[1].uuid = Uuid::from_u128(4);
    assert_eq!(on(&ours, &theirs), PeerVerdict::Resync(SyncPlan::Full(FullReason::Replaced)));
}

#[test]
fn a_new_leg_needs_everything_unless_both_were_zero() {
    let ours = example_create(LegIndex::Zero).founder(1);
    let mut theirs = example_create(LegIndex::One).joiner();
    assert_eq!(on(&ours, &theirs), PeerVerdict::Resync(SyncPlan::Delta));
    theirs.legs[1].flags.remove(LegFlags::ZEROED);
    assert_eq!(on(&ours, &theirs), PeerVerdict::Resync(SyncPlan::Full(FullReason::NewLeg)));
    let (ours, _) = pair();
    let mut replacement = example_create(LegIndex::One).joiner();
    replacement.leg = Uuid::from_u128(0x77);
    assert_eq!(on(&ours, &replacement), PeerVerdict::Resync(SyncPlan::Full(FullReason::Replaced)));
}

#[test]
fn newer_diverged_and_unprovable_peers_are_not_touched() {
    let (ours, theirs) = pair();
    let mut newer = theirs.clone();
    push(&mut newer, 9, LegMask::ONE, Reason::Promoted);
    assert_eq!(on(&ours, &newer), PeerVerdict::StepDown { newer: *newer.config() });
    let mut alone = ours.clone();
    push(&mut alone, 8, LegMask::ZERO, Reason::LinkLost);
    let shared = Some(ours.config().id);
    assert_eq!(on(&alone, &newer), PeerVerdict::Split { last_shared: shared });
    for nonce in 0..40 {
        push(&mut alone, 100 + nonce, LegMask::both(), Reason::Rejoined);
    }
    assert_eq!(on(&alone, &theirs), PeerVerdict::Refuse(Refusal::Unprovable));
}

#[test]
fn legs_that_are_not_the_peers_are_refused() {
    let (ours, theirs) = pair();
    let refused = |change: &dyn Fn(&mut Superblock)| {
        let mut theirs = theirs.clone();
        change(&mut theirs);
        match on(&ours, &theirs) {
            PeerVerdict::Refuse(refusal) => refusal,
            verdict => panic!("{verdict:?}"),
        }
    };
    assert_eq!(refused(&|theirs| theirs.leg = ours.leg), Refusal::Clone);
    assert_eq!(refused(&|theirs| theirs.index = LegIndex::Zero), Refusal::SamePlace);
    assert_eq!(refused(&|theirs| theirs.layout.data_size -= 4096), Refusal::Geometry);
    assert_eq!(refused(&|theirs| theirs.features.ro_compat = 2), Refusal::ReadOnly { ro_compat: 2 });
    let other = Uuid::from_u128(5);
    let error = ProbeError::OtherArray { array: other, name: "example".into(), expected: ours.array };
    assert_eq!(refused(&|theirs| theirs.array = other), Refusal::Probe(error));
    assert_eq!(on_peer(&ours, &LegFound::Blank), PeerVerdict::Refuse(Refusal::Blank));
    let torn = LegFound::Refused(ProbeError::Torn { tail: None });
    assert!(matches!(on_peer(&ours, &torn), PeerVerdict::Refuse(Refusal::Probe(_))));
    let nobody = example_create(LegIndex::Zero).joiner();
    assert_eq!(on(&nobody, &example_create(LegIndex::One).joiner()), PeerVerdict::Refuse(Refusal::NoData));
}

/// Every combination of: who holds, who is in sync, what the peer is to us, clean or not, caches,
/// differences, policy.
#[test]
fn a_start_never_serves_what_may_be_old() {
    let mut combinations = 0;
    for holder in LegIndex::BOTH {
        for in_sync in [LegMask::ZERO, LegMask::ONE, LegMask::both()] {
            for case in PEER_CASES {
                for bits in 0..128_u32 {
                    check_start(holder, in_sync, case, bits);
                    combinations += 1;
                }
            }
        }
    }
    assert_eq!(combinations, 2 * 3 * 6 * 128);
}

/// The holder's own leg was set back while it was down: its peer's remembers a newer superblock of it.
#[test]
fn a_holder_whose_leg_was_set_back_takes_everything_from_its_peer_or_holds() {
    let (mut own, mut theirs) = pair();
    push(&mut own, 5, LegMask::both(), Reason::Restarted);
    theirs.history = own.history;
    theirs.legs[0].seen_seq = own.seq + 1;
    let start = |own: &Superblock, theirs: &Superblock, degraded| {
        let peer = found(theirs);
        let (incarnation, peer) = (own.own().incarnation, PeerSight::Seen(&peer));
        let (age, differences) = (LegAge::AsWritten, Differences::None);
        on_start(&StartFacts { own, age, incarnation, differences, peer, degraded })
    };
    let whole = StartVerdict::Serve(Starting::FromPeer(SyncPlan::Full(FullReason::Reverted)));
    assert_eq!(start(&own, &theirs, DegradedStart::Withheld), whole);
    assert_eq!(start(&own, &theirs, DegradedStart::Allowed), whole, "nothing is lost");
    let mut another = own.clone();
    another.leg = Uuid::from_u128(0xdead);
    assert_ne!(start(&another, &theirs, DegradedStart::Withheld), whole, "the number is another leg's");
    // The peer's leg is out: nobody has what is missing.
    push(&mut own, 6, LegMask::ZERO, Reason::LinkLost);
    let held = StartVerdict::Hold(HoldReason::SetBack);
    for degraded in [DegradedStart::Withheld, DegradedStart::Arbitrated] {
        assert_eq!(start(&own, &theirs, degraded), held);
    }
    let served = StartVerdict::Serve(Starting::Alone);
    assert_eq!(start(&own, &theirs, DegradedStart::Allowed), served, "the operator accepts it");
    let served = StartVerdict::Serve(Starting::Resync(SyncPlan::Delta));
    theirs.legs[0].seen_seq = own.seq;
    assert_eq!(start(&own, &theirs, DegradedStart::Withheld), served);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerCase {
    Unseen,
    Blank,
    Equal,
    Behind,
    Ahead,
    Split,
}

const PEER_CASES: [PeerCase; 6] =
    [PeerCase::Unseen, PeerCase::Blank, PeerCase::Equal, PeerCase::Behind, PeerCase::Ahead, PeerCase::Split];

fn check_start(holder: LegIndex, in_sync: LegMask, case: PeerCase, bits: u32) {
    let is = |bit: u32| bits >> bit & 1 == 1;
    let (clean, our_cache_lost, their_cache_lost, differences, allowed) = (is(0), is(1), is(2), is(3), is(4));
    let (cached, arbitrated) = (is(5) && !clean, is(6) && !allowed);
    let (mut own, mut theirs) = pair();
    let before = own.history;
    let config = own.config().successor(5, holder, in_sync, Reason::Restarted).expect("some left");
    own.history.push(config);
    theirs.history = if case == PeerCase::Behind { before } else { own.history };
    if matches!(case, PeerCase::Ahead | PeerCase::Split) {
        push(&mut theirs, 6, LegMask::ONE, Reason::Promoted);
    }
    if case == PeerCase::Split {
        push(&mut own, 7, in_sync, Reason::Restarted);
        let config = Config { holder, ..*own.config() };
        own.history = before;
        own.history.push(config);
    }
    own.run_state = if clean { RunState::Clean } else { RunState::Running };
    if cached {
        own.run_state = RunState::Cached;
    }
    theirs.run_state = own.run_state;
    if their_cache_lost {
        theirs.legs[1].incarnation = Uuid::from_u128(1);
    }
    let peer = if case == PeerCase::Blank { LegFound::Blank } else { found(&theirs) };
    let verdict = on_start(&StartFacts {
        own: &own,
        age: LegAge::AsWritten,
        incarnation: if our_cache_lost { Uuid::from_u128(2) } else { own.own().incarnation },
        differences: if differences { Differences::Possible } else { Differences::None },
        peer: if case == PeerCase::Unseen { PeerSight::Unseen } else { PeerSight::Seen(&peer) },
        degraded: match (allowed, arbitrated) {
            (true, _) => DegradedStart::Allowed,
            (_, true) => DegradedStart::Arbitrated,
            _ => DegradedStart::Withheld,
        },
    });
    let told = format!("{holder:?} {in_sync:?} {case:?} {bits:07b}: {verdict:?}");
    if holder != own.index {
        return assert_eq!(verdict, StartVerdict::Standby(StandbyReason::PeerHolds), "{told}");
    }
    let (ours_in, theirs_in) = (in_sync.has(LegIndex::Zero), in_sync.has(LegIndex::One));
    match (case, verdict) {
        (PeerCase::Ahead, StartVerdict::Standby(StandbyReason::PeerIsNewer { .. })) => {}
        (PeerCase::Split, StartVerdict::Hold(HoldReason::Split { .. })) => {}
        (PeerCase::Unseen | PeerCase::Blank, StartVerdict::Serve(Starting::Alone)) => {
            let whole = !(our_cache_lost && cached);
            assert!(ours_in && (allowed || !theirs_in || arbitrated && whole), "{told}");
        }
        (PeerCase::Unseen | PeerCase::Blank, StartVerdict::Hold(HoldReason::CacheLost)) => {
            assert!(theirs_in && arbitrated && our_cache_lost && cached, "{told}");
        }
        (PeerCase::Unseen | PeerCase::Blank, StartVerdict::Hold(HoldReason::OwnLegExcluded)) => {
            assert!(!ours_in, "{told}");
        }
        (PeerCase::Unseen, StartVerdict::Hold(HoldReason::PeerUnseen))
        | (PeerCase::Blank, StartVerdict::Hold(HoldReason::PeerRefused(Refusal::Blank))) => {
            assert!(theirs_in && !allowed && !arbitrated, "{told}");
        }
        (PeerCase::Equal, StartVerdict::Serve(Starting::Both)) => {
            assert!(ours_in && theirs_in && clean && !differences && !their_cache_lost, "{told}");
        }
        (PeerCase::Equal | PeerCase::Behind, StartVerdict::Serve(Starting::FromPeer(plan))) => {
            // The only leg that counts is believed whatever its cache lost.
            assert!(theirs_in && (!ours_in || our_cache_lost && !their_cache_lost && !clean), "{told}");
            assert_eq!(plan == SyncPlan::Delta, ours_in, "nothing tracks a leg that is out: {told}");
        }
        (PeerCase::Behind, StartVerdict::Serve(Starting::Resync(SyncPlan::Delta))) if !theirs_in => {
            assert!(ours_in, "{told}");
        }
        (PeerCase::Equal | PeerCase::Behind, StartVerdict::Serve(Starting::Resync(SyncPlan::Delta))) => {
            assert!(ours_in, "{told}");
            let survivor = theirs_in && our_cache_lost && !their_cache_lost && !clean;
            assert!(!survivor, "the peer has what our cache lost: {told}");
        }
        _ => panic!("{told}"),
    }
}

#[test]
fn newcomers_and_split_legs_do_not_start() {
    let joiner = example_create(LegIndex::One).joiner();
    let facts = |own| StartFacts {
        own,
        age: LegAge::AsWritten,
        incarnation: Uuid::nil(),
        differences: Differences::None,
        peer: PeerSight::Unseen,
        degraded: DegradedStart::Allowed,
    };
    assert_eq!(on_start(&facts(&joiner)), StartVerdict::Standby(StandbyReason::Joining));
    let (mut split, _) = pair();
    split.legs[0].state = LegState::Split;
    assert!(matches!(on_start(&facts(&split)), StartVerdict::Hold(HoldReason::Split { .. })));
}

/// A peer that has diverged keeps the holder from serving, unless the arbiter has gone on with this leg alone.
#[test]
fn the_side_that_the_arbiter_has_serves_beside_one_that_has_diverged() {
    let serves = |arbiter, in_sync, their_configs: u64, degraded, age, fenced_by: LegIndex| {
        let (mut own, mut theirs) = pair();
        own.arbiter = arbiter;
        own.fence.node = fenced_by.number();
        theirs.history = own.history;
        (0..their_configs).for_each(|more| push(&mut theirs, 20 + more, LegMask::ONE, Reason::Promoted));
        (0..2).for_each(|more| push(&mut own, 10 + more, in_sync, Reason::LinkLost));
        let peer = found(&theirs);
        let verdict = on_start(&StartFacts {
            own: &own,
            age,
            incarnation: own.own().incarnation,
            differences: Differences::None,
            peer: PeerSight::Seen(&peer),
            degraded,
        });
        match verdict {
            StartVerdict::Serve(Starting::Alone) => true,
            StartVerdict::Hold(HoldReason::Split { .. }) => false,
            other => panic!("{other:?}"),
        }
    };
    let (alone, sure, whole) = (LegMask::ZERO, DegradedStart::Arbitrated, LegAge::AsWritten);
    for (degraded, wanted) in [(DegradedStart::Withheld, false), (sure, true), (DegradedStart::Allowed, true)]
    {
        assert_eq!(
            serves(ArbiterKind::Etcd, alone, 1, degraded, whole, LegIndex::Zero),
            wanted,
            "{degraded:?}"
        );
        for arbiter in [ArbiterKind::Biased, ArbiterKind::Manual, ArbiterKind::ClusterManager] {
            assert!(!serves(arbiter, alone, 1, degraded, whole, LegIndex::Zero), "{arbiter:?} {degraded:?}");
        }
    }
    assert!(
        !serves(ArbiterKind::Etcd, alone, 2, sure, whole, LegIndex::Zero),
        "the arbiter does not know of that"
    );
    assert!(!serves(ArbiterKind::Etcd, LegMask::both(), 1, sure, whole, LegIndex::Zero));
    assert!(!serves(ArbiterKind::Etcd, alone, 1, sure, LegAge::SetBack, LegIndex::Zero));
    assert!(!serves(ArbiterKind::Etcd, alone, 1, sure, whole, LegIndex::One), "that may copy to it now");
}

/// Every combination of leg state, config, mode, session and what the operator says.
#[test]
fn a_promotion_without_force_serves_everything_acknowledged() {
    let mut granted = 0;
    for state in LegState::ALL {
        for holder in LegIndex::BOTH {
            for in_sync in [LegMask::ZERO, LegMask::ONE, LegMask::both()] {
                for mode in [PromoteMode::Ordinary, PromoteMode::Forced] {
                    for session in [HolderSession::Alive, HolderSession::Absent] {
                        for says in [HolderState::Unknown, HolderState::ConfirmedDown] {
                            granted += check_promotion(state, (holder, in_sync), mode, (session, says));
                        }
                    }
                }
            }
        }
    }
    // In sync by state and config, the other holds: 2 configs, less the one of 4 session cases that is
    // refused.
    assert_eq!(granted, 2 * 3);
}

fn check_promotion(
    state: LegState,
    (holder, in_sync): (LegIndex, LegMask),
    mode: PromoteMode,
    (session, says): (HolderSession, HolderState),
) -> usize {
    let (mut own, _) = pair();
    let config = own.config().successor(5, holder, in_sync, Reason::Restarted).expect("some left");
    own.history.push(config);
    own.legs[0].state = state;
    own.fence.generation = 7;
    let verdict = may_promote(&own, &Standing::Current, mode, session, says);
    let told = format!("{state:?} {config:?} {mode:?} {session:?} {says:?}: {verdict:?}");
    let at_work = session == HolderSession::Alive && says == HolderState::Unknown;
    let current = state == LegState::InSync && in_sync.has(LegIndex::Zero);
    match (mode, verdict) {
        (PromoteMode::Ordinary, Ok(promotion)) => {
            assert!(current && !at_work && holder != own.index, "{told}");
            assert_eq!(promotion, Promotion { generation: 8, data: DataAge::Current });
            return 1;
        }
        (PromoteMode::Forced, Ok(promotion)) => {
            assert!(!at_work && !matches!(state, LegState::Spare | LegState::Joining), "{told}");
            assert!(promotion.generation > 1 << 32, "{told}");
            assert_eq!(promotion.data == DataAge::Current, current, "{told}");
            assert_eq!(promotion.data == DataAge::Mixed, state == LegState::Syncing, "{told}");
        }
        (_, Err(PromoteRefusal::NoData)) => assert!(matches!(state, LegState::Spare | LegState::Joining)),
        (_, Err(PromoteRefusal::HolderAlive)) => assert!(at_work, "{told}"),
        (PromoteMode::Ordinary, Err(PromoteRefusal::AlreadyHolder)) => {
            assert_eq!(holder, own.index, "{told}");
        }
        (PromoteMode::Ordinary, Err(PromoteRefusal::NotInSync)) => assert!(!current, "{told}"),
        (PromoteMode::Ordinary, Err(PromoteRefusal::Split)) => assert_eq!(state, LegState::Split, "{told}"),
        _ => panic!("{told}"),
    }
    0
}

#[test]
fn a_newcomer_is_never_promoted_and_generations_end() {
    let joiner = example_create(LegIndex::One).joiner();
    let promoted = |own, mode| {
        may_promote(own, &Standing::Current, mode, HolderSession::Absent, HolderState::ConfirmedDown)
    };
    assert_eq!(promoted(&joiner, PromoteMode::Forced), Err(PromoteRefusal::NoData));
    let (_, mut theirs) = pair();
    theirs.fence.generation = crate::format::config::GENERATION_MAX;
    assert_eq!(promoted(&theirs, PromoteMode::Ordinary), Err(PromoteRefusal::GenerationsExhausted));
}

#[test]
fn refused_access_is_refused_by_whatever_way_it_comes() {
    let (ours, theirs) = pair();
    let access = Access::Refused { incompat: 1 };
    let leg = FoundLeg { newest: theirs.seq, superblock: theirs, from: Copy::Tail, access };
    let verdict = on_peer(&ours, &LegFound::Leg(Box::new(leg)));
    assert!(matches!(verdict, PeerVerdict::Refuse(Refusal::Probe(ProbeError::Unusable(_)))));
    assert_eq!(Features::default().access(), Access::Full);
    assert_eq!(History::new(*ours.config()).entries().len(), 1);
}

/// What the own leg misses is tracked while it counts, and while it is brought in sync; a config without it ends that.
#[test]
fn an_own_leg_that_was_out_is_copied_in_full() {
    for in_sync in [LegMask::ONE, LegMask::both()] {
        for state in LegState::ALL.into_iter().filter(|state| *state != LegState::Split) {
            for tracked in [0, 2] {
                let (mut own, mut theirs) = pair();
                push(&mut own, 5, in_sync, Reason::Restarted);
                theirs.history = own.history;
                (own.run_state, own.legs[0].state, own.legs[0].tracked_since) =
                    (RunState::Running, state, tracked);
                let peer = found(&theirs);
                let verdict = on_start(&StartFacts {
                    own: &own,
                    age: LegAge::AsWritten,
                    incarnation: Uuid::from_u128(2),
                    differences: Differences::Possible,
                    peer: PeerSight::Seen(&peer),
                    degraded: DegradedStart::Withheld,
                });
                let kept = tracked != 0 && (in_sync == LegMask::both() || state == LegState::Syncing);
                let plan = if kept { SyncPlan::Delta } else { SyncPlan::Full(FullReason::NotTracked) };
                assert_eq!(verdict, StartVerdict::Serve(Starting::FromPeer(plan)), "{in_sync:?} {state:?}");
            }
        }
    }
}

/// The arbiter may count a leg that its own superblock does not: one that is being copied to.
#[test]
fn a_leg_that_is_not_what_was_counted_does_not_serve_alone() {
    for state in LegState::ALL.into_iter().filter(|state| *state != LegState::Split) {
        for degraded in [DegradedStart::Withheld, DegradedStart::Arbitrated, DegradedStart::Allowed] {
            let (mut own, _) = pair();
            push(&mut own, 5, LegMask::ZERO, Reason::ForcePromoted);
            own.legs[0].state = state;
            let verdict = on_start(&StartFacts {
                own: &own,
                age: LegAge::AsWritten,
                incarnation: own.legs[0].incarnation,
                differences: Differences::Possible,
                peer: PeerSight::Unseen,
                degraded,
            });
            let wanted = match state {
                LegState::Syncing => StartVerdict::Hold(HoldReason::OwnLegExcluded),
                _ => StartVerdict::Serve(Starting::Alone),
            };
            assert_eq!(verdict, wanted, "{state:?} {degraded:?}");
        }
    }
}

/// What was decided on is looked at once more behind the fence.
#[test]
fn the_second_look_tells_whether_the_leg_is_what_it_was() {
    let (_, theirs) = pair();
    let look = |now: &Superblock| on_second_look(&theirs, &found(now));
    assert_eq!(look(&theirs), SecondLook::Same);
    let mut on = theirs.clone();
    push(&mut on, 6, LegMask::ONE, Reason::LinkLost);
    assert_eq!(look(&on), SecondLook::WentOn);
    let other = Superblock { leg: Uuid::from_u128(99), ..theirs.clone() };
    assert_eq!(look(&other), SecondLook::Other);
    assert_eq!(on_second_look(&theirs, &LegFound::Blank), SecondLook::Other);
}

/// The peer's leg was out and came back, and this node's has not heard of it: what it missed is on the peer's.
#[test]
fn a_leg_that_missed_its_peers_return_serves_alone_by_command_only() {
    let (own, _) = pair();
    let next = |of: &Config, in_sync, reason| {
        of.successor(of.id.nonce + 1, LegIndex::Zero, in_sync, reason).expect("some left")
    };
    let alone = next(own.config(), LegMask::ZERO, Reason::LinkLost);
    let again = next(&alone, LegMask::both(), Reason::Rejoined);
    let last = next(&again, LegMask::ZERO, Reason::LinkLost);
    let line = |newest_first: &[Config]| {
        Standing::Behind(Box::new(History::from_stored(newest_first, true).expect("falling generations")))
    };
    let both = *own.config();
    let behind = [line(&[again, alone, both]), line(&[last, again, alone, both])];
    let mut member = pair().1;
    [alone, again].into_iter().for_each(|config| member.history.push(config));
    let blank = found(&example_create(LegIndex::One).joiner());
    let start = |standing, peer, degraded| {
        on_start(&StartFacts {
            own: &informed(&own, standing),
            age: LegAge::of(&own, standing),
            incarnation: own.legs[0].incarnation,
            differences: Differences::None,
            peer,
            degraded,
        })
    };
    for standing in &behind {
        assert_eq!(LegAge::of(&own, standing), LegAge::SetBack);
        for degraded in [DegradedStart::Withheld, DegradedStart::Arbitrated] {
            let verdict = start(standing, PeerSight::Seen(&blank), degraded);
            assert_eq!(verdict, StartVerdict::Hold(HoldReason::SetBack), "a newcomer has nothing");
        }
        let verdict = start(standing, PeerSight::Seen(&blank), DegradedStart::Allowed);
        assert_eq!(verdict, StartVerdict::Serve(Starting::Alone));
        for degraded in [DegradedStart::Withheld, DegradedStart::Arbitrated, DegradedStart::Allowed] {
            let wanted = match degraded {
                DegradedStart::Allowed => StartVerdict::Serve(Starting::Alone),
                _ => StartVerdict::Hold(HoldReason::SetBackAlone),
            };
            let verdict = start(standing, PeerSight::Unseen, degraded);
            assert_eq!(verdict, wanted, "{standing:?} {degraded:?}");
        }
    }
    let member = found(&member);
    let verdict = start(&behind[0], PeerSight::Seen(&member), DegradedStart::Withheld);
    let whole = StartVerdict::Serve(Starting::FromPeer(SyncPlan::Full(FullReason::Reverted)));
    assert_eq!(verdict, whole, "the peer's leg has it");
    assert_eq!(LegAge::of(&own, &line(&[alone, both])), LegAge::AsWritten, "it died on the way");
    assert_eq!(LegAge::of(&own, &Standing::Current), LegAge::AsWritten);
}
