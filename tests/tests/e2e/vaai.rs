//! What a hypervisor asks of a LUN that several of its hosts share: locks by COMPARE AND WRITE, copies by the target, zeroing, and
//! giving space back. The hosts' paths lead to different nodes of a pair.

use tests::host::{GOOD, Host, Outcome, check};
use tests::pair::{Pair, gemel, must};

const LOCK: u64 = 8;
const COUNTER: u64 = 64;

fn at(opcode: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn connect(url: &str, node: usize) -> Host {
    let mut host = Host::login(url, &format!("iqn.1998-01.com.vmware:esx{node}"));
    host.attentions();
    host
}

fn read(host: &mut Host, lba: u64, blocks: u32) -> Vec<u8> {
    host.fetch(&at(0x88, lba, blocks), blocks as usize * 512)
}

fn write(host: &mut Host, lba: u64, data: &[u8]) {
    let blocks = u32::try_from(data.len() / 512).expect("short");
    assert_eq!(host.run(&at(0x8a, lba, blocks), data), GOOD);
}

/// COMPARE AND WRITE of the lock block: from one owner to another. The outcome, and the offset of a miscompare.
fn swap(host: &mut Host, from: u8, to: u8) -> (Outcome, Option<u64>) {
    let mut cdb = at(0x89, LOCK, 0);
    cdb[13] = 1;
    let task = host.send(&cdb, &[[from; 512], [to; 512]].concat(), 0);
    let answer = host.answer(task);
    (answer.outcome, answer.information)
}

const FREE: u8 = 0;

fn lock(host: &mut Host, owner: u8) {
    let taken = (0..100_000).any(|_| swap(host, FREE, owner).0 == GOOD);
    assert!(taken, "the lock is never free");
}

fn unlock(host: &mut Host, owner: u8) {
    assert_eq!(swap(host, owner, FREE).0, GOOD);
}

/// Counts in a block that the lock protects.
fn count(host: &mut Host, owner: u8, rounds: u32) {
    for _ in 0..rounds {
        lock(host, owner);
        let mut block = read(host, COUNTER, 1);
        let counted = u32::from_be_bytes(block[..4].try_into().expect("four bytes")) + 1;
        block[..4].copy_from_slice(&counted.to_be_bytes());
        write(host, COUNTER, &block);
        unlock(host, owner);
    }
}

#[test]
fn two_hosts_lock_by_compare_and_write_through_different_nodes() {
    const ROUNDS: u32 = 40;
    let pair = Pair::start();
    let mut hosts = [0, 1].map(|node| connect(&pair.urls[node], node));
    let [first, second] = &mut hosts;
    lock(first, 1);
    assert_eq!(swap(second, FREE, 2), (check(0x1d00), Some(0)), "it is the first host's");
    // The lock stays whose it is while another node takes over the array.
    must(gemel(pair.node(0), &["switchover", "vol0"]));
    pair.wait(1, "the switchover", |status| status["role"] == "holder");
    for host in [&mut *first, &mut *second] {
        assert_eq!(host.attentions(), [0x2904, 0x2a06]);
    }
    assert_eq!(swap(second, FREE, 2), (check(0x1d00), Some(0)));
    assert_eq!(swap(first, 1, FREE).0, GOOD);
    lock(second, 2);
    unlock(second, 2);
    std::thread::scope(|scope| {
        for (owner, node) in [(1, 0), (2, 1)] {
            let url = &pair.urls[node];
            scope.spawn(move || count(&mut connect(url, node), owner, ROUNDS));
        }
    });
    let counted = read(&mut connect(&pair.urls[0], 0), COUNTER, 1);
    assert_eq!(counted[..4], (2 * ROUNDS).to_be_bytes(), "no round was lost");
}

#[test]
fn a_copy_a_zeroing_and_an_unmap_are_seen_through_the_other_node() {
    const BLOCKS: u32 = 2048;
    let pair = Pair::start();
    let mut hosts = [0, 1].map(|node| connect(&pair.urls[node], node));
    let [first, second] = &mut hosts;
    let pattern: Vec<u8> = (0..BLOCKS * 512).map(|at| (at / 512 % 251) as u8 + 1).collect();
    write(first, 0, &pattern);

    // XCOPY through the node that does not serve: three runs of 1 MiB, by the unit's NAA designator.
    let page = second.fetch(&[0x12, 1, 0x83, 0, 255, 0], 255);
    let designator = &page[4..4 + 4 + usize::from(page[7])];
    let mut cscd = vec![0xe4, 0, 0, 0];
    cscd.extend_from_slice(designator);
    cscd.resize(32, 0);
    let segment = |to: u64| {
        let mut bytes = vec![0x02, 0, 0, 24, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&u16::try_from(BLOCKS).expect("short").to_be_bytes());
        bytes.extend_from_slice(&0u64.to_be_bytes());
        bytes.extend_from_slice(&to.to_be_bytes());
        bytes
    };
    let segments = [4096, 8192, 16384].map(segment).concat();
    let mut list =
        vec![1, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, u8::try_from(segments.len()).expect("short"), 0, 0, 0, 0];
    list.extend(cscd);
    list.extend(segments);
    let mut copy = [0; 16];
    copy[0] = 0x83;
    copy[10..14].copy_from_slice(&u32::try_from(list.len()).expect("short").to_be_bytes());
    assert_eq!(second.run(&copy, &list), GOOD);
    for lba in [4096, 8192, 16384] {
        assert_eq!(read(first, lba, BLOCKS), pattern, "{lba}");
    }
    let status = second.fetch(&[0x84, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], 12);
    assert_eq!(
        (status[4] & 0x7f, &status[5..8], &status[8..12]),
        (1, &[0, 3, 1][..], &3072u32.to_be_bytes()[..])
    );

    // WRITE SAME(16) with a block of zeroes and UNMAP, and one of a pattern.
    let mut same = at(0x93, 4096, BLOCKS);
    same[1] = 0x08;
    assert_eq!(first.run(&same, &[0; 512]), GOOD);
    assert!(read(second, 4096, BLOCKS).iter().all(|byte| *byte == 0));
    assert_eq!(second.run(&at(0x93, 4096, 100), &[0x5a; 512]), GOOD);
    let after = read(first, 4096, 101);
    assert!(after[..100 * 512].iter().all(|byte| *byte == 0x5a) && after[100 * 512] == 0);

    // UNMAP of two ranges.
    let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
    for lba in [8192u64, 16384] {
        list.extend_from_slice(&lba.to_be_bytes());
        list.extend_from_slice(&1024u32.to_be_bytes());
        list.extend_from_slice(&[0; 4]);
    }
    assert_eq!(second.run(&[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], &list), GOOD);
    for lba in [8192, 16384] {
        let now = read(first, lba, BLOCKS);
        assert!(now[..1024 * 512].iter().all(|byte| *byte == 0));
        assert_eq!(now[1024 * 512..], pattern[1024 * 512..]);
    }
}
