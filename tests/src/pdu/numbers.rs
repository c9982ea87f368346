//! CmdSN, StatSN, the window and NOPs (RFC 7143 sections 4.2.2, 11.18, 11.19).

use super::wire::{NO_TAG, Pdu, back, out};
use super::{Case, Login, Outcome, Session, Subject, io};

pub(super) const CASES: &[Case] = table! {
    "4.2.2.1" expcmdsn_counts_numbered_requests_alone
    "4.2.2.1" a_number_above_the_window_is_ignored
    "4.2.2.1" a_number_below_the_window_is_ignored
    "4.2.2.1" numbers_wrap
    "4.2.2.1" the_window_holds_a_command_at_least
    "4.2.2.1" an_immediate_command_is_not_numbered
    "4.2.2.2" statsn_counts_every_status
    "4.2.2.2" an_expstatsn_of_fancy_disturbs_nobody
    "11.18" a_ping_is_echoed
    "11.18" an_echo_fits_into_the_initiators_segment
    "11.18.1" a_nop_without_a_tag_is_not_answered
    "11.18.2" a_nop_that_answers_nothing_is_ignored
};

/// A NOP-Out that asks for an answer.
fn ping(first: u8) -> Pdu {
    Pdu::new(first, 0x80).put32(20, NO_TAG)
}

fn expcmdsn_counts_numbered_requests_alone(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    for (first, steps) in [(out::NOP | out::IMMEDIATE, 0), (out::NOP, 1), (out::NOP, 1)] {
        let before = session.exp_cmd_sn;
        let itt = session.request(ping(first));
        session.must_be(back::NOP, itt)?;
        let went = session.exp_cmd_sn.wrapping_sub(before);
        ensure!(went == steps, "ExpCmdSN rose by {went} in place of {steps}");
    }
    let before = session.exp_cmd_sn;
    ensure!(session.plain(&[0; 6])?.status != 8, "busy");
    ensure!(session.exp_cmd_sn == before.wrapping_add(1), "a command is numbered");
    Ok(())
}

/// Sends a numbered ping with another number; nothing may come of it.
fn ignored(session: &mut Session, number: u32) -> Outcome {
    let itt = session.new_itt();
    let kept = session.cmd_sn;
    let stray = session.number_pdu(ping(out::NOP), itt).put32(24, number);
    session.cmd_sn = kept;
    session.link.send(&stray);
    let said = session.barrier()?;
    ensure!(said.is_empty(), "answered with {:#x}", said[0].opcode());
    let itt = session.request(ping(out::NOP));
    session.must_be(back::NOP, itt).map(|_| ())
}

fn a_number_above_the_window_is_ignored(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    session.barrier()?;
    let above = session.max_cmd_sn.wrapping_add(1);
    ignored(&mut session, above)?;
    ignored(&mut session, above.wrapping_add(0x1000))
}

fn a_number_below_the_window_is_ignored(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let itt = session.request(ping(out::NOP));
    session.must_be(back::NOP, itt)?;
    let below = session.exp_cmd_sn.wrapping_sub(1);
    ignored(&mut session, below)?;
    let far = session.exp_cmd_sn.wrapping_sub(100);
    ignored(&mut session, far)
}

fn numbers_wrap(subject: &Subject) -> Outcome {
    for start in [u32::MAX - 2, 0x7fff_fffe] {
        let mut login = Login::connect(subject)?;
        login.cmd_sn = start;
        let mut session = Session::begin(subject, login, &[])?;
        for _ in 0..6 {
            let itt = session.request(ping(out::NOP));
            session.must_be(back::NOP, itt).map_err(|why| format!("from {start:#x}: {why}"))?;
        }
        session.must_read(0, 1)?;
    }
    Ok(())
}

fn the_window_holds_a_command_at_least(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    session.barrier()?;
    let room = session.max_cmd_sn.wrapping_sub(session.exp_cmd_sn).wrapping_add(1);
    ensure!((1..=0x1_0000).contains(&room), "room for {room} commands");
    Ok(())
}

fn an_immediate_command_is_not_numbered(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let before = session.exp_cmd_sn;
    let command = session.command(io::READ | io::SIMPLE, &io::cdb10(0x28, 0, 1), io::BLOCK);
    let itt = session.request(command.put(0, &[out::COMMAND | out::IMMEDIATE]));
    let reply = session.reply(itt, io::BLOCK)?;
    ensure!(reply.status == 0, "status {:#x}", reply.status);
    ensure!(session.exp_cmd_sn == before, "ExpCmdSN counts it");
    session.must_read(0, 1).map(|_| ())
}

fn statsn_counts_every_status(subject: &Subject) -> Outcome {
    // The session holds each PDU to it: here all kinds that take one come in turn.
    let mut session = Session::open(subject, &[])?;
    session.barrier()?;
    session.must_read(0, 4)?;
    session.must_write(0, &io::pattern(8, 1))?;
    session.plain(&[0xff; 6])?;
    let itt = session.request(Pdu::new(out::TASK | out::IMMEDIATE, 0x81).put32(20, 0x7777));
    session.must_be(back::TASK, itt)?;
    session.request(Pdu::new(0x1c | out::IMMEDIATE, 0x80));
    session.must_be(back::REJECT, NO_TAG)?;
    let logout = session.request(Pdu::new(out::LOGOUT, 0x80));
    session.must_be(back::LOGOUT, logout).map(|_| ())
}

fn an_expstatsn_of_fancy_disturbs_nobody(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    // Late, and beyond what was sent, by little and by much.
    for offset in
        [0_u32, 1 << 30, 3, 1_u32.wrapping_neg(), 1000_u32.wrapping_neg(), (1_u32 << 30).wrapping_neg()]
    {
        let itt = session.new_itt();
        let number = session.exp_stat_sn().wrapping_sub(offset);
        let pdu = session.number_pdu(ping(out::NOP), itt).put32(28, number);
        session.link.send(&pdu);
        session.must_be(back::NOP, itt)?;
    }
    session.must_write(0, &io::pattern(1, 9))?;
    ensure!(session.must_read(0, 1)? == io::pattern(1, 9), "other data");
    Ok(())
}

fn a_ping_is_echoed(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    for len in [0_usize, 1, 5, 512, 4096] {
        let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let itt = session.request(ping(out::NOP).put(8, &session.lun_field()).with_data(&data));
        let echo = session.must_be(back::NOP, itt)?;
        ensure!(echo.data == data, "{} bytes of {len}", echo.data.len());
        ensure!(echo.u32(20) == NO_TAG && echo.flags() == 0x80, "TTT {:#x}", echo.u32(20));
    }
    Ok(())
}

fn an_echo_fits_into_the_initiators_segment(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[("MaxRecvDataSegmentLength", "512")])?;
    let data = [7; 1000];
    let itt = session.request(ping(out::NOP).with_data(&data));
    let echo = session.must_be(back::NOP, itt)?;
    ensure!(echo.data.len() <= 512 && data.starts_with(&echo.data), "{} bytes", echo.data.len());
    Ok(())
}

fn a_nop_without_a_tag_is_not_answered(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let silent = session.number_pdu(ping(out::NOP | out::IMMEDIATE), NO_TAG);
    session.link.send(&silent);
    let said = session.barrier()?;
    ensure!(said.is_empty(), "answered with {:#x}", said[0].opcode());
    Ok(())
}

fn a_nop_that_answers_nothing_is_ignored(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let stray = session.number_pdu(ping(out::NOP | out::IMMEDIATE).put32(20, 0x4711), NO_TAG);
    session.link.send(&stray);
    let said = session.barrier()?;
    let allowed = said.iter().all(|pdu| pdu.opcode() == back::REJECT);
    ensure!(allowed, "answered with {:#x}", said[0].opcode());
    Ok(())
}
