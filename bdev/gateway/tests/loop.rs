//! Import against export over simulated links: a bdev, exported, imported, is the same bdev.

mod import;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use bdev::sim::{SimBdev, SimConfig};
use bdev::{
    Bdev, BlockRange, Channel, Completed, Completions, Durability, Geometry, Io, IoError, Link, LinkDown, Op,
    Tag,
};
use engine::Prng;
use gateway::{
    AuthGroup, AuthPolicy, Limits, Map, NodeConfig, PortalGroup, Redirect, Remote, RemoteConfig, Served,
};
use iscsi::Moved;
use iscsi::chap::{Account, Algorithm, Credential, Requirement, Secret};
use iscsi::keys::{DigestPreference, Digests};
use uuid::Uuid;

use import::{HOST, TARGET, World, config, ip};

#[test]
fn an_exported_bdev_imported_is_the_same_bdev() {
    for (seed, digest) in [(1, DigestPreference::Prefer), (2, DigestPreference::Never)] {
        let mut remote = config("10.0.0.1:3260");
        remote.preferences.data_digest = digest;
        remote.preferences.header_digest = digest;
        if digest == DigestPreference::Never {
            // Small segments and bursts: R2Ts and many Data-Ins.
            remote.preferences.max_burst_length = 8192;
            remote.preferences.first_burst_length = 4096;
            remote.preferences.max_recv_data_segment_length = 4096;
        }
        let mut world = World::new(seed, remote, &[HOST]);
        world.up();
        let mut prng = Prng::from_seed(seed);
        let mut model = vec![0u8; 16384 * 512];
        for round in 0..60 {
            let blocks = 1 + prng.below(if round % 10 == 0 { 2048 } else { 64 }) as u32;
            let lba = prng.below(16384 - u64::from(blocks));
            let bytes = lba as usize * 512..(lba as usize + blocks as usize) * 512;
            match prng.below(4) {
                0 => assert_eq!(world.read(lba, blocks).expect("read"), &model[bytes]),
                1 => {
                    let range = BlockRange::new(lba, blocks);
                    world
                        .run(Op::WriteZeroes { range, durability: Durability::Durable })
                        .result
                        .expect("zeroed");
                    model[bytes].fill(0);
                }
                2 => {
                    world.run(Op::Discard { range: BlockRange::new(lba, blocks) }).result.expect("discarded");
                    model[bytes].fill(0);
                }
                _ => {
                    world.write(lba, blocks, round).expect("written");
                    model[bytes].fill(round);
                }
            }
        }
        world.run(Op::Flush).result.expect("flushed");
        assert!(world.medium.snapshot(BlockRange::new(0, 16384)) == model);
        assert_eq!(world.read(16383, 2), Err(IoError::OutOfRange));
        let info = &world.target.luns()[0];
        assert!(info.written_bytes > 0 && info.active == 0, "{info:?}");
    }
}

/// What the peer's leg of a mirror is asked for: a durable write is one with FUA, a flush is SYNCHRONIZE CACHE.
#[test]
fn what_is_to_be_stable_is_stable_at_the_far_end() {
    let geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 16384 };
    let disk = SimBdev::new("s0", Uuid::from_u128(9), geometry, SimConfig::default());
    let lun = disk.clone();
    let mut world = World::of(8, config("10.0.0.1:3260"), &[HOST], |_| lun);
    world.up();
    let after_a_power_cut = |lba: u64| disk.stable_image()[lba as usize * 512];
    let mut write = |lba: u64, byte: u8, durability: Durability| {
        let mut from = world.core.pool().alloc(512).expect("a frame");
        from.fill(byte);
        let op = Op::Write { range: BlockRange::new(lba, 1), from: from.freeze(), durability };
        world.run(op).result.expect("written");
        (disk.peek(lba as usize * 512, 1)[0], after_a_power_cut(lba))
    };
    assert_eq!(write(1, 0x11, Durability::Accepted), (0x11, 0));
    assert_eq!(write(2, 0x22, Durability::Durable), (0x22, 0x22));
    assert_eq!(after_a_power_cut(1), 0, "one write's FUA is not another's");
    world.run(Op::Flush).result.expect("flushed");
    assert_eq!(after_a_power_cut(1), 0x11);
    for (lba, durability, left) in [(1, Durability::Accepted, 0x11), (2, Durability::Durable, 0)] {
        let op = Op::WriteZeroes { range: BlockRange::new(lba, 1), durability };
        world.run(op).result.expect("zeroed");
        assert_eq!((disk.peek(lba as usize * 512, 1)[0], after_a_power_cut(lba)), (0, left));
    }
}

#[test]
fn errors_of_the_medium_cross_the_wire() {
    let mut world = World::new(3, config("10.0.0.1:3260"), &["ANY"]);
    world.up();
    world.fault.plan().arm(FaultTarget::Write, Fault::Error, 1);
    assert_eq!(world.write(5, 1, 1), Err(IoError::Medium { lba: 5 }));
    world.write(5, 1, 1).expect("the fault is spent");
    let key = bdev::FenceKey { node: 0, generation: 3 };
    assert_eq!(world.run(Op::Fence { key }).result, Err(IoError::Unsupported), "this device cannot fence");
}

#[test]
fn an_initiator_that_is_not_listed_is_told_so() {
    let mut world = World::new(4, config("10.0.0.1:3260"), &["iqn.other", "!ANY"]);
    let refused = |world: &World| match world.channel.link(world.now) {
        Link::Down(LinkDown::Refused(why)) => why.contains("may not use"),
        _ => false,
    };
    assert!(world.run_until(Duration::from_secs(1), refused), "{:?}", world.channel.link(world.now));
}

#[test]
fn a_reset_connection_gives_everything_back_and_comes_up_again() {
    let mut world = World::new(5, config("10.0.0.1:3260"), &[HOST]);
    world.up();
    world.fault.plan().set_latency(FaultTarget::Write, Duration::from_millis(20));
    for tag in 0..8 {
        let mut buf = world.core.pool().alloc(512).expect("a frame");
        buf.fill(9);
        let range = BlockRange::new(tag, 1);
        world.submit(Op::Write { range, from: buf.freeze(), durability: Durability::Accepted }, tag);
    }
    for _ in 0..50 {
        world.step();
    }
    world.network.reset(ip(1), ip(2));
    assert!(
        world.run_until(Duration::from_millis(50), |world| world.done.len() == 8),
        "{}",
        world.done.len()
    );
    assert!(world.done.drain(..).all(|completed| completed.result == Err(IoError::LinkDown)));
    world.up();
    // The old session's writes had ended before the new one was let in: nothing lands late.
    world.fault.plan().set_latency(FaultTarget::Write, Duration::ZERO);
    world.write(0, 8, 1).expect("written");
    world.run_until(Duration::from_millis(100), |_| false);
    assert!(world.medium.snapshot(BlockRange::new(0, 8)).iter().all(|byte| *byte == 1));
    assert_eq!(world.target.connections().len(), 1);
}

#[test]
fn a_silent_peer_is_noticed_within_the_keep_alive() {
    let mut world = World::new(6, config("10.0.0.1:3260"), &[HOST]);
    world.up();
    world.network.partition_one_way(ip(1), ip(2));
    let into = world.core.pool().alloc(512).expect("a frame");
    world.submit(Op::Read { range: BlockRange::new(0, 1), into }, 3);
    let before = world.now;
    assert!(world.run_until(Duration::from_secs(3), |world| !world.done.is_empty()));
    assert!(world.now - before <= Duration::from_millis(1300), "{:?}", world.now - before);
    drop(world.done.pop_front());
    assert!(!world.channel.link(world.now).is_up());
    world.network.heal(ip(1), ip(2));
    world.up();
}

#[test]
fn a_deadline_is_kept_whatever_the_medium_does() {
    let mut world = World::new(7, config("10.0.0.1:3260"), &[HOST]);
    world.up();
    world.fault.plan().arm(FaultTarget::Read, Fault::Silence, 1);
    let into = world.core.pool().alloc(512).expect("a frame");
    let deadline = world.now + Duration::from_millis(300);
    let now = world.now;
    let io = Io::new(Op::Read { range: BlockRange::new(0, 1), into }, Tag(1), now).with_deadline(deadline);
    world.channel.submit(io, now).expect("room");
    assert!(world.run_until(Duration::from_millis(400), |world| !world.done.is_empty()));
    assert_eq!(world.done.pop_front().expect("one").result, Err(IoError::TimedOut));
    world.fault.plan().clear(FaultTarget::Read);
    world.up();
    world.read(0, 1).expect("served again");
}

#[test]
fn the_session_of_an_initiator_that_died_ends_by_itself() {
    let mut world = World::new(8, config("10.0.0.1:3260"), &[HOST]);
    world.up();
    assert_eq!(world.target.connections().len(), 1);
    world.network.partition(ip(1), ip(2));
    let (mut now, until) = (world.now, world.now + Limits::default().silence + Duration::from_secs(1));
    while now < until {
        now += Duration::from_millis(100);
        let _ = world.network.advance(now);
        let _ = world.target.poll(now);
    }
    assert_eq!(world.target.connections(), []);
}

fn account(initiator: &str, target: &str) -> Account {
    let credential = |name: &str, secret: &str| Credential {
        name: name.to_owned(),
        secret: Secret::new(secret.as_bytes().to_vec()).expect("a secret"),
    };
    Account::new(credential(HOST, initiator), Some(credential(TARGET, target))).expect("two secrets")
}

#[test]
fn both_ends_prove_themselves_before_anything_else() {
    let secrets = ["the secret of the host", "the secret of the target"];
    for (own, far, up) in [
        (secrets[0], secrets[1], true),
        ("a wrong secret", secrets[1], false),
        (secrets[0], "a wrong one", false),
    ] {
        let mut remote = config("10.0.0.1:3260");
        remote.account = Some(account(own, far));
        let mut world = World::new(9, remote, &[HOST]);
        world.target.add_auth_group(1, vec![account(secrets[0], secrets[1]).into()]).expect("new");
        let policy = AuthPolicy { requirement: Requirement::Mutual, group: 1 };
        world.target.set_node_auth(TARGET, policy).expect("both are there");
        if up {
            world.up();
            world.write(0, 8, 1).expect("written");
        } else {
            let refused =
                |world: &World| matches!(world.channel.link(world.now), Link::Down(LinkDown::Refused(_)));
            assert!(world.run_until(Duration::from_secs(2), refused));
        }
        world.target.remove_auth_group(1).expect_err("in use");
    }
}

#[test]
fn a_group_takes_the_hashes_that_it_names() {
    for (offered, taken, up) in [
        (&Algorithm::ALL[..], &[Algorithm::Sha256][..], true),
        (&[Algorithm::Md5, Algorithm::Sha256], &[Algorithm::Sha3, Algorithm::Sha256], true),
        (&[Algorithm::Md5], &[Algorithm::Sha256], false),
        (&[Algorithm::Md5, Algorithm::Sha1], &[Algorithm::Sha3, Algorithm::Sha256], false),
    ] {
        let mut remote = config("10.0.0.1:3260");
        remote.account = Some(account("the secret of the host", "the secret of the target"));
        remote.algorithms = offered.to_vec();
        let mut world = World::new(13, remote, &[HOST]);
        let users = vec![account("the secret of the host", "the secret of the target").into()];
        world.target.add_auth_group(1, AuthGroup::new(users, taken)).expect("new");
        // Whoever comes to a group later takes the same.
        world.target.add_account(1, other_account().into()).expect("new");
        let policy = AuthPolicy { requirement: Requirement::Mutual, group: 1 };
        world.target.set_node_auth(TARGET, policy).expect("both are there");
        let link = |world: &World| world.channel.link(world.now);
        match up {
            true => world.up(),
            false => assert!(world.run_until(Duration::from_secs(2), |world| {
                matches!(link(world), Link::Down(LinkDown::Refused(_)))
            })),
        }
    }
}

fn other_account() -> Account {
    let secret = Secret::new(b"of somebody else".to_vec()).expect("a secret");
    Account::new(Credential { name: "other".into(), secret }, None).expect("one secret")
}

/// Each of the target's four words with each of the import's.
#[test]
fn a_targets_digests_are_as_its_administrator_says() {
    use DigestPreference::{Avoid, Never, Prefer, Require};
    for (own, far) in [Prefer, Require, Avoid, Never]
        .into_iter()
        .flat_map(|own| [Prefer, Require, Avoid, Never].map(|far| (own, far)))
    {
        let mut remote = config("10.0.0.1:3260");
        (remote.preferences.header_digest, remote.preferences.data_digest) = (far, far);
        let mut world = World::new(14, remote, &[HOST]);
        let node = world.target.nodes().next().expect("one");
        world.target.remove_node(TARGET).expect("there");
        let digests = Digests { header: own, data: own };
        world.target.add_node(NodeConfig { digests, ..node }).expect("new");
        let up = |world: &World| world.channel.link(world.now).is_up();
        match (own, far) {
            (Require, Never) | (Never, Require) => {
                assert!(!world.run_until(Duration::from_millis(500), up), "{own:?} {far:?}");
            }
            _ => {
                world.up();
                world.write(0, 8, 1).expect("written");
            }
        }
    }
}

#[test]
fn nobody_ends_anothers_session_without_its_secret() {
    let mut remote = config("10.0.0.1:3260");
    remote.account = Some(account("the secret of the host", "the secret of the target"));
    let mut world = World::new(10, remote, &[HOST]);
    world
        .target
        .add_auth_group(1, vec![account("the secret of the host", "the secret of the target").into()])
        .expect("new");
    let policy = AuthPolicy { requirement: Requirement::Required, group: 1 };
    world.target.set_node_auth(TARGET, policy).expect("both are there");
    world.up();
    let before = world.target.connections();
    // The same names and ISID, and no secret.
    let thief = Remote::new("r1", Uuid::nil(), config("10.0.0.1:3260"));
    let mut thief = thief.open_over(&world.core, Box::new(world.network.host(ip(3))));
    let mut done = Completions::new();
    for _ in 0..20_000 {
        world.step();
        let _ = thief.poll(world.now, &mut done);
    }
    assert!(matches!(thief.link(world.now), Link::Down(_)));
    assert!(world.channel.link(world.now).is_up());
    assert!(world.target.connections().contains(&before[0]));
}

#[test]
fn a_redirection_is_followed() {
    let mut world = World::new(11, config("10.0.0.1:3260"), &[HOST]);
    let second: core::net::SocketAddr = "10.0.0.1:3261".parse().expect("address");
    world.target.add_portal_group(&PortalGroup::new(2, [second])).expect("listening");
    world.target.add_map(TARGET, Map::new(2, 1)).expect("new");
    let to = |address| Some(Redirect { address, how: Moved::Temporarily });
    world.target.set_redirect(TARGET, 1, to(second)).expect("shown");
    world.up();
    world.write(0, 8, 3).expect("written");
    assert_eq!(world.target.connections()[0].target_address, Some(second));
    // In a circle: given up for a while, and up again when the circle is broken.
    world.target.set_redirect(TARGET, 2, to("10.0.0.1:3260".parse().expect("address"))).expect("shown");
    world.network.reset(ip(1), ip(2));
    let refused = |world: &World| match world.channel.link(world.now) {
        Link::Down(LinkDown::Refused(why)) => why.contains("too many redirections"),
        _ => false,
    };
    assert!(world.run_until(Duration::from_secs(2), refused), "{:?}", world.channel.link(world.now));
    world.target.set_redirect(TARGET, 1, None).expect("shown");
    world.up();
    world.read(0, 8).expect("read");
}

#[test]
fn damaged_data_are_repaired_without_a_new_session() {
    let mut remote = config("10.0.0.1:3260");
    remote.preferences.error_recovery_level = 1;
    remote.preferences.data_digest = DigestPreference::Require;
    remote.preferences.max_recv_data_segment_length = 64 << 10;
    let mut world = World::new(12, remote, &[HOST]);
    let mut prng = Prng::from_seed(12);
    let mut ended = 0;
    world.up();
    for round in 0..60u8 {
        let range = BlockRange::new(prng.below(8192), 2048);
        let mut buf = world.core.pool().alloc(2048 * 512).expect("a frame");
        buf.fill(round);
        world.submit(Op::Write { range, from: buf.freeze(), durability: Durability::Accepted }, 1);
        let written = damage(&mut world, (ip(2), ip(1)));
        let into = world.core.pool().alloc(2048 * 512).expect("a frame");
        world.submit(Op::Read { range, into }, 2);
        let read = damage(&mut world, (ip(1), ip(2)));
        match (written.result, read.result, read.op) {
            (Ok(()), Ok(()), Op::Read { into, .. }) => {
                assert!(into.iter().all(|byte| *byte == round), "round {round}");
            }
            // A header was hit: there is no telling where the next one begins.
            _ => {
                ended += 1;
                world.up();
            }
        }
    }
    assert!(ended <= 6, "{ended} of 120 repairs failed");
}

/// Damages a piece in the middle of what is under way, and waits for its end.
fn damage(world: &mut World, (from, to): (core::net::IpAddr, core::net::IpAddr)) -> Completed {
    for _ in 0..12 {
        world.step();
    }
    world.network.corrupt_next(from, to);
    assert!(world.run_until(Duration::from_secs(2), |world| !world.done.is_empty()), "no answer");
    world.done.pop_front().expect("one")
}

/// An import of its own session, and a channel to it.
fn served(world: &World) -> (Served, Box<dyn Channel>) {
    let config = RemoteConfig { isid: Some([0x80, 0, 0, 0, 0, 9]), ..config("10.0.0.1:3260") };
    let remote = Remote::new("r1", Uuid::nil(), config);
    let (bdev, import) = Served::over(&remote, Box::new(world.network.host(ip(3))), &world.core);
    (import, bdev.open(&world.core).expect("a ring"))
}

#[test]
fn an_import_that_is_deleted_logs_out_behind_what_is_under_way() {
    let mut world = World::new(9, config("10.0.0.1:3260"), &["ANY"]);
    let (mut import, mut users) = served(&world);
    let mut done = Completions::new();
    let mut step = |world: &mut World, import: &mut Served, users: &mut Box<dyn Channel>| {
        world.step();
        let _ = import.poll(world.now);
        let _ = users.poll(world.now, &mut done);
        done.pop_front()
    };
    step(&mut world, &mut import, &mut users);
    while !users.link(world.now).is_up() {
        step(&mut world, &mut import, &mut users);
    }
    world.fault.plan().set_latency(FaultTarget::Write, Duration::from_millis(20));
    let from = world.core.pool().alloc(512).expect("a frame").freeze();
    let write = Op::Write { range: BlockRange::new(0, 1), from, durability: Durability::Accepted };
    users.submit(Io::new(write, Tag(1), world.now), world.now).expect("room");
    for _ in 0..100 {
        let early = step(&mut world, &mut import, &mut users);
        assert!(early.is_none(), "{early:?}");
    }
    import.leave(world.now);
    import.leave(world.now);
    let mut written = None;
    for _ in 0..5000 {
        written = written.or(step(&mut world, &mut import, &mut users));
    }
    assert_eq!(written.expect("answered").result, Ok(()));
    assert!(import.is_gone() && import.next_deadline().is_none());
    // What ends the link is the answer to a logout, not a stream that breaks off.
    assert_eq!(users.link(world.now), Link::Down(LinkDown::Lost("logged out".to_owned())));
    assert!(
        world
            .target
            .connections()
            .iter()
            .all(|connection| connection.initiator_address.is_some_and(|from| from.ip() != ip(3)))
    );
}

#[test]
fn nobody_is_waited_for_who_does_not_answer_a_logout() {
    let mut world = World::new(10, config("10.0.0.1:3260"), &["ANY"]);
    let (mut early, _users) = served(&world);
    early.leave(world.now);
    assert!(early.is_gone(), "it was never in");
    let (mut import, users) = served(&world);
    let _ = import.poll(world.now);
    while !users.link(world.now).is_up() {
        world.step();
        let _ = import.poll(world.now);
    }
    world.network.partition_one_way(ip(1), ip(3));
    import.leave(world.now);
    let before = world.now;
    while !import.is_gone() {
        world.step();
        let _ = import.poll(world.now);
    }
    assert!(world.now - before <= Duration::from_millis(1100), "{:?}", world.now - before);
}

/// One initiator, two LUNs of one target: neither session is taken for the other's successor.
#[test]
fn two_imports_of_one_target_leave_each_other_alone() {
    let mut world = World::new(20, config("10.0.0.1:3260"), &[HOST]);
    let second = world.medium.clone();
    world
        .target
        .add_lun(TARGET, 1, gateway::LunConfig::new(second, gateway::LunMode::SyncCached))
        .expect("new");
    let other = Remote::new("r1", Uuid::nil(), RemoteConfig { lun: 1, ..config("10.0.0.1:3260") });
    let mut other = other.open_over(&world.core, Box::new(world.network.host(ip(2))));
    let mut done = Completions::new();
    world.up();
    for _ in 0..100_000 {
        let _ = other.poll(world.now, &mut done);
        world.step();
    }
    assert!(other.link(world.now).is_up() && world.channel.link(world.now).is_up());
    let names: Vec<u16> = world.target.connections().iter().map(|one| one.tsih).collect();
    for _ in 0..100_000 {
        let _ = other.poll(world.now, &mut done);
        world.step();
    }
    let after: Vec<u16> = world.target.connections().iter().map(|one| one.tsih).collect();
    assert_eq!((names.len(), &after), (2, &names), "the same two sessions");
    world.write(0, 8, 1).expect("written");
}

/// The target sees a logout, and not a connection that breaks off; what was under way comes back meanwhile.
#[test]
fn a_logout_that_the_target_asks_for_is_sent() {
    let mut world = World::new(21, config("10.0.0.1:3260"), &[HOST]);
    world.up();
    world.fault.plan().set_latency(FaultTarget::Write, Duration::from_millis(20));
    let from = world.core.pool().alloc(512).expect("a frame").freeze();
    let range = BlockRange::new(0, 1);
    world.submit(Op::Write { range, from, durability: Durability::Accepted }, 1);
    world.run_until(Duration::from_millis(1), |_| false);
    world.target.request_logouts(TARGET, None).expect("there");
    assert!(world.run_until(Duration::from_millis(5), |world| world.done.len() == 1));
    assert_eq!(world.done.pop_front().expect("one").result, Err(IoError::LinkDown));
    assert!(!world.channel.link(world.now).is_up());
    // The logout waits for the write, and the next session for the logout.
    assert!(world.run_until(Duration::from_millis(100), |world| world.target.connections().is_empty()));
    let departed = world.target.departures();
    assert_eq!(departed, (Vec::new(), 0), "logged out in order");
    world.up();
    world.write(0, 8, 1).expect("written");
    // One that never answers a logout is not waited for.
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let from = world.core.pool().alloc(512).expect("a frame").freeze();
    world.submit(Op::Write { range, from, durability: Durability::Accepted }, 2);
    world.run_until(Duration::from_millis(1), |_| false);
    let before = world.now;
    world.target.request_logouts(TARGET, None).expect("there");
    assert!(world.run_until(Duration::from_millis(5), |world| world.done.len() == 1));
    // The next one waits at the target for what the medium still has.
    let comes = |world: &World| world.target.connections().len() == 2;
    assert!(world.run_until(Duration::from_millis(1200), comes), "{:?}", world.target.connections());
    assert!(world.now - before >= Duration::from_millis(950));
    world.fault.plan().clear(FaultTarget::Write);
    world.up();
}
