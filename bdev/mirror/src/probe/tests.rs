//! What is found on devices of every sort.

use super::*;
use crate::format::tests::{ARRAY, example_create};
use crate::format::{Features, LegIndex, Step};

const LEG_SIZE: u64 = 1 << 40;

/// Start and end of a device.
struct Device {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Device {
    fn blank() -> Self {
        let zeroes = |len: u64| vec![0; usize::try_from(len).expect("small")];
        Self { head: zeroes(HEAD_LEN), tail: zeroes(TAIL_LEN) }
    }

    /// After the first `steps` steps of formatting.
    fn formatted(superblock: &Superblock, steps: usize) -> Self {
        let mut device = Self::blank();
        for step in superblock.format_steps().into_iter().take(steps) {
            if let Step::Write(write) = step {
                device.put(write.offset, &write.block);
            }
        }
        device
    }

    fn leg(superblock: &Superblock) -> Self {
        Self::formatted(superblock, usize::MAX)
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let tail_at = LEG_SIZE - TAIL_LEN;
        let (area, at) = match offset {
            offset if offset < HEAD_LEN => (&mut self.head, offset),
            offset if offset >= tail_at => (&mut self.tail, offset - tail_at),
            _ => return,
        };
        let at = usize::try_from(at).expect("small");
        area[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn with(mut self, offset: u64, bytes: &[u8]) -> Self {
        self.put(offset, bytes);
        self
    }

    fn classify(&self, expected: Option<Uuid>) -> LegFound {
        classify(&Image { leg_size: LEG_SIZE, head: &self.head, tail: &self.tail }, expected)
    }
}

fn founder() -> Superblock {
    example_create(LegIndex::Zero).founder(3)
}

fn content(found: &LegFound) -> ForeignContent {
    match found {
        LegFound::Refused(ProbeError::Foreign(content)) => *content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn zeroes_are_blank_and_one_byte_is_not() {
    assert_eq!(Device::blank().classify(None), LegFound::Blank);
    for offset in [0, 4000, 70_000, HEAD_LEN - 1, LEG_SIZE - TAIL_LEN, LEG_SIZE - 1] {
        let found = Device::blank().with(offset, &[1]).classify(Some(ARRAY));
        assert_eq!(content(&found), ForeignContent::Unknown, "offset {offset}");
    }
}

#[test]
fn a_leg_is_recognised_even_behind_a_boot_block() {
    let device = Device::leg(&founder()).with(510, &[0x55, 0xaa]);
    for expected in [None, Some(ARRAY)] {
        let LegFound::Leg(leg) = device.classify(expected) else { panic!("a leg") };
        assert_eq!((leg.superblock, leg.access, leg.from), (founder(), Access::Full, Copy::Slot1));
    }
}

/// I8: a crash while formatting leaves a device without a leg, or with one.
#[test]
fn a_crash_while_formatting_leaves_no_half_leg() {
    let superblock = founder();
    let all = superblock.format_steps().len();
    for steps in 0..=all {
        match Device::formatted(&superblock, steps).classify(Some(ARRAY)) {
            LegFound::Blank => assert!(steps < all - 5),
            LegFound::Leg(leg) if steps < all - 3 => {
                assert!(leg.superblock == Superblock { seq: 0, ..superblock.clone() } && steps >= all - 5);
            }
            LegFound::Leg(leg) => assert_eq!(leg.superblock, superblock),
            LegFound::Refused(error) => panic!("{steps}: {error}"),
        }
    }
}

/// A leg that nobody has written to since is as sound as any other.
#[test]
fn a_new_leg_survives_the_loss_of_either_superblock() {
    let superblock = founder();
    for seq in 0..2 {
        let slot = crate::format::layout::Layout::superblock_slot(seq);
        let LegFound::Leg(leg) = Device::leg(&superblock).with(slot + 200, &[0xff; 8]).classify(None) else {
            panic!("a leg without slot {seq}")
        };
        assert_eq!((leg.superblock.leg, leg.superblock.history), (superblock.leg, superblock.history));
    }
}

#[test]
fn another_array_is_named() {
    let expected = Uuid::from_u128(9);
    let LegFound::Refused(error) = Device::leg(&founder()).classify(Some(expected)) else {
        panic!("refused")
    };
    assert_eq!(error, ProbeError::OtherArray { array: ARRAY, name: "example".into(), expected });
    assert!(error.to_string().contains("example"));
}

#[test]
fn both_slots_torn_is_refused_whatever_the_end_copy_says() {
    let superblock = founder();
    let mut device = Device::leg(&superblock);
    device.put(Layout::superblock_slot(1) + 900, &[0xff; 9]);
    device.put(Layout::superblock_slot(0), &[7; 512]);
    let LegFound::Refused(ProbeError::Torn { tail }) = device.classify(Some(ARRAY)) else { panic!("torn") };
    assert_eq!(tail.as_deref(), Some(&superblock));
    let device = device.with(LEG_SIZE - 4096 + 900, &[0xff; 9]);
    assert!(matches!(device.classify(None), LegFound::Refused(ProbeError::Torn { tail: None })));
}

#[test]
fn features_decide_what_may_be_done() {
    let mut superblock = founder();
    superblock.features = Features { compat: 1 << 30, ro_compat: 0, incompat: 0 };
    let LegFound::Leg(leg) = Device::leg(&superblock).classify(None) else { panic!("a leg") };
    assert_eq!(leg.access, Access::Full);
    superblock.features.ro_compat = 4;
    let LegFound::Leg(leg) = Device::leg(&superblock).classify(None) else { panic!("a leg") };
    assert_eq!(leg.access, Access::ReadOnly { ro_compat: 4 });
    superblock.features.incompat = 2;
    let unusable = ProbeError::Unusable(SuperblockError::Incompatible { incompat: 2 });
    assert_eq!(Device::leg(&superblock).classify(None), LegFound::Refused(unusable));
}

#[test]
fn a_device_that_shrank_is_refused() {
    let device = Device::leg(&founder());
    let image = Image { leg_size: LEG_SIZE - 8192, head: &device.head, tail: &device.tail };
    let shrunk = ProbeError::Shrunk { leg_size: LEG_SIZE - 8192, needed: LEG_SIZE };
    assert_eq!(classify(&image, Some(ARRAY)), LegFound::Refused(shrunk));
    let image = Image { leg_size: 4096, head: &[], tail: &[] };
    assert_eq!(classify(&image, None), LegFound::Refused(ProbeError::TooSmall(4096)));
}

#[test]
fn what_others_left_is_named() {
    let md = 0xa92b_4efc_u32.to_le_bytes();
    let cases: [(u64, &[u8], ForeignContent); 12] = [
        (1080, &[0x53, 0xef], ForeignContent::Ext),
        (0, b"XFSB", ForeignContent::Xfs),
        (65_600, b"_BHRfS_M", ForeignContent::Btrfs),
        (4086, b"SWAPSPACE2", ForeignContent::Swap),
        (512, b"LABELONE", ForeignContent::Lvm),
        (512, b"EFI PART", ForeignContent::Gpt),
        (510, &[0x55, 0xaa], ForeignContent::Mbr),
        (0, b"LUKS\xba\xbe", ForeignContent::Luks),
        (0, b"QFI\xfb", ForeignContent::Qcow2),
        (4096, &md, ForeignContent::Md),
        (LEG_SIZE - 8192, &md, ForeignContent::Md),
        (LEG_SIZE - 65_536, &md, ForeignContent::Md),
    ];
    for (offset, bytes, wanted) in cases {
        assert_eq!(content(&Device::blank().with(offset, bytes).classify(None)), wanted, "at {offset}");
    }
    let gpt = Device::blank().with(510, &[0x55, 0xaa]).with(512, b"EFI PART");
    assert_eq!(content(&gpt.classify(None)), ForeignContent::Gpt, "the more telling one");
}
