//! What a Windows failover cluster asks of a shared disk: each node registers, one holds a reservation that admits registrants, and
//! the others challenge it. Its nodes' paths lead to different nodes of a pair, and the pair changes hands meanwhile.

use tests::host::{CONFLICT, GOOD, Host, Outcome, ReserveOut, check};
use tests::pair::{Pair, gemel, must};

/// Write Exclusive, Registrants Only (SPC-4 section 6.13.3.4): what a cluster holds its disks with.
const REGISTRANTS_ONLY: u8 = 5;
const REGISTRATIONS_PREEMPTED: Outcome = check(0x2a05);
const RESERVATIONS_RELEASED: Outcome = check(0x2a04);

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
    let connect = |node: usize, name: &str| {
        let mut host = Host::login(&pair.urls[node], &format!("iqn.1991-05.com.microsoft:{name}"));
        host.attentions();
        host
    };
    let (mut n1, mut n2, mut stranger) = (connect(0, "n1"), connect(1, "n2"), connect(0, "n3"));

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
    let mut n2 = connect(1, "n2");
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

/// APTPL: what is registered and reserved is there again when both nodes have ended, in order or not.
#[test]
fn what_a_cluster_holds_outlives_the_nodes() {
    let mut pair = Pair::start();
    let connect = |pair: &Pair, node: usize, name: &str| {
        let mut host = Host::login(&pair.urls[node], &format!("iqn.1991-05.com.microsoft:{name}"));
        host.attentions();
        host
    };
    let mut n1 = connect(&pair, 0, "n1");
    assert_eq!(out(&mut n1, ReserveOut::RegisterAndIgnore, [0, 0xa1]), GOOD);
    assert_eq!(out(&mut connect(&pair, 1, "n2"), ReserveOut::RegisterAndIgnore, [0, 0xb2]), GOOD);
    assert_eq!(out(&mut n1, ReserveOut::Reserve, [0xa1, 0]), GOOD);
    // PTPL_C and PTPL_A of REPORT CAPABILITIES.
    let capabilities = |host: &mut Host| {
        let data = host.fetch(&[0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0], 8);
        [data[2] & 1, data[3] & 1]
    };
    assert_eq!(capabilities(&mut n1), [1, 1]);
    for in_order in [true, false] {
        if in_order {
            pair.stop_both(0);
        } else {
            (0..2).for_each(|node| pair.kill(node));
        }
        (0..2).for_each(|node| pair.restart(node));
        pair.wait_in_sync(0);
        let (mut n1, mut n2, mut stranger) =
            (connect(&pair, 0, "n1"), connect(&pair, 1, "n2"), connect(&pair, 1, "n3"));
        assert_eq!((keys(&mut n1), n2.reservation()), (vec![0xa1, 0xb2], Some((0xa1, REGISTRANTS_ONLY))));
        assert_eq!([n1.write(1, 0x51), n2.write(2, 0x52), stranger.write(3, 0x53)], [GOOD, GOOD, CONFLICT]);
        assert_eq!(capabilities(&mut stranger), [1, 1]);
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
