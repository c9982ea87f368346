//! Reservations between hosts: who is told, what is aborted, what goes with a session.

mod host;
mod volume;

use std::sync::Arc;

use bdev::fault::{Fault, FaultTarget};
use bdev::{AccessState, NodeSide};
use host::{GOOD, World, attention};
use iscsi::TaskId;
use scsi::status;
use volume::{Kept, Volume};

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const PREEMPT_AND_ABORT: u8 = 5;
const EXCLUSIVE: u8 = 3;

/// Commands about reservations.
trait Reserve {
    fn reserve_out(&mut self, host: usize, action: u8, kind: u8, keys: [u64; 2]) -> TaskId;
    fn must_reserve_out(&mut self, host: usize, action: u8, kind: u8, keys: [u64; 2]);
}

impl Reserve for World {
    fn reserve_out(&mut self, host: usize, action: u8, kind: u8, keys: [u64; 2]) -> TaskId {
        let list = [keys[0].to_be_bytes(), keys[1].to_be_bytes(), [0; 8]].concat();
        self.hosts[host].send(&[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], &list, 0)
    }

    fn must_reserve_out(&mut self, host: usize, action: u8, kind: u8, keys: [u64; 2]) {
        let task = self.reserve_out(host, action, kind, keys);
        assert_eq!(self.end(host, task), (status::GOOD, 0));
    }
}

const CONFLICT: (u8, u16) = (status::RESERVATION_CONFLICT, 0);

#[test]
fn preempt_and_abort_waits_for_what_the_preempted_host_has_under_way() {
    let mut world = World::new(3);
    world.must_reserve_out(0, REGISTER, 0, [0, 1]);
    world.must_reserve_out(1, REGISTER, 0, [0, 2]);
    world.must_reserve_out(0, RESERVE, EXCLUSIVE, [1, 0]);
    let stranger = world.write(2);
    assert_eq!(world.end(2, stranger), CONFLICT);
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let held = world.write(0);
    world.until("the write is under way", |world| world.target.luns()[0].active == 1);
    let preempt = world.reserve_out(1, PREEMPT_AND_ABORT, EXCLUSIVE, [2, 1]);
    for _ in 0..20_000 {
        world.step();
    }
    assert_eq!(world.hosts[1].take(preempt), None, "the write may still land");
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(world.end(1, preempt), GOOD);
    assert_eq!(world.hosts[0].take(held), None, "an aborted command has no status");
    assert_eq!(world.ready(0), attention(0x2a05), "registrations preempted");
    let after = world.write(0);
    assert_eq!(world.end(0, after), CONFLICT);
    let holder = world.write(1);
    assert_eq!(world.end(1, holder), GOOD);
}

#[test]
fn the_others_learn_of_a_release_and_the_older_reservation_goes_with_its_session() {
    let mut world = World::new(3);
    for (host, key) in [(0, 1), (1, 2)] {
        world.must_reserve_out(host, REGISTER, 0, [0, key]);
    }
    let registrants_only = 5;
    world.must_reserve_out(0, RESERVE, registrants_only, [1, 0]);
    world.must_reserve_out(0, 2, registrants_only, [1, 0]);
    assert_eq!((world.ready(1), world.ready(1)), (attention(0x2a04), GOOD), "reservations released");
    assert_eq!(world.ready(2), GOOD, "who is not registered is not told");
    world.must_reserve_out(1, 3, 0, [2, 0]);
    assert_eq!((world.ready(0), world.ready(0)), (attention(0x2a03), GOOD), "reservations preempted");
    // RESERVE(6).
    assert_eq!(world.run(2, &[0x16, 0, 0, 0, 0, 0], &[]), GOOD);
    assert_eq!((world.ready(0), world.ready(2)), (CONFLICT, GOOD));
    world.hosts.pop();
    world.until("the end of the session", |world| world.target.connections().len() == 2);
    assert_eq!(world.ready(0), GOOD);
}

#[test]
fn what_cannot_survive_a_loss_of_power_is_not_promised() {
    let mut world = World::new(1);
    let list = [[0; 8], 1u64.to_be_bytes(), [0, 0, 0, 0, 1, 0, 0, 0]].concat();
    let task = world.hosts[0].send(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list, 0);
    assert_eq!(world.end(0, task), attention(0x2600));
    let report = world.hosts[0].send(&[0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0], &[], 8);
    assert_eq!(world.end(0, report), GOOD);
    assert_eq!(world.hosts[0].data(report)[..4], [0, 8, 0x0c, 0x80]);
}

/// Two nodes share the reservations: the one that answers with a conflict has to be the one that serves, which a read shows.
#[test]
fn a_node_that_does_not_serve_any_more_tells_nobody_of_a_conflict() {
    let kept = Arc::new(Kept::default());
    let mut world = World::with_lun(2, |medium| {
        let volume = Volume::new(medium, kept, NodeSide::First);
        volume.set(AccessState::Optimized, AccessState::NonOptimized, 1);
        volume
    });
    for host in [0, 1] {
        while world.ready(host) != GOOD {}
    }
    world.must_reserve_out(0, REGISTER, 0, [0, 1]);
    world.must_reserve_out(0, RESERVE, EXCLUSIVE, [1, 0]);
    let refused: [fn(&mut World) -> TaskId; 3] = [
        |world| world.write(1),
        |world| world.reserve_out(1, PREEMPT_AND_ABORT, EXCLUSIVE, [2, 1]),
        |world| world.hosts[1].send(&[0x16, 0, 0, 0, 0, 0], &[], 0),
    ];
    for refused in refused {
        world.fault.plan().arm(FaultTarget::Read, Fault::Silence, 1);
        let task = refused(&mut world);
        for _ in 0..2_000 {
            world.step();
        }
        assert_eq!(world.hosts[1].take(task), None, "the node does not know whether it still serves");
        world.fault.plan().clear(FaultTarget::Read);
        assert_eq!(world.end(1, task), CONFLICT);
        world.fault.plan().arm(FaultTarget::Read, Fault::Error, 1);
        let task = refused(&mut world);
        assert_eq!(world.end(1, task), CONFLICT, "a node that finds the block bad serves");
        world.fault.plan().clear(FaultTarget::Read);
    }
}
