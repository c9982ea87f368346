//! libiscsi's conformance suite, version 1.20.0, one process for each test, against the LUNs that it takes to reach all of it.
//!
//! A profile runs some of the suite's tests and says why it leaves the others out. None fails, but where the suite itself is wrong
//! about the LUN, and there it has to; one that skips is listed with the reason, and each test passes somewhere.

mod export;
mod profiles;

use std::process::Command;

use serde_json::{Value, json};
use tests::node::binary;
use tests::suite::{Ending, Suite, Tally, excuse};

use export::export;
use profiles::{
    BASE64_USER, BLOCKS_OF_4096, Because, HEX_USER, MEMORY, NO_ZERO_COUNT, PAIR, PAIR_PROTECTED,
    PAIR_REVERSED, PAIR_WITH_USER, PROFILES, PROTECTED, Profile, SANITIZED, THICK, THIN, TWO_PATHS, USER,
};

fn run(profile: &Profile, options: &Value) {
    let Some(suite) = Suite::find() else { return };
    let name = profile.name;
    let exported = export(profile, options);
    let urls: Vec<&str> = exported.urls.iter().map(String::as_str).collect();
    for url in &urls {
        assert_eq!(suite.properties(url), Some(profile.lun), "{name}");
    }
    let (mut tally, mut unexpected) = (Tally::default(), Vec::new());
    for test in suite.tests().iter().filter(|test| profile.tests.contain(test)) {
        let ending = Ending::new(suite.run(test, &urls), excuse(test, &profile.lun));
        tally.count(&ending);
        let line = ending.line(test);
        match (ending, profile.skip(test)) {
            (Ending::Passed, None) => {}
            (Ending::Disputed(_), None) => println!("{line}"),
            (Ending::Skipped(_), Some(because)) => println!("{line}\n        because: {because}"),
            (_, Some(_)) => unexpected.push(format!("{line}, and is listed as one that skips")),
            (_, None) => unexpected.push(line),
        }
    }
    println!("{name}: {tally}");
    assert!(tally.passed > 0, "no test of the profile exists");
    assert!(unexpected.is_empty(), "{name}: {unexpected:#?}");
}

#[test]
fn every_test_passes_in_a_profile() {
    let Some(suite) = Suite::find() else { return };
    let tests = suite.tests();
    let passes = |profile: &&Profile, test: &str| {
        profile.tests.contain(test) && profile.skip(test).is_none() && excuse(test, &profile.lun).is_none()
    };
    let nowhere: Vec<&String> =
        tests.iter().filter(|test| !PROFILES.iter().any(|profile| passes(profile, test))).collect();
    assert!(nowhere.is_empty(), "no profile passes these: {nowhere:?}");
    for profile in PROFILES {
        let named = |(name, _): &&Because| !tests.iter().any(|test| test == name);
        let unknown: Vec<_> = profile.skips.iter().filter(named).collect();
        assert!(unknown.is_empty(), "{}: the suite has no such tests: {unknown:?}", profile.name);
    }
}

/// What `make conformance` prints of a part of the suite, and whether it is content.
fn printed(arguments: &[&str]) -> (Vec<String>, bool) {
    let run = Command::new(binary("conformance")).args(arguments).output().expect("it is built");
    let text = String::from_utf8(run.stdout).expect("text");
    (text.lines().map(str::to_owned).collect(), run.status.success())
}

/// With one URL and with two: a line for each test, and how many there were of each kind.
#[test]
fn the_program_names_each_test_and_counts_them() {
    if Suite::find().is_none() {
        return;
    }
    let exported = export(&TWO_PATHS, &json!({}));
    let [one, two] = [0, 1].map(|path| exported.urls[path].as_str());
    let (lines, content) = printed(&["-t", "MultipathIO.", one, two]);
    let names = ["Simple", "Reset", "CompareAndWrite", "CompareAndWriteAsync"];
    for name in names {
        assert!(lines.contains(&format!("passed  MultipathIO.{name}")), "{lines:#?}");
    }
    assert_eq!((lines.last().map(String::as_str), content), (Some("4 passed, 0 failed, 0 skipped"), true));
    let (lines, content) = printed(&["-t", "MultipathIO.", one]);
    assert!(lines[0].starts_with("skipped MultipathIO.Simple: [SKIPPED]"), "{lines:#?}");
    assert_eq!((lines.last().map(String::as_str), content), (Some("0 passed, 0 failed, 4 skipped"), true));
    let (lines, content) =
        printed(&["-t", "TestUnitReady.", "iscsi://127.0.0.1:1/iqn.2026-11.org.gemel:d0/0"]);
    assert!(lines[0].starts_with("FAILED  TestUnitReady.Simple: "), "{lines:#?}");
    assert_eq!((lines.last().map(String::as_str), content), (Some("0 passed, 1 failed, 0 skipped"), false));
    let exported = export(&MEMORY, &json!({}));
    let (lines, content) = printed(&["-t", "GetLBAStatus.UnmapSingle", &exported.urls[0]]);
    assert!(lines[0].starts_with("disputed GetLBAStatus.UnmapSingle: "), "{lines:#?}");
    let last = "0 passed, 0 failed, 0 skipped, 1 that the suite is wrong about";
    assert_eq!((lines.last().map(String::as_str), content), (Some(last), true));
}

#[test]
fn conformance_of_a_thin_lun() {
    run(&THIN, &json!({"removable": true}));
}

#[test]
fn conformance_of_a_thick_lun() {
    run(&THICK, &json!({"removable": true, "provisioning": "thick"}));
}

#[test]
fn conformance_of_a_lun_of_4096_byte_blocks() {
    run(&BLOCKS_OF_4096, &json!({"removable": true}));
}

#[test]
fn conformance_of_an_encrypted_lun_that_is_sanitized() {
    run(&SANITIZED, &json!({"removable": true, "sanitize_mb_per_sec": 12}));
}

#[test]
fn conformance_of_a_ram_disk() {
    run(&MEMORY, &json!({}));
}

#[test]
fn conformance_of_a_lun_with_two_paths() {
    run(&TWO_PATHS, &json!({}));
}

#[test]
fn conformance_of_a_pair_through_the_node_that_does_not_serve() {
    run(&PAIR, &json!({"removable": true, "sanitize_mb_per_sec": 20}));
}

#[test]
fn conformance_of_a_pair_through_the_node_that_serves() {
    run(&PAIR_REVERSED, &json!({"removable": true}));
}

#[test]
fn conformance_of_a_pair_that_asks_for_chap() {
    run(&PAIR_WITH_USER, &json!({}));
}

#[test]
fn conformance_of_a_write_protected_pair() {
    run(&PAIR_PROTECTED, &json!({"removable": true, "read_only": true}));
}

#[test]
fn conformance_of_a_write_protected_lun() {
    run(&PROTECTED, &json!({"removable": true, "read_only": true}));
}

#[test]
fn conformance_of_a_lun_that_refuses_to_write_the_same_to_the_end() {
    run(&NO_ZERO_COUNT, &json!({"wsnz": true}));
}

#[test]
fn conformance_of_logins_with_chap() {
    run(&USER, &json!({}));
}

#[test]
fn conformance_of_logins_with_a_name_like_a_hexadecimal_number() {
    run(&HEX_USER, &json!({}));
}

#[test]
fn conformance_of_logins_with_a_name_like_a_base64_number() {
    run(&BASE64_USER, &json!({}));
}
