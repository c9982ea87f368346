//! Commands that wait for their turn, with data that are not what they should be (RFC 7143 section 11.4.7.2).

use iscsi::keys::{Choice, DigestPreference};
use iscsi::pdu::{flag, opcode};
use iscsi::target::DataFault;
use iscsi::{Preferences, Protocol};

use crate::disorder::Packet;
use crate::world::{Damage, put};
use crate::{session, several};

/// A write whose turn comes later, on its way as `spoil` leaves it; what the target finds wrong with it when it has its turn.
fn spoiled(preferences: Preferences, spoil: impl FnOnce(&mut Vec<Packet>)) -> Vec<DataFault> {
    let mut world = session(2, preferences, 1);
    world.cut(0, true);
    let first = world.submit(0, b'R', 0, 512).expect("window");
    let write = world.submit(1, b'W', 50_000, 9000).expect("window");
    let behind = world.submit(1, b'R', 0, 512).expect("window");
    let mut packets = Vec::new();
    while let Some(transmit) = world.links[1].initiator.poll_transmit() {
        packets.push(Packet::new(&transmit, &world.initiator_buffers));
    }
    spoil(&mut packets);
    for packet in packets {
        put(&mut world.links[1].to_target, &packet, Damage(0), &mut world.prng);
    }
    let before = world.medium.clone();
    world.drive();
    assert!(world.completed.is_empty() && world.faults.is_empty(), "nobody overtakes");
    world.cut(0, false);
    world.drive();
    for link in &world.links {
        assert_eq!((link.initiator.closed(), link.target.closed()), (None, None));
    }
    let status = [first, write, behind].map(|task| world.completed[&task].status);
    assert_eq!((status[0], status[2]), (0, 0), "the others go on");
    assert_eq!(status[1] != 0, !world.faults.is_empty());
    assert_eq!(world.medium == before, status[1] != 0, "nothing is written where something is wrong");
    world.faults
}

/// A first burst in two Data-Out PDUs, behind the command.
fn unsolicited() -> Preferences {
    Preferences { immediate_data: Choice::No, initial_r2t: Choice::No, ..several() }
}

fn data_outs(packets: &mut [Packet]) -> Vec<&mut Packet> {
    packets.iter_mut().filter(|packet| packet.header.opcode() == opcode::DATA_OUT).collect()
}

#[test]
fn a_first_burst_that_is_not_whole_fails_a_command_that_waits() {
    assert_eq!(spoiled(unsolicited(), |packets| assert_eq!(data_outs(packets).len(), 2)), []);
    let short = spoiled(unsolicited(), |packets| {
        let first = packets.iter().position(|packet| packet.header.opcode() == opcode::DATA_OUT);
        let first = first.expect("it is there");
        packets[first].header = packets[first].header.with_flags(flag::FINAL);
        packets.remove(first + 1);
    });
    assert_eq!(short, [DataFault::Amount]);
    let skipped = spoiled(unsolicited(), |packets| {
        let second = data_outs(packets).remove(1);
        second.header = second.header.with_data_sn(5);
    });
    assert_eq!(skipped, [DataFault::Amount]);
    let overlapping = spoiled(unsolicited(), |packets| {
        let second = data_outs(packets).remove(1);
        second.header = second.header.with_buffer_offset(1024);
    });
    assert_eq!(overlapping, [DataFault::Amount]);
}

#[test]
fn data_that_nobody_asked_for_fail_a_command_that_waits() {
    let preferences = Preferences { initial_r2t: Choice::Yes, ..unsolicited() };
    let unasked = spoiled(preferences, |packets| {
        let command = packets.iter_mut().find(|packet| packet.header.opcode() == opcode::SCSI_COMMAND);
        let command = command.expect("it is there");
        command.header = command.header.with_data_len(512);
        command.data = vec![7; 512];
    });
    assert_eq!(unasked, [DataFault::Unexpected]);
}

#[test]
fn data_of_a_command_that_waits_may_come_in_any_order_where_that_was_agreed_on() {
    let swap = |packets: &mut Vec<Packet>| {
        let mut pdus = data_outs(packets);
        let (offsets, bodies) = ([2048, 0], [pdus[1].data.clone(), pdus[0].data.clone()]);
        for ((pdu, offset), body) in pdus.iter_mut().zip(offsets).zip(bodies) {
            (pdu.header, pdu.data) = (pdu.header.with_buffer_offset(offset), body);
        }
    };
    assert_eq!(spoiled(unsolicited(), swap), [DataFault::Amount]);
    let any = Preferences { data_pdu_in_order: Choice::No, ..unsolicited() };
    assert_eq!(spoiled(any, swap), []);
}

/// What comes again comes behind what waits for it, on the same connection: that is read however much waits.
#[test]
fn a_command_that_comes_again_gets_past_all_that_waits_for_it() {
    const LEN: u32 = 900_000;
    for (segment, first_burst_length) in [(1 << 20, 1 << 20), (4096, 1 << 20), (65_536, 65_536)] {
        let preferences = Preferences {
            max_recv_data_segment_length: segment,
            max_burst_length: 1 << 20,
            first_burst_length,
            error_recovery_level: 1,
            data_digest: DigestPreference::Require,
            ..several()
        };
        let mut world = session(1, preferences, 1);
        let tasks = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| world.submit(0, b'W', at * 512, LEN).expect("window"));
        // The first command is damaged.
        let mut damage = Damage(1000);
        while let Some(transmit) = world.links[0].initiator.poll_transmit() {
            let packet = Packet::new(&transmit, &world.initiator_buffers);
            put(&mut world.links[0].to_target, &packet, damage, &mut world.prng);
            damage = Damage(0);
        }
        world.drive();
        assert_eq!((world.links[0].initiator.closed(), world.links[0].target.closed()), (None, None));
        let ended = tasks.map(|task| world.completed.get(&task).map(|completion| completion.status));
        assert_eq!(ended, [Some(0); 8], "{preferences:?}");
        // Whichever was done last is there whole.
        let is_there = |(at, task): (usize, _)| {
            world.medium[at * 512..][..LEN as usize] == world.initiator_buffers[&task]
        };
        assert!(tasks.into_iter().enumerate().any(is_there), "{preferences:?}");
    }
}
