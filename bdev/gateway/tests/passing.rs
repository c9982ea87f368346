//! What goes wrong between a node that stands by and the one that serves: copies of what does not show, resets without a way, records
//! that cannot be read.

mod host;
mod pair;
mod volume;

use std::time::Duration;

use bdev::StateHealth;
use bdev::fault::{Fault, FaultTarget};
use gateway::{Limits, StandbyMode, TargetConfig};
use host::Host;
use net::sim::Halt;
use pair::{CONFLICT, EXCLUSIVE, GOOD, MASKED, TARGET, World, attention, node_ip};

/// Whom a record keeps out that cannot be read is unknown: everybody stays out until the operator has decided.
fn keeps_everybody_out(spoil: fn(&World)) {
    let mut world = World::new(StandbyMode::Forward, &[0, 1, 1]);
    assert_eq!(
        (world.reserve_out(0, 0, 0, [0, 1]), world.reserve_out(0, 1, EXCLUSIVE, [1, 0])),
        (GOOD, GOOD)
    );
    assert_eq!(world.targets[1].as_mut().expect("lives").unreadable(), Vec::<String>::new());
    // And the node that has it gives the array away.
    spoil(&world);
    world.serve(1, 2);
    world.run_for(Duration::from_millis(10));
    assert_eq!((world.ready(1), world.ready(2)), (attention(0x2a06), attention(0x2a06)));
    for _ in 0..2 {
        assert_eq!((world.write(1, 1, 1), world.read_end(2)), (attention(0x0403), attention(0x0403)));
        world.run_for(Duration::from_millis(100));
    }
    let target = world.targets[1].as_mut().expect("lives");
    assert_eq!(target.unreadable(), ["f0"], "told once");
    target.give_up_unit_state(TARGET, 7).expect_err("no such LUN");
    target.give_up_unit_state(TARGET, 1).expect_err("that can be read");
    target.give_up_unit_state(TARGET, 0).expect("nobody can read it");
    world.run_for(Duration::from_millis(10));
    let told = |world: &mut World, host| (0..4).map(|_| world.ready(host)).find(|end| *end == GOOD);
    assert_eq!((told(&mut world, 1), told(&mut world, 2)), (Some(GOOD), Some(GOOD)));
    assert_eq!(world.keys(1), Vec::<u64>::new());
    assert_eq!((world.write(1, 1, 1), world.reserve_out(1, 0, 0, [0, 1])), (GOOD, GOOD));
    world.targets[1].as_mut().expect("lives").give_up_unit_state(TARGET, 0).expect_err("once");
}

#[test]
fn a_record_of_a_newer_program_keeps_everybody_out() {
    keeps_everybody_out(|world| {
        *world.kept.state.lock().expect("nobody panicked") = vec![2, 0, 9, 9, 9];
    });
}

#[test]
fn a_record_whose_copies_are_damaged_keeps_everybody_out() {
    keeps_everybody_out(|world| {
        world.kept.state.lock().expect("nobody panicked").clear();
        *world.kept.health.lock().expect("nobody panicked") = StateHealth::Damaged;
    });
}

/// A leg comes back that has it: it is in force, and there is nothing to give up, even where nobody has looked yet.
#[test]
fn a_record_that_can_be_read_again_is_in_force() {
    comes_back(|world| {
        world.run_for(Duration::from_millis(1100));
        world.targets[1].as_mut().expect("lives").give_up_unit_state(TARGET, 0).expect_err("it can be read");
    });
    comes_back(|world| {
        let target = world.targets[1].as_mut().expect("lives");
        target.give_up_unit_state(TARGET, 0).expect("nobody has looked yet");
        world.run_for(Duration::from_millis(10));
    });
}

fn comes_back(then: fn(&mut World)) {
    let mut world = World::new(StandbyMode::Forward, &[0, 1, 1]);
    assert_eq!(world.reserve_out(0, 0, 0, [0, 1]), GOOD);
    let state = world.kept.state.lock().expect("nobody panicked").clone();
    world.kept.state.lock().expect("nobody panicked").clear();
    *world.kept.health.lock().expect("nobody panicked") = StateHealth::Damaged;
    world.serve(1, 2);
    world.run_for(Duration::from_millis(10));
    assert_eq!((world.ready(1), world.write(1, 1, 1)), (attention(0x2a06), attention(0x0403)));
    *world.kept.state.lock().expect("nobody panicked") = state;
    *world.kept.health.lock().expect("nobody panicked") = StateHealth::Whole;
    then(&mut world);
    assert_eq!((0..4).map(|_| world.ready(1)).find(|end| *end == GOOD), Some(GOOD));
    assert_eq!(world.keys(1), [1]);
}

/// The NAA designator of a LUN (SPC-4 section 7.7.3.6.5).
fn naa(world: &mut World, host: usize, lun: u16) -> [u8; 8] {
    let task = world.hosts[host].send_to(lun, &[0x12, 1, 0x83, 0, 255, 0], &[], 255);
    world.until("the page", |world| world.hosts[host].take(task).is_some());
    world.hosts[host].data(task)[8..16].try_into().expect("eight bytes")
}

/// An EXTENDED COPY(LID1) of one block between two LUNs of the target.
fn copy_list(from: [u8; 8], to: [u8; 8], lba: u64) -> Vec<u8> {
    let cscd = |name: [u8; 8]| [&[0xe4, 0, 0, 0, 1, 3, 0, 8][..], &name, &[0; 16]].concat();
    let segment =
        [&[2, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 1][..], &0u64.to_be_bytes(), &lba.to_be_bytes()].concat();
    let header = vec![9, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
    [header, cscd(from), cscd(to), segment].concat()
}

/// What a host may see is known to the node that let it in, and holds at the one that serves.
#[test]
fn a_copy_through_the_other_node_is_between_luns_that_show() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    let written = world.hosts[0].send_to(1, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[0x5e; 512], 0);
    assert_eq!((world.end(0, written), world.write(0, 9, 7)), (GOOD, GOOD));
    let (shown, hidden) = (naa(&mut world, 0, 0), naa(&mut world, 0, 1));
    world.add_host_named(1, MASKED);
    world.add_host_named(0, MASKED);
    world.until("logins", |world| world.hosts.iter().all(Host::is_in));
    let copy = |world: &mut World, host: usize, from, to, lba| {
        let list = copy_list(from, to, lba);
        let mut cdb = [0u8; 16];
        (cdb[0], cdb[13]) = (0x83, u8::try_from(list.len()).expect("short"));
        let task = world.hosts[host].send(&cdb, &list, 0);
        world.end(host, task)
    };
    for host in [2, 3] {
        assert_ne!(copy(&mut world, host, hidden, shown, 9), GOOD, "host {host}");
        assert_ne!(copy(&mut world, host, shown, hidden, 9), GOOD, "host {host}");
        assert_eq!(world.read(host, 9), 7);
        assert_eq!(copy(&mut world, host, shown, shown, 10), GOOD, "host {host}");
    }
    assert_eq!(copy(&mut world, 1, hidden, shown, 9), GOOD, "who sees both");
    assert_eq!(world.read(1, 9), 0x5e);
}

/// The answer to a management request of a host.
fn managed(world: &mut World, host: usize, function: u8) -> u8 {
    let request = world.hosts[host].manage(function, 0, None);
    let mut answer = None;
    world.until("an answer", |world| {
        answer = world.hosts[host].take_managed(request);
        answer.is_some()
    });
    answer.expect("waited for")
}

/// A host whose first word is a reset has no way to the other node yet: it is waited for.
#[test]
fn a_reset_that_comes_first_reaches_the_node_that_serves() {
    for (function, told) in [(5, attention(0x2903)), (6, attention(0x2903)), (4, attention(0x2f00))] {
        let mut world = World::new(StandbyMode::Forward, &[0, 1]);
        assert_eq!(world.ready(0), GOOD);
        world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
        let held = world.send_write(0, 1, 1);
        world.until("the write is under way", |world| {
            world.targets[0].as_ref().expect("lives").luns()[0].active == 1
        });
        let reset = world.hosts[1].manage(function, 0, None);
        world.run_for(Duration::from_millis(300));
        assert_eq!(world.hosts[1].take_managed(reset), None, "{function}: the write may still land");
        world.fault.plan().clear(FaultTarget::Write);
        world.until("the reset", |world| world.hosts[1].take_managed(reset) == Some(0));
        assert_eq!(world.hosts[0].take(held), None, "{function}");
        assert_eq!((world.ready(0), world.ready(0)), (told, GOOD), "{function}");
    }
}

/// Never "complete" for what nobody has done.
#[test]
fn a_reset_that_nobody_can_carry_out_is_rejected_in_bounded_time() {
    let mut world = World::new(StandbyMode::Forward, &[1]);
    world.network.halt(node_ip(0), Halt::PowerOff);
    world.targets[0] = None;
    let began = world.now;
    assert_eq!((managed(&mut world, 0, 5), managed(&mut world, 0, 6)), (255, 255));
    assert!(world.now - began < Duration::from_secs(20));
    // Whoever serves by then carries it out.
    let reset = world.hosts[0].manage(5, 0, None);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.hosts[0].take_managed(reset), None);
    world.serve(1, 2);
    world.until("the reset", |world| world.hosts[0].take_managed(reset) == Some(0));
    let mut refusing = World::new(StandbyMode::Refuse, &[1]);
    assert_eq!(managed(&mut refusing, 0, 5), 255);
}

/// I_T NEXUS RESET and QUERY ASYNCHRONOUS EVENT are about the nexus, which is at both nodes.
#[test]
fn what_is_asked_about_the_nexus_is_asked_of_the_node_that_serves() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    assert_eq!((world.ready(0), world.ready(1)), (GOOD, GOOD));
    assert_eq!(managed(&mut world, 1, 12), 0, "nothing waits");
    assert_eq!(managed(&mut world, 0, 5), 0);
    assert_eq!(managed(&mut world, 1, 12), 7, "the reset waits to be told there");
    assert_eq!((world.ready(1), managed(&mut world, 1, 12)), (attention(0x2903), 0));
    assert_eq!(world.ready(0), attention(0x2903));
    // The older reservation is the nexus's, and goes with it.
    assert_eq!(world.command(1, &[0x16, 0, 0, 0, 0, 0]), GOOD);
    assert_eq!(world.write(0, 1, 1), CONFLICT);
    assert_eq!(managed(&mut world, 1, 11), 0);
    assert_eq!(world.write(0, 1, 1), GOOD);
}

/// The node that serves says what is wrong with the length of a command's data, after what keeps the host out altogether.
#[test]
fn a_reservation_comes_before_a_length_that_is_wrong() {
    let commands: [(&[u8], usize, u16); 5] = [
        (&[0x41, 8, 0, 0, 0, 0, 0, 0, 1, 0], 0, 0x2400),
        (&[0x93, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 1024, 0x2400),
        (&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 512, 0x2400),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], 8, 0x1a00),
        (&[0x15, 0x10, 0, 0, 16, 0], 0, 0x1a00),
    ];
    let mut world = World::new(StandbyMode::Forward, &[0, 1, 0]);
    let mut each = |reserved: Option<(u8, u16)>| {
        if reserved.is_some() {
            assert_eq!(world.reserve_out(2, 0, 0, [0, 3]), GOOD);
            assert_eq!(world.reserve_out(2, 1, EXCLUSIVE, [3, 0]), GOOD);
        }
        for (host, (cdb, len, code)) in [0, 1].into_iter().flat_map(|host| commands.map(|one| (host, one))) {
            let task = world.hosts[host].send(cdb, &vec![0; len], 0);
            let expected = reserved.unwrap_or(attention(code));
            assert_eq!(world.end(host, task), expected, "host {host}: {cdb:02x?} with {len} bytes");
        }
    };
    each(None);
    each(Some(CONFLICT));
}

/// Connections of hosts, however many, and logins, however fast, keep the peer from nothing.
#[test]
fn the_peer_comes_in_where_there_is_no_place_for_hosts() {
    let mut world = World::new(StandbyMode::Forward, &[0, 1]);
    assert_eq!(world.write(1, 9, 7), GOOD);
    let serving = world.targets[0].as_mut().expect("lives");
    let limits = Limits { connections: 1, logins: 1, login_burst: 0, ..Limits::default() };
    serving.set_config(TargetConfig { limits, ..serving.config() });
    world.network.reset(node_ip(0), node_ip(1));
    assert_eq!(world.write(1, 9, 8), attention(0x2907), "the way was lost");
    assert_eq!((world.write(1, 9, 8), world.read(0, 9)), (GOOD, 8));
    world.add_host(0);
    world.run_for(Duration::from_millis(100));
    assert!(!world.hosts[2].is_in(), "a host has to wait");
}
