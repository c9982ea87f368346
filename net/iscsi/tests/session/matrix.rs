//! Every negotiable choice with every other, and with every choice of the other end: both agree on what the keys' rules say, and
//! data arrive whole.

use std::collections::BTreeSet;

use iscsi::chap::{Algorithm, Requirement};
use iscsi::{Preferences, Protocol};

use crate::rules::{self, CHOICES, DIGESTS, PROOFS, Proof, REQUIREMENTS, agreed};
use crate::world::{Damage, Prng, World};
use crate::{reassign, recovery};

/// How many values each choice of one end has; [`preferences`] says what they are.
const VALUES: [usize; 14] = [4, 4, 3, 2, 2, 2, 2, 2, 2, 3, 2, 2, 2, 4];
/// Pairs of ends.
const PAIRS: u64 = 800;

type End = [usize; VALUES.len()];

fn any_end(prng: &mut Prng) -> End {
    VALUES.map(|count| prng.below(count as u64) as usize)
}

/// The last choice is that of CHAP, which is no preference.
fn preferences(end: &End) -> Preferences {
    let [header, data, lengths, r2t, immediate, outstanding, pdus, sequences, connections, ..] = *end;
    let [.., level, wait, retain, queries, _] = *end;
    let (segment, burst, first) = [(512, 1536, 512), (2048, 16384, 4096), (65536, 1 << 20, 65536)][lengths];
    Preferences {
        header_digest: DIGESTS[header],
        data_digest: DIGESTS[data],
        max_recv_data_segment_length: segment,
        max_burst_length: burst,
        first_burst_length: first,
        initial_r2t: CHOICES[r2t],
        immediate_data: CHOICES[immediate],
        max_outstanding_r2t: [1, 4][outstanding],
        data_pdu_in_order: CHOICES[pdus],
        data_sequence_in_order: CHOICES[sequences],
        max_connections: [1, 3][connections],
        error_recovery_level: [0, 1, 2][level],
        default_time2wait: [0, 3][wait],
        default_time2retain: [0, 20][retain],
        protocol_level: [1, 2][queries],
    }
}

fn proof(end: &End) -> Proof {
    PROOFS[end[VALUES.len() - 1] % PROOFS.len()]
}

/// Whether an initiator's and a target's choice of CHAP make a session.
fn agrees(proof: usize, requirement: usize) -> bool {
    PROOFS[proof % PROOFS.len()].satisfies(REQUIREMENTS[requirement])
}

fn requirement(end: &End) -> Requirement {
    REQUIREMENTS[end[VALUES.len() - 1]]
}

/// What has carried data: values of two choices of the initiator, and of one choice at both ends.
#[derive(Default)]
struct Seen {
    together: BTreeSet<[usize; 4]>,
    opposite: BTreeSet<[usize; 3]>,
}

impl Seen {
    fn add(&mut self, initiator: &End, target: &End) {
        for (at, value) in initiator.iter().enumerate() {
            self.opposite.insert([at, *value, target[at]]);
            let later = initiator.iter().enumerate().skip(at + 1);
            self.together.extend(later.map(|(other, its)| [at, *value, other, *its]));
        }
    }

    /// All that there are, less those digests and proofs that make no session.
    fn assert_complete(&self) {
        for (at, count) in VALUES.iter().enumerate() {
            for value in 0..*count {
                for (other, others) in VALUES.iter().enumerate().skip(at + 1) {
                    for its in 0..*others {
                        let pair = [at, value, other, its];
                        assert!(self.together.contains(&pair), "{pair:?} carried nothing");
                    }
                }
                for its in 0..*count {
                    let refused = match at {
                        0 | 1 => matches!((value, its), (1, 3) | (3, 1)),
                        13 => !agrees(value, its),
                        _ => false,
                    };
                    let pair = [at, value, its];
                    assert!(refused != self.opposite.contains(&pair), "{pair:?} at both ends");
                }
            }
        }
    }
}

#[test]
fn every_pair_of_choices_is_agreed_on_and_carries_data() {
    let mut prng = Prng(1);
    let mut seen = Seen::default();
    for seed in 0..PAIRS {
        let (initiator, target) = (any_end(&mut prng), any_end(&mut prng));
        let (ours, theirs) = (preferences(&initiator), preferences(&target));
        let (proof, requirement) = (proof(&initiator), requirement(&target));
        let what = format!("{seed}: {ours:?} {proof:?} {theirs:?} {requirement:?}");
        let mut world = World::bare(ours, theirs, seed);
        world.credentials = proof.credentials(Algorithm::ALL.to_vec());
        world.authentication = rules::authentication(requirement);
        world.lead();
        let expected = agreed(&ours, &theirs).filter(|_| proof.satisfies(requirement));
        let Some(expected) = expected else {
            assert!(world.links[0].initiator.closed().is_some(), "{what}");
            continue;
        };
        assert_eq!(world.links[0].initiator.parameters(), &expected, "{what}");
        for cid in 1..expected.max_connections {
            world.join(u16::try_from(cid).expect("few"));
            world.drive();
        }
        world.events.clear();
        if expected.error_recovery_level > 0 && !expected.data_digest.is_empty() {
            world.damage = Damage(10);
        }
        recovery::load(&mut world, expected.max_connections.into(), 1, &what);
        if world.links[0].initiator.reassigns() {
            reassign::rounds(&mut world, 1, &what);
        }
        seen.add(&initiator, &target);
    }
    seen.assert_complete();
}
