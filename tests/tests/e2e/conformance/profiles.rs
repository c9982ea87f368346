//! The LUNs that it takes to reach all of the suite, what of it runs against each, and why the rest does not.

use tests::suite::{Properties, Provisioning};

/// Where a LUN's blocks are.
#[derive(Clone, Copy)]
pub(super) enum Backing {
    /// In a sparse file.
    File { block_size: u32 },
    /// In a sparse file, encrypted.
    Encrypted,
    /// In memory: it never tears a write. As many portals lead there.
    Memory { physical_block_size: u32, portals: i64 },
    /// On the two nodes of a pair, each a path: the suite's first one leads to this node.
    Pair { first: Way },
}

/// Which node of a pair a path leads to.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// The one that serves.
    ToHolder,
    /// The other one, which passes commands on.
    ToStandby,
}

/// A test, or the beginning of several tests' names, and a reason.
pub(super) type Because = (&'static str, &'static str);

/// Tests that a profile runs.
#[derive(Clone, Copy)]
pub(super) enum Tests {
    /// All but these.
    Without(&'static [Because]),
    /// These.
    Only(&'static [&'static str]),
}

impl Tests {
    pub(super) fn contain(self, test: &str) -> bool {
        match self {
            Self::Without(others) => !others.iter().any(|(other, _)| test.starts_with(other)),
            Self::Only(these) => these.iter().any(|this| test.starts_with(this)),
        }
    }
}

pub(super) struct Profile {
    pub(super) name: &'static str,
    pub(super) backing: Backing,
    pub(super) mib: u64,
    /// What the LUN says of itself, by which the suite's faults show there or do not.
    pub(super) lun: Properties,
    /// The user that logs in, where CHAP is required.
    pub(super) user: Option<&'static str>,
    pub(super) tests: Tests,
    /// Tests that skip here.
    pub(super) skips: &'static [Because],
}

impl Profile {
    /// Why a test skips here, if it does.
    pub(super) fn skip(&self, test: &str) -> Option<&'static str> {
        self.skips.iter().find(|(name, _)| test == *name).map(|(_, because)| *because)
    }
}

const fn thin(physical_exponent: u32, wsnz: u32) -> Properties {
    Properties { physical_exponent, wsnz, provisioning: Provisioning::Thin }
}

const SANITIZED_ELSEWHERE: Because =
    ("Sanitize.", "the profile of an encrypted LUN that is sanitized slowly runs them");
const CHAP: Because = ("iSCSICHAP.", "the profiles with users run them");
const PATHS: Because = ("MultipathIO.", "the profiles of two paths run them");
const WRITABLE: Because = ("ReadOnly.", "the profiles of protected LUNs run it");
const TEARS: Because =
    ("WriteAtomic16.", "a power failure may tear writes to a file: the profile of a RAM disk runs them");
const KEPT: &str = "it begins with CRYPTO ERASE, and a mirror has no key to destroy: the profile of an encrypted LUN runs it";
const NO_UNMAP: &str = "blocks that always have storage cannot be unmapped";
const ASKED_OF_THIN: &str = "the suite asks it of thin LUNs alone";
const ALIKE: &str = "the suite wants physical blocks of several logical ones";

pub(super) const THIN: Profile = Profile {
    name: "thin, removable, 512-byte blocks in 4 KiB ones",
    backing: Backing::File { block_size: 512 },
    mib: 600,
    lun: thin(3, 0),
    user: None,
    tests: Tests::Without(&[SANITIZED_ELSEWHERE, CHAP, PATHS, WRITABLE, TEARS]),
    skips: &[],
};

/// Every block has storage, and hosts are told so.
pub(super) const THICK: Profile = Profile {
    name: "thick, removable, 512-byte blocks in 4 KiB ones",
    mib: 160,
    lun: Properties { provisioning: Provisioning::Thick, ..thin(3, 0) },
    skips: &[
        ("CompareAndWrite.InvalidDataOutSize", ASKED_OF_THIN),
        ("GetLBAStatus.UnmapSingle", NO_UNMAP),
        ("Inquiry.BlockLimits", ASKED_OF_THIN),
        ("NoMedia.NoMediaSBC", "its list of commands has UNMAP, which there is none of"),
        ("Unmap.Simple", NO_UNMAP),
        ("Unmap.VPD", NO_UNMAP),
        ("Unmap.ZeroBlocks", NO_UNMAP),
        ("WriteSame10.Unmap", NO_UNMAP),
        ("WriteSame10.UnmapUnaligned", NO_UNMAP),
        ("WriteSame10.UnmapUntilEnd", NO_UNMAP),
        ("WriteSame10.InvalidDataOutSize", ASKED_OF_THIN),
        ("WriteSame16.Unmap", NO_UNMAP),
        ("WriteSame16.UnmapUnaligned", NO_UNMAP),
        ("WriteSame16.UnmapUntilEnd", NO_UNMAP),
        ("WriteSame16.InvalidDataOutSize", ASKED_OF_THIN),
    ],
    ..THIN
};

pub(super) const BLOCKS_OF_4096: Profile = Profile {
    name: "thin, removable, 4096-byte blocks",
    backing: Backing::File { block_size: 4096 },
    mib: 600,
    lun: thin(0, 0),
    user: None,
    tests: Tests::Without(&[SANITIZED_ELSEWHERE, CHAP, PATHS, WRITABLE, TEARS]),
    skips: &[
        ("CompareAndWrite.InvalidDataOutSize", ALIKE),
        ("WriteSame10.UnmapUnaligned", ALIKE),
        ("WriteSame10.InvalidDataOutSize", ALIKE),
        ("WriteSame16.UnmapUnaligned", ALIKE),
        ("WriteSame16.InvalidDataOutSize", ALIKE),
    ],
};

pub(super) const SANITIZED: Profile = Profile {
    name: "thin, removable, encrypted, sanitized slowly",
    backing: Backing::Encrypted,
    mib: 96,
    lun: thin(3, 0),
    user: None,
    tests: Tests::Only(&["Sanitize."]),
    skips: &[],
};

pub(super) const MEMORY: Profile = Profile {
    name: "a RAM disk of 512-byte blocks in 4 KiB ones",
    backing: Backing::Memory { physical_block_size: 4096, portals: 1 },
    mib: 64,
    lun: thin(3, 0),
    user: None,
    tests: Tests::Only(&["WriteAtomic16.", "CompareAndWrite.", "OrWrite.", "GetLBAStatus."]),
    skips: &[],
};

pub(super) const TWO_PATHS: Profile = Profile {
    name: "a RAM disk through two portals",
    backing: Backing::Memory { physical_block_size: 512, portals: 2 },
    mib: 160,
    lun: thin(0, 0),
    user: None,
    tests: Tests::Only(&["MultipathIO.", "GetLBAStatus.", "ExtendedCopy."]),
    skips: &[],
};

/// Everything goes by the node that does not serve, and the second path leads to the one that does.
pub(super) const PAIR: Profile = Profile {
    name: "a mirrored pair, through the standby first",
    backing: Backing::Pair { first: Way::ToStandby },
    mib: 160,
    lun: thin(3, 0),
    user: None,
    tests: Tests::Without(&[CHAP, WRITABLE, TEARS]),
    skips: &[("Sanitize.CryptoErase", KEPT), ("Sanitize.Readonly", KEPT), ("Sanitize.Reservations", KEPT)],
};

/// What has to be whole across the nodes, the other way round.
pub(super) const PAIR_REVERSED: Profile = Profile {
    name: "a mirrored pair, through the holder first",
    backing: Backing::Pair { first: Way::ToHolder },
    tests: Tests::Only(&["MultipathIO.", "CompareAndWrite.", "Reserve6.", "Prin", "Prout"]),
    skips: &[],
    ..PAIR
};

/// Hosts prove themselves to each node of a pair, and the node that does not serve passes on what they may do.
pub(super) const PAIR_WITH_USER: Profile = Profile {
    name: "a mirrored pair that asks for CHAP, through the standby first",
    mib: 96,
    user: Some("x"),
    tests: Tests::Only(&[
        "iSCSICHAP.",
        "iSCSISendTargets.",
        "MultipathIO.",
        "Write10.",
        "ProutReserve.Simple",
    ]),
    skips: &[],
    ..PAIR
};

pub(super) const PAIR_PROTECTED: Profile = Profile {
    name: "a write-protected mirrored pair, through the standby first",
    mib: 96,
    tests: Tests::Only(PROTECTED_TESTS),
    skips: &[],
    ..PAIR
};

const PROTECTED_TESTS: &[&str] = &["ReadOnly.", "Mandatory.", "Inquiry.", "ReadCapacity", "TestUnitReady."];

pub(super) const PROTECTED: Profile = Profile {
    name: "write protected",
    backing: Backing::File { block_size: 512 },
    mib: 64,
    lun: thin(3, 0),
    user: None,
    tests: Tests::Only(PROTECTED_TESTS),
    skips: &[],
};

pub(super) const NO_ZERO_COUNT: Profile = Profile {
    name: "thin, WSNZ",
    backing: Backing::File { block_size: 512 },
    mib: 64,
    lun: thin(3, 1),
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
        backing: Backing::Memory { physical_block_size: 512, portals: 1 },
        mib: 16,
        lun: thin(0, 0),
        user: Some(user),
        tests: Tests::Only(&["iSCSICHAP.", "iSCSISendTargets."]),
        skips: &[],
    }
}

pub(super) const USER: Profile = for_user("x");
pub(super) const HEX_USER: Profile = for_user("0xuser");
pub(super) const BASE64_USER: Profile = for_user("0buser");

pub(super) const PROFILES: [&Profile; 15] = [
    &THIN,
    &THICK,
    &BLOCKS_OF_4096,
    &SANITIZED,
    &MEMORY,
    &TWO_PATHS,
    &PAIR,
    &PAIR_REVERSED,
    &PAIR_WITH_USER,
    &PAIR_PROTECTED,
    &PROTECTED,
    &NO_ZERO_COUNT,
    &USER,
    &HEX_USER,
    &BASE64_USER,
];
