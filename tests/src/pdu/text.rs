//! Text requests and discovery (RFC 7143 sections 11.10, 11.11, appendix C).

use super::session::{INITIATOR, Pairs, TO_FULL_FEATURE, pairs, text};
use super::wire::{NO_TAG, Pdu, Received, back, out};
use super::{Case, Login, Outcome, Session, Subject};

pub(super) const CASES: &[Case] = table! {
    "C" discovery_lists_the_target_and_its_portals
    "C" discovery_tells_of_one_target_when_asked
    "11.10" a_numbered_text_request_is_answered
    "4.3" a_discovery_session_takes_nothing_else
    "C" a_normal_session_hears_of_its_own_target
    "11.10" a_key_of_fancy_is_no_success
    "11.10.4" text_is_continued_in_full_feature_phase
    "11.10.4" a_tag_of_no_exchange_is_rejected
    "11.10" keys_of_the_login_are_settled
    "11.10" what_is_asked_beside_sendtargets_is_answered_too
};

/// Sends text and gives what is answered; `None` for a Reject.
fn ask(session: &mut Session, pairs_out: &[(&str, &str)]) -> Result<Option<Pairs>, String> {
    ask_by(session, out::TEXT, pairs_out)
}

/// As [`ask`], by a request with this byte 0.
fn ask_by(session: &mut Session, first: u8, pairs_out: &[(&str, &str)]) -> Result<Option<Pairs>, String> {
    let request = Pdu::new(first, 0x80).put32(20, NO_TAG).with_data(&text(pairs_out));
    let itt = session.request(request);
    let pdu = session.must()?;
    if pdu.opcode() == back::REJECT {
        return Ok(None);
    }
    ensure!(pdu.opcode() == back::TEXT && pdu.itt() == itt, "opcode {:#x}", pdu.opcode());
    ensure!(pdu.flags() & 0x80 != 0 && pdu.u32(20) == NO_TAG, "an answer that goes on");
    pairs(&pdu.data).map(Some)
}

fn discovery(subject: &Subject) -> Result<Session, String> {
    let mut login = Login::connect(subject)?;
    let offers = [("InitiatorName", INITIATOR), ("SessionType", "Discovery")];
    let answer = login.exchange(TO_FULL_FEATURE, &offers)?;
    ensure!(answer.status() == 0 && answer.pdu.flags() & 0x80 != 0, "{answer:?}");
    Ok(login.into_session(subject, &answer, answer.pairs.iter().cloned().collect()))
}

/// Each target's addresses.
fn records(pairs: &Pairs) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in pairs {
        match (key.as_str(), found.last_mut()) {
            ("TargetName", _) => found.push((value.clone(), Vec::new())),
            ("TargetAddress", Some(last)) => last.1.push(value.clone()),
            _ => return Err(format!("{key}={value}")),
        }
    }
    Ok(found)
}

/// True for `ADDRESS:PORT,TAG`.
fn is_address(text: &str) -> bool {
    text.rsplit_once(',').is_some_and(|(place, tag)| {
        tag.parse::<u16>().is_ok() && place.parse::<std::net::SocketAddr>().is_ok()
    })
}

fn lists(subject: &Subject, which: &str) -> Outcome {
    let mut session = discovery(subject)?;
    let request = [("SendTargets", which)];
    let answer = ask_by(&mut session, out::TEXT | out::IMMEDIATE, &request)?.ok_or("rejected")?;
    let found = records(&answer)?;
    let (_, addresses) =
        found.iter().find(|(name, _)| *name == subject.target).ok_or_else(|| format!("{found:?}"))?;
    ensure!(!addresses.is_empty() && addresses.iter().all(|one| is_address(one)), "{addresses:?}");
    let ours = addresses.iter().any(|one| one.starts_with(&subject.portal.to_string()));
    ensure!(ours, "{addresses:?} without the portal that was asked");
    Ok(())
}

fn discovery_lists_the_target_and_its_portals(subject: &Subject) -> Outcome {
    lists(subject, "All")
}

fn discovery_tells_of_one_target_when_asked(subject: &Subject) -> Outcome {
    lists(subject, &subject.target)?;
    let mut session = discovery(subject)?;
    let request = [("SendTargets", "iqn.2026-11.example:nobody")];
    let nobody = ask_by(&mut session, out::TEXT | out::IMMEDIATE, &request)?;
    ensure!(nobody.as_ref().is_none_or(Vec::is_empty), "{nobody:?}");
    Ok(())
}

fn a_numbered_text_request_is_answered(subject: &Subject) -> Outcome {
    let mut session = discovery(subject)?;
    let answer = ask(&mut session, &[("SendTargets", "All")])?.ok_or("rejected")?;
    records(&answer).map(|_| ())
}

fn a_discovery_session_takes_nothing_else(subject: &Subject) -> Outcome {
    for what in [out::COMMAND, out::TASK, out::NOP] {
        let mut session = discovery(subject)?;
        let request = match what {
            out::COMMAND => session.command(0x81, &[0; 6], 0),
            _ => Pdu::new(what | out::IMMEDIATE, 0x80 | u8::from(what == out::TASK)).put32(20, NO_TAG),
        };
        session.request(request);
        match session.receive()? {
            Received::Closed => {}
            Received::Pdu(pdu) if pdu.opcode() == back::REJECT => {}
            other => return Err(format!("{what:#x}: {other:?}")),
        }
    }
    Ok(())
}

fn a_normal_session_hears_of_its_own_target(subject: &Subject) -> Outcome {
    for which in ["All", ""] {
        let mut session = Session::open(subject, &[])?;
        let request = [("SendTargets", which)];
        let answer = ask_by(&mut session, out::TEXT | out::IMMEDIATE, &request)?.ok_or("rejected")?;
        let found = records(&answer)?;
        ensure!(found.len() == 1 && found[0].0 == subject.target, "{which:?}: {found:?}");
        session.barrier()?;
    }
    Ok(())
}

fn a_key_of_fancy_is_no_success(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    if let Some(answer) = ask_by(&mut session, out::TEXT | out::IMMEDIATE, &[("Weather", "fair")])? {
        ensure!(answer == [("Weather".to_owned(), "NotUnderstood".to_owned())], "{answer:?}");
    }
    session.barrier().map(|_| ())
}

fn text_is_continued_in_full_feature_phase(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    let whole = text(&[("SendTargets", "All")]);
    let begun = Pdu::new(out::TEXT, 0x40).put32(20, NO_TAG).with_data(&whole[..8]);
    let itt = session.request(begun);
    let more = session.must_be(back::TEXT, itt)?;
    ensure!(more.data.is_empty() && more.u32(20) != NO_TAG && more.flags() & 0xc0 == 0, "{more:?}");
    let rest = Pdu::new(out::TEXT, 0x80).put32(20, more.u32(20)).with_data(&whole[8..]);
    let rest = session.number_pdu(rest, itt);
    session.link.send(&rest);
    let answer = session.must_be(back::TEXT, itt)?;
    let found = records(&pairs(&answer.data)?)?;
    ensure!(found.len() == 1 && answer.flags() & 0x80 != 0, "{answer:?}");
    Ok(())
}

fn a_tag_of_no_exchange_is_rejected(subject: &Subject) -> Outcome {
    let mut session = Session::open(subject, &[])?;
    session.request(Pdu::new(out::TEXT, 0x80).put32(20, 0x4242).with_data(&text(&[("SendTargets", "All")])));
    match session.receive()? {
        Received::Closed => Ok(()),
        Received::Pdu(pdu) if pdu.opcode() == back::REJECT => session.barrier().map(|_| ()),
        other => Err(format!("{other:?}")),
    }
}

fn keys_of_the_login_are_settled(subject: &Subject) -> Outcome {
    for (key, value) in [("HeaderDigest", "CRC32C"), ("AuthMethod", "None"), ("SessionType", "Discovery")] {
        let mut session = Session::open(subject, &[])?;
        match ask(&mut session, &[(key, value)]) {
            Ok(None) => {}
            Ok(Some(answer)) => {
                let settled = answer.iter().all(|(_, said)| said != value && said != "NotUnderstood");
                ensure!(settled, "{answer:?}");
            }
            // Dropped.
            Err(_) => continue,
        }
        session.barrier()?;
    }
    let mut session = Session::open(subject, &[])?;
    if let Ok(Some(answer)) = ask(&mut session, &[("X#NodeArchitecture", "ExampleOS/v1234")]) {
        ensure!(answer.iter().all(|(_, said)| said != "NotUnderstood"), "{answer:?}");
    }
    Ok(())
}

fn what_is_asked_beside_sendtargets_is_answered_too(subject: &Subject) -> Outcome {
    let keys = [("X-com.example.mood", "fair"), ("SendTargets", "All"), ("MaxRecvDataSegmentLength", "4096")];
    for turned in [false, true] {
        let mut keys = keys;
        if turned {
            keys.reverse();
        }
        for mut session in [discovery(subject)?, Session::open(subject, &[])?] {
            let answer = ask(&mut session, &keys)?.ok_or("rejected")?;
            let (others, records): (Pairs, Pairs) =
                answer.into_iter().partition(|(key, _)| !key.starts_with("Target"));
            ensure!(
                others == [("X-com.example.mood".to_owned(), "NotUnderstood".to_owned())],
                "{others:?} beside {records:?}"
            );
            let found = self::records(&records)?;
            ensure!(found.iter().any(|(name, _)| *name == subject.target), "{found:?}");
        }
    }
    let mut session = discovery(subject)?;
    let twice = ask(&mut session, &[("SendTargets", "All"), ("SendTargets", "")])?;
    ensure!(twice.is_none(), "a key that comes twice: {twice:?}");
    Ok(())
}
