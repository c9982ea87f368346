//! Data in any order, where the target agrees to that (RFC 7143 sections 13.18 and 13.19).

use super::io::{BLOCK, CHECK, READ, SIMPLE, WRITE, cdb10, pattern};
use super::wire::{NO_TAG, Pdu, back};
use super::{Case, Outcome, Session, Subject};

pub(super) const CASES: &[Case] = table! {
    "13.18" data_outs_of_a_burst_come_in_any_order
    "13.18" unsolicited_data_outs_come_in_any_order
    "13.18" a_burst_that_leaves_a_hole_is_not_whole
    "13.18" data_ins_cover_what_is_read_once
    "13.19" several_bursts_are_asked_for_at_once
};

/// Bytes of a data PDU.
const SEGMENT: usize = 1024;

fn open(subject: &Subject, keys: &[(&str, &str)]) -> Result<Session, String> {
    let any = [("DataPDUInOrder", "No"), ("DataSequenceInOrder", "No"), ("MaxBurstLength", "4096")];
    let session = Session::open(subject, &[&any[..], &[("FirstBurstLength", "4096")], keys].concat())?;
    for (key, _) in &any[..2] {
        ensure!(session.answered(key) == Some("No"), "{key} is {:?}", session.answered(key));
    }
    Ok(session)
}

const SOLICITED: [(&str, &str); 2] = [("InitialR2T", "Yes"), ("ImmediateData", "No")];

/// The PDUs of a burst at an offset of the data, in this order.
fn send(session: &mut Session, itt: u32, ttt: u32, data: &[u8], offset: u32, order: &[usize]) {
    for (number, part) in (0..).zip(order) {
        let from = offset as usize + part * SEGMENT;
        let at = u32::try_from(from).expect("short");
        let pdu = session.data_out(itt, ttt, number, at, &data[from..from + SEGMENT]);
        let last = number as usize + 1 == order.len();
        session.link.send(&if last { pdu.put(1, &[0x80]) } else { pdu });
    }
}

fn write(session: &mut Session, flags: u8) -> u32 {
    session.request(session.command(flags | SIMPLE, &cdb10(0x2a, 800, 32), 32 * BLOCK))
}

/// Answers R2Ts with bursts out of order, until the status comes.
fn feed(session: &mut Session, itt: u32, data: &[u8]) -> Result<Pdu, String> {
    for order in [[3, 1, 0, 2], [1, 0, 3, 2], [0, 3, 2, 1], [2, 3, 0, 1], [0, 1, 2, 3]] {
        let pdu = session.must()?;
        if pdu.opcode() != back::R2T {
            return Ok(pdu);
        }
        ensure!(pdu.u32(44) == 4096, "an R2T for {} bytes of 4096", pdu.u32(44));
        send(session, itt, pdu.u32(20), data, pdu.u32(40), &order);
    }
    Err("R2Ts without an end".to_owned())
}

fn data_outs_of_a_burst_come_in_any_order(subject: &Subject) -> Outcome {
    let mut session = open(subject, &SOLICITED)?;
    let data = pattern(32, 50);
    let itt = write(&mut session, WRITE);
    let end = feed(&mut session, itt, &data)?;
    ensure!(end.opcode() == back::RESPONSE && end.bhs[3] == 0, "{end:?}");
    ensure!(session.must_read(800, 32)? == data, "other data are read back");
    Ok(())
}

fn unsolicited_data_outs_come_in_any_order(subject: &Subject) -> Outcome {
    let mut session = open(subject, &[("InitialR2T", "No"), ("ImmediateData", "No")])?;
    let data = pattern(32, 51);
    let itt = write(&mut session, 0x20);
    send(&mut session, itt, NO_TAG, &data, 0, &[2, 0, 3, 1]);
    let end = feed(&mut session, itt, &data)?;
    ensure!(end.opcode() == back::RESPONSE && end.bhs[3] == 0, "{end:?}");
    ensure!(session.must_read(800, 32)? == data, "other data are read back");
    Ok(())
}

fn a_burst_that_leaves_a_hole_is_not_whole(subject: &Subject) -> Outcome {
    for order in [&[3, 1, 0][..], &[0, 1, 2], &[1, 0, 1]] {
        let mut session = open(subject, &SOLICITED)?;
        session.must_write(800, &pattern(32, 52))?;
        let itt = write(&mut session, WRITE);
        let r2t = session.must_be(back::R2T, itt)?;
        send(&mut session, itt, r2t.u32(20), &pattern(32, 53), 0, order);
        let end = session.must_be(back::RESPONSE, itt)?;
        ensure!(end.bhs[3] == CHECK, "{order:?}: status {:#x}", end.bhs[3]);
        ensure!(
            session.must_read(808, 24)? == pattern(32, 52)[4096..],
            "{order:?}: blocks that nobody wrote"
        );
    }
    Ok(())
}

fn data_ins_cover_what_is_read_once(subject: &Subject) -> Outcome {
    let mut session = open(subject, &[("MaxRecvDataSegmentLength", "512")])?;
    let data = pattern(32, 54);
    session.must_write(800, &data)?;
    let itt = session.request(session.command(READ | SIMPLE, &cdb10(0x28, 800, 32), 32 * BLOCK));
    let mut there = vec![None; data.len()];
    for number in 0.. {
        let pdu = session.must_be(back::DATA, itt)?;
        ensure!(pdu.u32(36) == number, "DataSN {} after {number} PDUs", pdu.u32(36));
        for (at, byte) in (pdu.u32(40) as usize..).zip(&pdu.data) {
            let place = there.get_mut(at).ok_or_else(|| format!("a byte at {at}"))?;
            ensure!(place.replace(*byte).is_none(), "the byte at {at} comes twice");
        }
        if pdu.flags() & 1 != 0 {
            break;
        }
    }
    ensure!(there == data.into_iter().map(Some).collect::<Vec<_>>(), "other data are read back");
    Ok(())
}

fn several_bursts_are_asked_for_at_once(subject: &Subject) -> Outcome {
    // At a recovery level: where sequences are in order there is one.
    let level = [("ErrorRecoveryLevel", "1"), ("MaxOutstandingR2T", "3")];
    let mut session = open(subject, &[&SOLICITED[..], &level].concat())?;
    let limit = session.number("MaxOutstandingR2T")?;
    ensure!(limit > 1, "one R2T is open at a time, at level {:?}", session.answered("ErrorRecoveryLevel"));
    let data = pattern(32, 55);
    let itt = write(&mut session, WRITE);
    let mut open = session.barrier()?;
    ensure!(open.len() as u32 == limit.min(4), "{} R2Ts, {limit} were agreed on", open.len());
    // Their data may be between each other's.
    for part in 0..4 {
        for r2t in &open {
            let from = r2t.u32(40) as usize + part * SEGMENT;
            let at = u32::try_from(from).expect("short");
            let number = u32::try_from(part).expect("few");
            let pdu = session.data_out(itt, r2t.u32(20), number, at, &data[from..from + SEGMENT]);
            session.link.send(&if part == 3 { pdu.put(1, &[0x80]) } else { pdu });
        }
    }
    open.clear();
    let end = feed(&mut session, itt, &data)?;
    ensure!(end.opcode() == back::RESPONSE && end.bhs[3] == 0, "{end:?}");
    ensure!(session.must_read(800, 32)? == data, "other data are read back");
    Ok(())
}
