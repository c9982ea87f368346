//! Malformed and misplaced PDUs (RFC 7143 sections 4.2.4, 7.7, 7.14, 11.2, 11.17): answered clearly, and nobody else is disturbed.

use super::io::{BLOCK, READ, SIMPLE, WRITE, cdb10};
use super::wire::{NO_TAG, Pdu, Received, back, out};
use super::{Case, Outcome, Session, Subject};

pub(super) const CASES: &[Case] = table! {
    "11.17" an_opcode_of_fancy_is_rejected_with_its_header
    "11.17" what_a_target_sends_is_not_taken
    "11.16" a_snack_needs_its_recovery_level
    "13.12" a_segment_longer_than_declared_is_not_taken
    "11.2.2.1" an_additional_header_of_fancy_is_not_taken
    "11.2.2.3" an_extended_cdb_is_taken_apart
    "11.3.1" a_command_in_both_directions_is_refused
    "11.2.1.8" a_tag_in_use_is_no_new_task
    "7.14" a_pdu_that_ends_in_the_middle_hurts_nobody
    "4.2.4" garbage_hurts_nobody
    "4.2.3" requests_in_a_burst_are_all_answered
};

/// Rejected or dropped; another session goes on.
fn rejected(subject: &Subject, mut session: Session) -> Outcome {
    session.link.set_patience(subject.patience);
    match session.receive()? {
        Received::Closed => {}
        Received::Pdu(pdu) if pdu.opcode() == back::REJECT => session.barrier().map(|_| ())?,
        Received::Pdu(pdu) if pdu.opcode() == back::RESPONSE && pdu.bhs[2] | pdu.bhs[3] != 0 => {}
        other => return Err(format!("{other:?}")),
    }
    Session::open(subject, &[])?.must_read(0, 1).map(|_| ())
}

fn an_opcode_of_fancy_is_rejected_with_its_header(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let itt = session.new_itt();
    let pdu = session.number_pdu(Pdu::new(0x1d | out::IMMEDIATE, 0x80), itt);
    session.link.send(&pdu);
    let reject = session.must_be(back::REJECT, NO_TAG)?;
    ensure!(matches!(reject.bhs[2], 4 | 5), "reason {:#x}", reject.bhs[2]);
    ensure!(reject.data.get(..48) == Some(&pdu.bhs[..]), "another header is returned");
    session.barrier().map(|_| ())
}

fn what_a_target_sends_is_not_taken(subject: &Subject) -> Outcome {
    for opcode in [back::RESPONSE, back::LOGIN, back::R2T] {
        let mut session = Session::open(subject, &[])?;
        session.request(Pdu::new(opcode | out::IMMEDIATE, 0x80));
        rejected(subject, session).map_err(|why| format!("{opcode:#x}: {why}"))?;
    }
    Ok(())
}

fn a_snack_needs_its_recovery_level(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[("ErrorRecoveryLevel", "0")])?;
    let itt = session.new_itt();
    let snack = session.number_pdu(Pdu::new(out::SNACK, 0x81).put32(20, NO_TAG), itt);
    // A SNACK takes no number.
    session.cmd_sn = session.cmd_sn.wrapping_sub(1);
    session.link.send(&snack.put32(16, NO_TAG));
    rejected(subject, session)
}

fn a_segment_longer_than_declared_is_not_taken(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let own = session.number("MaxRecvDataSegmentLength").unwrap_or(8192);
    let itt = session.new_itt();
    let mut pdu = session.number_pdu(Pdu::new(out::NOP, 0x80).put32(20, NO_TAG), itt);
    // The header alone says so: the target is not owed the bytes.
    let len = (own + 4).to_be_bytes();
    pdu.bhs[5..8].copy_from_slice(&len[1..]);
    session.link.send_raw(&pdu.bhs);
    session.link.send_raw(&vec![0; own as usize + 4]);
    rejected(subject, session)
}

fn an_additional_header_of_fancy_is_not_taken(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let mut command = session.command(READ | SIMPLE, &cdb10(0x28, 0, 1), BLOCK);
    command.ahs = vec![0, 200, 0x3f, 0, 0, 0, 0, 0];
    let itt = session.request(command);
    match session.receive()? {
        Received::Closed => {}
        Received::Pdu(pdu) if pdu.opcode() == back::REJECT || pdu.itt() == itt => {}
        other => return Err(format!("{other:?}")),
    }
    Session::open(subject, &[])?.must_read(0, 1).map(|_| ())
}

fn an_extended_cdb_is_taken_apart(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let mut command = session.command(READ | SIMPLE, &[0x7f, 0, 0, 0, 0, 0, 0, 24, 0, 0x55], BLOCK);
    command.ahs = [&[0, 17, 1, 0][..], &[0; 16]].concat();
    let itt = session.request(command);
    let reply = session.reply(itt, BLOCK)?;
    ensure!(reply.status == 2 && reply.sense_code().0 == 5, "{reply:?}");
    session.must_read(0, 1).map(|_| ())
}

fn a_command_in_both_directions_is_refused(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let mut command = session.command(READ | WRITE | SIMPLE, &cdb10(0x53, 0, 1), BLOCK).with_data(&[0; 512]);
    command.ahs = vec![0, 5, 2, 0, 0, 0, 2, 0];
    session.request(command);
    rejected(subject, session)
}

fn a_tag_in_use_is_no_new_task(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[("InitialR2T", "Yes"), ("ImmediateData", "No")])?;
    let command = session.command(WRITE | SIMPLE, &cdb10(0x2a, 1100, 1), BLOCK);
    let itt = session.request(command.clone());
    session.must_be(back::R2T, itt)?;
    let again = session.number_pdu(command, itt);
    session.link.send(&again);
    rejected(subject, session)
}

fn a_pdu_that_ends_in_the_middle_hurts_nobody(subject: &Subject) -> Outcome {
    for cut in [1, 47, 48, 60, 500] {
        let mut session = Session::open(subject, &[])?;
        let itt = session.new_itt();
        let command = session.command(WRITE | SIMPLE, &cdb10(0x2a, 1200, 1), BLOCK).with_data(&[0xee; 512]);
        let bytes = session.number_pdu(command, itt).bytes(session.link.digests);
        session.link.send_raw(&bytes[..cut]);
        drop(session);
    }
    let mut session = Session::open(subject, &[])?;
    ensure!(session.must_read(1200, 1)? != [0xee; 512], "half a write was done");
    Ok(())
}

fn garbage_hurts_nobody(subject: &Subject) -> Outcome {
    for seed in 0..8_u32 {
        let mut session = Session::open(subject, &[])?;
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let bytes: Vec<u8> = (0..4096)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as u8
            })
            .collect();
        session.link.send_raw(&bytes);
    }
    Session::open(subject, &[])?.must_read(0, 1).map(|_| ())
}

fn requests_in_a_burst_are_all_answered(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    session.barrier()?;
    let room = session.max_cmd_sn.wrapping_sub(session.exp_cmd_sn).wrapping_add(1);
    let mut bytes = Vec::new();
    let mut tags = Vec::new();
    for number in 0..room.min(16) {
        let itt = session.new_itt();
        let pdu = match number % 2 {
            0 => Pdu::new(out::NOP, 0x80).put32(20, NO_TAG).with_data(&[number as u8; 7]),
            _ => session.command(0x80 | SIMPLE, &[0; 6], 0),
        };
        let pdu = session.number_pdu(pdu, itt);
        bytes.extend(pdu.bytes(session.link.digests));
        tags.push(itt);
    }
    session.link.send_raw(&bytes);
    while !tags.is_empty() {
        let pdu = session.must()?;
        let at = tags.iter().position(|tag| *tag == pdu.itt()).ok_or("a tag of nobody")?;
        tags.swap_remove(at);
    }
    Ok(())
}
