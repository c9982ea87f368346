//! Task attributes (RFC 7143 section 11.3.1, SAM-5 section 8).

use super::io::{BLOCK, CHECK, READ, cdb10, pattern};
use super::tasks::waiting;
use super::wire::back;
use super::{Case, Outcome, Session, Subject};

pub(super) const CASES: &[Case] = table! {
    "11.3.1" an_ordered_command_waits_for_those_before_it
    "11.3.1" a_head_of_queue_command_waits_for_nobody
    "11.3.1" attributes_that_name_nothing_are_refused
};

const ORDERED: u8 = 2;
const HEAD_OF_QUEUE: u8 = 3;

fn an_ordered_command_waits_for_those_before_it(subject: &Subject) -> Outcome {
    let (mut session, write, _, r2t) = waiting(subject)?;
    let read = session.request(session.command(READ | ORDERED, &cdb10(0x28, 1000, 8), 8 * BLOCK));
    let said = session.barrier()?;
    ensure!(said.is_empty(), "the write waits for its data, and something is answered: {said:?}");
    session.send_burst(write, r2t.u32(20), &pattern(8, 41), 0);
    let answer = session.must_be(back::RESPONSE, write)?;
    ensure!(answer.bhs[3] == 0, "the write ends with status {:#x}", answer.bhs[3]);
    let reply = session.reply(read, 8 * BLOCK)?;
    ensure!(reply.data == pattern(8, 41), "the read came before the write");
    Ok(())
}

fn a_head_of_queue_command_waits_for_nobody(subject: &Subject) -> Outcome {
    let (mut session, write, _, r2t) = waiting(subject)?;
    let ordered = session.request(session.command(0x80 | ORDERED, &[0; 6], 0));
    let head = session.request(session.command(0x80 | HEAD_OF_QUEUE, &[0; 6], 0));
    let answer = session.must_be(back::RESPONSE, head)?;
    ensure!(answer.bhs[3] == 0, "status {:#x}", answer.bhs[3]);
    session.send_burst(write, r2t.u32(20), &pattern(8, 41), 0);
    session.must_be(back::RESPONSE, write)?;
    session.must_be(back::RESPONSE, ordered).map(|_| ())
}

fn attributes_that_name_nothing_are_refused(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    // There is no ACA condition, because NORMACA is zero, and 5 to 7 are reserved.
    for attribute in 4..8 {
        let itt = session.request(session.command(0x80 | attribute, &[0; 6], 0));
        let reply = session.reply(itt, 0)?;
        let refused = reply.status == CHECK && reply.sense_code() == (5, 0x49, 0);
        ensure!(refused, "attribute {attribute}: {reply:?}");
    }
    session.must_read(0, 1).map(|_| ())
}
