//! Every requirement of RFC 7143 that is listed is cited by the code that meets it and tested, or excepted with a reason.

use tests::compliance::look;

#[test]
fn every_requirement_is_cited_and_tested_or_excepted() {
    let faults = look().faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
