//! A cryptographic erase that fails in the middle (SBC-4 section 4.11): what hosts are told, and how the unit comes out of it.

mod host;

use std::sync::Arc;
use std::time::Duration;

use bdev::Bdev;
use bdev::crypto::{Opening, Over, Request, UserKey, Wish};
use bdev::fault::{Fault, FaultBdev, FaultTarget};
use engine::{Core, Instant, Pool};
use host::{GOOD, World, attention};
use uuid::Uuid;

/// SANITIZE, CRYPTOGRAPHIC ERASE, with AUSE.
const ERASE_AND_MAY_EXIT: [u8; 10] = [0x48, 0x23, 0, 0, 0, 0, 0, 0, 0, 0];
/// The same without.
const ERASE: [u8; 10] = [0x48, 0x03, 0, 0, 0, 0, 0, 0, 0, 0];
/// SANITIZE, EXIT FAILURE MODE.
const EXIT_FAILURE_MODE: [u8; 10] = [0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0];
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// SANITIZE COMMAND FAILED.
const FAILED: (u8, u16) = (scsi::status::CHECK_CONDITION, 0x3103);

/// A crypto device on the world's, whose header is where the faults are.
fn encrypted(base: Arc<FaultBdev>) -> Arc<dyn Bdev> {
    let user = Arc::new(UserKey::new(&[1; 32], None).expect("a key"));
    let wish = Wish::Format(Uuid::from_u128(9), Over::Blank);
    let request = Request { name: "c0".to_owned(), base, user, wish };
    let core = Core::for_tests(Pool::for_tests());
    let mut opening = Opening::begin(request, &core).expect("begun");
    while !opening.is_over() {
        let _ = opening.poll(Instant::EPOCH);
    }
    opening.into_result().expect("over").expect("formatted")
}

fn read(world: &mut World, host: usize) -> Result<Vec<u8>, (u8, u16)> {
    let task = world.hosts[host].send(&READ, &[], 512);
    match world.end(host, task) {
        GOOD => Ok(world.hosts[host].data(task).to_vec()),
        failed => Err(failed),
    }
}

/// Sense data by REQUEST SENSE: key and code.
fn sensed(world: &mut World) -> Option<(u8, u16)> {
    let task = world.hosts[1].send(&[0x03, 0, 0, 0, 18, 0], &[], 18);
    assert_eq!(world.end(1, task), GOOD);
    scsi::sense::decode(world.hosts[1].data(task))
}

/// An erase whose writes of the header fail.
fn failed(erase: &[u8]) -> World {
    let mut world = World::with_lun(2, encrypted);
    let write = world.write(0);
    assert_eq!(world.end(0, write), GOOD);
    assert_eq!(read(&mut world, 1), Ok(vec![7; 512]));
    world.fault.plan().arm(FaultTarget::Write, Fault::Error, u32::MAX);
    // Without IMMED the status says how it ended.
    assert_eq!(world.run(0, erase, &[]), FAILED);
    world.fault.plan().clear(FaultTarget::Write);
    world
}

#[test]
fn an_erase_that_fails_keeps_hosts_out_until_one_succeeds() {
    let mut world = failed(&ERASE);
    for host in [0, 1] {
        assert_eq!((world.ready(host), read(&mut world, host)), (FAILED, Err(FAILED)));
    }
    let write = world.write(1);
    assert_eq!(world.end(1, write), FAILED);
    assert_eq!(sensed(&mut world), Some((3, 0x3103)), "medium error");
    // Who the unit is can be asked.
    let inquiry = world.hosts[1].send(&[0x12, 0, 0, 0, 36, 0], &[], 36);
    assert_eq!(world.end(1, inquiry), GOOD);
    assert_eq!(world.run(1, &EXIT_FAILURE_MODE, &[]), FAILED, "AUSE was zero");
    assert_eq!(world.ready(1), FAILED);
    assert_eq!(world.run(1, &ERASE, &[]), GOOD);
    assert_eq!((world.ready(0), world.ready(1), sensed(&mut world)), (GOOD, GOOD, Some((0, 0))));
    let left = read(&mut world, 0).expect("it can be read");
    assert_ne!(left, vec![7; 512], "the old data cannot");
    let write = world.write(1);
    assert_eq!((world.end(1, write), read(&mut world, 0)), (GOOD, Ok(vec![7; 512])));
}

#[test]
fn a_failure_may_be_left_where_that_was_allowed() {
    let mut world = failed(&ERASE_AND_MAY_EXIT);
    assert_eq!(world.ready(1), FAILED);
    assert_eq!(world.run(1, &EXIT_FAILURE_MODE, &[]), GOOD);
    assert_eq!(sensed(&mut world), Some((0, 0)));
    // The unit answers for itself again: with the old data, or that there are none.
    world.run_for(Duration::from_millis(10));
    assert_ne!(read(&mut world, 0), Err(FAILED));
    assert_eq!(world.run(0, &ERASE, &[]), GOOD);
    assert_eq!(world.run(0, &ERASE, &[]), GOOD, "and again");
    assert_ne!(
        world.run(0, &[0xff; 10], &[]),
        attention(0x3103),
        "an operation code of fancy is named as that"
    );
}
