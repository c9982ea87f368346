//! Text keys of the login (RFC 7143 sections 6.2 and 13).

use super::session::{Answer, INITIATOR, TO_FULL_FEATURE};
use super::{Case, Login, Outcome, Subject};

pub(super) const CASES: &[Case] = table! {
    "6.2.1" the_first_known_value_of_a_list_is_chosen
    "6.2" a_list_of_strangers_is_rejected
    "6.2" a_key_that_nobody_knows_is_not_understood
    "6.2" a_key_that_the_rfc_has_is_understood
    "13.26.2" what_a_node_is_made_of_is_taken_without_a_word
    "6.3" a_key_is_negotiated_once
    "6.2.2" a_number_out_of_range_is_rejected
    "6.2.2" a_boolean_is_yes_or_no
    "6.1" a_number_may_be_hexadecimal
    "6.1" a_number_has_no_sign
    "6.1" a_key_longer_than_63_bytes_is_no_key
    "13.10" initialr2t_is_or
    "13.11" immediatedata_is_and
    "13.13" maxburstlength_is_the_lower
    "13.14" firstburstlength_is_at_most_maxburstlength
    "13.14" a_first_burst_is_irrelevant_without_unsolicited_data
    "13.15" time2wait_is_the_higher
    "13.16" time2retain_is_the_lower
    "13.17" maxoutstandingr2t_is_the_lower
    "13.18" datapduinorder_is_or
    "13.19" datasequenceinorder_is_or
    "13.20" errorrecoverylevel_is_the_lower
    "13.2" maxconnections_is_the_lower
    "13.12" maxrecvdatasegmentlength_is_declared_and_never_answered_with_the_offer
    "13.25" markers_are_no_more
    "6.2" keys_are_answered_once_each
};

/// One operational exchange with these keys.
fn offer(subject: &Subject, keys: &[(&str, &str)]) -> Result<Answer, String> {
    let mut pairs = vec![
        ("InitiatorName", INITIATOR),
        ("TargetName", subject.target.as_str()),
        ("SessionType", "Normal"),
    ];
    pairs.extend(keys);
    Login::connect(subject)?.exchange(TO_FULL_FEATURE, &pairs)
}

/// The answer to one key.
fn answer(subject: &Subject, key: &str, value: &str) -> Result<String, String> {
    let answer = offer(subject, &[(key, value)])?;
    ensure!(answer.status() == 0, "{key}={value}: refused with {:#06x}", answer.status());
    answer.get(key).map(str::to_owned).ok_or_else(|| format!("{key}={value} is not answered"))
}

fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is no number"))
}

/// The answer is at most, or at least, each offer.
fn bounded(subject: &Subject, key: &str, offers: &[u32], holds: fn(u32, u32) -> bool) -> Outcome {
    for offered in offers {
        let answered = number(&answer(subject, key, &offered.to_string())?)?;
        ensure!(holds(answered, *offered), "{key}={offered} is answered with {answered}");
    }
    Ok(())
}

/// Rejected by the key's answer, or the whole login as the initiator's fault.
fn rejected(subject: &Subject, key: &str, value: &str) -> Outcome {
    let answer = offer(subject, &[(key, value)])?;
    let right = answer.status() >> 8 == 2 || answer.get(key) == Some("Reject");
    ensure!(right, "{key}={value}: {:#06x} {:?}", answer.status(), answer.get(key));
    Ok(())
}

fn the_first_known_value_of_a_list_is_chosen(subject: &Subject) -> Outcome {
    for key in ["HeaderDigest", "DataDigest"] {
        let chosen = answer(subject, key, "X-com.example.sum,None")?;
        ensure!(chosen == "None", "{key}: {chosen}");
    }
    Ok(())
}

fn a_list_of_strangers_is_rejected(subject: &Subject) -> Outcome {
    rejected(subject, "HeaderDigest", "X-com.example.sum,X-com.example.other")
}

fn a_key_that_nobody_knows_is_not_understood(subject: &Subject) -> Outcome {
    for key in ["X-com.example.mood", "Weather"] {
        let answered = answer(subject, key, "fair")?;
        ensure!(answered == "NotUnderstood", "{key}: {answered}");
    }
    Ok(())
}

/// At a wrong time or from a wrong end, but known.
fn a_key_that_the_rfc_has_is_understood(subject: &Subject) -> Outcome {
    for (key, value) in [("SendTargets", "All"), ("TargetPortalGroupTag", "1"), ("TaskReporting", "RFC3720")]
    {
        let answer = offer(subject, &[(key, value)])?;
        ensure!(answer.get(key) != Some("NotUnderstood"), "{key}: {:?}", answer.pairs);
    }
    Ok(())
}

/// Whatever it says, and even where it says too much.
fn what_a_node_is_made_of_is_taken_without_a_word(subject: &Subject) -> Outcome {
    let long = "x".repeat(300);
    for value in ["ExampleOS/v1234,ExampleInc_SW_Initiator/1.05a", "", &long] {
        let answer = offer(subject, &[("X#NodeArchitecture", value), ("InitialR2T", "Yes")])?;
        ensure!(answer.status() == 0, "{value}: refused with {:#06x}", answer.status());
        ensure!(answer.get("X#NodeArchitecture").is_none(), "{:?}", answer.pairs);
        ensure!(
            answer.get("InitialR2T") == Some("Yes"),
            "what comes with it is answered: {:?}",
            answer.pairs
        );
    }
    Ok(())
}

fn a_key_is_negotiated_once(subject: &Subject) -> Outcome {
    let answer = offer(subject, &[("MaxBurstLength", "65536"), ("MaxBurstLength", "131072")])?;
    ensure!(answer.status() >> 8 == 2, "{:#06x} {:?}", answer.status(), answer.pairs);
    let mut login = Login::connect(subject)?;
    let names = [("InitiatorName", INITIATOR), ("TargetName", subject.target.as_str())];
    login.exchange(1 << 2, &[&names[..], &[("MaxBurstLength", "65536")]].concat())?;
    let again = login.exchange(TO_FULL_FEATURE, &[("MaxBurstLength", "131072")])?;
    ensure!(again.status() >> 8 == 2, "in another request: {:#06x} {:?}", again.status(), again.pairs);
    Ok(())
}

fn a_number_out_of_range_is_rejected(subject: &Subject) -> Outcome {
    for (key, value) in [
        ("MaxBurstLength", "511"),
        ("MaxBurstLength", "16777216"),
        ("MaxOutstandingR2T", "0"),
        ("ErrorRecoveryLevel", "3"),
        ("DefaultTime2Wait", "3601"),
        ("MaxConnections", "many"),
    ] {
        rejected(subject, key, value)?;
    }
    Ok(())
}

fn a_boolean_is_yes_or_no(subject: &Subject) -> Outcome {
    for value in ["Maybe", "yes", ""] {
        rejected(subject, "InitialR2T", value)?;
    }
    Ok(())
}

fn a_number_may_be_hexadecimal(subject: &Subject) -> Outcome {
    let answered = number(&answer(subject, "MaxBurstLength", "0x4000")?)?;
    ensure!(answered == 0x4000, "{answered}");
    Ok(())
}

fn a_number_has_no_sign(subject: &Subject) -> Outcome {
    for value in ["+65536", "-1", "0x+4000", " 65536"] {
        rejected(subject, "MaxBurstLength", value)?;
    }
    Ok(())
}

fn a_key_longer_than_63_bytes_is_no_key(subject: &Subject) -> Outcome {
    let key = format!("X-{}", "k".repeat(62));
    let answer = offer(subject, &[(&key, "1")])?;
    ensure!(answer.status() >> 8 == 2, "{:#06x} {:?}", answer.status(), answer.pairs);
    Ok(())
}

fn initialr2t_is_or(subject: &Subject) -> Outcome {
    let answered = answer(subject, "InitialR2T", "Yes")?;
    ensure!(answered == "Yes", "{answered}");
    Ok(())
}

fn immediatedata_is_and(subject: &Subject) -> Outcome {
    let answered = answer(subject, "ImmediateData", "No")?;
    ensure!(answered == "No", "{answered}");
    Ok(())
}

fn maxburstlength_is_the_lower(subject: &Subject) -> Outcome {
    bounded(subject, "MaxBurstLength", &[512, 4096, 16_777_215], |answered, offered| {
        (512..=offered).contains(&answered)
    })
}

fn firstburstlength_is_at_most_maxburstlength(subject: &Subject) -> Outcome {
    for (first, max) in [("65536", "65536"), ("4096", "65536")] {
        for turned in [false, true] {
            let mut keys = vec![("FirstBurstLength", first), ("MaxBurstLength", max)];
            if turned {
                keys.reverse();
            }
            let answer = offer(subject, &keys)?;
            ensure!(answer.status() == 0, "{keys:?}: {:#06x}", answer.status());
            let of = |key: &str| number(answer.get(key).ok_or_else(|| format!("{key} is not answered"))?);
            ensure!(of("FirstBurstLength")? <= of("MaxBurstLength")?, "{:?}", answer.pairs);
        }
    }
    Ok(())
}

fn a_first_burst_is_irrelevant_without_unsolicited_data(subject: &Subject) -> Outcome {
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No"), ("FirstBurstLength", "4096")];
    for turned in [false, true] {
        let mut keys = keys;
        if turned {
            keys.reverse();
        }
        let answer = offer(subject, &keys)?;
        ensure!(answer.status() == 0, "{:#06x}", answer.status());
        ensure!(answer.get("FirstBurstLength") == Some("Irrelevant"), "{:?}", answer.pairs);
    }
    Ok(())
}

fn time2wait_is_the_higher(subject: &Subject) -> Outcome {
    bounded(subject, "DefaultTime2Wait", &[0, 7, 3600], |answered, offered| answered >= offered)
}

fn time2retain_is_the_lower(subject: &Subject) -> Outcome {
    bounded(subject, "DefaultTime2Retain", &[0, 7, 3600], |answered, offered| answered <= offered)
}

fn maxoutstandingr2t_is_the_lower(subject: &Subject) -> Outcome {
    bounded(subject, "MaxOutstandingR2T", &[1, 2, 65535], |answered, offered| {
        (1..=offered).contains(&answered)
    })
}

fn is_or(subject: &Subject, key: &str) -> Outcome {
    let answered = answer(subject, key, "Yes")?;
    ensure!(answered == "Yes", "{key}: {answered}");
    let answered = answer(subject, key, "No")?;
    ensure!(answered == "Yes" || answered == "No", "{key}: {answered}");
    Ok(())
}

fn datapduinorder_is_or(subject: &Subject) -> Outcome {
    is_or(subject, "DataPDUInOrder")
}

fn datasequenceinorder_is_or(subject: &Subject) -> Outcome {
    is_or(subject, "DataSequenceInOrder")
}

fn errorrecoverylevel_is_the_lower(subject: &Subject) -> Outcome {
    bounded(subject, "ErrorRecoveryLevel", &[0, 1, 2], |answered, offered| answered <= offered)
}

fn maxconnections_is_the_lower(subject: &Subject) -> Outcome {
    bounded(subject, "MaxConnections", &[1, 8, 65535], |answered, offered| (1..=offered).contains(&answered))
}

fn maxrecvdatasegmentlength_is_declared_and_never_answered_with_the_offer(subject: &Subject) -> Outcome {
    let answer = offer(subject, &[("MaxRecvDataSegmentLength", "777")])?;
    ensure!(answer.status() == 0, "{:#06x}", answer.status());
    // What the target says here is its own.
    let own = answer.get("MaxRecvDataSegmentLength").map(number).transpose()?.unwrap_or(8192);
    ensure!(own != 777 && (512..=0xff_ffff).contains(&own), "MaxRecvDataSegmentLength={own}");
    Ok(())
}

fn markers_are_no_more(subject: &Subject) -> Outcome {
    for (key, value) in [("IFMarker", "Yes"), ("OFMarker", "Yes"), ("OFMarkInt", "2048~8192")] {
        let answered = answer(subject, key, value)?;
        let right = answered == "No" || answered == "Reject" || answered == "Irrelevant";
        ensure!(right, "{key}: {answered}");
    }
    Ok(())
}

fn keys_are_answered_once_each(subject: &Subject) -> Outcome {
    let keys = [
        ("HeaderDigest", "None"),
        ("DataDigest", "None"),
        ("InitialR2T", "No"),
        ("ImmediateData", "Yes"),
        ("MaxBurstLength", "65536"),
        ("FirstBurstLength", "8192"),
        ("MaxOutstandingR2T", "1"),
        ("X-com.example.mood", "fair"),
    ];
    let answer = offer(subject, &keys)?;
    ensure!(answer.status() == 0, "{:#06x}", answer.status());
    for (key, _) in keys {
        let times = answer.pairs.iter().filter(|(name, _)| name == key).count();
        ensure!(times == 1, "{key} is answered {times} times");
    }
    Ok(())
}
