//! Negotiation is symmetric: whatever two ends of this code prefer, both come to the same, or to no session.

use iscsi::chap::Algorithm;
use iscsi::keys::{Choice, DigestPreference};
use iscsi::{Preferences, Protocol};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::rules::{self, CHOICES, DIGESTS, PROOFS, REQUIREMENTS, agreed, seen_by_target};
use crate::world::World;

const LENGTH_MAX: u32 = (1 << 24) - 1;

/// A length of any size, edges as well.
fn length() -> impl Strategy<Value = u32> {
    prop_oneof![512..=LENGTH_MAX, 512..4096_u32, Just(512), Just(LENGTH_MAX)]
}

fn lengths() -> impl Strategy<Value = (u32, u32, u32)> {
    // A first burst is legal up to the longest burst.
    (length(), length(), length()).prop_map(|(segment, a, b)| (segment, a.max(b), a.min(b)))
}

fn counts() -> impl Strategy<Value = (u32, u32)> {
    let count = || prop_oneof![1..=65_535_u32, 1..4_u32, Just(65_535)];
    (count(), count())
}

fn seconds() -> impl Strategy<Value = (u32, u32)> {
    let seconds = || prop_oneof![0..=3600_u32, Just(0), Just(3600)];
    (seconds(), seconds())
}

fn choice() -> impl Strategy<Value = Choice> {
    select(&CHOICES[..])
}

fn digest() -> impl Strategy<Value = DigestPreference> {
    select(&DIGESTS[..])
}

/// Anything that one end may legally want.
fn preferences() -> impl Strategy<Value = Preferences> {
    let choices = (choice(), choice(), choice(), choice());
    let levels = (0..=2_u32, 1..=2_u32);
    (digest(), digest(), lengths(), counts(), seconds(), choices, levels).prop_map(
        |(header_digest, data_digest, lengths, counts, seconds, choices, levels)| Preferences {
            header_digest,
            data_digest,
            max_recv_data_segment_length: lengths.0,
            max_burst_length: lengths.1,
            first_burst_length: lengths.2,
            initial_r2t: choices.0,
            immediate_data: choices.1,
            max_outstanding_r2t: counts.0,
            default_time2wait: seconds.0,
            default_time2retain: seconds.1,
            protocol_level: levels.1,
            max_connections: counts.1,
            data_pdu_in_order: choices.2,
            data_sequence_in_order: choices.3,
            error_recovery_level: levels.0,
        },
    )
}

fn algorithms() -> impl Strategy<Value = Vec<Algorithm>> {
    subsequence(Algorithm::ALL.to_vec(), 1..=4).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn both_ends_come_to_the_same_whatever_they_prefer(
        initiator in preferences(), target in preferences(), seed in any::<u64>(),
        proof in select(&PROOFS[..]), requirement in select(&REQUIREMENTS[..]), algorithms in algorithms(),
    ) {
        let mut world = World::bare(initiator, target, seed);
        world.credentials = proof.credentials(algorithms);
        world.authentication = rules::authentication(requirement);
        world.lead();
        let link = &world.links[0];
        let expected = agreed(&initiator, &target).filter(|_| proof.satisfies(requirement));
        match expected {
            Some(expected) => {
                prop_assert_eq!(link.initiator.closed(), None);
                prop_assert!(link.initiator.is_full_feature() && link.target.is_full_feature());
                prop_assert_eq!(link.initiator.parameters(), &expected);
                prop_assert_eq!(link.target.parameters(), &seen_by_target(&expected));
            }
            // The target has the last word of a login, and the initiator may still leave at that.
            None => prop_assert!(!link.initiator.is_full_feature() && link.initiator.closed().is_some()),
        }
    }
}
