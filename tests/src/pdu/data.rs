//! Data in both directions (RFC 7143 sections 4.2.4, 4.2.5, 11.3, 11.4, 11.7, 11.8).

use super::io::{BLOCK, CHECK, READ, Reply, SIMPLE, WRITE, cdb10, pattern};
use super::wire::{NO_TAG, Pdu, Received, back};
use super::{Case, Outcome, Session, Subject};

pub(super) const CASES: &[Case] = table! {
    "11.3" immediate_data_are_written
    "11.3" unsolicited_data_are_written
    "11.8" data_are_solicited_in_bursts
    "11.4.8" an_answer_counts_data_in_pdus_alone
    "11.4.7.2" an_unsolicited_burst_that_ends_early_is_completed
    "11.4.7.2" a_first_burst_that_is_not_whole_fails_its_command
    "13.17" no_more_r2ts_are_open_than_agreed
    "11.7" data_in_keeps_the_initiators_segment
    "13.13" data_in_keeps_maxburstlength
    "11.4.5" a_read_of_less_than_expected_underflows
    "11.4.5" a_read_of_more_than_expected_overflows
    "11.4.5" a_write_of_less_than_expected_underflows
    "11.4.5" a_write_of_more_than_expected_overflows
    "11.4.7" a_refused_command_brings_sense_data
    "11.3" a_lun_that_is_not_there_says_so
    "11.7.5" a_datasn_that_is_skipped_is_noticed
    "11.7.6" an_offset_that_is_skipped_is_noticed
    "11.7" data_beyond_the_r2t_are_not_taken
    "11.7.4" data_for_nobody_hurt_nobody
    "13.11" immediate_data_that_were_not_agreed_on_are_not_taken
    "13.10" unsolicited_data_that_were_not_agreed_on_are_not_taken
    "13.14" more_immediate_data_than_firstburstlength_are_not_taken
    "11.3.1" a_command_may_have_no_data
    "11.2.2.1" commands_in_flight_are_told_apart
};

fn immediate_data_are_written(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    ensure!(session.answered("ImmediateData") == Some("Yes"), "the target takes none");
    let data = pattern(8, 3);
    let command = session.command(WRITE | SIMPLE, &cdb10(0x2a, 16, 8), 8 * BLOCK).with_data(&data);
    let itt = session.request(command);
    let reply = session.reply(itt, 0)?;
    ensure!(reply.status == 0 && reply.is_exact(), "{reply:?}");
    ensure!(session.must_read(16, 8)? == data, "other data are read back");
    Ok(())
}

fn unsolicited_data_are_written(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    ensure!(session.answered("InitialR2T") == Some("No"), "the target takes none");
    let data = pattern(32, 5);
    for immediate in [0, 512] {
        // Without F: more follows unasked.
        let command = session.command(0x20 | SIMPLE, &cdb10(0x2a, 64, 32), 32 * BLOCK);
        let itt = session.request(command.with_data(&data[..immediate]));
        session.send_burst(itt, NO_TAG, &data[immediate..], u32::try_from(immediate).expect("small"));
        let reply = session.reply(itt, 0)?;
        ensure!(reply.status == 0 && reply.is_exact(), "{reply:?}");
    }
    ensure!(session.must_read(64, 32)? == data, "other data are read back");
    Ok(())
}

fn data_are_solicited_in_bursts(subject: &Subject) -> Outcome {
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No"), ("MaxBurstLength", "16384")];
    let mut session = Session::open(subject, &keys)?;
    let data = pattern(100, 7);
    session.must_write(128, &data)?;
    ensure!(session.must_read(128, 100)? == data, "other data are read back");
    Ok(())
}

fn an_unsolicited_burst_that_ends_early_is_completed(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    ensure!(session.answered("InitialR2T") == Some("No"), "the target takes none");
    let data = pattern(16, 9);
    let command = session.command(0x20 | SIMPLE, &cdb10(0x2a, 256, 16), 16 * BLOCK);
    let itt = session.request(command);
    session.send_burst(itt, NO_TAG, &data[..1024], 0);
    let reply = session.feed(itt, &data)?;
    ensure!(reply.status == 0, "{reply:?}");
    ensure!(session.must_read(256, 16)? == data, "other data are read back");
    Ok(())
}

/// [`Session::feed`] and [`Session::reply`] look at ExpDataSN, of commands that succeed and of one that does not.
fn an_answer_counts_data_in_pdus_alone(subject: &Subject) -> Outcome {
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No"), ("MaxBurstLength", "4096")];
    let mut session = Session::open(subject, &keys)?;
    let data = pattern(32, 10);
    let reply = session.write(1024, 32, &data)?;
    ensure!(reply.status == 0, "{reply:?}");
    ensure!(session.must_read(1024, 32)? == data, "other data are read back");
    let beyond = session.read(u32::MAX - 8, 1, BLOCK)?;
    ensure!(beyond.status == CHECK, "{beyond:?}");
    Ok(())
}

/// Whatever of it comes with the command: what is more than FirstBurstLength in all begins with FirstBurstLength.
fn a_first_burst_that_is_not_whole_fails_its_command(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[("FirstBurstLength", "4096")])?;
    ensure!(session.answered("InitialR2T") == Some("No"), "the target takes none");
    session.must_write(256, &pattern(16, 13))?;
    let data = pattern(16, 14);
    for (immediate, end) in [(0, 1024), (512, 3584)] {
        let command = session.command(0x20 | SIMPLE, &cdb10(0x2a, 256, 16), 16 * BLOCK);
        let itt = session.request(command.with_data(&data[..immediate]));
        session.send_burst(itt, NO_TAG, &data[immediate..end], u32::try_from(immediate).expect("small"));
        let reply = session.feed(itt, &data)?;
        ensure!(reply.status == CHECK, "{end} bytes in place of 4096: {reply:?}");
        ensure!(reply.sense_code() == (0xb, 0x0c, 0x0d), "incorrect amount of data in place of {reply:?}");
    }
    ensure!(session.must_read(256, 16)?[4096..] == pattern(16, 13)[4096..], "more is written than was sent");
    let command = session.command(0x20 | SIMPLE, &cdb10(0x2a, 256, 16), 16 * BLOCK);
    let itt = session.request(command);
    session.send_burst(itt, NO_TAG, &data[..4096], 0);
    ensure!(session.feed(itt, &data)?.status == 0, "a whole one is taken");
    ensure!(session.must_read(256, 16)? == data, "other data are read back");
    Ok(())
}

fn no_more_r2ts_are_open_than_agreed(subject: &Subject) -> Outcome {
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No"), ("MaxBurstLength", "4096")];
    for offered in ["1", "3"] {
        let keys = [&keys[..], &[("MaxOutstandingR2T", offered)]].concat();
        let mut session = Session::open(subject, &keys)?;
        let limit = session.number("MaxOutstandingR2T")? as usize;
        let data = pattern(64, 11);
        let itt = session.request(session.command(WRITE | SIMPLE, &cdb10(0x2a, 512, 64), 64 * BLOCK));
        let mut open = vec![session.must_be(back::R2T, itt)?];
        while !open.is_empty() {
            // All R2Ts that come without data being sent.
            open.extend(session.barrier()?);
            ensure!(open.len() <= limit, "{} R2Ts are open, {limit} were agreed on", open.len());
            let r2t = open.remove(0);
            let (offset, len) = (r2t.u32(40), r2t.u32(44));
            let end = (offset + len) as usize;
            session.send_burst(itt, r2t.u32(20), &data[offset as usize..end], offset);
            if open.is_empty() {
                let next = session.must()?;
                if next.opcode() == back::R2T {
                    open.push(next);
                } else {
                    ensure!(next.opcode() == back::RESPONSE && next.bhs[3] == 0, "{next:?}");
                }
            }
        }
        ensure!(session.must_read(512, 64)? == data, "other data are read back");
    }
    Ok(())
}

fn data_in_keeps_the_initiators_segment(subject: &Subject) -> Outcome {
    let data = pattern(33, 13);
    Session::open(subject, &[])?.must_write(0, &data)?;
    let mut session = Session::open(subject, &[("MaxRecvDataSegmentLength", "1000")])?;
    let reply = session.read(0, 33, 33 * BLOCK)?;
    let longest = reply.data_in.iter().map(|pdu| pdu.data.len()).max().unwrap_or(0);
    ensure!(longest <= 1000, "a segment of {longest} bytes");
    ensure!(reply.status == 0 && reply.data == data, "other data");
    Ok(())
}

fn data_in_keeps_maxburstlength(subject: &Subject) -> Outcome {
    let keys = [("MaxRecvDataSegmentLength", "1024"), ("MaxBurstLength", "4096")];
    let mut session = Session::open(subject, &keys)?;
    let burst = session.number("MaxBurstLength")?;
    let reply = session.read(0, 64, 64 * BLOCK)?;
    let mut in_burst = 0;
    for (number, pdu) in reply.data_in.iter().enumerate() {
        in_burst += u32::try_from(pdu.data.len()).expect("short");
        ensure!(in_burst <= burst, "{in_burst} bytes without F, MaxBurstLength is {burst}");
        if pdu.flags() & 0x80 != 0 {
            in_burst = 0;
        }
        let is_last = number + 1 == reply.data_in.len();
        ensure!(!is_last || pdu.flags() & 0x80 != 0, "the last Data-In without F");
    }
    ensure!(reply.data.len() == 64 * BLOCK as usize, "{} bytes", reply.data.len());
    Ok(())
}

fn good(reply: &Reply) -> Outcome {
    ensure!(reply.status == 0, "status {:#x}, sense {:?}", reply.status, reply.sense_code());
    Ok(())
}

fn a_read_of_less_than_expected_underflows(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let reply = session.read(0, 2, 4 * BLOCK)?;
    good(&reply)?;
    ensure!(reply.is_under(2 * BLOCK) && reply.data.len() == 1024, "{reply:?}");
    Ok(())
}

fn a_read_of_more_than_expected_overflows(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let reply = session.read(0, 4, BLOCK + 100)?;
    if reply.status == CHECK {
        // Allowed, too: nothing was moved that the initiator has no room for.
        return Ok(());
    }
    ensure!(reply.is_over(3 * BLOCK - 100) && reply.data.len() == 612, "{reply:?}");
    Ok(())
}

fn a_write_of_less_than_expected_underflows(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    session.must_write(40, &pattern(4, 1))?;
    let reply = session.write(40, 2, &pattern(4, 2))?;
    if reply.status == CHECK {
        return Ok(());
    }
    ensure!(reply.is_under(2 * BLOCK), "{reply:?}");
    let read = session.must_read(40, 4)?;
    ensure!(read[..1024] == pattern(4, 2)[..1024], "what was to be written is not there");
    ensure!(read[1024..] == pattern(4, 1)[1024..], "more was written than the command says");
    Ok(())
}

fn a_write_of_more_than_expected_overflows(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    session.must_write(40, &pattern(4, 1))?;
    let reply = session.write(40, 4, &pattern(2, 2))?;
    ensure!(reply.status == CHECK || reply.is_over(2 * BLOCK), "{reply:?}");
    let read = session.must_read(40, 4)?;
    ensure!(read[1024..] == pattern(4, 1)[1024..], "more was written than came");
    Ok(())
}

fn a_refused_command_brings_sense_data(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let reply = session.plain(&[0xc7; 10])?;
    ensure!(reply.status == CHECK && reply.sense_code() == (5, 0x20, 0), "{reply:?}");
    let reply = session.read(u32::MAX, 1, BLOCK)?;
    ensure!(reply.status == CHECK && reply.sense_code() == (5, 0x21, 0), "{reply:?}");
    ensure!(reply.is_under(BLOCK), "nothing was read: {reply:?}");
    Ok(())
}

fn a_lun_that_is_not_there_says_so(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let nowhere = [0, 200, 0, 0, 0, 0, 0, 0];
    let itt = session.request(session.command(0x80 | SIMPLE, &[0; 6], 0).put(8, &nowhere));
    let reply = session.reply(itt, 0)?;
    ensure!(reply.status == CHECK && reply.sense_code() == (5, 0x25, 0), "{reply:?}");
    let inquiry = session.command(READ | SIMPLE, &[0x12, 0, 0, 0, 36, 0], 36).put(8, &nowhere);
    let itt = session.request(inquiry);
    let reply = session.reply(itt, 36)?;
    ensure!(reply.status == 0 && reply.data.first() == Some(&0x7f), "{reply:?}");
    Ok(())
}

/// A write whose first R2T is answered by `send`: it may end in any way but good.
fn spoiled(subject: &Subject, send: fn(&mut Session, u32, &Pdu, &[u8])) -> Outcome {
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No")];
    let mut session = Session::open(subject, &keys)?;
    let (old, new) = (pattern(32, 20), pattern(32, 21));
    session.must_write(700, &old)?;
    let itt = session.request(session.command(WRITE | SIMPLE, &cdb10(0x2a, 700, 16), 16 * BLOCK));
    let r2t = session.must_be(back::R2T, itt)?;
    send(&mut session, itt, &r2t, &new);
    session.link.set_patience(std::time::Duration::from_secs(1));
    loop {
        match session.receive()? {
            Received::Closed => break,
            // A target that waits for what is missing is none the wiser, and nothing was written.
            Received::Silence => break,
            Received::Pdu(pdu) if pdu.opcode() == back::RESPONSE => {
                ensure!(pdu.bhs[3] != 0 || pdu.bhs[2] != 0, "it ends good");
                break;
            }
            Received::Pdu(_) => {}
        }
    }
    let beyond = Session::open(subject, &[])?.must_read(716, 16)?;
    ensure!(beyond == old[16 * 512..], "blocks beyond the command's are written");
    Ok(())
}

fn a_datasn_that_is_skipped_is_noticed(subject: &Subject) -> Outcome {
    spoiled(subject, |session, itt, r2t, data| {
        let first = session.data_out(itt, r2t.u32(20), 0, 0, &data[..4096]);
        let second = session.data_out(itt, r2t.u32(20), 5, 4096, &data[4096..8192]).put(1, &[0x80]);
        session.link.send(&first);
        session.link.send(&second);
    })
}

fn an_offset_that_is_skipped_is_noticed(subject: &Subject) -> Outcome {
    spoiled(subject, |session, itt, r2t, data| {
        let first = session.data_out(itt, r2t.u32(20), 0, 0, &data[..2048]);
        let second = session.data_out(itt, r2t.u32(20), 1, 4096, &data[4096..8192]).put(1, &[0x80]);
        session.link.send(&first);
        session.link.send(&second);
    })
}

fn data_beyond_the_r2t_are_not_taken(subject: &Subject) -> Outcome {
    spoiled(subject, |session, itt, r2t, data| {
        let first = session.data_out(itt, r2t.u32(20), 0, 0, &data[..4096]);
        let second = session.data_out(itt, r2t.u32(20), 1, 4096, &data[4096..12288]).put(1, &[0x80]);
        session.link.send(&first);
        session.link.send(&second);
    })
}

fn data_for_nobody_hurt_nobody(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let stray = session.data_out(0x9999, 0x1234, 0, 0, &[1; 512]).put(1, &[0x80]);
    session.link.send(&stray);
    match session.barrier() {
        Ok(said) => ensure!(said.iter().all(|pdu| pdu.opcode() == back::REJECT), "{said:?}"),
        // To drop the connection is allowed; to stop serving is not.
        Err(_) => drop(session),
    }
    Session::open(subject, &[])?.must_read(0, 1).map(|_| ())
}

/// What breaks an agreement may be rejected, refused with sense data, or cost the connection; it is not done.
fn not_done(mut session: Session, command: Pdu, follow: &[u8]) -> Outcome {
    let itt = session.request(command);
    if !follow.is_empty() {
        session.send_burst(itt, NO_TAG, follow, 0);
    }
    session.link.set_patience(std::time::Duration::from_secs(1));
    match session.receive()? {
        Received::Closed => Ok(()),
        Received::Silence => Err("nothing comes of it".to_owned()),
        Received::Pdu(pdu) if pdu.opcode() == back::RESPONSE => {
            ensure!(pdu.bhs[3] != 0 || pdu.bhs[2] != 0, "it ends good");
            Ok(())
        }
        Received::Pdu(pdu) if pdu.opcode() == back::REJECT => Ok(()),
        Received::Pdu(pdu) => Err(format!("it is answered with {:#x}", pdu.opcode())),
    }
}

fn immediate_data_that_were_not_agreed_on_are_not_taken(subject: &Subject) -> Outcome {
    let session = Session::open(subject, &[("ImmediateData", "No")])?;
    let command = session.command(WRITE | SIMPLE, &cdb10(0x2a, 800, 1), BLOCK).with_data(&[1; 512]);
    not_done(session, command, &[])
}

fn unsolicited_data_that_were_not_agreed_on_are_not_taken(subject: &Subject) -> Outcome {
    let session = Session::open(subject, &[("InitialR2T", "Yes"), ("ImmediateData", "No")])?;
    let command = session.command(0x20 | SIMPLE, &cdb10(0x2a, 800, 1), BLOCK);
    not_done(session, command, &[1; 512])
}

fn more_immediate_data_than_firstburstlength_are_not_taken(subject: &Subject) -> Outcome {
    let session = Session::open(subject, &[("FirstBurstLength", "512")])?;
    let command = session.command(WRITE | SIMPLE, &cdb10(0x2a, 800, 8), 8 * BLOCK);
    not_done(session, command.with_data(&[1; 4096]), &[])
}

fn a_command_may_have_no_data(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    // Blocks none.
    let itt = session.request(session.command(READ | SIMPLE, &cdb10(0x28, 0, 0), 0));
    let reply = session.reply(itt, 0)?;
    ensure!(reply.status == 0 && reply.is_exact() && reply.data.is_empty(), "{reply:?}");
    let reply = session.write(0, 0, &[])?;
    ensure!(reply.status == 0 && reply.is_exact(), "{reply:?}");
    Ok(())
}

fn commands_in_flight_are_told_apart(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    for block in 0..8 {
        session.must_write(block, &pattern(1, block as u8))?;
    }
    let room = session.max_cmd_sn.wrapping_sub(session.exp_cmd_sn).wrapping_add(1);
    let count = room.min(8);
    let tags: Vec<u32> = (0..count)
        .map(|block| session.request(session.command(READ | SIMPLE, &cdb10(0x28, block, 1), BLOCK)))
        .collect();
    let mut seen = vec![Vec::new(); tags.len()];
    let mut ended = 0;
    while ended < tags.len() {
        let pdu = session.must()?;
        let at = tags.iter().position(|tag| *tag == pdu.itt()).ok_or("a tag of nobody")?;
        ensure!(pdu.opcode() != back::RESPONSE || pdu.bhs[3] == 0, "status {:#x}", pdu.bhs[3]);
        ended += usize::from(pdu.opcode() == back::RESPONSE || pdu.flags() & 1 != 0);
        seen[at].extend(pdu.data);
    }
    for (block, data) in (0..).zip(seen) {
        ensure!(data == pattern(1, block), "block {block} has another's data");
    }
    Ok(())
}
