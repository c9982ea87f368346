//! What a logical unit keeps of an I_T nexus (RFC 7143 section 4.4.3): it is the ports', whatever sessions they have.

use super::io::{SIMPLE, WRITE};
use super::wire::back;
use super::{Case, Login, Outcome, Session, Subject};

pub(super) const CASES: &[Case] = table! {
    "4.4.3.1" a_registration_is_its_ports_and_not_its_sessions
};

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const CLEAR: u8 = 3;
const CONFLICT: u8 = 0x18;

/// PERSISTENT RESERVE OUT with its list as immediate data: its status.
fn reserve_out(session: &mut Session, action: u8, keys: [u64; 2]) -> Result<u8, String> {
    let list = [keys[0].to_be_bytes(), keys[1].to_be_bytes(), [0; 8]].concat();
    let cdb = [0x5f, action, 1, 0, 0, 0, 0, 0, 24, 0];
    let itt = session.request(session.command(WRITE | SIMPLE, &cdb, 24).with_data(&list));
    Ok(session.must_be(back::RESPONSE, itt)?.bhs[3])
}

fn a_registration_is_its_ports_and_not_its_sessions(subject: &Subject) -> Outcome {
    let mut first = Session::open(subject, &[])?;
    let isid = first.isid;
    let registered = reserve_out(&mut first, REGISTER, [0, 7])?;
    ensure!(registered == 0, "REGISTER: status {registered:#x}");
    drop(first);
    let mut other = Session::open(subject, &[])?;
    let status = reserve_out(&mut other, RESERVE, [7, 0])?;
    ensure!(status == CONFLICT, "another port reserves with its key: status {status:#x}");
    let mut login = Login::connect(subject)?;
    login.isid = isid;
    let mut second = Session::begin(subject, login, &[])?;
    let status = reserve_out(&mut second, RESERVE, [7, 0])?;
    ensure!(status == 0, "the same port has its registration no more: status {status:#x}");
    let status = reserve_out(&mut second, CLEAR, [7, 0])?;
    ensure!(status == 0, "CLEAR: status {status:#x}");
    // The other one hears of nothing: it had no registration.
    other.plain(&[0; 6]).map(|_| ())
}
