//! What a Windows failover cluster asks of a shared disk: each node registers, one holds a reservation that admits registrants, and
//! the others challenge it. Its nodes' paths lead to different nodes of a pair, and the pair changes hands meanwhile.

use tests::host::{CONFLICT, GOOD, Host, Outcome, ReserveOut, check};
use tests::pair::{Pair, gemel, must};
use tests::registrants::{
    ALL_TG_PT, APTPL, Destination, Registrant, SPEC_I_PT, UNREG, all_ports, full_status, own_port, register,
    register_and_move,
};

/// Write Exclusive, Registrants Only (SPC-4 section 6.13.3.4): what a cluster holds its disks with.
const REGISTRANTS_ONLY: u8 = 5;
const REGISTRATIONS_PREEMPTED: Outcome = check(0x2a05);
const RESERVATIONS_RELEASED: Outcome = check(0x2a04);
/// INVALID FIELD IN PARAMETER LIST.
const INVALID_PARAMETER: Outcome = check(0x2600);
/// Write Exclusive: the holder alone writes.
const WRITE_EXCLUSIVE: u8 = 1;
/// Write Exclusive, All Registrants.
const ALL_REGISTRANTS: u8 = 7;
const N1: &str = "iqn.1991-05.com.microsoft:n1";
const N2: &str = "iqn.1991-05.com.microsoft:n2";
const N3: &str = "iqn.1991-05.com.microsoft:n3";

/// A session of a cluster's node with a node of the pair.
fn connect(pair: &Pair, node: usize, name: &str) -> Host {
    let mut host = Host::login(&pair.urls[node], name);
    host.attentions();
    host
}

/// PERSISTENT RESERVE OUT with the key of the one who asks, and the key that it is about.
fn out(host: &mut Host, action: ReserveOut, keys: [u64; 2]) -> Outcome {
    host.reserve_out(action, REGISTRANTS_ONLY, keys[0], keys[1])
}

/// READ KEYS, in order.
fn keys(host: &mut Host) -> Vec<u64> {
    let (_, mut keys) = host.keys();
    keys.sort_unstable();
    keys
}

#[test]
fn a_cluster_of_two_validates_a_disk_and_moves_it_about() {
    let pair = Pair::start();
    let (mut n1, mut n2, mut stranger) =
        (connect(&pair, 0, N1), connect(&pair, 1, N2), connect(&pair, 0, N3));

    // Validation: registrations, a reservation, and what it keeps out.
    assert_eq!(out(&mut n1, ReserveOut::Reserve, [1, 0]), CONFLICT, "who is not registered cannot reserve");
    assert_eq!(out(&mut n1, ReserveOut::RegisterAndIgnore, [0, 0xa1]), GOOD);
    assert_eq!(out(&mut n2, ReserveOut::RegisterAndIgnore, [0, 0xb2]), GOOD);
    assert_eq!((keys(&mut n1), keys(&mut n2)), (vec![0xa1, 0xb2], vec![0xa1, 0xb2]));
    assert_eq!(out(&mut n1, ReserveOut::Reserve, [0xa1, 0]), GOOD);
    assert_eq!(n2.reservation(), Some((0xa1, REGISTRANTS_ONLY)));
    assert_eq!(out(&mut n2, ReserveOut::Reserve, [0xb2, 0]), CONFLICT);
    assert_eq!(out(&mut n2, ReserveOut::Register, [0xbad, 0xb3]), CONFLICT, "a key that is not its own");
    assert_eq!((n1.write(1, 0x51), n2.write(2, 0x52)), (GOOD, GOOD));
    assert_eq!((stranger.write(3, 0x53), stranger.read(1)), (CONFLICT, Ok(0x51)));

    // The array changes hands: the same reservation, through the same paths.
    must(gemel(pair.node(0), &["switchover", "vol0"]));
    pair.wait(1, "the switchover", |status| status["role"] == "holder");
    for host in [&mut n1, &mut n2, &mut stranger] {
        assert_eq!(host.attentions(), [0x2904, 0x2a06]);
    }
    assert_eq!(n1.reservation(), Some((0xa1, REGISTRANTS_ONLY)));
    assert_eq!((n1.write(1, 0x51), n2.write(2, 0x52), stranger.write(3, 0x53)), (GOOD, GOOD, CONFLICT));

    // The second node challenges, and takes the disk from the first, which learns of it.
    assert_eq!(out(&mut n2, ReserveOut::Preempt, [0xb2, 0xa1]), GOOD);
    assert_eq!((n2.reservation(), keys(&mut n2)), (Some((0xb2, REGISTRANTS_ONLY)), vec![0xb2]));
    assert_eq!((n1.ready(), n1.write(1, 0x51)), (REGISTRATIONS_PREEMPTED, CONFLICT));

    // The second node dies; what it holds stays, until the first one takes it back.
    drop(n2);
    assert_eq!(out(&mut n1, ReserveOut::RegisterAndIgnore, [0, 0xa4]), GOOD);
    assert_eq!(out(&mut n1, ReserveOut::Reserve, [0xa4, 0]), CONFLICT);
    assert_eq!(out(&mut n1, ReserveOut::Preempt, [0xa4, 0xb2]), GOOD);
    assert_eq!((n1.reservation(), n1.write(1, 0x51)), (Some((0xa4, REGISTRANTS_ONLY)), GOOD));

    // It comes back, and the disk is given to it in order.
    let mut n2 = connect(&pair, 1, N2);
    assert_eq!(n2.write(2, 0x52), CONFLICT);
    assert_eq!(out(&mut n2, ReserveOut::RegisterAndIgnore, [0, 0xb5]), GOOD);
    assert_eq!(out(&mut n1, ReserveOut::Release, [0xa4, 0]), GOOD);
    assert_eq!((n2.ready(), n2.reservation()), (RESERVATIONS_RELEASED, None));
    assert_eq!(
        (out(&mut n2, ReserveOut::Reserve, [0xb5, 0]), out(&mut n2, ReserveOut::Clear, [0xb5, 0])),
        (GOOD, GOOD)
    );
    assert_eq!((keys(&mut stranger), stranger.write(3, 0x53)), (vec![], GOOD));
}

/// How both nodes end.
#[derive(Clone, Copy, Debug)]
enum End {
    InOrder,
    Killed,
}

/// Both nodes end so, and start again.
fn come_back(pair: &mut Pair, end: End) {
    match end {
        End::InOrder => pair.stop_both(0),
        End::Killed => (0..2).for_each(|node| pair.kill(node)),
    }
    (0..2).for_each(|node| pair.restart(node));
    pair.wait_in_sync(0);
}

/// APTPL: what is registered and reserved is there again when both nodes have ended, in order or not.
#[test]
fn what_a_cluster_holds_outlives_the_nodes() {
    let mut pair = Pair::start();
    let mut n1 = connect(&pair, 0, N1);
    assert_eq!(out(&mut n1, ReserveOut::RegisterAndIgnore, [0, 0xa1]), GOOD);
    assert_eq!(out(&mut connect(&pair, 1, N2), ReserveOut::RegisterAndIgnore, [0, 0xb2]), GOOD);
    assert_eq!(out(&mut n1, ReserveOut::Reserve, [0xa1, 0]), GOOD);
    // SIP_C, ATP_C and PTPL_C; TMV and PTPL_A; every type.
    const ALL: [u8; 8] = [0, 8, 0x0d, 0x81, 0xea, 1, 0, 0];
    let capabilities = |host: &mut Host| host.fetch(&[0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0], 8);
    assert_eq!(capabilities(&mut n1), ALL);
    for end in [End::InOrder, End::Killed] {
        come_back(&mut pair, end);
        let (mut n1, mut n2, mut stranger) =
            (connect(&pair, 0, N1), connect(&pair, 1, N2), connect(&pair, 1, N3));
        assert_eq!((keys(&mut n1), n2.reservation()), (vec![0xa1, 0xb2], Some((0xa1, REGISTRANTS_ONLY))));
        assert_eq!([n1.write(1, 0x51), n2.write(2, 0x52), stranger.write(3, 0x53)], [GOOD, GOOD, CONFLICT]);
        assert_eq!([capabilities(&mut n1), capabilities(&mut stranger)], [ALL, ALL], "through each node");
    }
}

/// The relative identifiers of both nodes' target ports, as each of them tells its own and both.
fn ports_of(hosts: [&mut Host; 2]) -> [u16; 2] {
    let [first, second] = hosts;
    let ports = [own_port(first), own_port(second)];
    let mut both = ports.to_vec();
    both.sort_unstable();
    assert_ne!(ports[0], ports[1]);
    assert_eq!([all_ports(first), all_ports(second)], [both.clone(), both]);
    ports
}

/// READ FULL STATUS is the same through each path.
fn all_see(hosts: [&mut Host; 3], generation: u32, registrants: &[Registrant]) {
    for host in hosts {
        assert_eq!(full_status(host), (generation, registrants.to_vec()));
    }
}

/// SPEC_I_PT, ALL_TG_PT and REGISTER AND MOVE: what a service of the cluster does for its nodes, by their names.
#[test]
fn a_disk_is_registered_and_moved_by_name_through_both_nodes() {
    let pair = Pair::start();
    let (mut n1, mut n2, mut n3) = (connect(&pair, 0, N1), connect(&pair, 1, N2), connect(&pair, 0, N3));
    let ports = ports_of([&mut n1, &mut n2]);
    let at = |name: &str, node: usize, key: u64, holds: Option<u8>| Registrant {
        name: name.to_owned(),
        port: ports[node],
        key,
        holds,
    };

    // One registers for two, through the ports of both nodes.
    let all = SPEC_I_PT | ALL_TG_PT | APTPL;
    assert_eq!(register(&mut n1, ReserveOut::Register, [0, 0xa1], all, &[N2]), GOOD);
    let held =
        [at(N1, 0, 0xa1, Some(1)), at(N1, 1, 0xa1, None), at(N2, 0, 0xa1, None), at(N2, 1, 0xa1, None)];
    assert_eq!(n1.reserve_out(ReserveOut::Reserve, WRITE_EXCLUSIVE, 0xa1, 0), GOOD);
    all_see([&mut n1, &mut n2, &mut n3], 1, &held);
    assert_eq!([n1.write(1, 0x51), n2.write(2, 0x52), n3.write(3, 0x53)], [GOOD, CONFLICT, CONFLICT]);
    // Nobody who is registered can be named, or names others.
    assert_eq!(register(&mut n3, ReserveOut::Register, [0, 0xc3], all, &[N2]), INVALID_PARAMETER);
    assert_eq!(register(&mut n2, ReserveOut::Register, [0xa1, 0xb2], all, &[N3]), INVALID_PARAMETER);
    assert_eq!(register(&mut n3, ReserveOut::RegisterAndIgnore, [0, 0xc3], all, &[]), INVALID_PARAMETER);
    all_see([&mut n1, &mut n2, &mut n3], 1, &held);

    // It is moved to the other host, through the port of the other node, with a key of its own.
    let to = Destination { name: N2, port: ports[1], key: 0xb2 };
    assert_eq!(register_and_move(&mut n1, 0xa1, APTPL, to), GOOD);
    let held =
        [at(N1, 0, 0xa1, None), at(N1, 1, 0xa1, None), at(N2, 0, 0xa1, None), at(N2, 1, 0xb2, Some(1))];
    all_see([&mut n1, &mut n2, &mut n3], 2, &held);
    assert_eq!([n1.write(1, 0x51), n2.write(2, 0x52), n3.write(3, 0x53)], [CONFLICT, GOOD, CONFLICT]);
    assert_eq!(register_and_move(&mut n1, 0xa1, APTPL, to), CONFLICT, "it is not its any more");
    for wrong in [
        Destination { port: ports[0], ..to },
        Destination { name: N3, port: 0x7fff, ..to },
        Destination { name: N3, key: 0, ..to },
    ] {
        assert_eq!(register_and_move(&mut n2, 0xb2, APTPL, wrong), INVALID_PARAMETER, "{wrong:?}");
    }
    all_see([&mut n1, &mut n2, &mut n3], 2, &held);

    // From there to a host that was not registered, and the mover goes.
    let to = Destination { name: N3, port: ports[0], key: 0xc3 };
    assert_eq!(register_and_move(&mut n2, 0xb2, UNREG | APTPL, to), GOOD);
    let held =
        [at(N1, 0, 0xa1, None), at(N1, 1, 0xa1, None), at(N2, 0, 0xa1, None), at(N3, 0, 0xc3, Some(1))];
    all_see([&mut n1, &mut n2, &mut n3], 3, &held);
    assert_eq!([n1.write(1, 0x51), n2.write(2, 0x52), n3.write(3, 0x53)], [CONFLICT, CONFLICT, GOOD]);
    assert_eq!(register_and_move(&mut n2, 0xb2, APTPL, to), CONFLICT, "it is not registered any more");

    // The one that lost everything comes back, and preempts first who holds it, then whoever has a key, at both nodes.
    assert_eq!(out(&mut n2, ReserveOut::RegisterAndIgnore, [0, 0xb4]), GOOD);
    assert_eq!(out(&mut n2, ReserveOut::PreemptAndAbort, [0xb4, 0xc3]), GOOD);
    assert_eq!((n1.ready(), n3.ready()), (RESERVATIONS_RELEASED, REGISTRATIONS_PREEMPTED));
    let held =
        [at(N1, 0, 0xa1, None), at(N1, 1, 0xa1, None), at(N2, 0, 0xa1, None), at(N2, 1, 0xb4, Some(5))];
    all_see([&mut n1, &mut n2, &mut n3], 5, &held);
    assert_eq!([n1.write(1, 0x51), n2.write(2, 0x52), n3.write(3, 0x53)], [GOOD, GOOD, CONFLICT]);
    assert_eq!(out(&mut n2, ReserveOut::Preempt, [0xb4, 0xa1]), GOOD);
    assert_eq!(n1.ready(), REGISTRATIONS_PREEMPTED);
    all_see([&mut n1, &mut n2, &mut n3], 6, &[at(N2, 1, 0xb4, Some(5))]);
    assert_eq!([n1.write(1, 0x51), n2.write(2, 0x52)], [CONFLICT, GOOD]);

    // What all registrants hold cannot be moved.
    assert_eq!(out(&mut n2, ReserveOut::Release, [0xb4, 0]), GOOD);
    assert_eq!(n2.reserve_out(ReserveOut::Reserve, ALL_REGISTRANTS, 0xb4, 0), GOOD);
    assert_eq!(register_and_move(&mut n2, 0xb4, APTPL, to), CONFLICT);
}

/// A host that is registered through the ports of both nodes at once loses both: once PREEMPT AND ABORT has status, nothing that it
/// had under way on either path lands any more, and both paths are told.
#[test]
fn preempt_and_abort_ends_both_paths_of_a_host() {
    const BLOCKS: u32 = 8;
    let pair = Pair::start();
    // Through the node that serves, and through the one that does not.
    for by_at in [0, 1] {
        let mut victim = [0, 1].map(|node| connect(&pair, node, N1));
        let mut by = connect(&pair, by_at, N2);
        let ports = [0, 1].map(|path| own_port(&mut victim[path]));
        assert_eq!(out(&mut by, ReserveOut::RegisterAndIgnore, [0, 0xb2]), GOOD);
        for round in 0..10_u8 {
            let (theirs, ours) = (0x40 + round, 0x80 + round);
            let [first, second] = &mut victim;
            first.attentions();
            second.attentions();
            assert_eq!(register(first, ReserveOut::Register, [0, 0xa1], ALL_TG_PT | APTPL, &[]), GOOD);
            assert_eq!(second.reserve_out(ReserveOut::Reserve, WRITE_EXCLUSIVE, 0xa1, 0), GOOD);
            for (host, blocks) in [(first, 0..BLOCKS), (second, BLOCKS..2 * BLOCKS)] {
                for block in blocks {
                    host.send_write(block, theirs);
                }
            }
            assert_eq!(out(&mut by, ReserveOut::PreemptAndAbort, [0xb2, 0xa1]), GOOD, "round {round}");
            let (_, left) = full_status(&mut by);
            let own = Registrant { name: N2.to_owned(), port: ports[by_at], key: 0xb2, holds: Some(5) };
            assert_eq!(left, [own], "round {round}");
            (0..2 * BLOCKS).for_each(|block| assert_eq!(by.write(block, ours), GOOD));
            for host in &mut victim {
                let told = host.attentions();
                assert!(told.contains(&0x2a05), "registrations preempted: {told:04x?}");
                assert_eq!(host.write(0, theirs), CONFLICT);
            }
            (0..2 * BLOCKS).for_each(|block| assert_eq!(by.read(block), Ok(ours), "round {round}, {block}"));
            assert_eq!(out(&mut by, ReserveOut::Release, [0xb2, 0]), GOOD);
        }
        assert_eq!(out(&mut by, ReserveOut::Clear, [0xb2, 0]), GOOD);
    }
}

/// What was registered for others, and moved, is there when both nodes come back, through either. That processes end is no loss of
/// power: PRgeneration goes on, too.
#[test]
fn what_was_moved_by_name_outlives_the_nodes() {
    let mut pair = Pair::start();
    let (mut n1, mut n2) = (connect(&pair, 0, N1), connect(&pair, 1, N2));
    let ports = ports_of([&mut n1, &mut n2]);
    let all = SPEC_I_PT | ALL_TG_PT | APTPL;
    assert_eq!(register(&mut n1, ReserveOut::Register, [0, 0xa1], all, &[N2, N3]), GOOD);
    assert_eq!(n1.reserve_out(ReserveOut::Reserve, WRITE_EXCLUSIVE, 0xa1, 0), GOOD);
    let to = Destination { name: N2, port: ports[1], key: 0xb2 };
    assert_eq!(register_and_move(&mut n1, 0xa1, APTPL, to), GOOD);
    let (generation, registrants) = full_status(&mut n2);
    assert_eq!((generation, registrants.len()), (2, 6));
    for end in [End::InOrder, End::Killed] {
        come_back(&mut pair, end);
        let (mut n1, mut n2, mut n3) = (connect(&pair, 0, N1), connect(&pair, 1, N2), connect(&pair, 0, N3));
        assert_eq!(ports_of([&mut n1, &mut n2]), ports);
        all_see([&mut n1, &mut n2, &mut n3], generation, &registrants);
        assert_eq!([n1.write(1, 0x51), n2.write(2, 0x52), n3.write(3, 0x53)], [CONFLICT, GOOD, CONFLICT]);
    }
}

/// Where nothing is kept beside the data, APTPL is refused and not forgotten.
#[test]
fn a_lun_that_cannot_keep_a_registration_says_so() {
    let node = tests::node::Node::start(&[]);
    node.must("bdev_malloc_create", serde_json::json!({"name": "m0", "block_size": 512, "num_blocks": 8192}));
    let mut host = Host::login(&node.export("m0"), "iqn.1991-05.com.microsoft:n1");
    host.attentions();
    assert_eq!(host.fetch(&[0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0], 8)[2] & 1, 0, "PTPL_C");
    assert_eq!(out(&mut host, ReserveOut::RegisterAndIgnore, [0, 0xa1]), check(0x2600));
    assert!(keys(&mut host).is_empty());
}
