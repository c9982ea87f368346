//! libiscsi's conformance suite, version 1.20.0, one process for each test, against the LUNs that it takes to reach all of it.
//!
//! A profile runs some of the suite's tests and says why it leaves the others out. None fails; one that skips is listed with
//! the reason, and each test passes somewhere.

use serde_json::{Value, json};
use tests::node::Node;
use tests::suite::{Suite, UNMAP_SINGLE, UNMAP_UNTIL_END, Verdict};

/// Where a LUN's blocks are.
#[derive(Clone, Copy)]
enum Backing {
    /// In a sparse file.
    File { block_size: u32 },
    /// In a sparse file, encrypted.
    Encrypted,
    /// In memory: it never tears a write.
    Memory { physical_block_size: u32 },
}

/// A test, or the beginning of several tests' names, and a reason.
type Because = (&'static str, &'static str);

/// Tests that a profile runs.
#[derive(Clone, Copy)]
enum Tests {
    /// All but these.
    Without(&'static [Because]),
    /// These.
    Only(&'static [&'static str]),
}

impl Tests {
    fn contain(self, test: &str) -> bool {
        match self {
            Self::Without(others) => !others.iter().any(|(other, _)| test.starts_with(other)),
            Self::Only(these) => these.iter().any(|this| test.starts_with(this)),
        }
    }
}

/// How many paths there are to the LUN.
#[derive(Clone, Copy)]
enum Paths {
    One,
    Two,
}

struct Profile {
    name: &'static str,
    backing: Backing,
    mib: u64,
    paths: Paths,
    /// The user that logs in, where CHAP is required.
    user: Option<&'static str>,
    tests: Tests,
    /// Tests that skip here.
    skips: &'static [Because],
}

/// Long enough for RFC 7143's recommendation of 96 bits.
const SECRET: &str = "abcdefgh12345";

const SANITIZED_ELSEWHERE: Because =
    ("Sanitize.", "the profile of an encrypted LUN that is sanitized slowly runs them");
const CHAP: Because = ("iSCSICHAP.", "the profiles with users run them");
const PATHS: Because = ("MultipathIO.", "the profile of two paths runs them");
const WRITABLE: Because = ("ReadOnly.", "the profile of a protected LUN runs it");
const TEARS: Because =
    ("WriteAtomic16.", "a power failure may tear a file's writes: the profile of a RAM disk runs them");
const ALIKE: &str = "the suite wants physical blocks of several logical ones";

const THIN: Profile = Profile {
    name: "thin, removable, 512-byte blocks in 4 KiB ones",
    backing: Backing::File { block_size: 512 },
    mib: 600,
    paths: Paths::One,
    user: None,
    tests: Tests::Without(&[
        SANITIZED_ELSEWHERE,
        UNMAP_UNTIL_END,
        UNMAP_SINGLE,
        CHAP,
        PATHS,
        WRITABLE,
        TEARS,
    ]),
    skips: &[],
};

const BLOCKS_OF_4096: Profile = Profile {
    name: "thin, removable, 4096-byte blocks",
    backing: Backing::File { block_size: 4096 },
    mib: 600,
    paths: Paths::One,
    user: None,
    tests: Tests::Without(&[SANITIZED_ELSEWHERE, UNMAP_UNTIL_END, CHAP, PATHS, WRITABLE, TEARS]),
    skips: &[
        ("CompareAndWrite.InvalidDataOutSize", ALIKE),
        ("WriteSame10.UnmapUnaligned", ALIKE),
        ("WriteSame10.InvalidDataOutSize", ALIKE),
        ("WriteSame16.UnmapUnaligned", ALIKE),
        ("WriteSame16.InvalidDataOutSize", ALIKE),
    ],
};

const SANITIZED: Profile = Profile {
    name: "thin, removable, encrypted, sanitized slowly",
    backing: Backing::Encrypted,
    mib: 96,
    paths: Paths::One,
    user: None,
    tests: Tests::Only(&["Sanitize."]),
    skips: &[],
};

const MEMORY: Profile = Profile {
    name: "a RAM disk of 512-byte blocks in 4 KiB ones",
    backing: Backing::Memory { physical_block_size: 4096 },
    mib: 64,
    paths: Paths::One,
    user: None,
    tests: Tests::Only(&["WriteAtomic16.", "CompareAndWrite.", "OrWrite."]),
    skips: &[],
};

const TWO_PATHS: Profile = Profile {
    name: "a RAM disk through two portals",
    backing: Backing::Memory { physical_block_size: 512 },
    mib: 160,
    paths: Paths::Two,
    user: None,
    tests: Tests::Only(&["MultipathIO.", "GetLBAStatus.", "ExtendedCopy."]),
    skips: &[],
};

const PROTECTED: Profile = Profile {
    name: "write protected",
    backing: Backing::File { block_size: 512 },
    mib: 64,
    paths: Paths::One,
    user: None,
    tests: Tests::Only(&["ReadOnly.", "Mandatory.", "Inquiry.", "ReadCapacity", "TestUnitReady."]),
    skips: &[],
};

const NO_ZERO_COUNT: Profile = Profile {
    name: "thin, WSNZ",
    backing: Backing::File { block_size: 512 },
    mib: 64,
    paths: Paths::One,
    user: None,
    tests: Tests::Only(&["WriteSame"]),
    skips: &[
        ("WriteSame10.ZeroBlocks", "a count of zero is refused"),
        ("WriteSame16.ZeroBlocks", "a count of zero is refused"),
    ],
};

const fn for_user(user: &'static str) -> Profile {
    Profile {
        name: user,
        backing: Backing::Memory { physical_block_size: 512 },
        mib: 16,
        paths: Paths::One,
        user: Some(user),
        tests: Tests::Only(&["iSCSICHAP.", "iSCSISendTargets."]),
        skips: &[],
    }
}

const USER: Profile = for_user("x");
const HEX_USER: Profile = for_user("0xuser");
const BASE64_USER: Profile = for_user("0buser");

const PROFILES: [&Profile; 10] = [
    &THIN,
    &BLOCKS_OF_4096,
    &SANITIZED,
    &MEMORY,
    &TWO_PATHS,
    &PROTECTED,
    &NO_ZERO_COUNT,
    &USER,
    &HEX_USER,
    &BASE64_USER,
];

/// Makes the profile's LUN; returns the URLs of its paths.
fn export(node: &Node, profile: &Profile, options: &Value) -> Vec<String> {
    let bytes = profile.mib << 20;
    match profile.backing {
        Backing::File { block_size } => {
            let file = node.file("d0", bytes);
            let device = json!({"name": "d0", "filename": file, "block_size": block_size});
            node.must("bdev_uring_create", device);
        }
        Backing::Encrypted => {
            let file = node.file("base", bytes);
            node.must("bdev_uring_create", json!({"name": "base", "filename": file, "block_size": 512}));
            let key = "0123456789abcdef".repeat(4);
            node.must("accel_crypto_key_create", json!({"name": "k0", "cipher": "AES_XTS", "key": key}));
            let device = json!({"name": "d0", "base_bdev_name": "base", "key_name": "k0", "format": true});
            node.must("bdev_crypto_create", device);
        }
        Backing::Memory { physical_block_size } => {
            let device = json!({
                "name": "d0", "num_blocks": bytes / 512, "block_size": 512,
                "physical_block_size": physical_block_size,
            });
            node.must("bdev_malloc_create", device);
        }
    }
    let group = json!({"tag": 1, "initiators": ["ANY"], "netmasks": ["127.0.0.1"]});
    node.must("iscsi_create_initiator_group", group);
    let paths = match profile.paths {
        Paths::One => 1..=1,
        Paths::Two => 1..=2,
    };
    let mut maps = Vec::new();
    for tag in paths {
        let portals = json!({"tag": tag, "portals": [{"host": "127.0.0.1", "port": "0"}]});
        node.must("iscsi_create_portal_group", portals);
        maps.push(json!({"pg_tag": tag, "ig_tag": 1}));
    }
    let name = "iqn.2026-11.org.gemel:d0";
    let mut lun = json!({"bdev_name": "d0", "lun_id": 0});
    for (key, value) in options.as_object().expect("options") {
        lun[key] = value.clone();
    }
    let target =
        json!({"name": name, "alias_name": "d0", "pg_ig_maps": maps, "luns": [lun], "queue_depth": 64});
    node.must("iscsi_create_target_node", target);
    if let Some(user) = profile.user {
        let secrets = json!([{"user": user, "secret": SECRET}]);
        node.must("iscsi_create_auth_group", json!({"tag": 1, "secrets": secrets}));
        let auth = json!({"name": name, "require_chap": true, "mutual_chap": false, "chap_group": 1});
        node.must("iscsi_target_node_set_auth", auth);
    }
    let groups = node.must("iscsi_get_portal_groups", Value::Null);
    let port = |group: &Value| group["portals"][0]["port"].as_str().expect("a port").to_owned();
    let ports = groups.as_array().expect("groups").iter().map(port);
    let user = profile.user.map(|user| format!("{user}%{SECRET}@")).unwrap_or_default();
    ports.map(|port| format!("iscsi://{user}127.0.0.1:{port}/{name}/0")).collect()
}

fn run(profile: &Profile, options: &Value) {
    let Some(suite) = Suite::find() else { return };
    let node = Node::start(&[]);
    let urls = export(&node, profile, options);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let (mut passed, mut failed, mut skipped, mut unexpected) = (0, 0, 0, Vec::new());
    let tests = suite.tests();
    for test in tests.iter().filter(|test| profile.tests.contain(test)) {
        let skips = profile.skips.iter().find(|(name, _)| test == name);
        match (suite.run(test, &urls), skips) {
            (Verdict::Passed, None) => passed += 1,
            (Verdict::Passed, Some(_)) => {
                passed += 1;
                unexpected.push(format!("passed  {test}, and is listed as one that skips"));
            }
            (Verdict::Failed(why), _) => {
                failed += 1;
                unexpected.push(format!("FAILED  {test}: {why}"));
            }
            (Verdict::Skipped(why), listed) => {
                skipped += 1;
                match listed {
                    Some((_, because)) => println!("skipped {test}: {why}\n        because: {because}"),
                    None => unexpected.push(format!("skipped {test}: {why}")),
                }
            }
        }
    }
    let name = profile.name;
    println!("{name}: {passed} passed, {failed} failed, {skipped} skipped");
    assert!(passed > 0, "no test of the profile exists");
    assert!(unexpected.is_empty(), "{name}: {unexpected:#?}");
}

#[test]
fn every_test_passes_in_a_profile() {
    let Some(suite) = Suite::find() else { return };
    let tests = suite.tests();
    let passes = |profile: &&Profile, test: &str| {
        profile.tests.contain(test) && !profile.skips.iter().any(|(name, _)| test == *name)
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

#[test]
fn conformance_of_a_thin_lun() {
    run(&THIN, &json!({"removable": true}));
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
