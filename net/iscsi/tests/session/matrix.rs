//! Every negotiable choice with every other: both ends agree on what the keys' rules say, and data arrive whole.

use iscsi::keys::{Choice, DigestPreference};
use iscsi::{Preferences, SessionParameters};

use crate::recovery::load;
use crate::world::{Damage, World};

const CHOICES: [Choice; 2] = [Choice::Yes, Choice::No];

/// All combinations of one end's choices, by number.
fn combination(mut number: usize) -> Option<Preferences> {
    let mut take = |count: usize| {
        let value = number % count;
        number /= count;
        value
    };
    let digest = [DigestPreference::Never, DigestPreference::Prefer][take(2)];
    let (segment, burst, first) = [(512, 1536, 512), (2048, 16384, 4096), (65536, 1 << 20, 65536)][take(3)];
    let preferences = Preferences {
        header_digest: digest,
        data_digest: digest,
        max_recv_data_segment_length: segment,
        max_burst_length: burst,
        first_burst_length: first,
        initial_r2t: CHOICES[take(2)],
        immediate_data: CHOICES[take(2)],
        max_outstanding_r2t: [1, 4][take(2)],
        data_pdu_in_order: CHOICES[take(2)],
        data_sequence_in_order: CHOICES[take(2)],
        max_connections: [1, 3][take(2)],
        error_recovery_level: [0, 1][take(2)],
        ..Preferences::default()
    };
    (number == 0).then_some(preferences)
}

fn either(a: Choice, b: Choice) -> Choice {
    if a.is_yes() || b.is_yes() { Choice::Yes } else { Choice::No }
}

/// What the rules of RFC 7143 section 13 make of two ends' choices, as the initiator sees it.
fn agreed(initiator: &Preferences, target: &Preferences) -> SessionParameters {
    let digests =
        initiator.data_digest == DigestPreference::Prefer && target.data_digest == DigestPreference::Prefer;
    let digest = if digests { iscsi::digest::Digest::Crc32c } else { iscsi::digest::Digest::None };
    let both = initiator.immediate_data.is_yes() && target.immediate_data.is_yes();
    let max_burst_length = initiator.max_burst_length.min(target.max_burst_length);
    let first_burst_length = initiator.first_burst_length.min(target.first_burst_length);
    SessionParameters {
        header_digest: digest,
        data_digest: digest,
        max_recv_data_segment_length: initiator.max_recv_data_segment_length,
        max_send_data_segment_length: target.max_recv_data_segment_length,
        max_burst_length,
        first_burst_length: first_burst_length.min(max_burst_length),
        initial_r2t: either(initiator.initial_r2t, target.initial_r2t),
        immediate_data: if both { Choice::Yes } else { Choice::No },
        max_outstanding_r2t: initiator.max_outstanding_r2t.min(target.max_outstanding_r2t),
        data_pdu_in_order: either(initiator.data_pdu_in_order, target.data_pdu_in_order),
        data_sequence_in_order: either(initiator.data_sequence_in_order, target.data_sequence_in_order),
        max_connections: initiator.max_connections.min(target.max_connections),
        error_recovery_level: initiator.error_recovery_level.min(target.error_recovery_level),
        time2wait: 2,
        time2retain: 0,
        protocol_level: 2,
    }
}

#[test]
fn every_combination_of_choices_is_agreed_on_and_carries_data() {
    let all: Vec<Preferences> = (0..).map_while(combination).collect();
    assert_eq!(all.len(), 768);
    for (number, initiator) in all.iter().enumerate() {
        // The other end's choices are the same, or some others'.
        let target = if number % 2 == 0 { initiator } else { &all[(number * 37 + 11) % all.len()] };
        let mut world = World::new(*initiator, *target, number as u64);
        let what = format!("{number}: {initiator:?} {target:?}");
        let expected = agreed(initiator, target);
        assert_eq!(world.links[0].initiator.parameters(), &expected, "{what}");
        let connections = expected.max_connections;
        for cid in 1..connections {
            world.join(u16::try_from(cid).expect("few"));
            world.drive();
        }
        if expected.error_recovery_level > 0 && !expected.data_digest.is_empty() {
            world.damage = Damage(10);
        }
        load(&mut world, connections.into(), 1, &what);
    }
}
