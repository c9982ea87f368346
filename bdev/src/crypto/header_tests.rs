//! What a look at the reserved bytes finds: of whole headers, torn ones, and other people's.

use super::super::rewrite::{Rewrite, Step};
use super::*;

const UUID: Uuid = Uuid::from_u128(0x1234_5678);

fn user() -> UserKey {
    UserKey::new(&[9; 32], None).expect("a key")
}

fn header(sequence: u64) -> Header {
    let media = MediaKey::of([u8::try_from(sequence).expect("small"); 64]);
    Header::new(UUID, sequence, 512, &media, &user())
}

/// As many of the reserved bytes as matter.
fn reserved() -> Vec<u8> {
    vec![0; 128 << 10]
}

fn put(medium: &mut [u8], slot: Slot, bytes: &[u8]) {
    let at = usize::try_from(slot.offset()).expect("short");
    medium[at..at + bytes.len()].copy_from_slice(bytes);
}

fn medium(first: &Header, second: &Header) -> Vec<u8> {
    let mut medium = reserved();
    put(&mut medium, Slot::First, &first.encode(Slot::First));
    put(&mut medium, Slot::Second, &second.encode(Slot::Second));
    medium
}

#[test]
fn what_is_written_is_found() {
    let found = look(&medium(&header(3), &header(3))).expect("a header");
    assert_eq!(found, Found { header: header(3), slot: Slot::First, other: OtherSlot::Same });
    assert!(found.header.unwrap(&user()).is_some());
    assert!(found.header.unwrap(&UserKey::new(&[8; 32], None).expect("a key")).is_none(), "another user");
    for (first, second, slot) in [(3, 4, Slot::Second), (5, 4, Slot::First)] {
        let found = look(&medium(&header(first), &header(second))).expect("a header");
        assert_eq!(found, Found::stale(header(first.max(second)), slot));
    }
}

#[test]
fn what_is_no_header_is_told_apart() {
    assert_eq!(look(&reserved()), Err(NoHeader::Blank));
    let mut foreign = reserved();
    foreign[100_000] = 1;
    assert_eq!(look(&foreign), Err(NoHeader::Foreign), "beside the slots");
    assert_eq!(look(&foreign[..100]), Err(NoHeader::Foreign), "too short for a slot");
    foreign[..8].copy_from_slice(b"EFI PART");
    assert_eq!(look(&foreign), Err(NoHeader::Foreign));
    let other = Header { uuid: Uuid::from_u128(1), ..header(4) };
    assert_eq!(look(&medium(&header(3), &other)), Err(NoHeader::Damaged), "of another device");
    let mut twin = header(3);
    twin.wrapped[0] ^= 1;
    assert_eq!(look(&medium(&header(3), &twin)), Err(NoHeader::Damaged), "two of one sequence");
    let mut misplaced = reserved();
    put(&mut misplaced, Slot::Second, &header(3).encode(Slot::First));
    assert_eq!(look(&misplaced), Err(NoHeader::Damaged));
}

#[test]
fn what_a_newer_version_wrote_is_refused_whatever_lies_beside_it() {
    for (at, why) in [(8, NoHeader::Version(2)), (12, NoHeader::Cipher(2))] {
        let mut newer = header(4).encode(Slot::Second);
        newer[at] = 2;
        let sum = crc32c::crc32c(&newer[..SUM]);
        newer[SUM..SECTOR].copy_from_slice(&sum.to_le_bytes());
        let mut both = medium(&header(3), &header(3));
        put(&mut both, Slot::Second, &newer);
        assert_eq!(look(&both), Err(why));
        let mut alone = reserved();
        put(&mut alone, Slot::Second, &newer);
        assert_eq!(look(&alone), Err(why));
    }
}

#[test]
fn every_damaged_byte_of_a_header_is_noticed() {
    let whole = medium(&header(3), &header(3));
    for at in 0..SECTOR {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        assert_eq!(look(&damaged), Ok(Found::stale(header(3), Slot::Second)), "byte {at}");
        let there = usize::try_from(Slot::Second.offset()).expect("short") + at;
        damaged[there] ^= 0x40;
        let why = look(&damaged).expect_err("both are damaged");
        assert!(matches!(why, NoHeader::Damaged | NoHeader::Foreign), "byte {at}: {why}");
    }
}

/// Carries a rewrite out; each write is handed to `crash` with the medium before it, where it goes and what it writes.
fn carry_out(
    mut medium: Vec<u8>,
    mut rewrite: Rewrite,
    mut crash: impl FnMut(&Rewrite, &[u8], Slot, &[u8]),
) -> Vec<u8> {
    while let Some(step) = rewrite.step() {
        if let Step::Write(slot) = step {
            let image = rewrite.image(slot);
            crash(&rewrite, &medium, slot, &image);
            put(&mut medium, slot, &image);
        }
        rewrite.on_done();
    }
    medium
}

fn holds(medium: &[u8], header: &Header) -> bool {
    medium.windows(WRAPPED_LEN).any(|bytes| *bytes == header.wrapped)
}

#[test]
fn a_crash_anywhere_in_a_change_of_the_key_leaves_the_old_header_or_the_new_one() {
    let (old, new) = (header(3), header(4));
    let mut crashes = 0;
    for first in Slot::BOTH {
        let after = carry_out(
            medium(&old, &old),
            Rewrite::both(new.clone(), first),
            |rewrite, before, slot, image| {
                let sectors = SLOT_LEN / SECTOR;
                // Every subset of the sectors, which has every prefix in it; and every prefix of bytes.
                let subsets = (0..1usize << sectors).map(|subset| {
                    let mut torn =
                        before[usize::try_from(slot.offset()).expect("short")..][..SLOT_LEN].to_vec();
                    for sector in (0..sectors).filter(|sector| subset & 1 << sector != 0) {
                        let bytes = sector * SECTOR..(sector + 1) * SECTOR;
                        torn[bytes.clone()].copy_from_slice(&image[bytes]);
                    }
                    torn
                });
                let prefixes = (0..=SECTOR).map(|len| image[..len].to_vec());
                for torn in subsets.chain(prefixes) {
                    let mut crashed = before.to_vec();
                    put(&mut crashed, slot, &torn);
                    let found = look(&crashed).expect("a header").header;
                    if rewrite.counts() {
                        assert_eq!(found, new);
                    } else {
                        assert!(found == old || found == new);
                    }
                    crashes += 1;
                }
            },
        );
        assert_eq!(look(&after).expect("a header").other, OtherSlot::Same);
        assert!(holds(&after, &new) && !holds(&after, &old), "the old media key is nowhere");
    }
    assert_eq!(crashes, 2 * 2 * (256 + 513));
}

#[test]
fn whoever_opens_after_a_crash_leaves_nothing_of_the_old_key() {
    let (old, new) = (header(3), header(4));
    let mut crashed = medium(&old, &old);
    put(&mut crashed, Slot::Second, &new.encode(Slot::Second));
    let found = look(&crashed).expect("a header");
    assert!(holds(&crashed, &old));
    let after = carry_out(crashed, Rewrite::beside(found.header, found.slot), |_, _, slot, _| {
        assert_eq!(slot, Slot::First);
    });
    assert!(!holds(&after, &old));
    assert_eq!(after, medium(&new, &new));
}
