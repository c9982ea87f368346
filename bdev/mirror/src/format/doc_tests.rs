//! The tables of `FORMAT.md` and the images under `testdata/`, compared with what the code does. `BLESS=1`
//! rewrites both.

use super::field::Field;
use super::header::{HEADER_FIELDS, HEADER_LEN};
use super::superblock::{CONFIG_FIELDS, LEG_FIELDS, SUPERBLOCK_FIELDS};
use super::tests::{ARRAY, example_layout, example_superblock};
use super::unit_state::UNIT_STATE_FIELDS;
use super::{Block, Layout, Reason, Superblock, layout};
use crate::bitmap::{Bitmap, Urgency};
use crate::intent_log::codec::TRANSACTION_FIELDS;
use crate::intent_log::{IntentLog, Replay, replay};
use crate::range::ByteRange;

fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn blessing() -> bool {
    std::env::var_os("BLESS").is_some()
}

fn fields(table: &[Field]) -> String {
    let mut text = String::from("| offset | bytes | content |\n|---|---|---|\n");
    for field in table {
        text += &format!("| {} | {} | {} |\n", field.offset, field.len, field.meaning);
    }
    text
}

fn places() -> String {
    let rows = [
        (0, "4 KiB".into(), "never written: keeps a boot block or label"),
        (layout::MD_OFFSET, "60 KiB".into(), "reserved for an exported Linux MD v1.2 superblock"),
        (layout::SUPERBLOCK_OFFSET, "2 x 4 KiB".into(), "superblock slots 0 and 1"),
        (layout::UNIT_STATE_OFFSET, copies(layout::UNIT_STATE_LEN), "logical-unit state A and B"),
        (layout::LOG_OFFSET, format!("{} x 4 KiB", layout::LOG_BLOCKS), "intent log"),
        (layout::BAD_RANGES_OFFSET, copies(layout::BAD_RANGES_LEN), "bad ranges A and B"),
        (layout::BITMAP_OFFSET, "2 x pages x 4 KiB".into(), "out-of-sync bitmap, two slots for each page"),
    ];
    let mut text = String::from("| offset | size | content |\n|---|---|---|\n");
    for (offset, size, content) in rows {
        text += &format!("| {offset} | {size} | {content} |\n");
    }
    text + "| data offset | data size | data area |\n| leg size - 4096 | 4 KiB | third superblock copy |\n"
}

fn copies(len: u64) -> String {
    format!("2 x {} KiB", len / 1024)
}

fn reasons() -> String {
    let rows = Reason::ALL.map(|reason| format!("| {} | {} |\n", reason as u8, reason.words()));
    String::from("| code | reason |\n|---|---|\n") + &rows.concat()
}

/// The text with every marked table replaced by the generated one.
fn regenerated(text: &str) -> String {
    let mut out = String::new();
    let mut skipping = false;
    for line in text.lines() {
        skipping &= line != "<!-- end -->";
        if !skipping {
            out += line;
            out.push('\n');
        }
        let name = line.strip_prefix("<!-- table: ").and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(name) = name {
            skipping = true;
            out += &table(name);
        }
    }
    out
}

fn table(name: &str) -> String {
    match name {
        "places" => places(),
        "header" => fields(HEADER_FIELDS),
        "superblock" => fields(SUPERBLOCK_FIELDS),
        "leg record" => fields(LEG_FIELDS),
        "config" => fields(CONFIG_FIELDS),
        "reasons" => reasons(),
        "unit state" => fields(UNIT_STATE_FIELDS),
        "transaction" => fields(TRANSACTION_FIELDS),
        other => panic!("FORMAT.md names a table {other:?} that nothing generates"),
    }
}

#[test]
fn format_md_says_what_the_constants_say() {
    let path = root().join("FORMAT.md");
    let text = std::fs::read_to_string(&path).expect("FORMAT.md");
    let wanted = regenerated(&text);
    if blessing() {
        std::fs::write(&path, &wanted).expect("write FORMAT.md");
    }
    assert_eq!(text.matches("<!-- table: ").count(), 8);
    assert!(text == wanted || blessing(), "FORMAT.md is out of date: run the tests once with BLESS=1");
}

#[test]
fn tables_have_no_holes_and_no_overlaps() {
    for (table, start) in [
        (HEADER_FIELDS, 0),
        (SUPERBLOCK_FIELDS, HEADER_LEN),
        (TRANSACTION_FIELDS, HEADER_LEN),
        (UNIT_STATE_FIELDS, HEADER_LEN),
        (LEG_FIELDS, 0),
    ] {
        assert_eq!(table[0].offset, start);
        assert!(table.windows(2).all(|pair| pair[0].end() == pair[1].offset));
    }
}

fn golden(name: &str, block: &Block) {
    let path = root().join("testdata").join(name);
    if blessing() {
        std::fs::write(&path, block).expect("write the image");
    }
    let stored = std::fs::read(&path).expect("an image under testdata/");
    assert!(stored == block, "{name}: the format has changed; arrays in the field would no longer be read");
}

#[test]
fn golden_superblock() {
    let superblock = example_superblock();
    let address = Layout::superblock_slot(superblock.seq);
    golden("superblock.bin", &superblock.encode(address));
    let stored = std::fs::read(root().join("testdata/superblock.bin")).expect("an image");
    let stored: &Block = stored.as_slice().try_into().expect("one block");
    assert_eq!(Superblock::decode(stored, address), Ok(superblock));
}

#[test]
fn golden_transaction_and_bitmap_page() {
    let layout = example_layout();
    let mut bitmap = Bitmap::new(ARRAY, &layout);
    let mut ring = vec![0; usize::try_from(layout::LOG_LEN).expect("1 MiB")];
    let first = crate::intent_log::first_block(ARRAY, &layout.log);
    let at = usize::try_from(first.offset - layout::LOG_OFFSET).expect("in the ring");
    ring[at..at + super::BLOCK_SIZE].copy_from_slice(&first.block);
    let found = replay(&ring, ARRAY, &layout.log);
    assert!(matches!(found, Replay::Table(_)));
    let mut log = IntentLog::resume(ARRAY, layout.log, &found, &mut bitmap);
    for block in [0_u64, 9, 4, 77] {
        let admitted = log.admit(ByteRange::new(block << 22, 4096));
        assert!(matches!(admitted, crate::intent_log::Admission::NeedsTransaction(_)));
    }
    let transaction = log.next_transaction(3, &bitmap).cloned().expect("four extents to activate");
    golden("transaction.bin", &transaction.write.block);
    bitmap.set(ByteRange::new(0, 1));
    bitmap.set(ByteRange::new(63 << 16, 3 << 16));
    let page = bitmap.next_page(Urgency::Marks, 3).expect("a page to write");
    golden("bitmap_page.bin", &page.write.block);
}
