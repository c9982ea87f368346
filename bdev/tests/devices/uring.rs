//! Files as devices: what is particular to them.

use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::{BLOCKS, Bench, scratch_file};
use bdev::uring::{FileOptions, Holes, QUEUE_DEPTH, UringBdev, UringError};
use bdev::{Bdev, BlockRange, Capabilities, Durability, Io, IoError, Op, Tag};
use engine::{Access, Core, Pool};
use uuid::Uuid;

fn open(path: &Path, block_size: u32, access: Access) -> Result<std::sync::Arc<UringBdev>, UringError> {
    UringBdev::open_file("x", Uuid::nil(), path, FileOptions { access, ..FileOptions::new(block_size) })
}

#[test]
fn a_full_queue_refuses_and_gives_back() {
    let (_temp, bdev) = scratch_file(512);
    let mut bench = Bench::new(bdev);
    for tag in 0..u64::from(QUEUE_DEPTH) {
        bench.submit(Op::Flush, tag);
    }
    let now = bench.now();
    let refused = bench.channel.submit(Io::new(Op::Flush, Tag(9), now), now).expect_err("full");
    assert_eq!((refused.why, refused.io.tag), (IoError::Busy, Tag(9)));
    drop(refused.io.complete(Err(IoError::Aborted), now));
    assert_eq!(bench.wait(QUEUE_DEPTH as usize).len(), QUEUE_DEPTH as usize);
}

#[test]
fn it_says_what_is_wrong_with_a_file() {
    let (temp, bdev) = scratch_file(512);
    let error = open(temp.path(), 512, Access::ReadWrite).expect_err("locked by the first").to_string();
    assert!(error.contains("another process"), "{error}");
    assert!(matches!(open(temp.path(), 520, Access::ReadWrite), Err(UringError::BlockSize(520))));
    let error = open(Path::new("/nonexistent/leg"), 512, Access::ReadWrite).expect_err("missing").to_string();
    assert!(error.contains("/nonexistent/leg") && error.contains("create it"), "{error}");
    open(Path::new("/dev/null"), 512, Access::ReadWrite).expect_err("neither file nor block device");
    drop(bdev);
    temp.as_file().set_len(511).expect("shrink");
    assert!(matches!(
        open(temp.path(), 512, Access::ReadWrite),
        Err(UringError::TooSmall { bytes: 511, .. })
    ));
}

#[test]
fn the_lock_goes_with_the_device() {
    let (temp, bdev) = scratch_file(4096);
    drop(bdev);
    open(temp.path(), 4096, Access::ReadWrite).expect("free again");
}

#[test]
fn a_grown_file_is_seen_after_a_rescan() {
    let (temp, bdev) = scratch_file(512);
    let mut bench = Bench::new(bdev.clone());
    temp.as_file().set_len(BLOCKS * 1024 + 100).expect("grow");
    assert_eq!(bench.read(BLOCKS, 1), Err(IoError::OutOfRange));
    assert_eq!(bdev.rescan().expect("rescan"), BLOCKS * 2);
    assert_eq!(bench.read_byte(BLOCKS, 1), 0);
}

#[test]
fn a_file_that_was_shortened_has_a_bad_medium_where_it_ends() {
    let (temp, bdev) = scratch_file(512);
    let mut bench = Bench::new(bdev);
    temp.as_file().set_len((BLOCKS - 8) * 512).expect("shrink");
    let lba = BLOCKS - 8;
    assert_eq!(bench.read(BLOCKS - 16, 16), Err(IoError::Medium { lba }));
}

#[test]
fn a_read_only_device_reads_and_does_not_write() {
    let (temp, bdev) = scratch_file(512);
    drop(bdev);
    temp.as_file().write_all_at(&[7; 512], 512).expect("write");
    let bdev = open(temp.path(), 512, Access::ReadOnly).expect("open");
    assert!(bdev.capabilities().contains(Capabilities::READ_ONLY));
    assert!(!bdev.capabilities().contains(Capabilities::DISCARD));
    let mut bench = Bench::new(bdev);
    assert_eq!(bench.read_byte(1, 1), 7);
    assert_eq!(bench.write(1, 1, 1, Durability::Durable), Err(IoError::ReadOnly));
    let range = BlockRange::new(1, 1);
    assert_eq!(bench.run(Op::Discard { range }).result, Err(IoError::ReadOnly));
    assert_eq!(
        bench.run(Op::WriteZeroes { range, durability: Durability::Durable }).result,
        Err(IoError::ReadOnly)
    );
    assert_eq!(bench.read_byte(1, 1), 7);
}

#[test]
fn a_channel_dropped_in_the_middle_leaks_no_frame() {
    let (_temp, bdev) = scratch_file(512);
    let mut bench = Bench::new(bdev.clone());
    let core = bench.core.clone();
    let free = |core: &Core| core.pool().stats().map(|class| class.free);
    let before = free(&core);
    for tag in 0..32 {
        let op = bench.write_op(tag, 1, 1, Durability::Durable);
        bench.submit(op, tag);
    }
    drop(bench);
    while core.ring().expect("a ring").in_flight() > 0 {
        core.ring().expect("a ring").turn().expect("turn");
    }
    assert_eq!(free(&core), before);
    assert!(bdev.open(&Core::for_tests(Pool::for_tests())).is_err(), "no ring, no channel");
}

#[test]
fn without_fallocate_it_says_so_and_zeroes_by_writing() {
    let temp = tempfile::NamedTempFile::new().expect("temporary file");
    temp.as_file().set_len(64 << 10).expect("size");
    temp.as_file().write_all_at(&[7; 8192], 0).expect("content");
    let options = FileOptions { holes: Holes::None, ..FileOptions::new(512) };
    let bdev = UringBdev::open_file("x", Uuid::nil(), temp.path(), options).expect("open");
    assert!(!bdev.capabilities().intersects(Capabilities::DISCARD | Capabilities::DISCARD_ZEROES));
    assert!(bdev.capabilities().contains(Capabilities::WRITE_ZEROES));
    let mut bench = Bench::new(bdev);
    let range = BlockRange::new(1, 4);
    assert_eq!(bench.run(Op::Discard { range }).result, Err(IoError::Unsupported));
    let durability = Durability::Durable;
    bench.run(Op::WriteZeroes { range, durability }).result.expect("zeroed");
    let mut found = [0; 4096];
    temp.as_file().read_exact_at(&mut found, 0).expect("content");
    assert!(found[..512].iter().all(|byte| *byte == 7) && found[2560..].iter().all(|byte| *byte == 7));
    assert!(found[512..2560].iter().all(|byte| *byte == 0));
}
