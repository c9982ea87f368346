//! Task management and logout (RFC 7143 sections 4.2.3, 11.5, 11.6, 11.14, 11.15).

use super::io::{BLOCK, CHECK, READ, SIMPLE, WRITE, cdb10, pattern};
use super::wire::{NO_TAG, Pdu, Received, back, out};
use super::{Case, Outcome, Session, Subject};

/// Of byte 5 of the control mode page.
const TAS: u8 = 0x40;

pub(super) const CASES: &[Case] = table! {
    "11.6.1" a_task_that_is_not_there_is_not_aborted
    "7.11" a_task_that_was_answered_is_not_there
    "11.5.1" an_aborted_write_gets_no_status_and_leaves_no_data
    "11.5.1" abort_task_set_ends_this_sessions_tasks
    "11.5.1" a_lun_reset_ends_tasks
    "11.5.1" what_another_session_clears_is_told_as_the_control_mode_page_says
    "11.4.11" a_window_that_another_session_opens_is_told
    "4.2.3.3" data_that_cross_an_abort_are_nobodys
    "11.6.1" a_lun_that_is_not_there_is_not_reset
    "11.6.1" a_task_that_never_came_counts_as_come
    "11.6.1" reassignment_needs_its_recovery_level
    "11.6.1" a_function_of_fancy_is_refused
    "11.14" a_session_is_closed
    "11.14" a_connection_is_closed_by_its_identifier
    "11.15.1" a_connection_of_nobody_is_not_found
    "11.15.1" recovery_needs_its_level
    "11.14" a_reason_of_fancy_is_refused
    "11.14" a_write_that_waits_for_data_does_not_hold_up_a_logout
};

/// A task management request for the session's LUN.
fn request(session: &Session, function: u8, referenced: u32, ref_cmd_sn: u32) -> Pdu {
    Pdu::new(out::TASK | out::IMMEDIATE, 0x80 | function)
        .put(8, &session.lun_field())
        .put32(20, referenced)
        .put32(32, ref_cmd_sn)
}

/// The answer to a request.
fn manage(session: &mut Session, pdu: Pdu) -> Result<u8, String> {
    let itt = session.request(pdu);
    Ok(session.must_be(back::TASK, itt)?.bhs[2])
}

/// A session with a write that waits for its data; its tag, number and R2T.
pub(super) fn waiting(subject: &Subject) -> Result<(Session, u32, u32, Pdu), String> {
    let mut session = Session::open(subject, &[("InitialR2T", "Yes"), ("ImmediateData", "No")])?;
    session.must_write(1000, &pattern(8, 40))?;
    let number = session.cmd_sn;
    let itt = session.request(session.command(WRITE | SIMPLE, &cdb10(0x2a, 1000, 8), 8 * BLOCK));
    let r2t = session.must_be(back::R2T, itt)?;
    Ok((session, itt, number, r2t))
}

/// Nothing is heard of the task any more, its late data are dropped, and the blocks are as they were.
fn is_over(mut session: Session, itt: u32, r2t: &Pdu) -> Outcome {
    session.send_burst(itt, r2t.u32(20), &pattern(8, 41), 0);
    let said = session.barrier()?;
    ensure!(said.iter().all(|pdu| pdu.itt() != itt), "the aborted task is answered: {said:?}");
    // A unit attention may come first.
    session.plain(&[0; 6])?;
    ensure!(session.must_read(1000, 8)? == pattern(8, 40), "data of the aborted write are there");
    Ok(())
}

fn a_task_that_is_not_there_is_not_aborted(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    session.barrier()?;
    let old = session.exp_cmd_sn.wrapping_sub(1);
    let pdu = request(&session, 1, 0x5555, old);
    let response = manage(&mut session, pdu)?;
    ensure!(response == 1, "response {response}");
    Ok(())
}

/// It was late for its initiator, and not for the target.
fn a_task_that_was_answered_is_not_there(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let number = session.cmd_sn;
    let itt = session.request(session.command(0x80 | SIMPLE, &[0; 6], 0));
    session.must_be(back::RESPONSE, itt)?;
    let pdu = request(&session, 1, itt, number);
    let response = manage(&mut session, pdu)?;
    ensure!(response == 1, "response {response}");
    Ok(())
}

fn an_aborted_write_gets_no_status_and_leaves_no_data(subject: &Subject) -> Outcome {
    let (mut session, itt, number, r2t) = waiting(subject)?;
    let pdu = request(&session, 1, itt, number);
    let response = manage(&mut session, pdu)?;
    ensure!(response == 0, "response {response}");
    is_over(session, itt, &r2t)
}

fn abort_task_set_ends_this_sessions_tasks(subject: &Subject) -> Outcome {
    let (mut session, itt, _, r2t) = waiting(subject)?;
    let pdu = request(&session, 2, NO_TAG, 0);
    let response = manage(&mut session, pdu)?;
    ensure!(response == 0, "response {response}");
    is_over(session, itt, &r2t)
}

fn a_lun_reset_ends_tasks(subject: &Subject) -> Outcome {
    let (mut session, itt, _, r2t) = waiting(subject)?;
    let pdu = request(&session, 5, NO_TAG, 0);
    let response = manage(&mut session, pdu)?;
    ensure!(response == 0, "response {response}");
    is_over(session, itt, &r2t)
}

/// A task ends without an answer: its place in the window is free, and nothing else says so.
fn a_window_that_another_session_opens_is_told(subject: &Subject) -> Outcome {
    let mut other = Session::open(subject, &[])?;
    let (mut session, ..) = waiting(subject)?;
    let pdu = request(&other, 5, NO_TAG, 0);
    manage(&mut other, pdu)?;
    session.link.set_patience(std::time::Duration::from_secs(1));
    while let Received::Pdu(_) = session.receive()? {}
    session.link.set_patience(subject.patience);
    let told = session.max_cmd_sn;
    session.barrier()?;
    ensure!(
        session.max_cmd_sn == told,
        "the window has opened to {:#x}, told was {told:#x}",
        session.max_cmd_sn
    );
    Ok(())
}

/// The control mode page: its changeable bits, or its values.
fn control_page(session: &mut Session, page_control: u8) -> Result<Vec<u8>, String> {
    let cdb = [0x1a, 8, page_control << 6 | 0x0a, 0, 16, 0];
    let itt = session.request(session.command(READ | SIMPLE, &cdb, 16));
    let reply = session.reply(itt, 16)?;
    ensure!(reply.status == 0 && reply.data.len() == 16, "the control mode page: {reply:?}");
    Ok(reply.data[4..].to_vec())
}

/// TAS, as it is to be.
fn set_task_aborted(session: &mut Session, bit: u8) -> Outcome {
    let mut page = control_page(session, 0)?;
    (page[0], page[5]) = (page[0] & 0x3f, page[5] & !TAS | bit);
    let reply = session.send_out(&[0x15, 0x10, 0, 0, 16, 0], &[&[0; 4][..], &page].concat())?;
    ensure!(reply.status == 0, "MODE SELECT: {reply:?}");
    Ok(())
}

/// TASK ABORTED is the status of what another nexus has ended where TAS is one; where it is zero there is none, and a unit attention comes
/// with the next command. A target whose TAS cannot be set is not asked.
fn what_another_session_clears_is_told_as_the_control_mode_page_says(subject: &Subject) -> Outcome {
    const CLEAR_TASK_SET: u8 = 4;
    let mut other = Session::open(subject, &[])?;
    if control_page(&mut other, 1)?[5] & TAS == 0 {
        return Ok(());
    }
    for bit in [TAS, 0] {
        set_task_aborted(&mut other, bit)?;
        let (mut session, itt, _, r2t) = waiting(subject)?;
        let pdu = request(&other, CLEAR_TASK_SET, NO_TAG, 0);
        let response = manage(&mut other, pdu)?;
        ensure!(response == 0, "response {response}");
        if bit == TAS {
            let answer = session.must_be(back::RESPONSE, itt)?;
            ensure!(answer.bhs[3] == 0x40, "status {:#x} in place of TASK ABORTED", answer.bhs[3]);
        }
        session.send_burst(itt, r2t.u32(20), &pattern(8, 41), 0);
        let said = session.barrier()?;
        ensure!(said.iter().all(|pdu| pdu.itt() != itt), "it is answered when nobody waits: {said:?}");
        let next = session.plain(&[0; 6])?;
        let told = next.status == CHECK && next.sense_code() == (6, 0x2f, 0);
        ensure!(told == (bit == 0), "the next command of that session, TAS {bit:#x}: {next:?}");
        ensure!(session.must_read(1000, 8)? == pattern(8, 40), "data of the aborted write are there");
    }
    Ok(())
}

/// Several R2Ts are open when the task is ended: data that cross the request, that come behind it, and that come behind its answer are
/// taken off the wire and land nowhere, and a task with the same tag may be begun at once.
fn data_that_cross_an_abort_are_nobodys(subject: &Subject) -> Outcome {
    const ABORT_TASK: u8 = 1;
    const ABORT_TASK_SET: u8 = 2;
    const LUN_RESET: u8 = 5;
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No"), ("MaxBurstLength", "1024")];
    let keys = [&keys[..], &[("MaxOutstandingR2T", "3")]].concat();
    for function in [ABORT_TASK, ABORT_TASK_SET, LUN_RESET] {
        let mut session = Session::open(subject, &keys)?;
        let agreed = session.number("MaxOutstandingR2T")? as usize;
        session.must_write(1000, &pattern(8, 42))?;
        let number = session.cmd_sn;
        let write = session.command(WRITE | SIMPLE, &cdb10(0x2a, 1000, 8), 8 * BLOCK);
        let itt = session.request(write);
        let mut r2ts = vec![session.must_be(back::R2T, itt)?];
        while r2ts.len() < agreed {
            r2ts.push(session.must_be(back::R2T, itt)?);
        }
        let refused = pattern(2, 43);
        let answer = |session: &mut Session, r2t: &Pdu| {
            session.send_burst(itt, r2t.u32(20), &refused, r2t.u32(40));
        };
        answer(&mut session, &r2ts[0]);
        let referenced = if function == ABORT_TASK { itt } else { NO_TAG };
        let ask = request(&session, function, referenced, number);
        let asked = session.request(ask);
        r2ts[1..].iter().take(1).for_each(|r2t| answer(&mut session, r2t));
        // What was asked for before the target knew may still come.
        let mut said = session.must()?;
        while said.opcode() == back::R2T {
            said = session.must()?;
        }
        ensure!((said.opcode(), said.itt(), said.bhs[2]) == (back::TASK, asked, 0), "{function}: {said:?}");
        r2ts.iter().skip(2).for_each(|r2t| answer(&mut session, r2t));
        let said = session.barrier()?;
        ensure!(
            said.iter().all(|pdu| pdu.itt() != itt),
            "{function}: the aborted task is answered: {said:?}"
        );
        session.plain(&[0; 6])?;
        let found = session.must_read(1000, 8)?;
        // One burst had all the time in the world, and need not be undone; what came behind the request must not land.
        let landed = |at: usize| found[at..at + 1024] != pattern(8, 42)[at..at + 1024];
        ensure!(!(1024..3072).step_by(1024).any(landed), "{function}: data of the ended write are there");
        session.must_write(1000, &pattern(8, 44))?;
        ensure!(session.must_read(1000, 8)? == pattern(8, 44), "{function}: other data are read back");
    }
    Ok(())
}

fn a_lun_that_is_not_there_is_not_reset(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let pdu = request(&session, 5, NO_TAG, 0).put(8, &[0, 200]);
    let response = manage(&mut session, pdu)?;
    ensure!(response == 2, "response {response}");
    Ok(())
}

fn a_task_that_never_came_counts_as_come(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    session.barrier()?;
    let missing = session.cmd_sn;
    session.cmd_sn = missing.wrapping_add(1);
    let pdu = request(&session, 1, 0x5555, missing);
    let response = manage(&mut session, pdu)?;
    ensure!(response == 0, "response {response}");
    // The number is used up.
    session.must_read(0, 1).map(|_| ())
}

fn reassignment_needs_its_recovery_level(subject: &Subject) -> Outcome {
    let (mut session, itt, number, _) = waiting(subject)?;
    let pdu = request(&session, 8, itt, number);
    let response = manage(&mut session, pdu)?;
    ensure!(response == 4 || response == 5, "response {response}");
    Ok(())
}

fn a_function_of_fancy_is_refused(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let pdu = request(&session, 77, NO_TAG, 0);
    let itt = session.request(pdu);
    let answer = session.must()?;
    let refused = answer.opcode() == back::TASK && answer.itt() == itt && matches!(answer.bhs[2], 5 | 255);
    ensure!(refused || answer.opcode() == back::REJECT, "{answer:?}");
    Ok(())
}

fn logout(session: &mut Session, reason: u8, cid: u16) -> Result<Pdu, String> {
    let itt = session.request(Pdu::new(out::LOGOUT, 0x80 | reason).put(20, &cid.to_be_bytes()));
    loop {
        let pdu = session.must()?;
        if pdu.opcode() == back::LOGOUT && pdu.itt() == itt {
            return Ok(pdu);
        }
        ensure!(pdu.opcode() != back::REJECT, "rejected for {:#x}", pdu.bhs[2]);
    }
}

fn closes(subject: &Subject, reason: u8) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let cid = session.cid;
    let answer = logout(&mut session, reason, cid)?;
    ensure!(answer.bhs[2] == 0 && answer.flags() == 0x80, "{answer:?}");
    let said = session.until_closed()?;
    ensure!(said.is_empty(), "after the logout: {said:?}");
    Ok(())
}

fn a_session_is_closed(subject: &Subject) -> Outcome {
    closes(subject, 0)
}

fn a_connection_is_closed_by_its_identifier(subject: &Subject) -> Outcome {
    closes(subject, 1)
}

fn a_connection_of_nobody_is_not_found(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let cid = session.cid + 9;
    let answer = logout(&mut session, 1, cid)?;
    ensure!(answer.bhs[2] == 1, "response {}", answer.bhs[2]);
    session.barrier().map(|_| ())
}

fn recovery_needs_its_level(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[("ErrorRecoveryLevel", "0")])?;
    let cid = session.cid;
    let answer = logout(&mut session, 2, cid)?;
    ensure!(answer.bhs[2] == 2, "response {}", answer.bhs[2]);
    Ok(())
}

fn a_reason_of_fancy_is_refused(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let itt = session.request(Pdu::new(out::LOGOUT, 0x80 | 66));
    match session.receive()? {
        Received::Closed => Ok(()),
        Received::Pdu(pdu) if pdu.opcode() == back::REJECT => Ok(()),
        Received::Pdu(pdu) if pdu.itt() == itt && pdu.bhs[2] != 0 => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn a_write_that_waits_for_data_does_not_hold_up_a_logout(subject: &Subject) -> Outcome {
    let (mut session, _, _, _) = waiting(subject)?;
    let cid = session.cid;
    let answer = logout(&mut session, 0, cid)?;
    ensure!(answer.bhs[2] == 0, "response {}", answer.bhs[2]);
    session.until_closed()?;
    ensure!(Session::open(subject, &[])?.must_read(1000, 8)? == pattern(8, 40), "data were written");
    Ok(())
}
