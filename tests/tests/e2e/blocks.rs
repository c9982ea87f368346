//! What a LUN's blocks are: thick ones, that keep their storage; those of LUNs that the target copies between.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use tests::host::{GOOD, Host, Outcome, check};
use tests::node::Node;

const TARGET: &str = "iqn.2026-11.org.gemel:d0";
const INVALID_FIELD: Outcome = check(0x2400);
const BLOCKS: u32 = 16384;

/// A file of which every block has storage and holds the byte.
fn full_file(node: &Node, name: &str, byte: u8) -> PathBuf {
    let path = node.folder.path().join(name);
    std::fs::write(&path, vec![byte; BLOCKS as usize * 512]).expect("written");
    path
}

fn allocated(file: &Path) -> u64 {
    std::fs::metadata(file).expect("the file").blocks() * 512
}

/// LUN 0 thick, LUN 1 thin, each on a file that is full of 11h; and a host at each.
fn thick_and_thin() -> (Node, [PathBuf; 2], [Host; 2]) {
    let node = Node::start(&[]);
    let files = ["d0", "d1"].map(|name| {
        let file = full_file(&node, name, 0x11);
        node.must("bdev_uring_create", json!({"name": name, "filename": file, "block_size": 512}));
        file
    });
    let url = node.export("d0");
    node.must("iscsi_delete_target_node", json!({"name": TARGET}));
    node.must(
        "iscsi_create_target_node",
        json!({"name": TARGET, "alias_name": "d0", "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}], "queue_depth": 64,
               "luns": [{"bdev_name": "d0", "lun_id": 0, "provisioning": "thick"}, {"bdev_name": "d1", "lun_id": 1}]}),
    );
    let hosts = [url.clone(), lun_1(&url)].map(|url| connect(&url));
    (node, files, hosts)
}

fn lun_1(url: &str) -> String {
    format!("{}1", url.strip_suffix('0').expect("LUN 0"))
}

fn connect(url: &str) -> Host {
    let lun = &url[url.len() - 1..];
    let mut host = Host::login(url, &format!("iqn.2026-11.org.gemel:host{lun}"));
    host.attentions();
    host
}

fn at(opcode: u8, byte1: u8, lba: u8, blocks: u8) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[9], cdb[13]) = (opcode, byte1, lba, blocks);
    cdb
}

fn page(host: &mut Host, page: u8) -> Vec<u8> {
    host.fetch(&[0x12, 1, page, 0, 255, 0], 255)
}

/// What the unit says of thin provisioning: LBPME and LBPRZ; whether VPD page B2h and log page 0Ch are listed; the most blocks
/// that an UNMAP may have; whether UNMAP is a command.
fn says(host: &mut Host) -> (u8, [bool; 2], u32, bool) {
    let capacity = host.fetch(&at(0x9e, 0x10, 0, 32), 32);
    let pages = page(host, 0)[4..].to_vec();
    let logs = host.fetch(&[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 64, 0], 64)[4..].to_vec();
    let limits = page(host, 0xb0);
    let unmap = u32::from_be_bytes(limits[20..24].try_into().expect("four bytes"));
    let supported = host.fetch(&[0xa3, 0x0c, 1, 0x42, 0, 0, 0, 0, 0, 64, 0, 0], 64);
    (capacity[14], [pages.contains(&0xb2), logs.contains(&0x0c)], unmap, supported[1] & 7 == 3)
}

#[test]
fn a_thick_lun_takes_nothing_back_and_keeps_its_storage() {
    let (_node, [thick_file, thin_file], [mut thick, mut thin]) = thick_and_thin();
    assert_eq!(says(&mut thick), (0, [false; 2], 0, false));
    let (provisioning, listed, most, unmaps) = says(&mut thin);
    assert!(provisioning == 0xc0 && listed == [true; 2] && most > 0 && unmaps);
    let b2 = thick.send(&[0x12, 1, 0xb2, 0, 255, 0], &[], 255);
    let log = thick.send(&[0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 64, 0], &[], 64);
    assert_eq!([thick.end(b2).0, thick.end(log).0], [INVALID_FIELD; 2]);

    // UNMAP, and WRITE SAME(10) and (16) with UNMAP: refused, and nothing has changed.
    let list = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &[0; 8], &64u32.to_be_bytes(), &[0; 4]].concat();
    let unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    let same10 = |unmap: u8| [0x41, unmap, 0, 0, 0, 64, 0, 0, 64, 0];
    assert_eq!(thick.run(&unmap, &list), check(0x2000));
    assert_eq!(
        [thick.run(&same10(8), &[0; 512]), thick.run(&at(0x93, 8, 128, 64), &[0; 512])],
        [INVALID_FIELD; 2]
    );
    assert_eq!([0, 64, 128].map(|block| thick.read(block)), [Ok(0x11); 3]);
    let status = thick.fetch(&at(0x9e, 0x12, 0, 24), 24);
    assert_eq!((&status[16..20], status[20] & 0x0f), (&BLOCKS.to_be_bytes()[..], 0), "all of it is mapped");

    // Zeroes without UNMAP: the blocks read as zeroes, and keep what they are promised.
    let full = allocated(&thick_file);
    assert!(full >= u64::from(BLOCKS) * 512);
    for (host, file) in [(&mut thick, &thick_file), (&mut thin, &thin_file)] {
        assert_eq!([host.run(&same10(0), &[0; 512]), host.run(&at(0x93, 0, 128, 64), &[0; 512])], [GOOD; 2]);
        assert_eq!(
            [63, 64, 127, 128, 191, 192].map(|block| host.read(block)),
            [0x11, 0, 0, 0, 0, 0x11].map(Ok)
        );
        assert!(std::fs::read(file).expect("the file")[64 * 512..192 * 512].iter().all(|byte| *byte == 0));
    }
    assert_eq!(allocated(&thick_file), full);
    assert_eq!(thin.run(&unmap, &list), GOOD);
    assert!(allocated(&thin_file) < full, "the thin one gives back");

    // SANITIZE, BLOCK ERASE: everything reads as zeroes; who has promised storage has it still.
    let erase = [0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0];
    for (host, file) in [(&mut thick, &thick_file), (&mut thin, &thin_file)] {
        assert_eq!(host.run(&erase, &[]), GOOD);
        assert_eq!([0, 63, 192].map(|block| host.read(block)), [0; 3].map(Ok));
        assert!(std::fs::read(file).expect("the file").iter().all(|byte| *byte == 0));
    }
    assert_eq!(allocated(&thick_file), full);
    assert!(allocated(&thin_file) < full);
}

/// A target descriptor (E4h) of the unit's NAA designator, in 512-byte blocks.
fn descriptor(host: &mut Host) -> Vec<u8> {
    let identification = page(host, 0x83);
    let mut rest = &identification[4..];
    while rest[1] & 0x3f != 0x03 {
        rest = &rest[4 + usize::from(rest[3])..];
    }
    let mut descriptor = [&[0xe4, 0, 0, 0][..], &rest[..4 + usize::from(rest[3])]].concat();
    descriptor.resize(29, 0);
    descriptor.extend_from_slice(&[0, 2, 0]);
    descriptor
}

/// Block to block (02h): from the first descriptor's unit to the second's.
fn segment(from: u64, to: u64, blocks: u16) -> Vec<u8> {
    let head = [0x02, 0, 0, 24, 0, 0, 0, 1, 0, 0];
    [&head[..], &blocks.to_be_bytes(), &from.to_be_bytes(), &to.to_be_bytes()].concat()
}

/// EXTENDED COPY with a parameter list of the length identifiers of its standards: SPC-3's (LID1) and SPC-4's (LID4).
fn copy(host: &mut Host, action: u8, descriptors: &[u8], segments: &[u8]) -> Outcome {
    let len = |bytes: &[u8]| u16::try_from(bytes.len()).expect("short").to_be_bytes();
    let mut list = match action {
        0 => vec![7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        _ => vec![0; 48],
    };
    if action == 0 {
        list[2..4].copy_from_slice(&len(descriptors));
        list[10..12].copy_from_slice(&len(segments));
    } else {
        (list[0], list[3], list[16], list[23]) = (1, 0x20, 0xff, 9);
        list[42..44].copy_from_slice(&len(descriptors));
        list[44..46].copy_from_slice(&len(segments));
    }
    list.extend([descriptors, segments].concat());
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x83, action);
    cdb[12..14].copy_from_slice(&len(&list));
    host.run(&cdb, &list)
}

#[test]
fn the_target_copies_between_its_luns_by_either_length_of_identifier() {
    let (node, [source, destination], [mut first, mut second]) = thick_and_thin();
    let mut wanted = std::fs::read(&destination).expect("the file");
    for (block, host_byte) in (0..600).zip((0..).map(|number: u32| (number % 251) as u8 + 1)) {
        assert_eq!(first.write(block, host_byte), GOOD);
    }
    let bytes = std::fs::read(&source).expect("the file");
    let descriptors = [descriptor(&mut first), descriptor(&mut second)].concat();
    let mut copied = |from: usize, to: usize, blocks: usize| {
        wanted[to * 512..(to + blocks) * 512].copy_from_slice(&bytes[from * 512..(from + blocks) * 512]);
        segment(from as u64, to as u64, u16::try_from(blocks).expect("short"))
    };
    // Each asked of another unit: the list says which units it is between.
    let by_lid1 = [copied(0, 1000, 512), copied(33, 3, 1)].concat();
    assert_eq!(copy(&mut first, 0, &descriptors, &by_lid1), GOOD);
    let by_lid4 = [copied(88, 2000, 512), copied(599, BLOCKS as usize - 1, 1)].concat();
    assert_eq!(copy(&mut second, 1, &descriptors, &by_lid4), GOOD);
    assert!(std::fs::read(&destination).expect("the file") == wanted, "byte by byte");
    assert!(std::fs::read(&source).expect("the file") == bytes, "and the source is what it was");
    // RECEIVE COPY STATUS of both.
    let status = first.fetch(&[0x84, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], 12);
    assert_eq!((status[4] & 0x7f, &status[5..7]), (1, &[0, 2][..]));
    let status = second.fetch(&[0x84, 5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], 32);
    assert_eq!(status[5] & 0x7f, 1, "{status:x?}");
    // Beyond the end, and to a unit that the target has not: nothing is written.
    let beyond = segment(0, u64::from(BLOCKS) - 1, 2);
    assert_eq!(copy(&mut first, 0, &descriptors, &beyond), check(0), "COPY ABORTED");
    let mut stranger = descriptors.clone();
    stranger[32 + 8 + 7] ^= 1;
    assert_eq!(copy(&mut first, 1, &stranger, &segment(0, 0, 1)), check(0x0804));
    assert!(std::fs::read(&destination).expect("the file") == wanted);
    drop(node);
}
