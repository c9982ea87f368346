//! Mode parameters, identifying information, log pages and self-tests: what hosts set and see, who is told, what is kept.

mod host;
mod volume;

use std::sync::Arc;
use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use bdev::{AccessState, NodeSide, Power};
use gateway::{LunConfig, LunMode};
use host::{GOOD, World, attention};
use volume::{Kept, Volume};

/// A target that serves a volume with this state, and hosts.
fn node(kept: &Arc<Kept>, side: NodeSide, hosts: u8) -> World {
    World::with_lun(hosts, |medium| {
        let volume = Volume::new(medium, kept.clone(), side);
        volume.set(AccessState::Optimized, AccessState::NonOptimized, 1);
        volume
    })
}

/// MODE SELECT(6) of the control mode page, with SP or without.
fn mode_select(save: u8, d_sense: u8, swp: u8) -> (Vec<u8>, Vec<u8>) {
    let list = vec![0, 0, 0, 0, 0x0a, 10, d_sense, 0x10, swp, 0, 0, 0, 0, 0, 0, 0];
    (vec![0x15, 0x10 | save, 0, 0, 16, 0], list)
}

const D_SENSE: u8 = 4;
const SWP: u8 = 8;

impl World {
    fn select(&mut self, host: usize, save: u8, d_sense: u8, swp: u8) -> (u8, u16) {
        let (cdb, list) = mode_select(save, d_sense, swp);
        self.run(host, &cdb, &list)
    }

    fn fetch(&mut self, host: usize, cdb: &[u8], room: u32) -> Vec<u8> {
        let task = self.hosts[host].send(cdb, &[], room);
        assert_eq!(self.end(host, task), GOOD, "{cdb:x?}");
        self.hosts[host].data(task).to_vec()
    }

    /// PS, D_SENSE and SWP of the control mode page: current (0) or saved (3) values.
    fn control(&mut self, host: usize, values: u8) -> (u8, u8, u8) {
        let data = self.fetch(host, &[0x1a, 8, values << 6 | 0x0a, 0, 16, 0], 16);
        (data[4] & 0x80, data[6], data[8])
    }
}

const TEXT: u8 = 2 << 1;

#[test]
fn what_a_host_saves_is_there_at_the_other_node_and_after_a_loss_of_power() {
    let kept = Arc::new(Kept::default());
    let mut first = node(&kept, NodeSide::First, 2);
    assert_eq!(first.select(0, 1, D_SENSE, 0), GOOD);
    assert_eq!((first.ready(1), first.ready(1)), (attention(0x2a01), GOOD), "the other host is told");
    assert_eq!(first.select(0, 0, D_SENSE, SWP), GOOD);
    let set = [0xa4, 6, 0, 0, 0, 0, 0, 0, 0, 7, TEXT, 0];
    assert_eq!(first.run(0, &set, b"rack 7\0"), GOOD);
    assert_eq!((first.ready(1), first.ready(1)), (attention(0x2a01), attention(0x3f05)));
    assert_eq!((first.control(0, 0), first.control(0, 3)), ((0x80, D_SENSE, SWP), (0x80, D_SENSE, 0)));

    let mut second = node(&kept, NodeSide::Second, 1);
    assert_eq!((second.control(0, 0), second.control(0, 3)), ((0x80, D_SENSE, SWP), (0x80, D_SENSE, 0)));
    let write = second.write(0);
    assert_eq!(second.end(0, write), attention(0x2702), "software write protect holds here, too");
    let text = second.fetch(0, &[0xa3, 5, 0, 0, 0, 0, 0, 0, 0, 11, TEXT, 0], 11);
    assert_eq!(text[..], b"\0\0\0\x07rack 7\0"[..]);

    *kept.power.lock().expect("nobody panicked") = Power::Lost;
    let mut restarted = node(&kept, NodeSide::First, 1);
    assert_eq!(restarted.control(0, 0), (0x80, D_SENSE, 0), "current values are the saved ones");
    let write = restarted.write(0);
    assert_eq!(restarted.end(0, write), GOOD);
    let text = restarted.fetch(0, &[0xa3, 5, 0, 0, 0, 0, 0, 0, 0, 11, TEXT, 0], 11);
    assert_eq!(text[4..], b"rack 7\0"[..]);
}

#[test]
fn a_reset_puts_saved_parameters_in_force_and_keeps_that() {
    let kept = Arc::new(Kept::default());
    let mut world = node(&kept, NodeSide::First, 1);
    assert_eq!(world.select(0, 0, D_SENSE, SWP), GOOD);
    assert_eq!(world.managed(0, 5, 0, None), 0, "LOGICAL UNIT RESET");
    assert_eq!(world.ready(0), attention(0x2903));
    assert_eq!(world.control(0, 0), (0x80, 0, 0));
    world.run_for(std::time::Duration::from_millis(1));
    let mut other = node(&kept, NodeSide::Second, 1);
    assert_eq!(other.control(0, 0), (0x80, 0, 0));
}

#[test]
fn what_cannot_be_kept_is_not_promised() {
    let mut world = World::new(2);
    assert_eq!(world.select(0, 1, D_SENSE, 0), attention(0x2400), "SP");
    let saved = world.hosts[0].send(&[0x1a, 8, 0xca, 0, 16, 0], &[], 16);
    assert_eq!(world.end(0, saved), attention(0x3900));
    assert_eq!(world.control(0, 0), (0, 0, 0));
    assert_eq!(world.run(0, &[0xa4, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], &[1]), attention(0x2400));
    let report = world.hosts[0].send(&[0xa3, 5, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], &[], 8);
    assert_eq!(world.end(0, report), attention(0x2400));
    let asked = world.fetch(0, &[0xa3, 0x0c, 2, 0xa4, 0, 6, 0, 0, 0, 4, 0, 0], 4);
    assert_eq!(asked[1] & 7, 1, "not supported");
    assert_eq!((world.select(0, 0, D_SENSE, SWP), world.ready(1)), (GOOD, attention(0x2a01)));
    assert_eq!(world.select(0, 0, D_SENSE, SWP), GOOD);
    assert_eq!(world.ready(1), GOOD, "nothing changed");
}

#[test]
fn log_pages_count_what_happens_until_a_host_resets_them() {
    let mut world = World::new(2);
    let write = world.write(0);
    assert_eq!(world.end(0, write), GOOD);
    world.fetch(0, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512);
    world.fault.plan().arm(FaultTarget::Read, Fault::Error, 1);
    let failing = world.hosts[0].send(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[], 512);
    assert_eq!(world.end(0, failing), attention(0x1100));
    let log = |world: &mut World, page: u8| world.fetch(1, &[0x4d, 0, 0x40 | page, 0, 0, 0, 0, 1, 0, 0], 256);
    let errors = log(&mut world, 3);
    assert_eq!(
        (&errors[4..16], errors[16..28].last()),
        (&[0, 5, 0x20, 8, 0, 0, 0, 0, 0, 0, 2, 0][..], Some(&1))
    );
    let statistics = log(&mut world, 0x19);
    assert_eq!((statistics[15], statistics[23]), (2, 1), "reads and writes");
    let used = log(&mut world, 0x0c);
    let sets = [[0, 1, 0x23, 8, 0, 0, 0, 7, 2, 0, 0, 0], [0, 2, 0x23, 8, 0, 0, 0, 1, 1, 0, 0, 0]];
    assert_eq!(used[4..28], sets.concat(), "one threshold set is in use, and seven are free");
    assert_eq!(world.run(0, &[0x4c, 2, 0, 0, 0, 0, 0, 0, 0, 0], &[]), GOOD);
    assert_eq!((world.ready(0), world.ready(1)), (GOOD, attention(0x2a02)));
    assert_eq!(log(&mut world, 3)[16..28].last(), Some(&0));
    let list = [3, 0, 0, 12, 0, 6, 0x20, 8, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(world.run(0, &[0x4c, 0, 0, 0, 0, 0, 0, 0, 16, 0], &list), attention(0x2600));
}

#[test]
fn a_self_test_reads_the_medium() {
    let mut world = World::new(1);
    assert_eq!(world.run(0, &[0x1d, 4, 0, 0, 0, 0], &[]), GOOD);
    world.fault.plan().arm(FaultTarget::Read, Fault::Error, 1);
    assert_eq!(world.run(0, &[0x1d, 4, 0, 0, 0, 0], &[]), attention(0x3e03));
    world.fault.plan().clear(FaultTarget::Read);
    assert_eq!(world.run(0, &[0x1d, 0x20, 0, 0, 0, 0], &[]), attention(0x2400), "no background tests");
    assert_eq!(world.run(0, &[0x1d, 0x10, 0, 0, 4, 0], &[0; 4]), GOOD);
    assert_eq!(world.fetch(0, &[0x1c, 1, 0, 0, 5, 0], 5), [0, 0, 0, 1, 0]);
    let unknown = world.hosts[0].send(&[0x1c, 1, 0x40, 0, 5, 0], &[], 5);
    assert_eq!(world.end(0, unknown), attention(0x2400));
}

#[test]
fn ports_and_policies_are_told_in_vital_product_data() {
    let mut world = World::new(1);
    let ports = world.fetch(0, &[0x12, 1, 0x88, 0, 255, 0], 255);
    assert_eq!((ports[1], &ports[4..8]), (0x88, &[0, 0, 0, 1][..]));
    assert_eq!(ports[16..20], [0x53, 0x98, 0, 32]);
    assert_eq!(&ports[20..49], b"iqn.2026-11.example:t0,t,0x0001".get(..29).expect("long"));
    assert_eq!(world.fetch(0, &[0x12, 1, 0x87, 0, 8, 0], 8), [0, 0x87, 0, 4, 0x3f, 0xff, 0, 0]);
    assert_eq!(world.fetch(0, &[0x12, 1, 0x85, 0, 4, 0], 4), [0, 0x85, 0, 0]);
    let list = world.fetch(0, &[0x12, 1, 0, 0, 64, 0], 64);
    let len = usize::from(list[3]);
    for page in list[4..4 + len].iter().copied() {
        assert_eq!(world.fetch(0, &[0x12, 1, page, 0, 255, 0], 255)[1], page);
    }
}

/// What is asked at a LUN that is not there is answered as far as there is something to say.
#[test]
fn a_lun_that_is_not_there_says_so() {
    let mut world = World::new(1);
    let ask = |world: &mut World, cdb: &[u8], room: u32| {
        let task = world.hosts[0].send_to(9, cdb, &[], room);
        let end = world.end(0, task);
        (end, world.hosts[0].data(task).to_vec())
    };
    let (end, sense) = ask(&mut world, &[3, 0, 0, 0, 18, 0], 18);
    assert_eq!((end, scsi::sense::decode(&sense)), (GOOD, Some((5, 0x2500))));
    let (end, sense) = ask(&mut world, &[3, 1, 0, 0, 8, 0], 8);
    assert_eq!((end, scsi::sense::decode(&sense), sense[0]), (GOOD, Some((5, 0x2500)), 0x72));
    let (end, data) = ask(&mut world, &[0x12, 0, 0, 0, 36, 0], 36);
    assert_eq!((end, data[0]), (GOOD, 0x7f));
    let (end, data) = ask(&mut world, &[0x12, 1, 0, 0, 5, 0], 5);
    assert_eq!((end, data), (GOOD, vec![0x7f, 0, 0, 1, 0]));
    assert_eq!(ask(&mut world, &[0x12, 1, 0x83, 0, 255, 0], 255).0, attention(0x2400));
    assert_eq!(ask(&mut world, &[0; 6], 0).0, attention(0x2500));
}

#[test]
fn priority_and_timestamp_are_reported() {
    let mut world = World::new(1);
    let ask = |world: &mut World, action: u8, byte2: u8, allocation: u8| {
        let cdb = [0xa3, action, byte2, 0, 0, 0, 0, 0, 0, allocation, 0, 0];
        let task = world.hosts[0].send(&cdb, &[], u32::from(allocation));
        let end = world.end(0, task);
        (end, world.hosts[0].data(task).to_vec())
    };
    let (end, data) = ask(&mut world, 0x0e, 0, 200);
    assert_eq!(end, GOOD);
    let text = String::from_utf8_lossy(&data[16..]);
    assert!(data[3] > 8 && text.starts_with("iqn.2026-11.example:h0,i,0x800000000001\0"), "{text}");
    assert_eq!(ask(&mut world, 0x0e, 0x40, 4), (GOOD, vec![0; 4]), "none was set");
    assert_eq!(ask(&mut world, 0x0e, 0x80, 4).0, attention(0x2400));
    let at =
        |data: &[u8]| u64::from_be_bytes([&[0; 2], &data[4..10]].concat().try_into().expect("eight bytes"));
    let (end, first) = ask(&mut world, 0x0f, 0, 12);
    assert_eq!((end, &first[..4]), (GOOD, &[0, 10, 0, 0][..]));
    world.run_for(Duration::from_millis(50));
    let (_, second) = ask(&mut world, 0x0f, 0, 12);
    assert!((50..60).contains(&(at(&second) - at(&first))), "{first:?} {second:?}");
    for action in [0x0e, 0x0f] {
        let cdb = [0xa3, 0x0c, 2, 0xa3, 0, action, 0, 0, 0, 20, 0, 0];
        let task = world.hosts[0].send(&cdb, &[], 20);
        assert_eq!(world.end(0, task), GOOD);
        assert_eq!(world.hosts[0].data(task)[1], 3, "supported");
    }
}

#[test]
fn a_prefetch_of_more_than_is_advertised_is_refused() {
    let mut world = World::new(1);
    for (blocks, end) in [(0u16, GOOD), (2048, GOOD), (2049, attention(0x2400))] {
        let [high, low] = blocks.to_be_bytes();
        assert_eq!(world.run(0, &[0x34, 0, 0, 0, 0, 0, 0, high, low, 0], &[]), end, "{blocks}");
    }
}

/// Where writes may be in a cache, a host may have them durable: from then on they are, what was written before is flushed, and the next
/// node knows.
#[test]
fn a_host_leaves_the_write_cache() {
    let kept = Arc::new(Kept::default());
    let cached = |side, hosts| {
        let mut volume = None;
        let mut world = World::with_lun(hosts, |medium| {
            let made = Volume::new(medium, kept.clone(), side);
            made.set(AccessState::Optimized, AccessState::NonOptimized, 1);
            volume = Some(made.clone());
            made
        });
        let lun = LunConfig::new(volume.expect("made"), LunMode::SyncCached);
        world.target.add_lun(host::TARGET, 2, lun).expect("new");
        for host in 0..usize::from(hosts) {
            for lun in [0, 2] {
                while world.run_at(host, lun, &[0; 6], &[]) != GOOD {}
            }
        }
        world
    };
    let wce = |world: &mut World, lun: u16, page_control: u8| {
        let task = world.hosts[0].send_to(lun, &[0x1a, 8, page_control << 6 | 8, 0, 24, 0], &[], 24);
        assert_eq!(world.end(0, task), GOOD);
        world.hosts[0].data(task)[6] & 4
    };
    let select = |wce: u8| [&[0, 0, 0, 0, 8, 18, wce][..], &[0; 17]].concat();
    let (save, write) = ([0x15, 0x11, 0, 0, 24, 0], [0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0]);
    let flush = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut world = cached(NodeSide::First, 2);
    assert_eq!([0, 1, 2, 3].map(|control| wce(&mut world, 2, control)), [4; 4]);
    assert_eq!(
        [0, 1, 2, 3].map(|control| wce(&mut world, 0, control)),
        [0; 4],
        "durable as the administrator says"
    );
    assert_eq!(world.run_at(0, 0, &save, &select(4)), attention(0x2600));
    let durable = || kept.durable.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((world.run_at(0, 2, &write, &[1; 512]), durable()), (GOOD, 0));
    // A flush that fails is told, and is not forgotten by the next attempt.
    world.fault.plan().arm(FaultTarget::Flush, Fault::Error, 1);
    assert_eq!(world.run_at(0, 2, &save, &select(0)), attention(0x0c00));
    world.fault.plan().arm(FaultTarget::Flush, Fault::Error, 1);
    assert_eq!(world.run_at(0, 2, &save, &select(0)), attention(0x0c00));
    world.fault.plan().clear(FaultTarget::Flush);
    assert_eq!(world.run_at(0, 2, &save, &select(0)), GOOD);
    assert_eq!(world.run_at(1, 2, &[0; 6], &[]), attention(0x2a01));
    assert_eq!([0, 1, 2, 3].map(|control| wce(&mut world, 2, control)), [0, 4, 4, 0]);
    assert_eq!((world.run_at(0, 2, &write, &[2; 512]), durable()), (GOOD, 1));
    world.fault.plan().arm(FaultTarget::Flush, Fault::Error, 1);
    assert_eq!(world.run_at(0, 2, &flush, &[]), attention(0x0c00), "SYNCHRONIZE CACHE is carried out still");

    let mut second = cached(NodeSide::Second, 1);
    assert_eq!((wce(&mut second, 2, 0), wce(&mut second, 2, 3)), (0, 0));
    assert_eq!((second.run_at(0, 2, &write, &[3; 512]), durable()), (GOOD, 2));
    assert_eq!(second.run_at(0, 2, &save, &select(4)), GOOD);
    assert_eq!((wce(&mut second, 2, 0), second.run_at(0, 2, &write, &[3; 512]), durable()), (4, GOOD, 2));
}
