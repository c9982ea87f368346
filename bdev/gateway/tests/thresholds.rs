//! Soft thresholds of thin provisioning, as hosts set them and are told of them.

mod host;

use std::time::Duration;

use host::{GOOD, World, attention};

const LBA_SET: u32 = 1 << 11;

/// MODE SELECT(6) of the thresholds: used and available blocks, in threshold sets; zero for none.
fn select(world: &mut World, used: u32, available: u32) -> (u8, u16) {
    let descriptor = |kind: u8, resource: u8, count: u32| {
        let enabled = if count > 0 { 0x80 } else { 0 };
        [&[kind | enabled, resource, 0, 0][..], &count.to_be_bytes()].concat()
    };
    let mut recovery = vec![0x01, 10, 0xc0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0];
    let mut page = vec![0x5c, 0x02, 0, 28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    page.extend(descriptor(1, 2, used));
    page.extend(descriptor(0, 1, available));
    let mut list = vec![0; 4];
    list.append(&mut recovery);
    list.append(&mut page);
    world.run(0, &[0x15, 0x10, 0, 0, u8::try_from(list.len()).expect("short"), 0], &list)
}

/// Writes a threshold set, with WRITE SAME(10).
fn fill(world: &mut World, set: u32) {
    let lba = (set * LBA_SET).to_be_bytes();
    let cdb = [0x41, 0, lba[0], lba[1], lba[2], lba[3], 0, 8, 0, 0];
    assert_eq!(world.run(0, &cdb, &[7; 512]), GOOD);
}

/// UNMAP of a threshold set.
fn unmap(world: &mut World, set: u32) {
    let descriptor = [&[0; 4][..], &(set * LBA_SET).to_be_bytes(), &LBA_SET.to_be_bytes(), &[0; 4]].concat();
    let list = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &descriptor].concat();
    assert_eq!(world.run(0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list), GOOD);
}

/// What a host is told next, and the INFORMATION field of it.
fn told(world: &mut World, host: usize) -> ((u8, u16), Option<u64>) {
    let task = world.hosts[host].send(&[0; 6], &[], 0);
    let mut ended = None;
    world.until("an answer", |world| {
        ended = world.hosts[host].take(task);
        ended.is_some()
    });
    let ended = ended.expect("waited for");
    let code = scsi::sense::decode(&ended.sense).map_or(0, |(_, code)| code);
    ((ended.status, code), scsi::sense::information(&ended.sense))
}

/// Available and used sets, as the log page counts them.
fn counts(world: &mut World) -> [u32; 2] {
    let task = world.hosts[0].send(&[0x4d, 0, 0x4c, 0, 0, 0, 0, 0, 28, 0], &[], 28);
    assert_eq!(world.end(0, task), GOOD);
    let page = world.hosts[0].data(task);
    assert_eq!((page[0], page[5], page[17]), (0x8c, 1, 2), "the page and its parameters");
    [8, 20].map(|at| u32::from_be_bytes(page[at..at + 4].try_into().expect("four bytes")))
}

fn second(world: &mut World) {
    world.run_for(Duration::from_millis(1100));
}

#[test]
fn each_host_is_told_once_that_a_threshold_was_crossed() {
    let mut world = World::new(2);
    let reached = |at| (attention(0x3807), Some(at));
    let nothing = (GOOD, None);
    assert_eq!(counts(&mut world), [8, 0]);
    assert_eq!(select(&mut world, 2, 5), GOOD);
    assert_eq!(told(&mut world, 1), (attention(0x2a01), None), "mode parameters changed");
    second(&mut world);
    fill(&mut world, 0);
    fill(&mut world, 1);
    second(&mut world);
    assert_eq!((told(&mut world, 0), told(&mut world, 1)), (nothing, nothing), "in the middle of the range");
    fill(&mut world, 2);
    second(&mut world);
    for host in [0, 1] {
        assert_eq!((told(&mut world, host), told(&mut world, host)), (reached(16), nothing));
    }
    assert_eq!(counts(&mut world), [5, 3]);
    // More of it is no news; the other threshold is.
    fill(&mut world, 3);
    second(&mut world);
    assert_eq!((told(&mut world, 0), told(&mut world, 0)), (reached(24), nothing));
    // The other host did not ask for two seconds, and is told once all the same.
    fill(&mut world, 4);
    second(&mut world);
    assert_eq!(
        (told(&mut world, 1), told(&mut world, 1), told(&mut world, 0)),
        (reached(24), nothing, nothing)
    );
    // It is given back, and taken again.
    (0..5).for_each(|set| unmap(&mut world, set));
    second(&mut world);
    assert_eq!((counts(&mut world), told(&mut world, 0)), ([8, 0], nothing));
    (0..4).for_each(|set| fill(&mut world, set));
    second(&mut world);
    assert_eq!(
        [told(&mut world, 1), told(&mut world, 1), told(&mut world, 1)],
        [reached(16), reached(24), nothing]
    );
}

#[test]
fn a_host_that_wants_to_be_told_nothing_is_told_nothing() {
    let mut world = World::new(1);
    second(&mut world);
    (0..8).for_each(|set| fill(&mut world, set));
    second(&mut world);
    assert_eq!(told(&mut world, 0), (GOOD, None), "the default");
    (0..8).for_each(|set| unmap(&mut world, set));
    assert_eq!(select(&mut world, 0, 0), GOOD);
    second(&mut world);
    (0..8).for_each(|set| fill(&mut world, set));
    second(&mut world);
    assert_eq!(told(&mut world, 0), (GOOD, None), "both disabled");
}
