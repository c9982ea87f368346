//! Two gemeld processes that mirror a volume, made with the two commands that an administrator uses.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::alone::{Alone, alone};
use crate::etcd::Etcd;
use crate::net::{Net, Way};
use crate::node::{Node, binary, pause};
use crate::wire::Wire;

/// Bytes of each leg's file.
pub const LEG: u64 = 96 << 20;
/// Bytes that one bit of the out-of-sync bitmap stands for (`FORMAT.md`).
pub const GRANULE: u64 = 64 << 10;
/// How often a status is looked at, and how many times: for 20 seconds.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 1000;

/// A node, or the folder of one that ended.
#[derive(Debug)]
enum Place {
    Up(Node),
    Down(TempDir),
    Moving,
}

/// A pair.
#[derive(Debug)]
pub struct Pair {
    places: [Place; 2],
    /// The LUN's URL at each node.
    pub urls: [String; 2],
    /// The array.
    pub uuid: String,
    /// What each node's command begins with.
    spaces: [Vec<String>; 2],
    /// What every node is started with.
    node_arguments: Vec<String>,
    /// Where something is measured.
    _alone: Option<Alone>,
}

/// Whether a pair has the machine for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Company {
    /// How long hosts wait is measured on it: one such pair at a time.
    #[default]
    Alone,
    /// Nothing is measured: other tests run beside it. Its legs are in memory, so that it does not load their disk, and its nodes are
    /// patient with each other.
    Welcome,
}

/// What is not as usual about a pair.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unusual<'a> {
    /// More arguments of each gemeld.
    pub node: &'a [&'a str],
    /// More arguments of `pair create`,
    pub create: &'a [&'a str],
    /// and of `pair join`.
    pub join: &'a [&'a str],
    /// A leg for node 0 that is not a file.
    pub leg: Option<&'a str>,
    /// Bytes of each leg's file, if not [`LEG`].
    pub bytes: Option<u64>,
    /// Who runs beside it.
    pub company: Company,
    /// Where the nodes are, if not on loopback.
    pub net: Option<&'a Net>,
}

/// Where a node is.
struct Addresses {
    listen: String,
    peer: String,
    portal: String,
    allow: &'static str,
}

impl Addresses {
    fn on_loopback(wire: Option<(u16, &Wire)>) -> [Self; 2] {
        let [leg0, leg1, portal0, portal1] = free_ports();
        let leg1 = wire.map_or(leg1, |(far, _)| far);
        let at = |port: u16| format!("127.0.0.1:{port}");
        let peer = wire.map_or_else(|| at(leg1), |(_, wire)| wire.near().to_string());
        let one = |listen: u16, peer: String, portal: u16| Self {
            listen: at(listen),
            peer,
            portal: at(portal),
            allow: "127.0.0.0/8",
        };
        [one(leg0, peer, portal0), one(leg1, at(leg0), portal1)]
    }

    fn in_net(net: &Net) -> [Self; 2] {
        let link = |node: usize| format!("{}:3261", net.address(Way::Link, node));
        [0, 1].map(|node| Self {
            listen: link(node),
            peer: link(1 - node),
            portal: format!("{}:3260", net.address(Way::Front(node), node)),
            allow: "10.62.0.0/16",
        })
    }

    fn arguments(&self, leg: String) -> Vec<String> {
        let pairs = [
            ("--leg", leg),
            ("--listen", self.listen.clone()),
            ("--peer", self.peer.clone()),
            ("--portal", self.portal.clone()),
            ("--allow", self.allow.to_owned()),
        ];
        pairs.into_iter().flat_map(|(key, value)| [key.to_owned(), value]).collect()
    }

    fn url(&self) -> String {
        format!("iscsi://{}/iqn.2026-11.org.gemel:vol0/0", self.portal)
    }
}

fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // All at once, so that they differ.
    let sockets = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    sockets.each_ref().map(|socket| socket.local_addr().expect("bound").port())
}

/// Runs `gemel` against a node.
pub fn gemel(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("gemel"));
    command
        .arg("--socket")
        .arg(node.socket())
        .args(arguments)
        .output()
        .expect("gemel is built with the tests")
}

/// What a node says of its mirror to `gemel`, at a socket where perhaps nobody answers: null then.
///
/// # Panics
/// When there is no `gemel`.
pub fn status_at(socket: &Path) -> Value {
    let mut command = Command::new(binary("gemel"));
    let asked = command.arg("-s").arg(socket).args(["--json", "status", "vol0"]).output();
    let status: Value =
        serde_json::from_slice(&asked.expect("gemel is built with the tests").stdout).unwrap_or_default();
    if status.is_array() { status[0].clone() } else { status }
}

impl Pair {
    /// Starts two nodes, creates the array, and waits until both legs are in sync.
    ///
    /// # Panics
    /// When that fails.
    pub fn start() -> Self {
        let pair = Self::create(&[]);
        pair.wait_in_sync(0);
        pair
    }

    /// As [`Pair::start`], with more arguments for `pair create`, and without the wait.
    ///
    /// # Panics
    /// When that fails.
    pub fn create(arguments: &[&str]) -> Self {
        Self::build(Unusual { create: arguments, ..Unusual::default() }, |_| {}, None)
    }

    /// A pair whose holder reaches the other node through a wire.
    ///
    /// # Panics
    /// When that fails.
    pub fn with_wire() -> (Self, Wire) {
        let [leg] = free_ports();
        let wire = Wire::to(SocketAddr::from(([127, 0, 0, 1], leg)));
        let pair = Self::build(Unusual::default(), |_| {}, Some((leg, &wire)));
        pair.wait_in_sync(0);
        (pair, wire)
    }

    /// A pair whose generations an etcd orders, its holder's way to the other node through a wire.
    ///
    /// # Panics
    /// When that fails.
    pub fn arbitrated(etcd: &Etcd) -> (Self, Wire) {
        let [leg] = free_ports();
        let wire = Wire::to(SocketAddr::from(([127, 0, 0, 1], leg)));
        let url = etcd.url();
        let unusual = Unusual {
            create: &["--policy", "etcd", "--etcd", &url],
            join: &["--etcd", &url],
            ..Unusual::default()
        };
        let pair = Self::build(unusual, |_| {}, Some((leg, &wire)));
        pair.wait_in_sync(0);
        (pair, wire)
    }

    /// A pair that is not as usual; `prepare` makes on node 0 what the pair is made of.
    ///
    /// # Panics
    /// When that fails.
    pub fn build(unusual: Unusual<'_>, prepare: impl FnOnce(&Node), wire: Option<(u16, &Wire)>) -> Self {
        let turn = (unusual.company == Company::Alone).then(alone);
        let spaces = [0, 1].map(|node| unusual.net.map_or_else(Vec::new, |net| net.node(node)));
        let start = |space: &Vec<String>| {
            // In namespaces outages are measured: the disk, which others load, is not part of them.
            let on_disk = space.is_empty() && unusual.company == Company::Alone;
            let folder = if on_disk { TempDir::new() } else { TempDir::new_in("/dev/shm") };
            Node::start_at(space, folder.expect("a folder"), unusual.node)
        };
        let nodes = spaces.each_ref().map(start);
        prepare(&nodes[0]);
        let places = unusual.net.map_or_else(|| Addresses::on_loopback(wire), Addresses::in_net);
        let bytes = unusual.bytes.unwrap_or(LEG);
        let leg = |node: &Node| format!("{}:{bytes}", node.folder.path().join("leg").display());
        let own = unusual.leg.map_or_else(|| leg(&nodes[0]), str::to_owned);
        let patience: &[&str] = match unusual.company {
            Company::Alone => &[],
            Company::Welcome => &["--max-stall-ms", "20000", "--disk-timeout-ms", "40000"],
        };
        let create = places[0].arguments(own);
        let secrets = nodes[0].folder.path().join("vol0.chap");
        let copied = nodes[1].folder.path().join("vol0.chap");
        let [secrets, copied] = [&secrets, &copied].map(|path| path.to_str().expect("a path"));
        let mut all: Vec<&str> = vec!["--json", "pair", "create", "vol0", "--secret-file", secrets];
        all.extend(create.iter().map(String::as_str).chain(unusual.create.iter().chain(patience).copied()));
        let made = must(gemel(&nodes[0], &all));
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let uuid = made["uuid"].as_str().expect("an array").to_owned();
        let join = places[1].arguments(leg(&nodes[1]));
        std::fs::copy(secrets, copied).expect("copied");
        let mut all: Vec<&str> = vec!["pair", "join", "vol0", "--uuid", &uuid, "--secret-file", copied];
        all.extend(join.iter().map(String::as_str).chain(unusual.join.iter().chain(patience).copied()));
        must(gemel(&nodes[1], &all));
        for node in &nodes {
            node.save_config();
        }
        let node_arguments = unusual.node.iter().map(|argument| (*argument).to_owned()).collect();
        let urls = places.each_ref().map(Addresses::url);
        Self { places: nodes.map(Place::Up), urls, uuid, spaces, node_arguments, _alone: turn }
    }

    /// A node that runs.
    ///
    /// # Panics
    /// When it does not.
    pub fn node(&self, index: usize) -> &Node {
        match &self.places[index] {
            Place::Up(node) => node,
            Place::Down(_) | Place::Moving => panic!("node {index} is down"),
        }
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When the node does not run.
    pub fn kill(&mut self, index: usize) {
        let Place::Up(node) = std::mem::replace(&mut self.places[index], Place::Moving) else {
            panic!("node {index} is down");
        };
        self.places[index] = Place::Down(node.kill());
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Panics
    /// When the node does not run or does not end.
    pub fn stop(&mut self, index: usize) {
        let Place::Up(node) = std::mem::replace(&mut self.places[index], Place::Moving) else {
            panic!("node {index} is down");
        };
        let (folder, status) = node.stop();
        assert!(status.success(), "node {index} ends with {status}");
        self.places[index] = Place::Down(folder);
    }

    /// Starts a node that ended, from its saved configuration.
    ///
    /// # Panics
    /// When it runs or does not start.
    pub fn restart(&mut self, index: usize) {
        let config = self.folder(index).join("config.json");
        self.restart_with(index, &["--config", config.to_str().expect("a path")]);
    }

    /// Starts a node that ended, with what the pair's nodes are started with and more.
    ///
    /// # Panics
    /// When it runs or does not start.
    pub fn restart_with(&mut self, index: usize, more: &[&str]) {
        let Place::Down(folder) = std::mem::replace(&mut self.places[index], Place::Moving) else {
            panic!("node {index} is up");
        };
        let mut arguments = more.to_vec();
        arguments.extend(self.node_arguments.iter().map(String::as_str));
        let node = Node::start_at(&self.spaces[index], folder, &arguments);
        self.places[index] = Place::Up(node);
    }

    fn folder(&self, index: usize) -> &Path {
        match &self.places[index] {
            Place::Up(node) => node.folder.path(),
            Place::Down(folder) => folder.path(),
            Place::Moving => panic!("node {index} is neither up nor down"),
        }
    }

    /// A node's saved configuration.
    pub fn config(&self, index: usize) -> PathBuf {
        self.folder(index).join("config.json")
    }

    /// A node's leg.
    pub fn leg(&self, index: usize) -> PathBuf {
        self.folder(index).join("leg")
    }

    /// Replaces the leg of a node that is down by an empty file.
    pub fn empty_leg(&self, index: usize) {
        self.empty_file(index, "leg");
    }

    /// Replaces a leg's file of another name.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn empty_file(&self, index: usize, name: &str) {
        let file = std::fs::File::create(self.folder(index).join(name)).expect("a file");
        file.set_len(LEG).expect("a size");
    }

    /// What `mirror_get_status` says at a node.
    ///
    /// # Panics
    /// When the node does not answer.
    pub fn status(&self, index: usize) -> Value {
        self.node(index).must("mirror_get_status", json!({"name": "vol0"}))[0].clone()
    }

    /// The node that serves.
    ///
    /// # Panics
    /// When none does.
    pub fn holder(&self) -> usize {
        let serves = |index: &usize| {
            matches!(self.places[*index], Place::Up(_)) && self.status(*index)["role"] == "holder"
        };
        [0, 1].into_iter().find(serves).expect("a holder")
    }

    /// Waits for something in a node's status.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait(&self, index: usize, what: &str, until: impl Fn(&Value) -> bool) -> Value {
        let mut status = self.status(index);
        for _ in 0..LOOKS {
            if until(&status) {
                return status;
            }
            pause(LOOK);
            status = self.status(index);
        }
        panic!("node {index}: no {what}: {status:#}");
    }

    /// Waits until a node is the holder with both legs in sync, and has told what came of the resync.
    ///
    /// # Panics
    /// When that does not happen.
    pub fn wait_in_sync(&self, holder: usize) -> Value {
        self.wait(holder, "sync", |status| {
            let all =
                status["legs"].as_array().is_some_and(|legs| legs.iter().all(|leg| leg["in_sync"] == true));
            let idle = status["resync"].is_null() && status["peer"]["state"] == "joined";
            all && status["role"] == "holder" && idle
        })
    }

    /// Stops both nodes, the holder first.
    pub fn stop_both(&mut self, holder: usize) {
        self.stop(holder);
        self.stop(1 - holder);
    }

    /// Waits until both legs are in sync, stops both nodes and compares the legs; says how many bytes the resync copied.
    ///
    /// # Panics
    /// When they differ, or there was no resync.
    pub fn finish(mut self, holder: usize) -> u64 {
        let status = self.wait_in_sync(holder);
        self.stop_both(holder);
        self.compare(&status);
        status["last_resync"]["copied_bytes"].as_u64().expect("a resync ended")
    }

    /// Granules in which the data areas of the legs' files differ, whatever any node thinks.
    ///
    /// # Panics
    /// When a leg cannot be read.
    pub fn differing(&self) -> u64 {
        let status = self.status(0);
        let [offset, len] =
            ["data_offset", "data_size"].map(|key| status[key].as_u64().expect("a figure") as usize);
        let legs = [0, 1].map(|index| std::fs::read(self.leg(index)).expect("the leg"));
        let [one, other] = legs.each_ref().map(|leg| leg[offset..offset + len].chunks(GRANULE as usize));
        one.zip(other).filter(|(one, other)| one != other).count() as u64
    }

    /// Compares the data areas of both legs with `cmp`; both nodes are down.
    ///
    /// # Panics
    /// When they differ.
    pub fn compare(&self, status: &Value) {
        let (offset, len) = (status["data_offset"].as_u64(), status["data_size"].as_u64());
        let skip = offset.expect("an offset").to_string();
        let compared = Command::new("cmp")
            .args(["--ignore-initial", &skip, "--bytes", &len.expect("a size").to_string()])
            .args([self.leg(0), self.leg(1)])
            .output()
            .expect("cmp");
        assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
    }
}

/// The output of a command that has to succeed.
///
/// # Panics
/// When it does not.
pub fn must(output: Output) -> String {
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    told
}

impl Drop for Pair {
    /// A test that fails says what both nodes think.
    fn drop(&mut self) {
        for place in self.places.iter().filter(|_| std::thread::panicking()) {
            if let Place::Up(node) = place {
                // One that stands still tells nothing.
                node.signal("CONT");
                let status = node.call("mirror_get_status", json!({}));
                eprintln!(
                    "{}",
                    status.map_or_else(|error| error.to_string(), |status| format!("{status:#}"))
                );
                eprintln!("{:?}", node.call("iscsi_get_connections", Value::Null));
                eprintln!("{:?}", node.call("lun_get_list", Value::Null));
            }
        }
    }
}
