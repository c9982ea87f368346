//! Sessions of several connections: order, allegiance, joining, leaving (RFC 7143 sections 4.2.2, 6.3, 11.14); and recovery.

mod disorder;
mod matrix;
mod reassign;
mod recovery;
mod rules;
mod symmetry;
mod waiting;
mod world;

use iscsi::keys::{Choice, DigestPreference};
use iscsi::{CloseReason, Preferences, Protocol, TaskId, Want};
use world::World;

pub(crate) fn several() -> Preferences {
    Preferences {
        max_connections: 4,
        max_recv_data_segment_length: 2048,
        max_burst_length: 8192,
        first_burst_length: 4096,
        ..Preferences::default()
    }
}

pub(crate) fn session(connections: u16, preferences: Preferences, seed: u64) -> World {
    let mut world = World::new(preferences, preferences, seed);
    for cid in 1..connections {
        world.join(cid);
        world.drive();
        let link = world.links.last().expect("one");
        assert!(link.initiator.is_full_feature() && link.target.is_full_feature());
    }
    world.events.clear();
    world
}

#[test]
fn commands_are_seen_in_the_order_of_their_numbers_and_move_their_data_where_they_came() {
    for seed in 0..40 {
        let preferences = Preferences {
            immediate_data: if seed % 2 == 0 { Choice::Yes } else { Choice::No },
            initial_r2t: if seed % 4 < 2 { Choice::No } else { Choice::Yes },
            data_digest: if seed % 3 == 0 { DigestPreference::Require } else { DigestPreference::Never },
            ..several()
        };
        let mut world = session(3, preferences, seed);
        recovery::load(&mut world, 3, 20, &format!("seed {seed}"));
        assert_eq!(world.order, (0..160).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_command_waits_for_those_before_it_and_a_full_wait_is_no_end() {
    let mut world = session(2, several(), 1);
    world.cut(0, true);
    let first = world.submit(0, b'W', 0, 30_000).expect("window");
    let later: Vec<TaskId> =
        (1..8).map(|slot| world.submit(1, b'W', slot * 50_000, 30_000).expect("window")).collect();
    world.drive();
    assert!(world.order.is_empty() && world.completed.is_empty(), "nobody overtakes");
    world.cut(0, false);
    world.drive();
    assert_eq!(world.order, (0..8).collect::<Vec<_>>());
    for (slot, task) in std::iter::once(first).chain(later).enumerate() {
        assert!(world.completed.contains_key(&task));
        assert!(world.medium[slot * 50_000..][..30_000] == world.initiator_buffers[&task]);
    }
}

#[test]
fn a_function_that_ends_several_tasks_waits_for_those_that_were_sent_before_it() {
    let mut world = session(2, several(), 2);
    world.cut(0, true);
    let late = world.submit(0, b'H', 0, 0).expect("window");
    let early = world.submit(1, b'H', 0, 0).expect("window");
    world.links[1].initiator.manage(2, 0, None);
    world.drive();
    assert!(world.events.is_empty(), "{:?}", world.events);
    world.cut(0, false);
    world.drive();
    assert_eq!(world.aborted, [late, early].into());
    assert_eq!(world.events.len(), 1);
}

#[test]
fn an_abort_gives_up_a_command_that_was_lost_on_its_way() {
    let mut world = session(2, several(), 3);
    world.cut(0, true);
    let lost = world.submit(0, b'H', 0, 0).expect("window");
    let after = world.submit(1, b'R', 0, 512).expect("window");
    let [first, second] = &mut world.links[..] else { panic!("two connections") };
    second.initiator.manage_as(1, 0, lost, &first.initiator);
    world.drive();
    assert!(world.completed.contains_key(&after), "the hole is closed");
    world.cut(0, false);
    world.drive();
    assert_eq!(world.order, [1], "what was given up does not come later");
}

#[test]
fn a_connection_at_a_portal_of_another_group_is_none_of_the_sessions() {
    let mut world = session(2, several(), 5);
    world.portal_group = 2;
    world.join(2);
    world.drive();
    let astray = world.links.pop().expect("the third");
    let why = CloseReason::PeerMisbehaved("the portal is one of another portal group than the session's");
    assert_eq!(astray.initiator.closed(), Some(&why));
    // The same identifier, where the session is.
    world.portal_group = 1;
    world.join(3);
    world.drive();
    assert!(world.links.iter().all(|link| link.initiator.is_full_feature()));
}

#[test]
fn one_connection_leaves_and_the_others_go_on() {
    let mut world = session(3, several(), 4);
    world.links[1].initiator.leave();
    world.drive();
    assert_eq!(world.links[1].initiator.closed(), Some(&CloseReason::LoggedOut));
    assert_eq!(world.links[1].target.closed(), Some(&CloseReason::LoggedOut));
    let task = world.submit(2, b'R', 0, 512).expect("window");
    world.drive();
    assert!(world.completed.contains_key(&task));
    world.links[2].initiator.remove(0);
    world.drive();
    assert!(world.links[0].target.closed().is_some());
    assert!(world.links[2].target.closed().is_none());
    world.links[2].initiator.log_out();
    world.drive();
    assert_eq!(world.links[2].target.closed(), Some(&CloseReason::LoggedOut));
}

#[test]
fn what_the_first_connection_settled_holds_for_the_next_and_digests_are_its_own() {
    let digests = Preferences { header_digest: DigestPreference::Prefer, ..several() };
    let mut world = session(1, Preferences { header_digest: DigestPreference::Avoid, ..digests }, 5);
    world.preferences = (digests, Preferences { max_burst_length: 512, ..digests });
    world.join(1);
    world.drive();
    let (first, second) = (&world.links[0].target, &world.links[1].target);
    assert!(second.is_full_feature());
    assert_eq!(first.parameters().max_burst_length, second.parameters().max_burst_length);
    assert!(first.parameters().header_digest.is_empty() && !second.parameters().header_digest.is_empty());
    assert_eq!(
        world.links[1].initiator.parameters(),
        &iscsi::SessionParameters {
            header_digest: second.parameters().header_digest,
            ..world.links[0].initiator.parameters().clone()
        }
    );
}

#[test]
fn nothing_that_an_initiator_sends_on_several_connections_breaks_the_target() {
    for seed in 0..400 {
        let mut world = session(3, several(), seed);
        for _ in 0..4 {
            for _ in 0..3 {
                let link = world.prng.below(3) as usize;
                let kind = [b'W', b'R', b'H'][world.prng.below(3) as usize];
                let _ = world.submit(link, kind, 0, 9000);
            }
            let link = world.prng.below(3) as usize;
            world.links[link].initiator.manage(world.prng.below(12) as u8, 0, None);
            world.scramble();
            world.drive();
        }
    }
}

#[test]
fn a_target_that_asks_for_a_negotiation_is_heard_and_obeyed() {
    let preferences = Preferences { max_recv_data_segment_length: 2048, ..several() };
    let mut world = session(2, preferences, 6);
    for (length, agreed) in [(8192, 8192), (512, 8192), (512, 8192)] {
        for link in &mut world.links {
            link.target.renegotiate(5, length);
            // One that is asked twice answers once, or twice: never with two requests at a time.
            link.target.renegotiate(5, length);
        }
        world.drive();
        for link in &world.links {
            assert_eq!((link.initiator.closed(), link.target.closed()), (None, None));
            assert_eq!(link.initiator.parameters().max_send_data_segment_length, length);
            assert_eq!(
                link.target.parameters().max_recv_data_segment_length,
                agreed,
                "longer ones may be on their way"
            );
        }
        assert!(world.events.is_empty(), "the owner has nothing to do with it: {:?}", world.events);
        recovery::load(&mut world, 2, 2, "after a negotiation");
    }
}

#[test]
fn a_connection_that_is_dropped_is_told_by_its_name() {
    let mut world = session(3, several(), 7);
    world.links[1].target.dismiss_connection("it is in the way");
    world.drive();
    assert!(world.links[1].initiator.closed().is_some() && world.links[1].target.closed().is_some());
    for link in [0, 2] {
        let task = world.submit(link, b'R', 0, 512).expect("window");
        world.drive();
        assert!(world.completed.contains_key(&task), "the others go on");
    }
}

/// A vendor's own event means nothing to others: its data are taken off the wire, its number counts, and the session goes on.
#[test]
fn an_event_of_a_vendors_own_is_taken_and_means_nothing() {
    let mut world = session(1, several(), 1);
    let initiator = &mut world.links[0].initiator;
    let expected = |initiator: &mut iscsi::initiator::Connection| {
        initiator.ping();
        let head = initiator.poll_transmit().expect("a ping").head().to_vec();
        u32::from_be_bytes(head[28..32].try_into().expect("four bytes"))
    };
    let next = expected(initiator);
    for (turn, (event, len)) in (0..).zip([(255, 100), (255, 0), (200, 4), (0, 20)]) {
        let mut pdu = vec![0; 48 + len];
        (pdu[0], pdu[1], pdu[7], pdu[36], pdu[37]) =
            (0x32, 0x80, u8::try_from(len).expect("short"), event, 9);
        pdu[16..20].fill(0xff);
        pdu[24..28].copy_from_slice(&(next + turn).to_be_bytes());
        let mut rest = &pdu[..];
        while !rest.is_empty() {
            let Want::Bytes(wanted) = initiator.want() else { panic!("it wants the rest") };
            let (now, later) = rest.split_at(wanted.min(rest.len()));
            initiator.handle_bytes(now);
            rest = later;
        }
        assert_eq!((initiator.poll_event(), initiator.closed()), (None, None), "event {event}");
    }
    let header = initiator.poll_transmit().map(|transmit| transmit.head().to_vec());
    assert_eq!(header, None, "nothing is answered");
}
