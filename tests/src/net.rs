//! Hosts of a test in network namespaces of their own: two nodes, and a host that initiators and etcd run on.
//!
//! ```text
//! node 0 ===link=== node 1        replication
//!    \               /
//!   front 0     front 1           initiators, portals
//!      \           /
//!          host
//!      /           \
//!  control 0   control 1          etcd
//! ```
//!
//! A way is cut by a neighbour entry that leads nowhere: nobody is told, and it can be cut in one direction alone. Where a node has its
//! own TCP/IP on the link, a switch in its middle loses frames: what is dropped at the sender's own interface, the sender hears of.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::node::skipped_because;

/// A way between two of the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Between the nodes.
    Link,
    /// The same once more, where there is a second link.
    Second,
    /// From a node to the initiators.
    Front(usize),
    /// From a node to etcd.
    Control(usize),
}

/// Which packets of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// Both directions.
    Both,
    /// From node 0 to node 1, or from the node to the host.
    Far,
    /// From node 1 to node 0, or from the host to the node.
    Near,
}

/// Where the link's plug is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plug {
    /// In its socket.
    In,
    /// Pulled out.
    Out,
}

/// See the module. Dropping it removes the namespaces.
#[derive(Debug)]
pub struct Net {
    spaces: [String; 4],
}

const HOST: usize = 2;
/// Where the link's switch is, if it has one.
const SWITCH: usize = 3;
/// The switch's ports to the nodes.
const PORTS: [&str; 2] = ["port0", "port1"];
const NOWHERE: &str = "02:00:00:00:00:99";

/// An end of a way: the namespace, the device, the address.
struct End {
    space: usize,
    device: &'static str,
    address: String,
}

fn ends(way: Way) -> [End; 2] {
    let node = |node: usize, device, subnet: u8| {
        let (device, there) = match (device, node) {
            ("front", 0) => ("front", "front0"),
            ("front", _) => ("front", "front1"),
            (_, 0) => ("control", "control0"),
            (_, _) => ("control", "control1"),
        };
        [(node, device, 2), (HOST, there, 1)].map(|(space, device, last)| End {
            space,
            device,
            address: format!("10.{subnet}.{node}.{last}"),
        })
    };
    match way {
        Way::Link => {
            [0, 1].map(|space| End { space, device: "repl", address: format!("10.61.0.{}", space + 1) })
        }
        Way::Second => {
            [0, 1].map(|space| End { space, device: "repl2", address: format!("10.64.0.{}", space + 1) })
        }
        Way::Front(index) => node(index, "front", 62),
        Way::Control(index) => node(index, "control", 63),
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

fn must(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip");
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {why}");
}

impl Net {
    /// Makes the namespaces; `None`, with a line that says so, where they cannot be had.
    ///
    /// # Panics
    /// When they can be had, and cannot be set up.
    pub fn start() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |who: &str| format!("gemel{}-{number}{who}", std::process::id());
        let net = Self { spaces: [name("a"), name("b"), name("h"), name("s")] };
        for space in &net.spaces[..SWITCH] {
            if !ip(&["netns", "add", space]) {
                skipped_because("there are no network namespaces (they need root)");
                return None;
            }
            must(&["-n", space, "link", "set", "lo", "up"]);
        }
        for way in [Way::Link, Way::Front(0), Way::Front(1), Way::Control(0), Way::Control(1)] {
            net.connect(way);
        }
        Some(net)
    }

    fn connect(&self, way: Way) {
        let [near, far] = ends(way);
        self.pair_up((near.space, near.device), (far.space, far.device));
        for End { space, device, address } in [near, far] {
            let space = self.spaces[space].as_str();
            must(&["-n", space, "addr", "add", &format!("{address}/24"), "dev", device]);
        }
    }

    /// Two interfaces that are connected with each other; both are up.
    fn pair_up(&self, near: (usize, &str), far: (usize, &str)) {
        let [here, there] = [near, far].map(|(space, device)| (self.spaces[space].as_str(), device));
        let peer = ["type", "veth", "peer", "name", there.1, "netns", there.0];
        must(&[&["link", "add", here.1, "netns", here.0][..], &peer].concat());
        for (space, device) in [here, there] {
            must(&["-n", space, "link", "set", device, "up"]);
        }
    }

    /// A switch in the middle of the link, for nodes that have it to themselves.
    ///
    /// # Panics
    /// When it cannot be set up.
    pub fn put_switch(&self) {
        let switch = self.spaces[SWITCH].as_str();
        let [near, far] = ends(Way::Link);
        must(&["netns", "add", switch]);
        must(&["-n", switch, "link", "add", "bridge", "type", "bridge"]);
        must(&["-n", switch, "link", "set", "bridge", "mtu", "9000", "up"]);
        must(&["-n", &self.spaces[near.space], "link", "del", near.device]);
        for (end, port) in [near, far].iter().zip(PORTS) {
            self.pair_up((end.space, end.device), (SWITCH, port));
            must(&["-n", switch, "link", "set", port, "mtu", "9000", "master", "bridge"]);
            self.dedicate(end.space);
        }
    }

    /// A second link between the nodes, on which their kernels have addresses.
    ///
    /// # Panics
    /// When it cannot be set up.
    pub fn add_second_link(&self) {
        self.connect(Way::Second);
    }

    /// The nodes reach each other over the host as well, from address to address of their ways to it.
    pub fn join_controls(&self) {
        let host = &self.spaces[HOST];
        must(&["netns", "exec", host, "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        for node in [0, 1] {
            let (other, host) = (ends(Way::Control(1 - node)), self.host_address(Way::Control(node)));
            must(&["-n", &self.spaces[node], "route", "add", &other[0].address, "via", &host]);
        }
    }

    /// What a command of a node begins with.
    pub fn node(&self, index: usize) -> Vec<String> {
        self.inside(index)
    }

    /// What a command of the host begins with.
    pub fn host(&self) -> Vec<String> {
        self.inside(HOST)
    }

    fn inside(&self, space: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.spaces[space]].map(str::to_owned).to_vec()
    }

    /// A node's address on a way.
    pub fn address(&self, way: Way, node: usize) -> String {
        let [near, far] = ends(way);
        if matches!(way, Way::Link | Way::Second) && node == 1 { far.address } else { near.address }
    }

    /// The host's address on a way of a node.
    pub fn host_address(&self, way: Way) -> String {
        let [_, far] = ends(way);
        far.address
    }

    /// Packets of a way get lost, and nobody is told.
    pub fn cut(&self, way: Way, toward: Toward) {
        let [near, far] = ends(way);
        if toward != Toward::Near {
            self.lose(&near, &far);
        }
        if toward != Toward::Far {
            self.lose(&far, &near);
        }
    }

    /// What `from` sends to `to` goes nowhere.
    fn lose(&self, from: &End, to: &End) {
        let (space, device) = (self.spaces[from.space].as_str(), from.device);
        must(&[
            "-n",
            space,
            "neigh",
            "replace",
            &to.address,
            "lladdr",
            NOWHERE,
            "dev",
            device,
            "nud",
            "permanent",
        ]);
    }

    /// The link is for replication alone from now on: jumbo frames, and the kernel of this node has no address on it.
    ///
    /// # Panics
    /// When it cannot be set up.
    pub fn dedicate(&self, node: usize) {
        self.set_mtu(node, 9000);
        self.take_addresses(node);
    }

    /// The longest packet that a node's end of the link takes.
    ///
    /// # Panics
    /// When it cannot be set.
    pub fn set_mtu(&self, node: usize, mtu: u32) {
        let device = ends(Way::Link)[node].device;
        must(&["-n", &self.spaces[node], "link", "set", device, "mtu", &mtu.to_string()]);
    }

    fn take_addresses(&self, node: usize) {
        let end = &ends(Way::Link)[node];
        let space = self.spaces[node].as_str();
        must(&["-n", space, "addr", "flush", "dev", end.device]);
        // Nor does it tell its neighbours of one that it would give itself.
        let quiet = format!("net.ipv6.conf.{}.disable_ipv6=1", end.device);
        must(&["netns", "exec", space, "sysctl", "-qw", &quiet]);
    }

    /// Interfaces of the link that spread their frames over so many queues; both nodes have it to themselves.
    ///
    /// # Panics
    /// When they cannot be set up.
    pub fn spread_link(&self, queues: u32) {
        let [near, far] = ends(Way::Link);
        let [here, there] = [&near, &far].map(|end| self.spaces[end.space].as_str());
        must(&["-n", here, "link", "del", near.device]);
        let count = queues.to_string();
        let queues = ["numrxqueues", &count, "numtxqueues", &count];
        let one = [&["link", "add", near.device, "netns", here][..], &queues, &["type", "veth", "peer"]];
        let other = [&["name", far.device, "netns", there][..], &queues];
        must(&[one.concat(), other.concat()].concat());
        for (space, end) in [(here, &near), (there, &far)] {
            must(&["-n", space, "link", "set", end.device, "up"]);
            self.dedicate(end.space);
        }
    }

    /// A TAP of a node's, whose kernel has the address at its end.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn add_tap(&self, node: usize, device: &str, address: &str) {
        let space = self.spaces[node].as_str();
        must(&["-n", space, "tuntap", "add", "dev", device, "mode", "tap", "vnet_hdr"]);
        must(&["-n", space, "addr", "add", address, "dev", device]);
        must(&["-n", space, "link", "set", device, "mtu", "9000", "up"]);
    }

    /// Both interfaces of the link go away, and others of the same names come.
    ///
    /// # Panics
    /// When they do not.
    pub fn renew_link(&self) {
        self.renew_link_as_it_comes();
        [0, 1].into_iter().for_each(|node| self.set_mtu(node, 9000));
    }

    /// As [`Net::renew_link`]; they have the MTU that they are born with.
    ///
    /// # Panics
    /// When they do not.
    pub fn renew_link_as_it_comes(&self) {
        let [near, _] = ends(Way::Link);
        must(&["-n", &self.spaces[near.space], "link", "del", near.device]);
        self.connect(Way::Link);
        [0, 1].into_iter().for_each(|node| self.take_addresses(node));
    }

    /// The kernel of a node has this address on the link.
    ///
    /// # Panics
    /// When it does not take it.
    pub fn add_address(&self, node: usize, address: &str) {
        let (space, device) = (self.spaces[node].as_str(), ends(Way::Link)[node].device);
        let quiet = format!("net.ipv6.conf.{device}.disable_ipv6=0");
        must(&["netns", "exec", space, "sysctl", "-qw", &quiet]);
        let family: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        must(&[&["-n", space, "addr", "add", address, "dev", device][..], family].concat());
    }

    /// The multicast addresses that a node's end of the link receives.
    ///
    /// # Panics
    /// When nobody tells.
    pub fn groups(&self, node: usize) -> String {
        let device = ends(Way::Link)[node].device;
        let output =
            Command::new("ip").args(["-n", &self.spaces[node], "maddr", "show", "dev", device]).output();
        String::from_utf8_lossy(&output.expect("ip").stdout).into_owned()
    }

    /// Takes the link's plug out at a node, or puts it in again: both ends see it.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn set_plugged(&self, node: usize, plugged: Plug) {
        let state = match plugged {
            Plug::In => "up",
            Plug::Out => "down",
        };
        must(&["-n", &self.spaces[node], "link", "set", ends(Way::Link)[node].device, state]);
    }

    /// What a node sends on the link is lost at the switch, so many frames in a thousand.
    ///
    /// # Panics
    /// When the rule cannot be set.
    pub fn lose_frames(&self, node: usize, permille: u32) {
        let port = PORTS[node];
        // There may be no rule yet.
        let _ = self.nft(&format!("delete table netdev {port}"));
        if permille == 0 {
            return;
        }
        let chance =
            if permille < 1000 { format!("numgen random mod 1000 < {permille}") } else { String::new() };
        let rules = format!(
            "add table netdev {port}; \
             add chain netdev {port} in {{ type filter hook ingress device \"{port}\" priority 0; policy accept; }}; \
             add rule netdev {port} in {chance} counter drop"
        );
        assert!(self.nft(&rules), "nft {rules}");
    }

    fn nft(&self, rules: &str) -> bool {
        ip(&["netns", "exec", &self.spaces[SWITCH], "nft", rules])
    }

    /// The way is whole again.
    pub fn heal(&self, way: Way) {
        let [near, far] = ends(way);
        for (from, to) in [(&near, &far), (&far, &near)] {
            // One direction may never have been cut.
            let _ = ip(&["-n", &self.spaces[from.space], "neigh", "del", &to.address, "dev", from.device]);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for space in &self.spaces {
            // What runs inside has ended, or ends with its owner.
            let _ = ip(&["netns", "del", space]);
        }
    }
}
