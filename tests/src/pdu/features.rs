//! What iSCSIProtocolLevel 2 brings (RFC 7144): queries, the reset of a nexus, priorities, status qualifiers.

use super::io::{BLOCK, CHECK, READ, SIMPLE, WRITE, cdb10, pattern};
use super::session::{INITIATOR, TO_FULL_FEATURE};
use super::wire::{NO_TAG, Pdu, back, out};
use super::{Case, Login, Outcome, Session, Subject};

pub(super) const CASES: &[Case] = table! {
    "7144:4.1" queries_are_refused_below_their_level
    "7144:5.1.1" a_command_with_a_priority_is_carried_out
    "7144:5.2.1" a_status_has_no_qualifier
    "7144:6.4.2" a_query_finds_the_task_that_is_there
    "7144:6.4.2" a_query_of_the_task_set_finds_this_sessions_tasks
    "7144:6.3" the_reset_of_a_nexus_ends_its_tasks
    "7144:6.3" the_reset_of_a_nexus_drops_its_connections
    "7144:6.4.1" an_event_that_waits_is_told_with_its_sense
};

const QUERY_TASK: u8 = 9;
const QUERY_TASK_SET: u8 = 10;
const NEXUS_RESET: u8 = 11;
const QUERY_EVENT: u8 = 12;

const COMPLETE: u8 = 0;
const UNSUPPORTED: u8 = 5;
const SUCCEEDED: u8 = 7;

fn open(subject: &Subject, keys: &[(&str, &str)]) -> Result<Session, String> {
    let keys: Vec<(&str, &str)> =
        [("iSCSIProtocolLevel", "2")].into_iter().chain(keys.iter().copied()).collect();
    let session = Session::open(subject, &keys)?;
    ensure!(session.number("iSCSIProtocolLevel")? == 2, "level {:?}", session.answered("iSCSIProtocolLevel"));
    Ok(session)
}

/// A request's answer: the code, and the additional response information.
fn manage(session: &mut Session, function: u8, referenced: u32) -> Result<(u8, [u8; 3]), String> {
    let pdu = Pdu::new(out::TASK | out::IMMEDIATE, 0x80 | function)
        .put(8, &session.lun_field())
        .put32(20, referenced);
    let itt = session.request(pdu);
    let answer = session.must_be(back::TASK, itt)?;
    Ok((answer.bhs[2], [answer.bhs[8], answer.bhs[9], answer.bhs[10]]))
}

/// A write that waits for its data.
fn waiting(subject: &Subject) -> Result<(Session, u32, Pdu), String> {
    let mut session = open(subject, &[("InitialR2T", "Yes"), ("ImmediateData", "No")])?;
    session.must_write(3000, &pattern(8, 60))?;
    let itt = session.request(session.command(WRITE | SIMPLE, &cdb10(0x2a, 3000, 8), 8 * BLOCK));
    let r2t = session.must_be(back::R2T, itt)?;
    Ok((session, itt, r2t))
}

fn queries_are_refused_below_their_level(subject: &Subject) -> Outcome {
    for keys in [&[][..], &[("iSCSIProtocolLevel", "1")]] {
        let mut session = Session::open(subject, keys)?;
        for function in [QUERY_TASK, QUERY_TASK_SET, NEXUS_RESET, QUERY_EVENT] {
            let answer = manage(&mut session, function, NO_TAG)?;
            ensure!(answer == (UNSUPPORTED, [0; 3]), "function {function}: {answer:?}");
        }
    }
    Ok(())
}

fn a_command_with_a_priority_is_carried_out(subject: &Subject) -> Outcome {
    let mut session = open(subject, &[])?;
    session.must_write(3000, &pattern(2, 61))?;
    for priority in [0x10, 0x80, 0xf0] {
        let command = session.command(READ | SIMPLE, &cdb10(0x28, 3000, 2), 2 * BLOCK).put(2, &[priority]);
        let itt = session.request(command);
        let reply = session.reply(itt, 2 * BLOCK)?;
        ensure!(reply.status == 0 && reply.data == pattern(2, 61), "priority {priority:#x}: {reply:?}");
    }
    Ok(())
}

fn a_status_has_no_qualifier(subject: &Subject) -> Outcome {
    let mut session = open(subject, &[])?;
    for (cdb, status) in [([0u8; 6], 0), ([0xff, 0, 0, 0, 0, 0], CHECK)] {
        let itt = session.request(session.command(0x80 | SIMPLE, &cdb, 0));
        let answer = session.must_be(back::RESPONSE, itt)?;
        ensure!(answer.bhs[3] == status && answer.bhs[8..10] == [0, 0], "{answer:?}");
    }
    Ok(())
}

fn a_query_finds_the_task_that_is_there(subject: &Subject) -> Outcome {
    let (mut session, itt, r2t) = waiting(subject)?;
    let there = manage(&mut session, QUERY_TASK, itt)?;
    let other = manage(&mut session, QUERY_TASK, itt ^ 0x5555)?;
    ensure!((there, other) == ((SUCCEEDED, [0; 3]), (COMPLETE, [0; 3])), "{there:?}, {other:?}");
    // It is asked about, and goes on.
    session.send_burst(itt, r2t.u32(20), &pattern(8, 62), 0);
    let answer = session.must_be(back::RESPONSE, itt)?;
    ensure!(answer.bhs[3] == 0, "{answer:?}");
    let ended = manage(&mut session, QUERY_TASK, itt)?;
    ensure!(ended.0 == COMPLETE, "{ended:?}");
    ensure!(session.must_read(3000, 8)? == pattern(8, 62), "the data are not there");
    Ok(())
}

fn a_query_of_the_task_set_finds_this_sessions_tasks(subject: &Subject) -> Outcome {
    let (mut session, _, _) = waiting(subject)?;
    let busy = manage(&mut session, QUERY_TASK_SET, NO_TAG)?;
    ensure!(busy.0 == SUCCEEDED, "{busy:?}");
    let mut other = open(subject, &[])?;
    let idle = manage(&mut other, QUERY_TASK_SET, NO_TAG)?;
    ensure!(idle.0 == COMPLETE, "tasks of another nexus: {idle:?}");
    Ok(())
}

fn the_reset_of_a_nexus_ends_its_tasks(subject: &Subject) -> Outcome {
    let (mut session, itt, r2t) = waiting(subject)?;
    let answer = manage(&mut session, NEXUS_RESET, NO_TAG)?;
    ensure!(answer.0 == COMPLETE, "{answer:?}");
    session.send_burst(itt, r2t.u32(20), &pattern(8, 63), 0);
    let said = session.until_closed()?;
    ensure!(said.iter().all(|pdu| pdu.itt() != itt), "the task is answered: {said:?}");
    let mut again = again(subject, &session)?;
    let told = again.plain(&[0; 6])?;
    ensure!(told.sense_code() == (6, 0x29, 7), "I_T NEXUS LOSS OCCURRED in place of {told:?}");
    ensure!(again.must_read(3000, 8)? == pattern(8, 60), "data of the task are there");
    Ok(())
}

/// A new session of the same nexus, before it has been told anything.
fn again(subject: &Subject, session: &Session) -> Result<Session, String> {
    let mut login = Login::connect(subject)?;
    login.isid = session.isid;
    let names = [("InitiatorName", INITIATOR), ("TargetName", subject.target.as_str())];
    let answer = login.exchange(TO_FULL_FEATURE, &names)?;
    ensure!(answer.status() == 0, "login refused with {:#06x}", answer.status());
    Ok(login.into_session(subject, &answer, answer.pairs.iter().cloned().collect()))
}

/// All of them, at once, whatever time a lost connection would have; and nobody else's.
fn the_reset_of_a_nexus_drops_its_connections(subject: &Subject) -> Outcome {
    let mut other = open(subject, &[])?;
    for level in ["0", "2"] {
        let keys = [
            ("MaxConnections", "2"),
            ("ErrorRecoveryLevel", level),
            ("DefaultTime2Wait", "60"),
            ("DefaultTime2Retain", "60"),
        ];
        let mut first = open(subject, &keys)?;
        let mut second = first.again(subject, 7, "65536")?;
        // The answer waits until every status of the session is acknowledged.
        let ack = Pdu::new(out::NOP | out::IMMEDIATE, 0x80).put32(20, NO_TAG);
        let ack = first.number_pdu(ack, NO_TAG);
        first.link.send(&ack);
        let answer = manage(&mut second, NEXUS_RESET, NO_TAG)?;
        ensure!(answer.0 == COMPLETE, "{answer:?}");
        for session in [&mut second, &mut first] {
            // Session dropped, to be had again at once, and nothing is kept.
            let said = session.until_closed()?;
            let events = said.iter().filter(|pdu| pdu.opcode() == back::ASYNC && pdu.bhs[36] == 3);
            let times: Vec<(u16, u16)> = events.map(|pdu| (pdu.u16(40), pdu.u16(42))).collect();
            ensure!(times == [(0, 0)], "{said:?}");
        }
        // It is not there to be joined.
        ensure!(first.again(subject, 7, "65536").is_err(), "the session goes on");
        open(subject, &keys)?.barrier()?;
    }
    other.barrier().map(drop)
}

fn an_event_that_waits_is_told_with_its_sense(subject: &Subject) -> Outcome {
    let mut session = open(subject, &[])?;
    let none = manage(&mut session, QUERY_EVENT, NO_TAG)?;
    ensure!(none == (COMPLETE, [0; 3]), "{none:?}");
    let reset = manage(&mut session, 5, NO_TAG)?;
    ensure!(reset.0 == COMPLETE, "{reset:?}");
    // One event; unit attention, BUS DEVICE RESET FUNCTION OCCURRED.
    let one = manage(&mut session, QUERY_EVENT, NO_TAG)?;
    ensure!(one == (SUCCEEDED, [0x16, 0x29, 0x03]), "{one:?}");
    // It was asked about, and still waits.
    let told = session.plain(&[0; 6])?;
    ensure!(told.sense_code() == (6, 0x29, 3), "{told:?}");
    let none = manage(&mut session, QUERY_EVENT, NO_TAG)?;
    ensure!(none == (COMPLETE, [0; 3]), "{none:?}");
    Ok(())
}
