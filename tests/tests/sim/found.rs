//! Runs that once failed, each small enough to be read: what was broken, and under which faults it shows.

use core::time::Duration;

use gateway::LunMode;
use mirror::format::ArbiterKind;
use tests::sim::{Event, Fault, Load, Patience, Phase, Plan, Spoilt, Who};

use super::clean;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn at(millis: u64, during: Option<Phase>, fault: Fault) -> Event {
    Event { at: ms(millis), during, fault }
}

fn plan(seed: u64, policy: ArbiterKind, events: &[Event]) -> Plan {
    let load = Load {
        hosts: 2,
        depth: 4,
        think: ms(2),
        gap: ms(10),
        granules: 40,
        stride: 5,
        read_percent: 30,
        flush_percent: 2,
        large_percent: 5,
        ops: 1500,
    };
    Plan {
        seed,
        policy,
        mode: LunMode::SyncDurable,
        patience: Patience::Ordinary,
        load,
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
