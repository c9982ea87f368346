//! Login (RFC 7143 sections 6.3, 11.12, 11.13).

use super::session::{Answer, INITIATOR, TO_FULL_FEATURE};
use super::wire::{NO_TAG, Pdu, Received, out};
use super::{Case, Login, Outcome, Session, Subject};

/// T, security negotiation to operational negotiation.
const SECURITY_TO_OPERATIONAL: u8 = 0x80 | 1;
/// C.
const CONTINUE: u8 = 0x40;

pub(super) const CASES: &[Case] = table! {
    "6.3" one_exchange_makes_a_session
    "6.3" both_stages_make_a_session
    "11.13.3" tsih_is_shown_in_the_final_response_alone
    "13.9" the_first_response_names_the_portal_group
    "13.6" an_alias_is_told_once_and_is_text
    "6.3" a_stage_may_be_gone_through_in_several_requests
    "6.1" text_is_continued_over_requests
    "11.13.5" no_initiator_name_is_a_missing_parameter
    "11.13.5" no_target_name_is_a_missing_parameter
    "11.13.5" an_unknown_target_is_not_found
    "11.13.5" an_unknown_session_type_is_not_supported
    "11.12.4" a_version_of_the_future_is_refused
    "11.13.5" a_session_that_is_not_there_is_not_joined
    "11.12.3" the_reserved_stage_is_refused
    "6.3" a_transit_goes_forward
    "11.12.2" what_continues_does_not_transit
    "11.12.5" the_isid_stays_what_it_is
    "4.2.4" nothing_but_a_login_begins_a_connection
    "6.1" text_that_is_none_is_refused
    "4.2.4" a_login_in_full_feature_phase_is_no_second_one
    "6.3.5" the_same_isid_reinstates_the_session
    "6.3.5" another_isid_is_another_session
    "11.13.5" a_connection_beyond_maxconnections_is_refused
    "7.14" a_login_that_stops_halfway_holds_nobody_up
};

fn names(subject: &Subject) -> [(&str, &str); 3] {
    [("InitiatorName", INITIATOR), ("TargetName", &subject.target), ("SessionType", "Normal")]
}

/// Refused as the initiator's fault, with one of these details, or any.
fn refused(answer: Result<Answer, String>, details: &[u8]) -> Outcome {
    let status = answer?.status();
    let right = status >> 8 == 2 && (details.is_empty() || details.contains(&(status as u8)));
    ensure!(right, "status {status:#06x}");
    Ok(())
}

/// Refused as the initiator's fault, or dropped: what the RFC leaves open.
fn refused_or_dropped(answer: Result<Answer, String>) -> Outcome {
    match answer {
        Ok(answer) => refused(Ok(answer), &[]),
        Err(_) => Ok(()),
    }
}

fn one_exchange_makes_a_session(subject: &Subject) -> Outcome {
    Session::open(subject, &[])?.barrier().map(|_| ())
}

fn both_stages_make_a_session(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    let mut security = names(subject).to_vec();
    security.push(("AuthMethod", "None"));
    let answer = login.exchange(SECURITY_TO_OPERATIONAL, &security)?;
    ensure!(answer.status() == 0 && answer.pdu.flags() & 0x83 == 0x81, "no transit: {answer:?}");
    ensure!(answer.get("AuthMethod") == Some("None"), "AuthMethod: {:?}", answer.pairs);
    let last = login.exchange(TO_FULL_FEATURE, &[("MaxRecvDataSegmentLength", "65536")])?;
    ensure!(last.status() == 0 && last.pdu.flags() & 0x83 == 0x83, "no transit: {last:?}");
    login.into_session(subject, &last, last.pairs.iter().cloned().collect()).barrier().map(|_| ())
}

fn tsih_is_shown_in_the_final_response_alone(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    let answer = login.exchange(SECURITY_TO_OPERATIONAL, &names(subject))?;
    ensure!(answer.pdu.u16(14) == 0, "TSIH {:#x} in the first response", answer.pdu.u16(14));
    let last = login.exchange(TO_FULL_FEATURE, &[])?;
    ensure!(last.status() == 0 && last.pdu.u16(14) != 0, "no TSIH: {last:?}");
    Ok(())
}

fn the_first_response_names_the_portal_group(subject: &Subject) -> Outcome {
    let answer = Login::connect(subject)?.exchange(SECURITY_TO_OPERATIONAL, &names(subject))?;
    let tag = answer.get("TargetPortalGroupTag").ok_or("no TargetPortalGroupTag")?;
    ensure!(tag.parse::<u16>().is_ok(), "TargetPortalGroupTag={tag}");
    Ok(())
}

fn an_alias_is_told_once_and_is_text(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    let first = login.exchange(SECURITY_TO_OPERATIONAL, &names(subject))?;
    let last = login.exchange(TO_FULL_FEATURE, &[])?;
    ensure!(last.status() == 0, "{last:?}");
    ensure!(last.get("TargetAlias").is_none(), "an alias behind the first response: {:?}", last.pairs);
    let aliases = first.pairs.iter().filter(|(key, _)| key == "TargetAlias");
    ensure!(aliases.clone().count() <= 1, "several: {:?}", first.pairs);
    let is_text =
        |alias: &str| !alias.is_empty() && alias.len() <= 255 && !alias.chars().any(char::is_control);
    ensure!(aliases.clone().all(|(_, alias)| is_text(alias)), "{:?}", first.pairs);
    Ok(())
}

fn a_stage_may_be_gone_through_in_several_requests(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    let operational = 1 << 2;
    let answer = login.exchange(operational, &names(subject))?;
    ensure!(answer.status() == 0 && answer.pdu.flags() & 0x80 == 0, "T without having been asked");
    let answer = login.exchange(operational, &[("InitialR2T", "No")])?;
    ensure!(answer.get("InitialR2T").is_some(), "InitialR2T is not answered: {:?}", answer.pairs);
    let last = login.exchange(TO_FULL_FEATURE, &[("ImmediateData", "Yes")])?;
    ensure!(last.status() == 0 && last.get("ImmediateData").is_some(), "{:?}", last.pairs);
    Ok(())
}

fn text_is_continued_over_requests(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    let mut pairs = names(subject).to_vec();
    pairs.push(("MaxBurstLength", "131072"));
    let whole = super::session::text(&pairs);
    // The cut is inside the last key's name.
    let (begun, rest) = whole.split_at(whole.len() - 15);
    let answer = login.exchange_pdu(&login.request(CONTINUE | 1 << 2, begun))?;
    ensure!(answer.status() == 0, "refused with {:#06x}", answer.status());
    ensure!(answer.pdu.data.is_empty(), "an answer before the question ends: {:?}", answer.pairs);
    ensure!(answer.pdu.flags() & 0xc0 == 0, "flags {:#x}", answer.pdu.flags());
    let last = login.exchange_pdu(&login.request(TO_FULL_FEATURE, rest))?;
    ensure!(last.status() == 0 && last.get("MaxBurstLength") == Some("131072"), "{last:?}");
    Ok(())
}

fn no_initiator_name_is_a_missing_parameter(subject: &Subject) -> Outcome {
    refused(Login::connect(subject)?.exchange(TO_FULL_FEATURE, &names(subject)[1..]), &[7])
}

fn no_target_name_is_a_missing_parameter(subject: &Subject) -> Outcome {
    let pairs = [("InitiatorName", INITIATOR), ("SessionType", "Normal")];
    refused(Login::connect(subject)?.exchange(TO_FULL_FEATURE, &pairs), &[7])
}

fn an_unknown_target_is_not_found(subject: &Subject) -> Outcome {
    let pairs = [("InitiatorName", INITIATOR), ("TargetName", "iqn.2026-11.example:nobody")];
    refused(Login::connect(subject)?.exchange(TO_FULL_FEATURE, &pairs), &[3])
}

fn an_unknown_session_type_is_not_supported(subject: &Subject) -> Outcome {
    let mut pairs = names(subject);
    pairs[2].1 = "Sideways";
    refused(Login::connect(subject)?.exchange(TO_FULL_FEATURE, &pairs), &[0, 9])
}

fn a_version_of_the_future_is_refused(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    let request = login.request(TO_FULL_FEATURE, &super::session::text(&names(subject)));
    refused(login.exchange_pdu(&request.put(2, &[9, 9])), &[5])
}

fn a_session_that_is_not_there_is_not_joined(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    login.tsih = 0xbeef;
    refused(login.exchange(TO_FULL_FEATURE, &names(subject)), &[0x0a])
}

fn the_reserved_stage_is_refused(subject: &Subject) -> Outcome {
    refused_or_dropped(Login::connect(subject)?.exchange(0x80 | 2 << 2 | 3, &names(subject)))
}

fn a_transit_goes_forward(subject: &Subject) -> Outcome {
    for flags in [0x80 | 1 << 2 | 1, 0x80 | 1 << 2, 0x80, 0x80 | 2] {
        let answer = Login::connect(subject)?.exchange(flags, &names(subject));
        refused_or_dropped(answer).map_err(|why| format!("flags {flags:#x}: {why}"))?;
    }
    Ok(())
}

fn what_continues_does_not_transit(subject: &Subject) -> Outcome {
    refused_or_dropped(Login::connect(subject)?.exchange(TO_FULL_FEATURE | CONTINUE, &names(subject)))
}

fn the_isid_stays_what_it_is(subject: &Subject) -> Outcome {
    let mut login = Login::connect(subject)?;
    login.exchange(SECURITY_TO_OPERATIONAL, &names(subject))?;
    login.isid[5] ^= 0x55;
    refused_or_dropped(login.exchange(TO_FULL_FEATURE, &[]))
}

fn nothing_but_a_login_begins_a_connection(subject: &Subject) -> Outcome {
    let mut link = Login::connect(subject)?.link;
    link.send(&Pdu::new(out::NOP | out::IMMEDIATE, 0x80).put32(16, 5).put32(20, NO_TAG));
    match link.receive()? {
        Received::Closed => Ok(()),
        Received::Pdu(pdu) if pdu.opcode() == super::wire::back::REJECT => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn text_that_is_none_is_refused(subject: &Subject) -> Outcome {
    for garbage in [&b"no pair at all\0"[..], b"=empty\0", &[0xff; 64]] {
        let mut login = Login::connect(subject)?;
        let mut bytes = super::session::text(&names(subject));
        bytes.extend_from_slice(garbage);
        let request = login.request(TO_FULL_FEATURE, &bytes);
        refused_or_dropped(login.exchange_pdu(&request)).map_err(|why| format!("{garbage:?}: {why}"))?;
    }
    Ok(())
}

fn a_login_in_full_feature_phase_is_no_second_one(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let request = Pdu::new(out::LOGIN | out::IMMEDIATE, TO_FULL_FEATURE)
        .put(8, &session.isid)
        .put(14, &session.tsih.to_be_bytes())
        .with_data(&super::session::text(&names(subject)));
    session.request(request);
    match session.receive()? {
        Received::Closed => Ok(()),
        Received::Pdu(pdu) if pdu.opcode() == super::wire::back::REJECT => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn the_same_isid_reinstates_the_session(subject: &Subject) -> Outcome {
    let mut first = Session::open(subject, &[])?;
    let mut login = Login::connect(subject)?;
    login.isid = first.isid;
    let mut second = Session::begin(subject, login, &[])?;
    second.barrier()?;
    first.until_closed().map(|_| ()).map_err(|why| format!("the predecessor: {why}"))?;
    second.barrier().map(|_| ())
}

fn another_isid_is_another_session(subject: &Subject) -> Outcome {
    let mut first = Session::open(subject, &[])?;
    let mut second = Session::open(subject, &[])?;
    ensure!(first.tsih != second.tsih, "two sessions of TSIH {:#x}", first.tsih);
    first.barrier()?;
    second.barrier().map(|_| ())
}

fn a_connection_beyond_maxconnections_is_refused(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[("MaxConnections", "1")])?;
    ensure!(session.answered("MaxConnections") == Some("1"), "one was offered");
    let mut login = Login::connect(subject)?;
    (login.isid, login.tsih, login.cid, login.cmd_sn) =
        (session.isid, session.tsih, session.cid + 1, session.cmd_sn);
    refused(login.exchange(TO_FULL_FEATURE, &names(subject)), &[0, 6, 8])?;
    session.barrier().map(|_| ())
}

fn a_login_that_stops_halfway_holds_nobody_up(subject: &Subject) -> Outcome {
    let mut halfway = Login::connect(subject)?;
    let request = halfway.request(TO_FULL_FEATURE, &super::session::text(&names(subject)));
    let bytes = request.bytes(super::wire::Digests::default());
    halfway.link.send_raw(&bytes[..20]);
    let mut further = Login::connect(subject)?;
    further.exchange(SECURITY_TO_OPERATIONAL, &names(subject))?;
    Session::open(subject, &[])?.barrier().map(|_| ())
}
