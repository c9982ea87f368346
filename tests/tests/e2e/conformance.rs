//! libiscsi's conformance suite, version 1.20.0, one process for each test, against the LUNs that it takes to reach all of it.
//!
//! A profile runs some of the suite's tests. Each of them passes, but for the exceptions, which say why.

use serde_json::{Value, json};
use tests::node::Node;
use tests::suite::{Suite, Verdict};

/// Where a LUN's blocks are.
#[derive(Clone, Copy)]
enum Backing {
    /// In a sparse file.
    File { block_size: u32 },
    /// In memory: it never tears a write.
    Memory { physical_block_size: u32 },
}

/// Tests that a profile runs.
#[derive(Clone, Copy)]
enum Tests {
    /// All but those of these suites.
    Without(&'static [&'static str]),
    /// Those of these suites.
    Only(&'static [&'static str]),
}

impl Tests {
    fn contain(self, test: &str) -> bool {
        let among = |suites: &[&str]| suites.iter().any(|suite| test.starts_with(suite));
        match self {
            Self::Without(suites) => !among(suites),
            Self::Only(suites) => among(suites),
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
    tests: Tests,
    /// Tests that do not pass here, and why.
    exceptions: &'static [(&'static str, &'static str)],
}

const FAULT_UNMAP: (&str, &str) = (
    "WriteSame10.UnmapUntilEnd",
    "the suite sends a block of FFh with UNMAP and wants zeroes; blocks read as what was sent (SBC-3 section 5.43)",
);
const CHAP: (&str, &str) = ("iSCSICHAP.", "the profile has no CHAP user");
const PATHS: (&str, &str) = ("MultipathIO.", "the profile has one path");
const WRITABLE: (&str, &str) = ("ReadOnly.", "the LUN is not write protected");
const TEARS: (&str, &str) = ("WriteAtomic16.", "a power failure may tear a file's writes: not supported");
const CRYPTO: (&str, &str) = ("Sanitize.CryptoErase", "nothing is encrypted: not supported");
const ALIKE: &str = "the suite wants physical blocks of several logical ones";
const LONG: &str = "the suite writes more at once than MAXIMUM TRANSFER LENGTH, which is 1 MiB";
/// Not yet so.
const RESIDUALS: (&str, &str) = ("iSCSIResiduals.Write", "a write of less than a block");
const TEXT: (&str, &str) = ("iSCSISendTargets.", "text requests of a normal session");

const THIN: Profile = Profile {
    name: "thin, removable, 512-byte blocks in 4 KiB ones",
    backing: Backing::File { block_size: 512 },
    mib: 600,
    paths: Paths::One,
    tests: Tests::Without(&["Sanitize."]),
    exceptions: &[
        FAULT_UNMAP,
        ("GetLBAStatus.UnmapSingle", "the suite asks for one block and wants the answer to begin at another"),
        CHAP,
        PATHS,
        WRITABLE,
        TEARS,
        RESIDUALS,
        TEXT,
    ],
};

const BLOCKS_OF_4096: Profile = Profile {
    name: "thin, removable, 4096-byte blocks",
    backing: Backing::File { block_size: 4096 },
    mib: 600,
    paths: Paths::One,
    tests: Tests::Without(&["Sanitize.", "iSCSI"]),
    exceptions: &[
        FAULT_UNMAP,
        ("CompareAndWrite.InvalidDataOutSize", ALIKE),
        ("WriteSame10.UnmapUnaligned", ALIKE),
        ("WriteSame10.InvalidDataOutSize", ALIKE),
        ("WriteSame16.UnmapUnaligned", ALIKE),
        ("WriteSame16.InvalidDataOutSize", ALIKE),
        ("ExtendedCopy.Simple", LONG),
        ("ExtendedCopy.Large", LONG),
        ("GetLBAStatus.UnmapSingle", LONG),
        PATHS,
        WRITABLE,
        TEARS,
    ],
};

const SANITIZED: Profile = Profile {
    name: "thin, removable, sanitized slowly",
    backing: Backing::File { block_size: 512 },
    mib: 96,
    paths: Paths::One,
    tests: Tests::Only(&["Sanitize."]),
    exceptions: &[
        CRYPTO,
        ("Sanitize.Readonly", "it overwrites and erases, and then wants CRYPTO ERASE, too"),
        ("Sanitize.Reservations", "it overwrites and erases, and then wants CRYPTO ERASE, too"),
    ],
};

const MEMORY: Profile = Profile {
    name: "a RAM disk of 512-byte blocks in 4 KiB ones",
    backing: Backing::Memory { physical_block_size: 4096 },
    mib: 64,
    paths: Paths::One,
    tests: Tests::Only(&["WriteAtomic16.", "CompareAndWrite.", "OrWrite."]),
    exceptions: &[],
};

const TWO_PATHS: Profile = Profile {
    name: "a RAM disk through two portals",
    backing: Backing::Memory { physical_block_size: 512 },
    mib: 160,
    paths: Paths::Two,
    tests: Tests::Only(&["MultipathIO.", "GetLBAStatus.", "ExtendedCopy."]),
    exceptions: &[],
};

const PROTECTED: Profile = Profile {
    name: "write protected",
    backing: Backing::File { block_size: 512 },
    mib: 64,
    paths: Paths::One,
    tests: Tests::Only(&["ReadOnly.", "Mandatory.", "Inquiry.", "ReadCapacity", "TestUnitReady."]),
    exceptions: &[],
};

/// Makes the profile's LUN; returns the URLs of its paths.
fn export(node: &Node, profile: &Profile, options: &Value) -> Vec<String> {
    let bytes = profile.mib << 20;
    match profile.backing {
        Backing::File { block_size } => {
            let file = node.file("d0", bytes);
            let device = json!({"name": "d0", "filename": file, "block_size": block_size});
            node.must("bdev_uring_create", device);
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
    let groups = node.must("iscsi_get_portal_groups", Value::Null);
    let port = |group: &Value| group["portals"][0]["port"].as_str().expect("a port").to_owned();
    let ports = groups.as_array().expect("groups").iter().map(port);
    ports.map(|port| format!("iscsi://127.0.0.1:{port}/{name}/0")).collect()
}

fn run(profile: &Profile, options: &Value) {
    let Some(suite) = Suite::find() else { return };
    let node = Node::start(&[]);
    let urls = export(&node, profile, options);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let (mut passed, mut failed, mut skipped, mut unexpected) = (0, 0, 0, Vec::new());
    let tests = suite.tests();
    for test in tests.iter().filter(|test| profile.tests.contain(test)) {
        let verdict = suite.run(test, &urls);
        let excepted = profile.exceptions.iter().find(|(name, _)| test.starts_with(name));
        let said = match &verdict {
            Verdict::Passed => {
                passed += 1;
                continue;
            }
            Verdict::Failed(why) => {
                failed += 1;
                format!("FAILED  {test}: {why}")
            }
            Verdict::Skipped(why) => {
                skipped += 1;
                format!("skipped {test}: {why}")
            }
        };
        match excepted {
            Some((_, why)) => println!("{said}\n        because: {why}"),
            None => unexpected.push(said),
        }
    }
    let name = profile.name;
    println!("{name}: {passed} passed, {failed} failed, {skipped} skipped");
    assert!(passed > 0, "no test of the profile exists");
    assert!(unexpected.is_empty(), "{name}: {unexpected:#?}");
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
fn conformance_of_a_lun_that_is_sanitized() {
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
