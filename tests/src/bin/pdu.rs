//! `pdu URL [--chap | --disorder] [NAME]`: the suite at PDU level against one LUN, whose first 2 MiB it overwrites; NAME is a part of the names
//! of the cases to run. `--disorder` runs the cases of data in any order, for a target that is set up to take them (of a node's
//! `iscsi_set_options`, `data_pdu_in_order` and `data_sequence_in_order` false). A node under test has to allow more logins a second than it does by itself (`iscsi_set_options`).

use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::Duration;

use tests::pdu::{self, Case, Subject};

fn subject(url: &str) -> Option<Subject> {
    let mut parts = url.strip_prefix("iscsi://")?.split('/');
    let portal = parts.next()?.to_socket_addrs().ok()?.next()?;
    let target = parts.next()?.to_owned();
    let lun = parts.next()?.parse().ok()?;
    Some(Subject { portal, target, lun, patience: Duration::from_secs(5) })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(subject) = arguments.first().and_then(|url| subject(url)) else {
        eprintln!("usage: pdu iscsi://HOST:PORT/TARGET/LUN [--chap | --disorder] [NAME]");
        return ExitCode::from(2);
    };
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let cases: Vec<&Case> = match (has("--chap"), has("--disorder")) {
        (true, _) => pdu::chap_cases().collect(),
        (_, true) => pdu::disorder_cases().collect(),
        _ => pdu::cases()
            .chain(pdu::digest_cases())
            .chain(pdu::feature_cases())
            .chain(pdu::recovery_cases())
            .collect(),
    };
    let name =
        arguments.iter().skip(1).find(|argument| !argument.starts_with("--")).map_or("", String::as_str);
    let cases: Vec<&Case> = cases.into_iter().filter(|case| case.name.contains(name)).collect();
    let failures = pdu::run(&subject, cases.iter().copied());
    for (case, why) in &failures {
        println!("FAILED {} (section {}): {why}", case.name, case.section);
    }
    println!("{} passed, {} failed", cases.len() - failures.len(), failures.len());
    ExitCode::from(u8::from(!failures.is_empty()))
}
