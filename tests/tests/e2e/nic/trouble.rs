//! A link on a bad day: what an operator did to its interface is said, and what the kernel does not do for it is done.

use super::*;

/// What became of the link, within five seconds.
fn until(node: &Node, what: &str, mut found: impl FnMut(&Value) -> bool) -> Value {
    for _ in 0..250 {
        let link = link(node);
        if found(&link) {
            return link;
        }
        pause(Duration::from_millis(20));
    }
    panic!("{what}: {:#}\n{}", link(node), node.log());
}

/// The events of one kind.
fn events(node: &Node, kind: &str) -> Vec<Value> {
    let all = node.must("notify_get_notifications", Value::Null);
    all.as_array().into_iter().flatten().filter(|one| one["type"] == kind).cloned().collect()
}

/// How often threads of a node went to sleep so far.
fn naps(node: &Node) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", node.pid())).expect("it runs");
    let of = |thread: std::fs::DirEntry| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    threads.filter_map(Result::ok).map(of).sum()
}

/// Processor time of a node in the next second.
pub(super) fn used_in_a_second(node: &Node) -> Duration {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
    };
    let before = ticks();
    pause(Duration::from_secs(1));
    // Ticks are of 10 ms.
    Duration::from_millis((ticks() - before) * 10)
}

/// The kernel tells when an interface changes: nobody looks at it fifty times a second.
#[test]
fn a_link_without_work_leaves_its_node_asleep() {
    let Some((node, net)) = half() else { return };
    make_link(&node, 9000);
    pause(Duration::from_millis(500));
    let before = naps(&node);
    pause(Duration::from_secs(1));
    let woken = naps(&node) - before;
    println!("woken {woken} times in a second");
    // A reactor never sleeps for more than 100 ms.
    assert!(woken < 45, "{woken}");
    net.set_plugged(1, Plug::Out);
    until(&node, "no carrier", |link| link["state"] == "no-carrier");
    net.set_plugged(0, Plug::Out);
    until(&node, "down", |link| link["state"] == "down");
    [0, 1].into_iter().for_each(|end| net.set_plugged(end, Plug::In));
    until(&node, "up", |link| link["state"] == "up");
}

#[test]
fn an_interface_that_comes_back_too_narrow_says_so_and_is_used_when_it_is_mended() {
    let Some((node, net)) = half() else { return };
    make_link(&node, 9000);
    net.renew_link_as_it_comes();
    let narrow = |link: &Value| {
        let why = link["why"].as_str().unwrap_or_default();
        link["state"] == "gone" && why.contains("MTU of 1500") && why.contains("ip link set repl mtu 9000")
    };
    until(&node, "why it is not used", narrow);
    let shown = String::from_utf8(gemel(&node, &["link", "status"]).stdout).expect("text");
    assert!(shown.contains("gone: interface repl has an MTU of 1500"), "{shown}");
    pause(Duration::from_millis(1200));
    let told = "is there again and cannot be used: interface repl has an MTU of 1500";
    assert_eq!(node.log().matches(told).count(), 1, "{}", node.log());
    [0, 1].into_iter().for_each(|end| net.set_mtu(end, 9000));
    until(&node, "up again", |link| link["state"] == "up" && link["why"] == Value::Null);
    // Narrower while it is in use.
    net.set_mtu(0, 1500);
    let told = (0..100).any(|_| {
        pause(Duration::from_millis(20));
        !events(&node, "link_path").is_empty()
    });
    assert!(told, "{}", node.log());
    assert!(node.log().contains("its MTU is 1500 now: `ip link set repl mtu 9000`"), "{}", node.log());
}

#[test]
fn an_address_that_the_kernel_takes_from_a_link_is_told_of() {
    let Some((node, net)) = half() else { return };
    make_link(&node, 9000);
    pause(Duration::from_millis(700));
    assert!(events(&node, "link_address").is_empty());
    net.add_address(0, "10.61.0.1/24");
    let told = (0..150).any(|_| {
        pause(Duration::from_millis(20));
        !events(&node, "link_address").is_empty()
    });
    assert!(told, "{}", node.log());
    assert!(node.log().contains("the kernel has 10.61.0.1 now, on interface repl"), "{}", node.log());
}

/// The kernel's interface hears what asks for the link's IPv6 addresses: a NIC would drop it otherwise. A host with kernel sockets gets there.
#[test]
fn a_link_is_reached_at_ipv6() {
    let Some((node, net)) = half() else { return };
    let address = ["fd61::1:2345/64"];
    node.must("link_create", json!({"name": "l0", "interface": "repl", "addresses": address}));
    let groups = net.groups(0);
    assert!(groups.contains("33:33:ff:01:23:45") && groups.contains("33:33:00:00:00:01"), "{groups}");
    export(&node, "fd61::1:2345");
    net.set_mtu(1, 9000);
    net.add_address(1, "fd61::2/64");
    let report = verified(perf(&net.node(1), &format!("iscsi://[fd61::1:2345]:3260/{EXPORTED}/0"), 2));
    assert!(report["iops"].as_f64() > Some(0.0), "{report}");
    let link = link(&node);
    assert_eq!(link["counters"]["checksum_errors"], 0, "{link:#}");
    assert_eq!(link["peers"], json!([{"host": "fd61::2", "path": "whole"}]), "{link:#}");
    assert!(link["rates"]["received_bytes_per_s"].as_u64() > Some(0), "{link:#}");
}
