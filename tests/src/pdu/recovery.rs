//! Error recovery beyond level 0: connections that are lost and tasks that go on (RFC 7143 sections 7.2.2, 11.5, 11.14, 11.16).

use super::io::{BLOCK, READ, SIMPLE, WRITE, cdb10, pattern};
use super::session::{INITIATOR, Pairs, TO_FULL_FEATURE};
use super::wire::{NO_TAG, Pdu, back, out};
use super::{Case, Login, Outcome, Session, Subject};

pub(super) const CASES: &[Case] = table! {
    "7.2.2" a_write_goes_on_at_the_connection_that_replaces_its_own
    "7.2.2" a_status_that_nobody_heard_is_sent_again
    "11.5.6" data_that_expdatasn_covers_are_not_sent_again
    "7.2.2" what_is_read_again_keeps_to_the_new_segment_length
    "11.14.5" a_connection_that_was_removed_by_another_gives_up_its_tasks
    "11.6.1" a_task_is_allegiant_to_a_connection_that_was_not_removed
    "11.6.1" a_task_of_nobody_is_not_reassigned
    "4.2.3.3" functions_that_wait_for_what_is_missing_are_bounded
    "7.14" an_immediate_command_ends_with_its_connection
    "11.5.3" the_lun_of_a_reassignment_is_not_looked_at
    "13.19" one_r2t_is_open_where_sequences_are_in_order_and_may_come_again
    "7.2.1" a_command_that_was_lost_comes_again_with_its_number
    "11.16.3" an_r_data_snack_brings_data_in_other_segments_and_its_tag
    "11.16" data_and_status_are_sent_again_when_asked_for
    "7.8" a_wrong_header_digest_ends_the_connection_at_any_level
};

const LEVEL_2: [(&str, &str); 3] =
    [("ErrorRecoveryLevel", "2"), ("DefaultTime2Retain", "20"), ("MaxRecvDataSegmentLength", "4096")];

fn open(subject: &Subject, keys: &[(&str, &str)]) -> Result<Session, String> {
    let keys: Vec<(&str, &str)> = LEVEL_2.into_iter().chain(keys.iter().copied()).collect();
    let session = Session::open(subject, &keys)?;
    ensure!(session.number("ErrorRecoveryLevel")? == 2, "level {:?}", session.answered("ErrorRecoveryLevel"));
    Ok(session)
}

/// A header that cannot be believed says nothing, not even how long its PDU is: what comes behind it is not looked at.
fn a_wrong_header_digest_ends_the_connection_at_any_level(subject: &Subject) -> Outcome {
    for level in [1, 2] {
        let name = level.to_string();
        let keys =
            [("ErrorRecoveryLevel", name.as_str()), ("HeaderDigest", "CRC32C"), ("DataDigest", "None")];
        let mut session = Session::open(subject, &keys)?;
        ensure!(session.number("ErrorRecoveryLevel")? == level, "level {level} is not agreed on");
        ensure!(session.answered("HeaderDigest") == Some("CRC32C"), "no header digest");
        let itt = session.new_itt();
        let ping = |itt| Pdu::new(out::NOP, 0x80).put32(20, NO_TAG).put32(16, itt);
        let damaged = session.number_pdu(ping(itt), itt);
        let mut bytes = damaged.bytes(session.link.digests);
        bytes[20] ^= 1;
        let behind = session.new_itt();
        bytes.extend(session.number_pdu(ping(behind), behind).bytes(session.link.digests));
        session.link.send_raw(&bytes);
        let said = session.until_closed().map_err(|why| format!("level {level}: {why}"))?;
        ensure!(said.iter().all(|pdu| pdu.opcode() != back::NOP), "level {level}: it was answered: {said:?}");
    }
    Session::open(subject, &[])?.must_read(0, 1).map(|_| ())
}

/// A write that has its first R2T, on a session whose connection is lost.
fn lost_write(subject: &Subject, keys: &[(&str, &str)]) -> Result<(Session, u32), String> {
    let own = [("InitialR2T", "Yes"), ("ImmediateData", "No")];
    let keys: Vec<(&str, &str)> = own.into_iter().chain(keys.iter().copied()).collect();
    let mut session = open(subject, &keys)?;
    session.must_write(2000, &pattern(8, 50))?;
    let itt = session.request(session.command(WRITE | SIMPLE, &cdb10(0x2a, 2000, 8), 8 * BLOCK));
    session.must_be(back::R2T, itt)?;
    Ok((session, itt))
}

/// TASK REASSIGN, and its answer.
fn reassign(session: &mut Session, itt: u32, exp_data_sn: u32) -> Result<u8, String> {
    reassign_at(session, itt, exp_data_sn, [0; 8])
}

/// The same with something in the LUN field, which is reserved.
fn reassign_at(session: &mut Session, itt: u32, exp_data_sn: u32, lun: [u8; 8]) -> Result<u8, String> {
    let pdu =
        Pdu::new(out::TASK | out::IMMEDIATE, 0x80 | 8).put(8, &lun).put32(20, itt).put32(36, exp_data_sn);
    let request = session.request(pdu);
    Ok(session.must_be(back::TASK, request)?.bhs[2])
}

fn a_write_goes_on_at_the_connection_that_replaces_its_own(subject: &Subject) -> Outcome {
    let (session, itt) = lost_write(subject, &[])?;
    let mut again = session.again(subject, session.cid, "4096")?;
    drop(session);
    let response = reassign(&mut again, itt, 0)?;
    ensure!(response == 0, "response {response}");
    let r2t = again.must_be(back::R2T, itt)?;
    ensure!((r2t.u32(40), r2t.u32(44)) == (0, 8 * BLOCK), "not all of it is asked for: {r2t:?}");
    again.send_burst(itt, r2t.u32(20), &pattern(8, 51), 0);
    let answer = again.must_be(back::RESPONSE, itt)?;
    ensure!(answer.bhs[3] == 0, "status {:#x}", answer.bhs[3]);
    ensure!(again.must_read(2000, 8)? == pattern(8, 51), "other data");
    Ok(())
}

/// A read of three segments that is answered, and whose connection is lost before anybody says so.
fn lost_read(subject: &Subject) -> Result<(Session, u32), String> {
    let mut session = open(subject, &[])?;
    session.must_write(2000, &pattern(24, 52))?;
    let itt = session.request(session.command(READ | SIMPLE, &cdb10(0x28, 2000, 24), 24 * BLOCK));
    session.reply(itt, 24 * BLOCK)?;
    Ok((session, itt))
}

/// Collects what is sent again from a DataSN on; gives the data and how many PDUs they came in.
fn collect(
    session: &mut Session,
    itt: u32,
    from: u32,
    segment: usize,
) -> Result<(Vec<u8>, u32, Pdu), String> {
    let (mut data, mut number) = (Vec::new(), from);
    loop {
        let pdu = session.must()?;
        ensure!(pdu.itt() == itt, "a PDU of another task: {pdu:?}");
        if pdu.opcode() == back::RESPONSE {
            ensure!(pdu.bhs[3] == 0, "status {:#x}", pdu.bhs[3]);
            ensure!(pdu.u32(36) == number, "ExpDataSN {} after {number} PDUs", pdu.u32(36));
            return Ok((data, number - from, pdu));
        }
        ensure!(pdu.opcode() == back::DATA && pdu.u32(36) == number, "DataSN {number} is due: {pdu:?}");
        ensure!(pdu.data.len() <= segment, "a segment of {} bytes", pdu.data.len());
        data.extend_from_slice(&pdu.data);
        number += 1;
    }
}

fn a_status_that_nobody_heard_is_sent_again(subject: &Subject) -> Outcome {
    let (session, itt) = lost_read(subject)?;
    let mut again = session.again(subject, session.cid, "4096")?;
    let response = reassign(&mut again, itt, 0)?;
    ensure!(response == 0, "response {response}");
    let (data, count, _) = collect(&mut again, itt, 0, 4096)?;
    ensure!(data == pattern(24, 52) && count == 3, "{} bytes in {count} PDUs", data.len());
    again.barrier().map(|_| ())
}

fn data_that_expdatasn_covers_are_not_sent_again(subject: &Subject) -> Outcome {
    for (has, left) in [(2, 1), (3, 0), (77, 3)] {
        let (session, itt) = lost_read(subject)?;
        let mut again = session.again(subject, session.cid, "4096")?;
        let response = reassign(&mut again, itt, has)?;
        ensure!(response == 0, "response {response}");
        // A number beyond what was sent is ignored.
        let from = if has > 3 { 0 } else { has };
        let (data, count, _) = collect(&mut again, itt, from, 4096)?;
        ensure!(count == left, "{count} PDUs after {has}");
        ensure!(data == pattern(24, 52)[from as usize * 4096..], "other data");
    }
    Ok(())
}

fn what_is_read_again_keeps_to_the_new_segment_length(subject: &Subject) -> Outcome {
    let (session, itt) = lost_read(subject)?;
    let mut again = session.again(subject, session.cid, "1024")?;
    let response = reassign(&mut again, itt, 1)?;
    ensure!(response == 0, "response {response}");
    let (data, count, _) = collect(&mut again, itt, 1, 1024)?;
    ensure!(data == pattern(24, 52)[4096..] && count == 8, "{} bytes in {count} PDUs", data.len());
    Ok(())
}

fn a_connection_that_was_removed_by_another_gives_up_its_tasks(subject: &Subject) -> Outcome {
    let (mut first, itt) = lost_write(subject, &[("MaxConnections", "2")])?;
    let mut second = first.again(subject, 1, "4096")?;
    let response = reassign(&mut second, itt, 0)?;
    ensure!(response == 3, "a task of a live connection: response {response}");
    let logout = Pdu::new(out::LOGOUT | out::IMMEDIATE, 0x80 | 2).put(20, &first.cid.to_be_bytes());
    let request = second.request(logout);
    let answer = second.must_be(back::LOGOUT, request)?;
    ensure!(answer.bhs[2] == 0, "response {}", answer.bhs[2]);
    ensure!((answer.u16(40), answer.u16(42)) == (2, 20), "{answer:?}");
    ensure!(matches!(first.receive()?, super::wire::Received::Closed), "it is not closed");
    let response = reassign(&mut second, itt, 0)?;
    ensure!(response == 0, "response {response}");
    let r2t = second.must_be(back::R2T, itt)?;
    second.send_burst(itt, r2t.u32(20), &pattern(8, 53), 0);
    let answer = second.must_be(back::RESPONSE, itt)?;
    ensure!(answer.bhs[3] == 0, "status {:#x}", answer.bhs[3]);
    ensure!(second.must_read(2000, 8)? == pattern(8, 53), "other data");
    Ok(())
}

fn a_task_is_allegiant_to_a_connection_that_was_not_removed(subject: &Subject) -> Outcome {
    let (mut session, itt) = lost_write(subject, &[])?;
    let response = reassign(&mut session, itt, 0)?;
    ensure!(response == 3, "response {response}");
    Ok(())
}

fn a_task_of_nobody_is_not_reassigned(subject: &Subject) -> Outcome {
    let mut session = open(subject, &[])?;
    let response = reassign(&mut session, 0x7777, 0)?;
    ensure!(response == 1, "response {response}");
    Ok(())
}

/// Each waits for a number that never comes.
fn functions_that_wait_for_what_is_missing_are_bounded(subject: &Subject) -> Outcome {
    let mut session = open(subject, &[])?;
    session.barrier()?;
    session.cmd_sn = session.cmd_sn.wrapping_add(1);
    let sent = 80;
    let lun = session.lun_field();
    for _ in 0..sent {
        session.request(Pdu::new(out::TASK | out::IMMEDIATE, 0x80 | 5).put(8, &lun));
    }
    let mut rejected = 0;
    while rejected < sent / 2 {
        let pdu = session.must()?;
        ensure!(pdu.opcode() == back::REJECT, "opcode {:#x}", pdu.opcode());
        rejected += 1;
    }
    Ok(())
}

fn an_immediate_command_ends_with_its_connection(subject: &Subject) -> Outcome {
    let mut session = open(subject, &[("InitialR2T", "Yes"), ("ImmediateData", "No")])?;
    session.must_write(2000, &pattern(8, 50))?;
    let mut write = session.command(WRITE | SIMPLE, &cdb10(0x2a, 2000, 8), 8 * BLOCK);
    write.bhs[0] |= out::IMMEDIATE;
    let itt = session.request(write);
    session.must_be(back::R2T, itt)?;
    let mut again = session.again(subject, session.cid, "4096")?;
    drop(session);
    let response = reassign(&mut again, itt, 0)?;
    ensure!(response == 1, "response {response}");
    // The nexus hears that a command was cleared.
    again.plain(&[0; 6])?;
    ensure!(again.must_read(2000, 8)? == pattern(8, 50), "other data");
    Ok(())
}

fn the_lun_of_a_reassignment_is_not_looked_at(subject: &Subject) -> Outcome {
    for lun in [[0, 200, 0, 0, 0, 0, 0, 0], [0xff; 8]] {
        let (session, itt) = lost_write(subject, &[])?;
        let mut again = session.again(subject, session.cid, "4096")?;
        drop(session);
        let nobody = reassign_at(&mut again, 0x7777, 0, lun)?;
        ensure!(nobody == 1, "a task that is not there: response {nobody}");
        let response = reassign_at(&mut again, itt, 0, lun)?;
        ensure!(response == 0, "{lun:x?}: response {response}");
        let r2t = again.must_be(back::R2T, itt)?;
        again.send_burst(itt, r2t.u32(20), &pattern(8, 55), 0);
        let answer = again.must_be(back::RESPONSE, itt)?;
        ensure!(answer.bhs[3] == 0, "status {:#x}", answer.bhs[3]);
        ensure!(again.must_read(2000, 8)? == pattern(8, 55), "other data");
    }
    Ok(())
}

/// In whatever order the keys come, in one request and in several.
fn one_r2t_is_open_where_sequences_are_in_order_and_may_come_again(subject: &Subject) -> Outcome {
    let keys = [("MaxOutstandingR2T", "4"), ("DataSequenceInOrder", "Yes"), ("ErrorRecoveryLevel", "1")];
    let names = [("InitiatorName", INITIATOR), ("TargetName", subject.target.as_str())];
    for turn in 0..3 {
        for requests in [1, 3] {
            let mut keys = keys;
            keys.rotate_left(turn);
            let mut login = Login::connect(subject)?;
            let mut agreed = Pairs::new();
            for (number, some) in (1..).zip(keys.chunks(3 / requests)) {
                let named = if number == 1 { &names[..] } else { &[] };
                let flags = if number == requests { TO_FULL_FEATURE } else { 1 << 2 };
                let answer = login.exchange(flags, &[named, some].concat())?;
                ensure!(answer.status() == 0, "{some:?}: refused with {:#06x}", answer.status());
                agreed.extend(answer.pairs);
            }
            let of = |key: &str| agreed.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
            let (level, in_order) = (of("ErrorRecoveryLevel"), of("DataSequenceInOrder"));
            let one = of("MaxOutstandingR2T") == Some("1");
            ensure!(in_order == Some("Yes"), "{agreed:?}");
            ensure!(level == Some("0") || one, "{requests} requests of {keys:?}: {agreed:?}");
            ensure!(requests > 1 || level == Some("1"), "the level is given up for nothing: {agreed:?}");
        }
    }
    let open = Session::open(subject, &[("MaxOutstandingR2T", "4"), ("DataSequenceInOrder", "Yes")])?;
    ensure!(open.number("MaxOutstandingR2T")? > 1, "several where nothing comes again");
    Ok(())
}

fn a_command_that_was_lost_comes_again_with_its_number(subject: &Subject) -> Outcome {
    let mut session = open(subject, &[])?;
    session.must_write(2000, &pattern(1, 54))?;
    // Half of a header, and the connection is gone.
    let command = session.command(READ | SIMPLE, &cdb10(0x28, 2000, 1), BLOCK);
    let itt = session.new_itt();
    let lost = session.number_pdu(command, itt);
    session.link.send_raw(&lost.bhs[..20]);
    session.cmd_sn = session.cmd_sn.wrapping_sub(1);
    let mut again = session.again(subject, session.cid, "4096")?;
    drop(session);
    let command = again.command(READ | SIMPLE, &cdb10(0x28, 2000, 1), BLOCK);
    let lost = again.number_pdu(command, itt);
    again.link.send(&lost);
    ensure!(again.reply(itt, BLOCK)?.data == pattern(1, 54), "other data");
    Ok(())
}

/// A SNACK (RFC 7143 section 11.16), which takes no number.
fn snack(session: &mut Session, kind: u8, tags: (u32, u32), begin: u32, run: u32) {
    let pdu = Pdu::new(out::SNACK, 0x80 | kind)
        .put(8, &session.lun_field())
        .put32(16, tags.0)
        .put32(20, tags.1)
        .put32(28, session.exp_stat_sn())
        .put32(40, begin)
        .put32(44, run);
    session.link.send(&pdu);
}

fn an_r_data_snack_brings_data_in_other_segments_and_its_tag(subject: &Subject) -> Outcome {
    let (mut session, itt) = lost_read(subject)?;
    // The old answer is not acknowledged by the request that changes the length.
    let stale = session.exp_stat_sn().wrapping_sub(1);
    let text = Pdu::new(out::TEXT | out::IMMEDIATE, 0x80)
        .put32(20, NO_TAG)
        .with_data(b"MaxRecvDataSegmentLength=1024\0");
    let request = session.new_itt();
    let text = session.number_pdu(text, request).put32(28, stale);
    session.link.send(&text);
    session.must_be(back::TEXT, request)?;
    let pdu = Pdu::new(out::SNACK, 0x80 | 3)
        .put(8, &session.lun_field())
        .put32(16, itt)
        .put32(20, 0x1234)
        .put32(28, stale);
    session.link.send(&pdu);
    let (mut data, mut number) = (Vec::new(), 0);
    // Of the first answer's number: it is the same status.
    let answer = loop {
        let super::wire::Received::Pdu(pdu) = session.link.receive()? else {
            return Err("nothing came".to_owned());
        };
        if pdu.opcode() == back::RESPONSE {
            break pdu;
        }
        ensure!(pdu.opcode() == back::DATA && pdu.u32(36) == number, "DataSN {number} is due: {pdu:?}");
        ensure!(pdu.data.len() <= 1024, "a segment of {} bytes", pdu.data.len());
        data.extend_from_slice(&pdu.data);
        number += 1;
    };
    ensure!(data == pattern(24, 52) && number == 12, "{} bytes in {number} PDUs", data.len());
    ensure!(answer.u32(20) == 0x1234, "SNACK tag {:#x}", answer.u32(20));
    ensure!(answer.u32(24) == stale && answer.u32(36) == 12, "{answer:?}");
    Ok(())
}

fn data_and_status_are_sent_again_when_asked_for(subject: &Subject) -> Outcome {
    let (mut session, itt) = lost_read(subject)?;
    let status = session.exp_stat_sn().wrapping_sub(1);
    // ExpStatSN stays below the answer that is asked for.
    let ask = |kind: u8, tag: u32, begin: u32| {
        Pdu::new(out::SNACK, 0x80 | kind)
            .put32(16, tag)
            .put32(20, NO_TAG)
            .put32(28, status)
            .put32(40, begin)
            .put32(44, 1)
    };
    session.link.send(&ask(0, itt, 1));
    let data = session.must_be(back::DATA, itt)?;
    ensure!(data.u32(36) == 1 && data.data == pattern(24, 52)[4096..8192], "{data:?}");
    session.link.send(&ask(1, NO_TAG, status));
    let super::wire::Received::Pdu(answer) = session.link.receive()? else {
        return Err("nothing came".to_owned());
    };
    ensure!(answer.opcode() == back::RESPONSE && answer.u32(24) == status, "{answer:?}");
    // What was never sent cannot be sent again.
    snack(&mut session, 0, (itt, NO_TAG), 40, 1);
    let refused = session.must()?;
    ensure!(refused.opcode() == back::REJECT && refused.bhs[2] == 3, "{refused:?}");
    Ok(())
}
