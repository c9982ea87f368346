//! SANITIZE (SBC-4 section 4.11): a cryptographic erase that fails in the middle, what hosts are told, and how the unit comes out of it;
//! one operation for all paths to the unit, which outlives the node that began it.

mod host;
mod pair;
mod volume;

use std::sync::Arc;
use std::time::Duration;

use bdev::crypto::{Opening, Over, Request, UserKey, Wish};
use bdev::fault::{Fault, FaultBdev, FaultTarget};
use bdev::{AccessState, Bdev};
use engine::{Core, Instant, Pool};
use gateway::{LunConfig, LunMode, StandbyMode};
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

const BLOCK_ERASE: [u8; 10] = [0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];
const IN_PROGRESS: (u8, u16) = attention(0x041b);

fn ready_at(world: &mut World, host: usize, lun: u16) -> (u8, u16) {
    let task = world.hosts[host].send_to(lun, &[0; 6], &[], 0);
    world.end(host, task)
}

/// Two numbers, one unit.
fn shown_twice() -> World {
    let mut world = World::new(2);
    let mut removable = LunConfig::new(world.fault.clone(), LunMode::SyncDurable);
    removable.options.medium = scsi::Medium::Removable;
    for number in [2, 3] {
        world.target.add_lun(host::TARGET, number, removable.clone()).expect("new");
    }
    for host in [0, 1] {
        for lun in [0, 1, 2, 3] {
            while ready_at(&mut world, host, lun) != GOOD {}
        }
    }
    world
}

#[test]
fn a_unit_is_sanitized_through_all_its_luns() {
    let mut world = shown_twice();
    let write = world.write(0);
    assert_eq!(world.end(0, write), GOOD);
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let erase = world.hosts[0].send_to(2, &BLOCK_ERASE, &[], 0);
    assert_eq!(world.end(0, erase), GOOD, "IMMED");
    for (host, lun) in [(0, 0), (1, 3), (1, 2)] {
        assert_eq!(ready_at(&mut world, host, lun), IN_PROGRESS, "LUN {lun}");
    }
    let again = world.hosts[1].send_to(3, &BLOCK_ERASE, &[], 0);
    assert_eq!(world.end(1, again), IN_PROGRESS);
    world.fault.plan().clear(FaultTarget::Write);
    world.until("the end", |world| ready_at(world, 1, 3) == GOOD);
    assert_eq!((world.ready(0), world.first_byte()), (GOOD, 0));
}

#[test]
fn a_medium_is_out_for_all_luns_of_the_unit() {
    let mut world = shown_twice();
    let run = |world: &mut World, host: usize, lun: u16, cdb: [u8; 6]| {
        let task = world.hosts[host].send_to(lun, &cdb, &[], 0);
        world.end(host, task)
    };
    let (eject, load, prevent, allow) =
        ([0x1b, 0, 0, 0, 2, 0], [0x1b, 0, 0, 0, 3, 0], [0x1e, 0, 0, 0, 1, 0], [0x1e, 0, 0, 0, 0, 0]);
    assert_eq!(run(&mut world, 1, 3, prevent), GOOD);
    assert_eq!(run(&mut world, 0, 2, eject), attention(0x5302));
    assert_eq!(run(&mut world, 1, 3, allow), GOOD);
    assert_eq!(run(&mut world, 0, 2, eject), GOOD);
    assert_eq!(
        (ready_at(&mut world, 1, 3), ready_at(&mut world, 0, 2)),
        (attention(0x3a00), attention(0x3a00))
    );
    assert_eq!(run(&mut world, 0, 2, load), GOOD);
    // Each other nexus is told, the ejector's own through another number too.
    assert_eq!((ready_at(&mut world, 1, 3), ready_at(&mut world, 1, 3)), (attention(0x2800), GOOD));
    assert_eq!(ready_at(&mut world, 0, 2), GOOD);
}

/// What `pair` says of a host at either node.
fn told(world: &mut pair::World, host: usize) -> (u8, u16) {
    let attentions = [0x2904, 0x2a06, 0x2907];
    loop {
        match world.ready(host) {
            (scsi::status::CHECK_CONDITION, code) if attentions.contains(&code) => {}
            end => return end,
        }
    }
}

/// The node that takes over goes on with it, from the first block, and nobody sees anything before its end.
#[test]
fn a_sanitize_operation_outlives_the_node_that_began_it() {
    let mut world = pair::World::new(StandbyMode::Forward, &[0, 1]);
    assert_eq!((world.write(0, 0, 7), world.write(0, 9, 7)), (pair::GOOD, pair::GOOD));
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    assert_eq!(world.command(0, &BLOCK_ERASE), pair::GOOD);
    assert_eq!((told(&mut world, 0), told(&mut world, 1)), (IN_PROGRESS, IN_PROGRESS));
    world.die();
    world.run_for(Duration::from_millis(5));
    world.volumes[1].set(AccessState::Optimized, AccessState::Unavailable, 2);
    world.run_for(Duration::from_millis(50));
    assert_eq!(told(&mut world, 1), IN_PROGRESS, "half of it may be there");
    world.fault.plan().clear(FaultTarget::Write);
    world.until("the end", |world| told(world, 1) == pair::GOOD);
    assert_eq!((world.read(1, 0), world.read(1, 9)), (0, 0));
    // It is over for good: what is written then stays, whoever serves.
    assert_eq!(world.write(1, 0, 8), pair::GOOD);
    world.volumes[1].set(AccessState::Transitioning, AccessState::Unavailable, 0);
    world.run_for(Duration::from_millis(5));
    world.volumes[1].set(AccessState::Optimized, AccessState::Unavailable, 3);
    world.run_for(Duration::from_millis(50));
    assert_eq!((told(&mut world, 1), world.read(1, 0)), (pair::GOOD, 8));
}

/// The node that gave the unit away lets go of what it had begun.
#[test]
fn whoever_serves_no_more_sanitizes_no_more() {
    let mut world = pair::World::new(StandbyMode::Forward, &[0, 1]);
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    assert_eq!(world.command(0, &BLOCK_ERASE), pair::GOOD);
    world.run_for(Duration::from_millis(5));
    world.serve(1, 2);
    world.run_for(Duration::from_millis(50));
    assert_eq!(told(&mut world, 1), IN_PROGRESS);
    world.fault.plan().clear(FaultTarget::Write);
    world.until("the end", |world| told(world, 1) == pair::GOOD);
    assert_eq!(world.write(1, 0, 8), pair::GOOD);
    world.serve(0, 3);
    world.run_for(Duration::from_millis(50));
    assert_eq!(told(&mut world, 0), pair::GOOD);
    assert_eq!(world.read(0, 0), 8);
}

/// A failure outlives its node, too.
#[test]
fn a_failed_operation_keeps_hosts_out_at_the_next_node() {
    let mut world = pair::World::new(StandbyMode::Forward, &[0, 1]);
    world.fault.plan().arm(FaultTarget::Write, Fault::Error, 1);
    assert_eq!(world.command(0, &BLOCK_ERASE), pair::GOOD);
    world.until("the failure", |world| told(world, 0) == FAILED);
    world.fault.plan().clear(FaultTarget::Write);
    world.serve(1, 2);
    world.run_for(Duration::from_millis(50));
    assert_eq!((told(&mut world, 1), told(&mut world, 0)), (FAILED, FAILED));
    assert_eq!(world.command(1, &BLOCK_ERASE), pair::GOOD);
    world.until("the end", |world| told(world, 1) == pair::GOOD);
}
