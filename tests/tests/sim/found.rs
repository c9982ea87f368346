//! Runs that once failed, each small enough to be read: what was broken, and under which faults it shows.

use core::time::Duration;

use gateway::{LunMode, StandbyMode};
use mirror::format::ArbiterKind;
use tests::sim::{Event, Fault, Load, Patience, Phase, Plan, Rot, Spoilt, Way, Who};

use super::clean;

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

pub(super) fn at(millis: u64, during: Option<Phase>, fault: Fault) -> Event {
    Event { at: ms(millis), during, fault }
}

pub(super) fn plan(seed: u64, policy: ArbiterKind, events: &[Event]) -> Plan {
    let load = Load {
        hosts: 2,
        readers: 0,
        depth: 4,
        think: ms(2),
        gap: ms(10),
        granules: 40,
        stride: 5,
        read_percent: 30,
        flush_percent: 2,
        register_percent: 0,
        large_percent: 5,
        ops: 1500,
        patience: ms(5000),
    };
    Plan {
        seed,
        policy,
        mode: LunMode::SyncDurable,
        standby: StandbyMode::Refuse,
        patience: Patience::Ordinary,
        load,
        contenders: 0,
        net: (us(20), us(200)),
        disk: (us(10), us(200)),
        drift_ppm: [0, 0],
        turn_cost: us(5),
        length: ms(4000),
        events: events.to_vec(),
    }
}

/// The own leg failed and was counted out; the array went on over its peer's. Started again, the holder copied what its
/// own log and bitmap said, which nobody had kept since: acknowledged writes were gone from its leg.
#[test]
fn an_own_leg_that_was_counted_out_is_copied_whole() {
    for policy in [ArbiterKind::Biased, ArbiterKind::Etcd] {
        for seed in 0..4 {
            let fails =
                at(300, Some(Phase::Write), Fault::Spoil(Who::Holder, Spoilt::Writes, 1 + seed as u32));
            let dies = at(1500, None, Fault::Kill(Who::Holder, ms(200)));
            clean(&plan(seed, policy, &[fails, dies]));
        }
    }
}

/// A holder that had lost its cache opened with its peer's leg alone in sync, and lost the peer before that one had
/// learned of it: neither side served ever again.
#[test]
fn a_start_from_the_peers_leg_that_is_cut_off_begins_again() {
    for seed in 0..6 {
        let cut = at(300, Some(Phase::Write), Fault::PowerCut(Who::Holder, ms(300)));
        let dies = at(600 + 3 * seed, Some(Phase::ConfigChange), Fault::Kill(Who::Peer, ms(700)));
        clean(&plan(seed, ArbiterKind::Biased, &[cut, dies]));
    }
}

/// The same, with the peer's cache lost, too: its leg is still the only one that counts.
#[test]
fn the_only_leg_that_counts_is_believed_though_its_cache_is_lost() {
    for seed in 0..6 {
        let first = at(300, Some(Phase::Write), Fault::PowerCut(Who::Holder, ms(300)));
        let second = at(600, Some(Phase::Resync), Fault::PowerCut(Who::Both, ms(500)));
        clean(&plan(seed, ArbiterKind::Biased, &[first, second]));
    }
}

/// The own leg reported an error just when the peer's disk was replaced: the holder waited for ever to be rid of its own
/// leg, and hosts with it.
#[test]
fn an_own_leg_with_an_error_stays_when_the_peers_is_another_one() {
    for seed in 0..6 {
        let fails = at(300, Some(Phase::Write), Fault::Spoil(Who::Holder, Spoilt::Writes, 1));
        let replaced = at(300, Some(Phase::ConfigChange), Fault::ReplaceDisk(ms(130)));
        clean(&plan(seed, ArbiterKind::Biased, &[fails, replaced]));
    }
}

/// A leg that was set back in the middle of its resync to what it was before it began: what had been copied was missing,
/// and nobody knew.
#[test]
fn a_leg_that_was_set_back_during_its_resync_is_copied_whole() {
    for seed in 0..6 {
        let away = at(300, None, Fault::Kill(Who::Peer, ms(700)));
        let back = at(900, Some(Phase::Resync), Fault::RevertLeg(ms(100)));
        clean(&plan(seed, ArbiterKind::Etcd, &[away, back]));
    }
}

fn cached(seed: u64, events: &[Event]) -> Plan {
    Plan { mode: LunMode::SyncCached, ..plan(seed, ArbiterKind::Etcd, events) }
}

/// A holder that had lost its cache, and whose peer had died, asked the arbiter and served without the writes that the
/// peer's leg had.
#[test]
fn a_holder_that_lost_its_cache_waits_for_its_peer() {
    for seed in 0..4 {
        let dark = at(300, Some(Phase::Write), Fault::PowerCut(Who::Holder, ms(1500)));
        let dies = at(700, None, Fault::Kill(Who::Peer, ms(5000)));
        clean(&cached(seed, &[dark, dies]));
    }
}

/// The same for a standby: its holder died before it had noticed that the standby's cache was gone.
#[test]
fn a_standby_that_lost_its_cache_does_not_take_over() {
    for seed in 0..4 {
        let dark = at(300, Some(Phase::Write), Fault::PowerCut(Who::Peer, ms(20)));
        let dies = at(301, None, Fault::Kill(Who::Holder, ms(5000)));
        clean(&cached(seed, &[dark, dies]));
    }
}

/// The own leg failed a write while the config that counts the peer's again was on its way: the peer, which may not be told
/// of it, was waited for for ever.
#[test]
fn a_rejoin_that_an_own_error_spoils_begins_again() {
    for seed in 105..109 {
        let away = at(2498, Some(Phase::Write), Fault::Spoil(Who::Peer, Spoilt::Writes, 2));
        let fails = at(5630, Some(Phase::ConfigChange), Fault::Spoil(Who::Holder, Spoilt::Writes, 3));
        let plan = cached(seed, &[away, fails]);
        let load = Load { hosts: 3, think: ms(10), gap: ms(1000), granules: 6, stride: 37, ..plan.load };
        let load = Load { flush_percent: 8, large_percent: 20, ops: 300, ..load };
        let slow = Plan { load, net: (us(100), ms(3)), length: ms(9000), ..plan };
        clean(&Plan { drift_ppm: [12, 47], turn_cost: us(20), ..slow });
    }
}

/// A leg that was set back while the config that counts it again was on its way to the arbiter: it was taken for the leg
/// that had been copied to, its node could take the array over, and what had been copied was missing.
#[test]
fn a_leg_that_was_set_back_before_it_was_counted_is_copied_whole() {
    for seed in 0..4 {
        let away = at(300, Some(Phase::Write), Fault::Spoil(Who::Peer, Spoilt::Writes, 1));
        let silent = at(3400, Some(Phase::ConfigChange), Fault::LoseArbiter);
        let back = at(5000, None, Fault::RevertLeg(ms(310)));
        let plan = plan(seed, ArbiterKind::Etcd, &[away, silent, back]);
        clean(&Plan { net: (us(100), ms(3)), length: ms(6000), ..plan });
    }
}

/// A leg that was away for a moment, or was the holder's before a switchover, and is set back to what it was before that: its
/// superblock was no older than what was remembered of it, and it was taken for the leg that it had been.
#[test]
fn a_leg_that_was_set_back_to_before_its_last_session_is_copied_whole() {
    for policy in [ArbiterKind::Biased, ArbiterKind::Etcd] {
        for fault in [Fault::Kill(Who::Peer, ms(20)), Fault::Reset(Way::Nodes), Fault::Switchover] {
            for (seed, down) in [(0, ms(20)), (1, ms(900))] {
                let away = at(300, None, fault);
                clean(&plan(seed, policy, &[away, at(1500, None, Fault::RevertLeg(down))]));
            }
        }
    }
}

/// At the end of a load that is over, when the holder has not noticed yet: what it says of the leg it says of what the leg was.
#[test]
fn a_leg_that_is_set_back_at_the_last_moment_is_not_called_whole() {
    for seed in 0..6 {
        let away = at(300, None, Fault::Kill(Who::Peer, ms(20)));
        // Nobody tells the holder that its peer's process ended.
        let cut = at(3640, None, Fault::Cut(Way::Nodes, ms(700)));
        let back = at(3650 + 50 * seed, None, Fault::RevertLeg(ms(1)));
        let plan = plan(seed, ArbiterKind::Biased, &[away, cut, back]);
        clean(&Plan { load: Load { ops: 400, ..plan.load }, ..plan });
    }
}

/// The arbiter accepted the config that counts the peer again, its answer was lost, and so was the peer: the holder, which
/// had heard of nothing, went on alone as before. The arbiter's word does not make the peer's leg one that has everything.
#[test]
fn a_leg_that_the_arbiter_alone_counts_does_not_count() {
    for seed in 0..4 {
        let away = at(300, Some(Phase::Write), Fault::Spoil(Who::Peer, Spoilt::Writes, 1));
        let deaf = at(900, None, Fault::Cut(Way::FromArbiter(Who::Holder), ms(7000)));
        let lost = at(4200, Some(Phase::Resync), Fault::Cut(Way::HolderToPeer, ms(4000)));
        let dies = at(6500 + 300 * seed, None, Fault::Kill(Who::Holder, ms(1500)));
        let plan = plan(seed, ArbiterKind::Etcd, &[away, deaf, lost, dies]);
        let load = Load { register_percent: 6, gap: ms(200), ..plan.load };
        clean(&Plan { load, length: ms(8000), ..plan });
    }
}

/// A new leg that had been written once had one superblock alone: a block that landed on it was the end of the leg.
#[test]
fn a_new_leg_survives_a_misdirected_block() {
    for seed in 0..4 {
        let replaced = at(300, Some(Phase::Write), Fault::ReplaceDisk(ms(14)));
        let hit = at(360 + 10 * seed, None, Fault::Misdirect(Who::Peer, Rot::Superblock));
        clean(&plan(seed, ArbiterKind::Etcd, &[replaced, hit]));
    }
}

/// Hosts that open more than there is memory for wait, as they would with memory of their own.
#[test]
fn hosts_that_find_no_memory_wait() {
    let plan = plan(1, ArbiterKind::Etcd, &[at(100, None, Fault::Cut(Way::Nodes, ms(2500)))]);
    let load = Load { hosts: 3, depth: 16, think: us(200), read_percent: 5, large_percent: 90, ..plan.load };
    clean(&Plan { load, ..plan });
}

/// The arbiter has lost the array, and the holder is gone: the operator promotes the peer by force, which has everything. The
/// old holder comes back as its peer, and nothing is lost.
#[test]
fn a_promotion_by_force_goes_on_without_the_arbiters_word() {
    for seed in 0..4 {
        let lost = at(300, Some(Phase::Write), Fault::LoseArbiter);
        let forced = at(400 + 100 * seed, None, Fault::ForcePromote);
        clean(&plan(seed, ArbiterKind::Etcd, &[lost, forced]));
        clean(&plan(seed, ArbiterKind::Manual, &[forced]));
    }
}

/// The one leg that counted could not be read for a moment when its node started: it was called damaged, and nobody served any
/// more. Both slots of the superblock are in one read.
#[test]
fn reads_that_fail_when_a_node_starts_are_tried_again() {
    for seed in 0..4 {
        let away = at(300, Some(Phase::Write), Fault::Kill(Who::Peer, ms(6000)));
        let dies = at(2000, None, Fault::Kill(Who::Holder, ms(500)));
        let fails = at(2100, None, Fault::Spoil(Who::Holder, Spoilt::Reads, 1 + seed as u32));
        clean(&plan(seed, ArbiterKind::Etcd, &[away, dies, fails]));
    }
}

/// The same when a node was promoted: both copies of the reservations were given up, and they were lost.
#[test]
fn reads_that_fail_at_a_promotion_lose_no_reservation() {
    for fault in [Fault::ForcePromote, Fault::Kill(Who::Holder, ms(6000))] {
        for seed in 0..4 {
            let fails = at(300, None, Fault::Spoil(Who::Peer, Spoilt::Reads, 4));
            let plan = plan(seed, ArbiterKind::Etcd, &[fails, at(310, None, fault)]);
            let load = Load { register_percent: 20, read_percent: 0, ..plan.load };
            clean(&Plan { load, ..plan });
        }
    }
}

/// The same for longer: the operator looks at the disk before it is replaced, and does not replace it while the peer's cache is
/// lost.
#[test]
fn a_leg_that_cannot_be_read_for_a_while_is_not_replaced() {
    for seed in 0..4 {
        let dies = at(300, Some(Phase::Write), Fault::Kill(Who::Holder, ms(3600)));
        let dark = at(305, None, Fault::PowerCut(Who::Peer, ms(29)));
        let fails = at(1400, None, Fault::Spoil(Who::Holder, Spoilt::Reads, 200));
        clean(&cached(seed, &[dies, dark, fails]));
    }
}

/// A holder is about to count its leg alone, for a peer that is gone or at a start, and its power fails.
pub(super) fn dark_when_alone() -> impl Iterator<Item = Plan> {
    let cut = at(300, Some(Phase::Write), Fault::Cut(Way::Nodes, ms(4000)));
    let killed = at(300, Some(Phase::Write), Fault::Kill(Who::Both, ms(100)));
    let dark = at(400, Some(Phase::ConfigChange), Fault::PowerCut(Who::Holder, ms(500)));
    let causes = move |seed| [cut, killed].map(|cause| cached(seed, &[cause, dark]));
    (0..6).flat_map(causes)
}

/// It was the only one that counted from one moment to the next, and acknowledged writes that its peer's leg had as well went
/// with its cache.
#[test]
fn a_leg_is_flushed_before_it_counts_alone() {
    dark_when_alone().for_each(|plan| clean(&plan));
}

/// The operator knows which leg is the last one: while a config is on its way that counts it alone, its disk stays.
#[test]
fn a_disk_that_is_about_to_be_the_last_one_stays() {
    for seed in 0..6 {
        for fault in [Fault::ReplaceDisk(ms(470)), Fault::CloneLeg(ms(430))] {
            let alone = at(300, None, Fault::Isolate(ms(5500)));
            let lost = at(1600, Some(Phase::ConfigChange), fault);
            clean(&plan(seed, ArbiterKind::Etcd, &[alone, lost]));
        }
    }
}
