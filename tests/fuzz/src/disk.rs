//! What a leg holds. Checksums would keep a fuzzer out: blocks are sealed before they are read, as a liar would seal them.

use mirror::bitmap::Bitmap;
use mirror::format::header::HEADER_LEN;
use mirror::format::layout::{LOG_BLOCKS, LOG_LEN, LOG_OFFSET, SUPERBLOCK_OFFSET};
use mirror::format::{
    At, BLOCK_BYTES, BLOCK_SIZE, Block, BlockKind, Header, Layout, LayoutRequest, Superblock, UnitState,
    header,
};
use mirror::intent_log::{Replay, replay};
use mirror::range::ByteRange;
use uuid::Uuid;

const ARRAY: Uuid = Uuid::from_u128(0x106);

fn layout() -> Layout {
    let request = LayoutRequest {
        leg_size: 128 << 20,
        block_size: 4096,
        data_size: Some(32 << 20),
        max_crash_resync: Some(4 << 20),
    };
    Layout::plan(request).expect("fits")
}

/// A block with this payload: sealed for its place, or as it is where the sequence number says so.
fn block(payload: &[u8], kind: BlockKind, seq: u64, address: u64) -> Block {
    let mut block = [0; BLOCK_SIZE];
    let len = payload.len().min(BLOCK_SIZE - HEADER_LEN);
    block[HEADER_LEN..HEADER_LEN + len].copy_from_slice(&payload[..len]);
    let header = Header { kind, seq, generation: seq / 2 };
    header::seal(&mut block, header, At { array: ARRAY, address });
    block
}

/// A superblock that is read is written as it was read; unit state is read from any head of a leg.
pub(super) fn superblock(data: &[u8]) {
    let sealed = block(data, BlockKind::Superblock, 5, SUPERBLOCK_OFFSET);
    for block in [sealed, raw(data)] {
        if let Ok(found) = Superblock::decode(&block, SUPERBLOCK_OFFSET) {
            let again = Superblock::decode(&found.encode(SUPERBLOCK_OFFSET), SUPERBLOCK_OFFSET);
            assert_eq!(again.as_ref(), Ok(&found));
            assert!(found.history.entries().contains(found.config()));
        }
    }
    let mut head = vec![0; 256 << 10];
    for parity in [0, 1] {
        let state = UnitState { seq: 6 + parity, ..UnitState::default() };
        let at = usize::try_from(state.offset()).expect("in the head");
        let sealed = block(data, BlockKind::UnitState, state.seq, state.offset());
        head[at..at + BLOCK_SIZE].copy_from_slice(&sealed);
    }
    let _ = UnitState::newest(&head, ARRAY);
}

fn raw(data: &[u8]) -> Block {
    let mut block = [0; BLOCK_SIZE];
    let len = data.len().min(BLOCK_SIZE);
    block[..len].copy_from_slice(&data[..len]);
    block
}

/// A ring of sealed transactions, with or without one that is damaged: every extent that it names is one of the array's.
pub(super) fn intent_log(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let layout = layout();
    let mut ring = vec![0; usize::try_from(LOG_LEN).expect("1 MiB")];
    let size = (rest.len() / (1 + usize::from(first % 8))).max(1);
    for (seq, payload) in (1..LOG_BLOCKS).zip(rest.chunks(size)) {
        let at = usize::try_from(seq).expect("below 256") * BLOCK_SIZE;
        let mut sealed = block(payload, BlockKind::IntentLog, seq, LOG_OFFSET + seq * BLOCK_BYTES);
        if *first & 8 != 0 && seq == u64::from(first >> 4) {
            sealed[100] ^= 1;
        }
        ring[at..at + BLOCK_SIZE].copy_from_slice(&sealed);
    }
    if let Replay::Table(replayed) = replay(&ring, ARRAY, &layout.log) {
        let extents = layout.log.extents;
        assert!(replayed.extents().iter().all(|extent| *extent < extents));
    }
}

/// Pages that are read never show less than they hold: a bit of a whole newest page is set in memory.
pub(super) fn bitmap(data: &[u8]) {
    let layout = layout();
    let mut image = vec![0; usize::try_from(layout.bitmap_len()).expect("small")];
    let (first, payload) = data.split_first().unwrap_or((&0, &[]));
    let slots = image.chunks_exact_mut(BLOCK_SIZE).take(2).zip(0_u64..);
    for (slot, number) in slots {
        let place = mirror::format::layout::BITMAP_OFFSET + number * BLOCK_BYTES;
        let seq = if first & 1 == 0 { 2 + number } else { 2 + (1 - number) * 2 };
        slot.copy_from_slice(&block(payload, BlockKind::Bitmap, seq, place));
        if first >> (1 + number) & 1 == 1 {
            slot[usize::from(*first) * 8] ^= 0x10;
        }
    }
    let (bitmap, report) = Bitmap::load(ARRAY, &layout, &image);
    assert!(bitmap.set_granules() <= bitmap.granules());
    let runs: u64 = bitmap.runs().map(|run: ByteRange| run.len).sum();
    assert_eq!(runs == 0, bitmap.is_clear());
    assert!(report.lost == 0 || !bitmap.is_clear());
}
