//! What an I_T nexus is told when it begins, and when a LUN comes or goes.

mod host;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use bdev::malloc::MallocBdev;
use bdev::{BlockRange, Geometry};
use gateway::{ExportError, LunConfig, LunMode};
use host::{GOOD, TARGET, World, attention};
use uuid::Uuid;

const POWER_ON: (u8, u16) = attention(0x2900);
const NEXUS_LOSS: (u8, u16) = attention(0x2907);
const LUNS_CHANGED: (u8, u16) = attention(0x3f0e);
const NO_LUN: (u8, u16) = attention(0x2500);

fn ready_at(world: &mut World, host: usize, lun: u16) -> (u8, u16) {
    let task = world.hosts[host].send_to(lun, &[0; 6], &[], 0);
    world.end(host, task)
}

/// SELECT REPORT of SPC-5: there are no administrative logical units, and no subsidiary ones.
#[test]
fn each_select_report_lists_what_it_names() {
    let mut world = World::new(1);
    for (select, count) in [(0, 2), (1, 0), (2, 2), (0x10, 0), (0x11, 2)] {
        let task = world.hosts[0].send(&[0xa0, 0, select, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
        assert_eq!(world.end(0, task), GOOD, "{select:#x}");
        let data = world.hosts[0].data(task);
        assert_eq!(data[..4], (8 * count as u32).to_be_bytes(), "{select:#x}");
    }
    for select in [3, 0x0f, 0x12, 0x13, 0xff] {
        let task = world.hosts[0].send(&[0xa0, 0, select, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
        assert_eq!(world.end(0, task), attention(0x2400), "{select:#x}");
    }
}

/// The numbers that REPORT LUNS lists.
fn luns(world: &mut World, host: usize) -> Vec<u8> {
    let task = world.hosts[host].send(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
    assert_eq!(world.end(host, task), GOOD);
    let data = world.hosts[host].data(task);
    data[8..8 + usize::from(data[3])].chunks(8).map(|lun| lun[1]).collect()
}

/// A host whose attentions nobody has taken.
fn newcomer(world: &mut World, index: u8) -> usize {
    let host = world.add(index, |_| {});
    world.hosts[host].leave_attentions();
    world.until("a login", |world| world.hosts[host].is_in());
    host
}

fn device(id: u128) -> LunConfig {
    let geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 16384 };
    let medium = MallocBdev::new("m2", Uuid::from_u128(id), geometry);
    LunConfig::new(medium, LunMode::SyncDurable)
}

#[test]
fn a_nexus_that_begins_is_told_once_at_each_unit() {
    let mut world = World::empty();
    let host = newcomer(&mut world, 0);
    let inquiry = world.hosts[host].send(&[0x12, 0, 0, 0, 36, 0], &[], 36);
    assert_eq!((world.end(host, inquiry), luns(&mut world, host)), (GOOD, vec![0, 1]));
    // REQUEST SENSE tells it in its data, and never ends with it.
    let sense = world.hosts[host].send(&[3, 0, 0, 0, 18, 0], &[], 18);
    assert_eq!(world.end(host, sense), GOOD);
    assert_eq!(scsi::sense::decode(world.hosts[host].data(sense)), Some((6, 0x2900)));
    assert_eq!(world.ready(host), GOOD, "it was told");
    assert_eq!((ready_at(&mut world, host, 1), ready_at(&mut world, host, 1)), (POWER_ON, GOOD));
    // The same nexus again, in place of its session: what waited is lost with it, and the loss is told.
    let again = newcomer(&mut world, 0);
    assert_eq!((world.ready(again), world.ready(again)), (NEXUS_LOSS, GOOD));
    let other = newcomer(&mut world, 1);
    assert_eq!((world.ready(other), world.ready(again)), (POWER_ON, GOOD));
}

#[test]
fn a_lun_that_is_added_is_told_of_at_the_others() {
    let mut world = World::new(2);
    world.target.add_lun(TARGET, 2, device(9)).expect("new");
    assert_eq!(world.target.add_lun(TARGET, 2, device(9)), Err(ExportError::LunExists(2)));
    assert_eq!((world.ready(0), world.ready(0)), (LUNS_CHANGED, GOOD));
    assert_eq!(ready_at(&mut world, 0, 1), LUNS_CHANGED);
    assert_eq!((ready_at(&mut world, 0, 2), ready_at(&mut world, 0, 2)), (POWER_ON, GOOD));
    // Whoever has looked need not be told.
    assert_eq!(luns(&mut world, 1), [0, 1, 2]);
    assert_eq!((world.ready(1), ready_at(&mut world, 1, 1)), (GOOD, GOOD));
}

#[test]
fn a_lun_that_is_removed_is_gone_for_everybody() {
    let mut world = World::new(2);
    world.target.add_lun(TARGET, 2, LunConfig::new(world.fault.clone(), LunMode::SyncDurable)).expect("new");
    for host in [0, 1] {
        assert_eq!(luns(&mut world, host), [0, 1, 2]);
        assert_eq!(ready_at(&mut world, host, 2), POWER_ON);
    }
    // A write that the medium keeps, one that waits for its data, and one behind them.
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let write = [0x2a, 0, 0, 0, 0, 7, 0, 0, 1, 0];
    let held = world.hosts[0].send_to(2, &write, &[7; 512], 0);
    world.run_for(Duration::from_millis(5));
    let ordered = world.hosts[1].send_as(2, 2, &write, &[8; 512], 0);
    world.run_for(Duration::from_millis(5));
    assert_eq!(
        world.target.remove_lun(TARGET, 3),
        Err(ExportError::NoLun { target: TARGET.into(), number: 3 })
    );
    assert_eq!(world.target.remove_lun(TARGET, 0), Err(ExportError::NoLunZero(TARGET.into())));
    world.target.remove_lun(TARGET, 2).expect("there");
    assert_eq!(world.end(1, ordered), NO_LUN, "it had not begun");
    world.run_for(Duration::from_millis(50));
    assert_eq!(world.hosts[0].take(held), None, "it may still land");
    // Another device comes in its place while it is under way.
    world.target.add_lun(TARGET, 2, device(9)).expect("free");
    assert_eq!(ready_at(&mut world, 0, 2), POWER_ON);
    let other = world.hosts[1].send_to(2, &[0x2a, 0, 0, 0, 0, 8, 0, 0, 1, 0], &[8; 512], 0);
    assert_eq!(world.end(1, other), POWER_ON);
    let other = world.hosts[0].send_to(2, &[0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0], &[], 512);
    assert_eq!(world.end(0, other), GOOD, "no write is silent there");
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(world.end(0, held), NO_LUN);
    assert_eq!(world.medium.snapshot(BlockRange::new(7, 1))[0], 7, "it did land");
    for host in [0, 1] {
        assert_eq!((world.ready(host), world.ready(host)), (LUNS_CHANGED, GOOD));
    }
    world.target.remove_lun(TARGET, 2).expect("there");
    assert_eq!(luns(&mut world, 0), [0, 1]);
    assert_eq!(ready_at(&mut world, 0, 2), NO_LUN);
    world.hosts.iter_mut().for_each(|host| host.hang_up());
    world.until("the end of the sessions", |world| world.target.is_idle());
}
