//! Digests (RFC 7143 sections 7.8, 11.2.3, 11.2.4, 13.1).

use super::io::{BLOCK, SIMPLE, WRITE, cdb10, pattern};
use super::wire::{NO_TAG, Pdu, Received, back, out};
use super::{Case, Outcome, Session, Subject};

pub(super) const CASES: &[Case] = table! {
    "13.1" digests_go_with_every_pdu
    "13.1" either_digest_goes_alone
    "11.2.3" a_digest_covers_the_padding
    "7.8" a_wrong_header_digest_ends_the_connection
    "7.8" a_wrong_data_digest_of_a_write_fails_it
};

fn open(subject: &Subject, header: &str, data: &str) -> Result<Session, String> {
    let session = Session::open(subject, &[("HeaderDigest", header), ("DataDigest", data)])?;
    let agreed = [session.answered("HeaderDigest"), session.answered("DataDigest")];
    ensure!(agreed == [Some(header), Some(data)], "{agreed:?} in place of {header} and {data}");
    Ok(session)
}

fn digests_go_with_every_pdu(subject: &Subject) -> Outcome {
    // Both ways, by the session's reader: data, status without data, sense data, a ping.
    let mut session = open(subject, "CRC32C", "CRC32C")?;
    let data = pattern(100, 17);
    session.must_write(0, &data)?;
    ensure!(session.must_read(0, 100)? == data, "other data are read back");
    ensure!(session.plain(&[0xc7; 6])?.status == 2, "no sense");
    session.barrier().map(|_| ())
}

fn either_digest_goes_alone(subject: &Subject) -> Outcome {
    for (header, data) in [("CRC32C", "None"), ("None", "CRC32C")] {
        let mut session = open(subject, header, data)?;
        session.must_write(0, &pattern(9, 1))?;
        session.must_read(0, 9).map_err(|why| format!("{header} and {data}: {why}"))?;
    }
    Ok(())
}

fn a_digest_covers_the_padding(subject: &Subject) -> Outcome {
    let mut session = open(subject, "CRC32C", "CRC32C")?;
    for len in 1..=5 {
        let ping = Pdu::new(out::NOP, 0x80).put32(20, NO_TAG).with_data(&vec![3; len]);
        let itt = session.request(ping);
        let echo = session.must_be(back::NOP, itt)?;
        ensure!(echo.data.len() == len, "{} bytes of {len}", echo.data.len());
    }
    Ok(())
}

fn a_wrong_header_digest_ends_the_connection(subject: &Subject) -> Outcome {
    let mut session = open(subject, "CRC32C", "None")?;
    let itt = session.new_itt();
    let ping = session.number_pdu(Pdu::new(out::NOP, 0x80).put32(20, NO_TAG), itt);
    let mut bytes = ping.bytes(session.link.digests);
    bytes[49] ^= 1;
    session.link.send_raw(&bytes);
    let said = session.until_closed()?;
    ensure!(said.iter().all(|pdu| pdu.itt() != itt), "it was answered");
    Ok(())
}

fn a_wrong_data_digest_of_a_write_fails_it(subject: &Subject) -> Outcome {
    let mut session = open(subject, "None", "CRC32C")?;
    let old = pattern(1, 30);
    session.must_write(900, &old)?;
    let itt = session.new_itt();
    let command = session.command(WRITE | SIMPLE, &cdb10(0x2a, 900, 1), BLOCK).with_data(&pattern(1, 31));
    let command = session.number_pdu(command, itt);
    let mut bytes = command.bytes(session.link.digests);
    *bytes.last_mut().expect("a digest") ^= 1;
    session.link.send_raw(&bytes);
    let mut rejected = false;
    loop {
        match session.receive()? {
            Received::Closed => break,
            Received::Silence => return Err("nothing comes of it".to_owned()),
            Received::Pdu(pdu) if pdu.opcode() == back::REJECT => {
                ensure!(pdu.bhs[2] == 2, "reason {:#x}", pdu.bhs[2]);
                ensure!(pdu.data.get(16..20) == Some(&itt.to_be_bytes()[..]), "another header is returned");
                rejected = true;
            }
            Received::Pdu(pdu) if pdu.opcode() == back::RESPONSE && pdu.itt() == itt => {
                ensure!(pdu.bhs[3] != 0 && rejected, "status {:#x} after a Reject: {rejected}", pdu.bhs[3]);
                break;
            }
            Received::Pdu(pdu) => return Err(format!("opcode {:#x}", pdu.opcode())),
        }
    }
    ensure!(Session::open(subject, &[])?.must_read(900, 1)? == old, "the damaged data were written");
    Ok(())
}
