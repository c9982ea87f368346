//! Answers to single keys, as RFC 7143 section 13 names them; every pair of preferences is in `tests/session/symmetry.rs`.

use super::*;

#[test]
fn both_ends_agree_whatever_they_prefer() {
    let digests = [
        DigestPreference::Prefer,
        DigestPreference::Require,
        DigestPreference::Avoid,
        DigestPreference::Never,
    ];
    let choices = [Choice::Yes, Choice::No];
    for a in digests {
        for b in digests {
            for r2t in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let ours =
                    Preferences { header_digest: a, initial_r2t: choices[r2t.0], ..Preferences::default() };
                let theirs = Preferences {
                    header_digest: b,
                    initial_r2t: choices[r2t.1],
                    max_burst_length: 65536,
                    max_recv_data_segment_length: 4096,
                    ..Preferences::default()
                };
                negotiate(ours, theirs);
            }
        }
    }
}

fn negotiate(ours: Preferences, theirs: Preferences) {
    let mut originator = Negotiation::new(ours);
    let mut responder = Negotiation::new(theirs);
    let offers: alloc::vec::Vec<_> = originator.offers().collect();
    for (name, offer) in offers {
        if let Some(answer) = responder.respond(name, &offer).expect("a legal offer") {
            match originator.conclude(name, &answer) {
                Ok(()) => {}
                Err(_) => {
                    let never = DigestPreference::Never;
                    let require = DigestPreference::Require;
                    let pair = (ours.header_digest, theirs.header_digest);
                    assert!(
                        pair == (never, require) || pair == (require, never),
                        "{name}: {offer} -> {answer}"
                    );
                    return;
                }
            }
        }
    }
    let (name, value) = responder.declaration().expect("not yet declared");
    originator.conclude(name, &value).expect("a declaration");
    let ours = originator.into_parameters();
    let theirs = responder.into_parameters();
    assert_eq!(ours.max_send_data_segment_length, theirs.max_recv_data_segment_length);
    assert_eq!(ours.max_recv_data_segment_length, theirs.max_send_data_segment_length);
    let common = |p: &SessionParameters| {
        (
            p.header_digest,
            p.data_digest,
            p.max_burst_length,
            p.first_burst_length,
            p.initial_r2t,
            p.immediate_data,
        )
    };
    assert_eq!(common(&ours), common(&theirs));
    assert_eq!(ours.max_burst_length, 65536);
    assert!(ours.first_burst_length <= ours.max_burst_length);
}

#[test]
fn odd_keys_get_the_answers_that_the_rfc_names() {
    let mut negotiation = Negotiation::new(Preferences::default());
    let mut respond = |name: &str, offer: &str| negotiation.respond(name, offer);
    assert_eq!(respond("X-com.example.mood", "blue"), Ok(Some("NotUnderstood".into())));
    assert_eq!(respond("IFMarker", "Yes"), Ok(Some("No".into())));
    assert_eq!(respond("OFMarkInt", "1~2"), Ok(Some("Reject".into())));
    assert_eq!(respond("HeaderDigest", "CRC64"), Ok(Some("Reject".into())));
    assert_eq!(respond("ErrorRecoveryLevel", "2"), Ok(Some("0".into())));
    assert_eq!(respond("MaxRecvDataSegmentLength", "8192"), Ok(None));
    assert_eq!(respond("iSCSIProtocolLevel", "3"), Ok(Some("2".into())));
    assert_eq!(respond("TaskReporting", "FastAbort,RFC3720"), Ok(Some("RFC3720".into())));
    respond("MaxRecvDataSegmentLength", "8192").expect_err("twice");
    respond("MaxBurstLength", "5").expect_err("below 512");
    respond("InitialR2T", "Maybe").expect_err("neither");
}

#[test]
fn every_key_of_the_rfc_is_understood() {
    let mut negotiation = Negotiation::new(Preferences::default());
    for (name, answer) in [
        ("SendTargets", Some("Reject")),
        ("SRP_s", Some("Reject")),
        ("TargetAddress", Some("Reject")),
        ("X#NodeArchitecture", None),
        ("X#Weather", Some("NotUnderstood")),
    ] {
        assert_eq!(negotiation.respond(name, "1"), Ok(answer.map(Into::into)), "{name}");
    }
}

#[test]
fn one_r2t_is_offered_where_what_comes_in_order_may_come_again() {
    for (level, in_order, offered) in
        [(0, Choice::Yes, "4"), (1, Choice::Yes, "1"), (2, Choice::Yes, "1"), (2, Choice::No, "4")]
    {
        let preferences = Preferences {
            error_recovery_level: level,
            data_sequence_in_order: in_order,
            max_outstanding_r2t: 4,
            ..Preferences::default()
        };
        let mut originator = Negotiation::new(preferences);
        let offer = originator.offers().find(|(name, _)| *name == "MaxOutstandingR2T").expect("one").1;
        assert_eq!(offer, offered, "{preferences:?}");
        let more = originator.conclude("MaxOutstandingR2T", "4");
        assert_eq!(more.is_ok(), offered == "4", "no more than was offered");
    }
}

#[test]
fn the_lower_protocol_level_is_agreed_on() {
    for (own, offered, agreed) in [(2, "1", "1"), (2, "2", "2"), (2, "31", "2"), (1, "2", "1")] {
        let preferences = Preferences { protocol_level: own, ..Preferences::default() };
        let answer = Negotiation::new(preferences).respond("iSCSIProtocolLevel", offered);
        assert_eq!(answer, Ok(Some(agreed.into())), "{own}, {offered}");
    }
    assert_eq!(SessionParameters::default().protocol_level, 1, "where nobody says anything");
    Negotiation::new(Preferences::default()).respond("iSCSIProtocolLevel", "32").expect_err("beyond 31");
}

#[test]
fn a_first_burst_is_irrelevant_where_nothing_comes_unsolicited() {
    let answers = |keys: &[(&'static str, &'static str)]| {
        let mut negotiation = Negotiation::new(Preferences::default());
        let answered: alloc::vec::Vec<_> = Negotiation::in_order(keys.iter().copied())
            .filter_map(|(key, value)| Some((key, negotiation.respond(key, value).expect("legal")?)))
            .collect();
        let first = answered.into_iter().find(|(key, _)| *key == "FirstBurstLength").expect("answered").1;
        (first, negotiation.into_parameters().first_burst_length)
    };
    let (r2t, no_r2t) = (("InitialR2T", "Yes"), ("InitialR2T", "No"));
    let (immediate, not) = (("ImmediateData", "Yes"), ("ImmediateData", "No"));
    let first = ("FirstBurstLength", "4096");
    let irrelevant = ("Irrelevant".into(), 65_536);
    assert_eq!(answers(&[r2t, not, first]), irrelevant);
    assert_eq!(answers(&[first, r2t, not]), irrelevant, "whatever the order");
    assert_eq!(answers(&[first, not]), irrelevant, "InitialR2T is Yes where nobody says anything");
    for keys in [[r2t, immediate, first], [no_r2t, not, first], [no_r2t, immediate, first]] {
        assert_eq!(answers(&keys), ("4096".into(), 4096));
    }
    let mut negotiation = Negotiation::new(Preferences::default());
    negotiation.respond("ImmediateData", "No").expect("legal");
    negotiation.respond("FirstBurstLength", "511").expect_err("out of its range all the same");
}

#[test]
fn discovery_has_no_use_for_keys_about_data() {
    let mut negotiation = Negotiation::new(Preferences::default());
    negotiation.set_purpose(Purpose::Discovery);
    assert_eq!(negotiation.respond("InitialR2T", "Yes"), Ok(Some("Irrelevant".into())));
    assert_eq!(negotiation.respond("HeaderDigest", "None"), Ok(Some("None".into())));
    assert!(negotiation.offers().all(|(name, _)| name != "MaxBurstLength"));
}

#[test]
fn a_discovery_session_recovers_nothing() {
    let preferences = Preferences { error_recovery_level: 2, ..Preferences::default() };
    let mut discovery = Negotiation::new(preferences);
    discovery.set_purpose(Purpose::Discovery);
    assert!(discovery.offers().all(|(name, _)| name != "ErrorRecoveryLevel"));
    assert_eq!(discovery.respond("ErrorRecoveryLevel", "2"), Ok(Some("0".into())));
    assert_eq!(discovery.into_parameters().error_recovery_level, 0);
    let mut normal = Negotiation::new(preferences);
    assert_eq!(normal.respond("ErrorRecoveryLevel", "2"), Ok(Some("2".into())));
}

#[test]
fn a_segment_length_may_be_declared_again() {
    let mut parameters = SessionParameters::default();
    assert!(parameters.redeclare("0x10000") && !parameters.redeclare("511") && !parameters.redeclare("x"));
    assert_eq!(parameters.max_send_data_segment_length, 65536);
}
