//! `gemel pair`: a mirrored volume in two commands, one for each node. Each makes the leg, the way to the peer, the
//! mirror, and the two targets: the leg for the peer alone, the volume for hosts.

mod join;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rpc::Client;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::leg::{Content, leg_file};
use crate::link::Nic;
use crate::{Options, auth, secrets, show};

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Pair {
    /// Make a new array on this node, and print the command for the other one.
    Create {
        #[command(flatten)]
        place: Place,
        /// Who decides when the peer is gone: the holder goes on, or I/O waits for the operator.
        #[arg(long, value_enum, default_value_t = Policy::Biased)]
        policy: Policy,
        /// Most bytes to copy after a crash.
        #[arg(long)]
        max_crash_resync: Option<u64>,
    },
    /// Give this node's leg to an array that was created on the other node.
    Join {
        #[command(flatten)]
        place: Place,
        /// The array's uuid, which `pair create` printed.
        #[arg(long)]
        uuid: String,
    },
}

/// Where this node's part is.
#[derive(Args)]
pub(crate) struct Place {
    /// The volume's name, the same on both nodes.
    name: String,
    /// This node's leg: a block device; a file, with `:SIZE` (K, M, G, T) to make one that is not there; or `bdev:NAME`, a
    /// bdev of the node.
    #[arg(long)]
    leg: String,
    /// Where this node shows its leg to the peer. Given twice, with `--peer` in the same order, for a second link: both are used, and the
    /// cut of one is a short pause.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// Where the peer shows its leg.
    #[arg(long, required = true)]
    peer: Vec<SocketAddr>,
    /// Where hosts reach the volume on this node.
    #[arg(long)]
    portal: SocketAddr,
    /// Who may use the volume, as an address with a prefix length.
    #[arg(long, default_value = "127.0.0.0/8")]
    allow: String,
    /// Start without the peer after so many milliseconds; by command alone when absent.
    #[arg(long)]
    degraded_start_ms: Option<u64>,
    /// How fast the pair decides that a node is dead. `fast` needs a quiet network and nodes that always get their share
    /// of a processor.
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    profile: Profile,
    /// How long hosts may wait, at the most, when the peer dies without a word: then the holder goes on without it. More
    /// rides out longer pauses. 2000 when absent, or 700 with the fast profile.
    #[arg(long, value_parser = clap::value_parser!(u64).range(500..=60_000))]
    max_stall_ms: Option<u64>,
    /// How long this node's disk may take for one I/O while the peer's leg can stand in: then it counts as failed until it has
    /// answered everything. 10000 when absent, or 5000 with the fast profile.
    #[arg(long, value_parser = clap::value_parser!(u64).range(500..=60_000))]
    disk_timeout_ms: Option<u64>,
    /// When a host's write is answered: sync-durable, when it is stable on both legs; sync-cached, when both have it, until
    /// the host asks for more (SYNCHRONIZE CACHE, FUA).
    #[arg(long, value_enum, default_value_t = Durability::SyncDurable)]
    durability: Durability,
    /// The pair's CHAP secrets, with which the nodes prove themselves to each other: `pair create` makes the file unless it
    /// is there, `pair join` needs a copy of it. `NAME.chap` when absent.
    #[arg(long)]
    secret_file: Option<PathBuf>,
    /// What becomes of hosts' commands on the node that does not serve: passed to the other one, or refused.
    #[arg(long, value_enum, default_value_t = Standby::Forward)]
    standby: Standby,
    /// Who chooses which node serves: the pair alone, or hosts, too (SET TARGET PORT GROUPS): each request of theirs is a planned
    /// switchover. Hosts that do not see both nodes alike would pass it to and fro.
    #[arg(long, value_enum, default_value_t = Alua::Implicit)]
    alua: Alua,
    #[command(flatten)]
    nic: Nic,
    #[command(flatten)]
    etcd: Etcd,
}

/// When a write is answered.
#[derive(Clone, Copy, ValueEnum)]
enum Durability {
    SyncDurable,
    SyncCached,
}

impl Place {
    fn links_differ(&self) -> Failure {
        let (listen, peer) = (self.listen.len(), self.peer.len());
        Failure::Usage(format!(
            "--listen and --peer go together, once for each link: there are {listen} and {peer}"
        ))
    }

    fn secret_file(&self) -> PathBuf {
        self.secret_file.clone().unwrap_or_else(|| PathBuf::from(format!("{}.chap", self.name)))
    }

    /// CHAP of the way from a node to the other's leg. Each role has a secret of its own (RFC 7143 section 9.2.1).
    fn chap(&self, from: Index) -> Value {
        let file = auth::absolute(&self.secret_file());
        let (node, leg) = (iqn(&self.name, &from.node()), iqn(&self.name, &from.other().leg()));
        json!({"user": node, "secret_file": file, "muser": leg, "msecret_file": file})
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Standby {
    Forward,
    Refuse,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Alua {
    Implicit,
    Explicit,
}

/// Where etcd is.
#[derive(Args)]
struct Etcd {
    /// Client URLs of etcd, with commas between, for an array whose policy is etcd.
    #[arg(long, value_delimiter = ',')]
    etcd: Vec<String>,
    /// User at etcd.
    #[arg(long, requires = "etcd_password_file")]
    etcd_user: Option<String>,
    /// File with the user's password.
    #[arg(long, requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
    /// Certificates (PEM) that etcd's must be signed by.
    #[arg(long)]
    etcd_ca: Option<PathBuf>,
    /// Our certificate (PEM) for etcd, which opens the connection: its common name is no user's, as etcd's JSON gateway takes none
    /// from there. Users log in by name and password.
    #[arg(long, requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// and its key.
    #[arg(long, requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
}

impl Etcd {
    /// As a parameter of the mirror's call; files by their absolute paths, because the node is somewhere else.
    fn params(&self) -> Option<Value> {
        if self.etcd.is_empty() {
            return None;
        }
        let mut params = json!({"endpoints": self.etcd});
        if let Some(user) = &self.etcd_user {
            params["user"] = json!(user);
        }
        for (key, file) in [
            ("password_file", &self.etcd_password_file),
            ("ca_file", &self.etcd_ca),
            ("cert_file", &self.etcd_cert),
            ("key_file", &self.etcd_key),
        ] {
            if let Some(file) = file {
                params[key] = json!(std::path::absolute(file).unwrap_or_else(|_| file.clone()));
            }
        }
        Some(params)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Outages of a few seconds.
    Default,
    /// Outages of about a second.
    Fast,
}

impl Profile {
    fn stall_ms(self) -> u64 {
        match self {
            Self::Default => 2000,
            Self::Fast => 700,
        }
    }
}

/// The longest stall has these parts: until the peer counts as dead, or an I/O on its leg as failed; then a little grace.
struct Patience {
    silence_ms: u64,
    io_timeout_ms: u64,
    grace_ms: u64,
}

impl Patience {
    fn of(max_stall_ms: u64) -> Self {
        let percent = |share: u64| max_stall_ms * share / 100;
        Self { silence_ms: percent(50), io_timeout_ms: percent(60), grace_ms: percent(15) }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Policy {
    Biased,
    Manual,
    /// A cluster manager that fences promotes and demotes; nothing happens by itself.
    External,
    /// An etcd decides; the peer takes over by itself. Needs `--etcd`.
    Etcd,
    /// The node refuses it, with the reason.
    #[value(hide = true)]
    Heartbeat,
}

/// This node's number in the array: the one that creates it is 0.
#[derive(Clone, Copy)]
struct Index(u8);

impl Index {
    fn other(self) -> Self {
        Self(1 - self.0)
    }

    /// What the node's name as an initiator ends with,
    fn node(self) -> String {
        format!(".node{}", self.0)
    }

    /// and its leg's as a target.
    fn leg(self) -> String {
        format!(".leg{}", self.0)
    }
}

fn iqn(name: &str, what: &str) -> String {
    format!("iqn.2026-11.org.gemel:{name}{what}")
}

/// Calls that make something, with the calls that undo them when a later one fails.
struct Builder<'a> {
    client: &'a mut Client,
    undo: Vec<(&'static str, Value)>,
}

impl Builder<'_> {
    fn make(&mut self, method: &str, params: Value, undo: (&'static str, Value)) -> Result<Value, Failure> {
        let made = self.client.call(method, Some(params))?;
        self.undo.push(undo);
        Ok(made)
    }

    /// Takes back what was made, newest first.
    fn take_back(&mut self) {
        for (method, params) in self.undo.drain(..).rev() {
            // What cannot be undone stays; the error that led here is the one to tell.
            let _ = self.client.call(method, Some(params));
        }
    }
}

/// Runs it; the text for the administrator. Whatever fails, nothing of it stays but what is on the leg.
pub(crate) fn run(client: &mut Client, options: &Options, pair: &Pair) -> Result<String, Failure> {
    let (place, index) = match pair {
        Pair::Create { place, .. } => (place, Index(0)),
        Pair::Join { place, .. } => (place, Index(1)),
    };
    let mut builder = Builder { client, undo: Vec::new() };
    match build(&mut builder, pair, place, index) {
        Ok(mut made) => {
            made["config_file"] = builder.client.call("node_get_config_file", None)?;
            made["url"] = json!(url(place));
            Ok(if options.json { show::pretty(&made) } else { told(place, index, &made) })
        }
        Err(error) => {
            builder.take_back();
            Err(error)
        }
    }
}

fn build(builder: &mut Builder<'_>, pair: &Pair, place: &Place, index: Index) -> Result<Value, Failure> {
    let name = &place.name;
    let (disk, content) = open_leg(builder, place)?;
    let way = format!("{name}_peer");
    let [peer, more_peers @ ..] = &place.peer[..] else { return Err(place.links_differ()) };
    if place.listen.len() != place.peer.len() {
        return Err(place.links_differ());
    }
    let url = format!("iscsi://{peer}/{}/0", iqn(name, &index.other().leg()));
    let initiator = iqn(name, &index.node());
    let stall_ms = place.max_stall_ms.unwrap_or(place.profile.stall_ms());
    let Patience { silence_ms, io_timeout_ms, grace_ms } = Patience::of(stall_ms);
    make_secrets(pair, place)?;
    for link in place.nic.links(builder.client, &place.listen)? {
        let undo = ("link_delete", json!({"name": link["name"]}));
        builder.make("link_create", link, undo)?;
    }
    let mut import = json!({
        "name": way, "initiator_iqn": initiator, "url": url, "silence_ms": silence_ms,
        "chap": place.chap(index),
    });
    if !more_peers.is_empty() {
        import["more_addresses"] = json!(more_peers);
    }
    builder.make("bdev_iscsi_create", import, ("bdev_iscsi_delete", json!({"name": way})))?;
    let mut mirror = json!({
        "name": name, "leg": disk, "peer": way, "index": index.0, "content": content.word(),
        "io_timeout_ms": io_timeout_ms, "grace_ms": grace_ms, "stall_ms": stall_ms,
        "profile": show::choice(&place.profile),
    });
    for (key, millis) in
        [("degraded_start_ms", place.degraded_start_ms), ("disk_timeout_ms", place.disk_timeout_ms)]
    {
        if let Some(millis) = millis {
            mirror[key] = json!(millis);
        }
    }
    if let Some(etcd) = place.etcd.params() {
        mirror["etcd"] = etcd;
    }
    let method = match pair {
        Pair::Create { policy, max_crash_resync, .. } => {
            mirror["policy"] = json!(match policy {
                Policy::Biased => "biased",
                Policy::Manual => "manual",
                Policy::External => "external",
                Policy::Etcd => "etcd",
                Policy::Heartbeat => "heartbeat",
            });
            if let Some(bytes) = max_crash_resync {
                mirror["max_crash_resync"] = json!(bytes);
            }
            "mirror_create"
        }
        Pair::Join { uuid, .. } => {
            mirror["uuid"] = json!(uuid);
            "mirror_assemble"
        }
    };
    let made = builder.make(method, mirror, ("mirror_delete", json!({"name": name})))?;
    look_at_leg(builder.client, name)?;
    let replication = show_leg(builder, place, index)?;
    show_volume(builder, place, index, replication)?;
    Ok(made)
}

/// The secrets of a new pair; those of one that is joined must be there.
fn make_secrets(pair: &Pair, place: &Place) -> Result<(), Failure> {
    let file = place.secret_file();
    match pair {
        Pair::Create { .. } => {
            let roles = [0, 1].map(|index| [Index(index).node(), Index(index).leg()]);
            let names: Vec<String> = roles.as_flattened().iter().map(|role| iqn(&place.name, role)).collect();
            secrets::make(&file, &place.name, &names).map_err(|error| Failure::Write(file, error))
        }
        Pair::Join { .. } if file.exists() => Ok(()),
        Pair::Join { .. } => Err(Failure::Usage(format!(
            "{} is missing: copy the file of that name that `gemel pair create` made on the other node, or name it with \
             --secret-file",
            file.display()
        ))),
    }
}

/// How long a leg may take to be looked at before nobody waits for it any longer.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(20);

/// A leg that cannot be used is the command's failure; one that waits for the peer is not.
fn look_at_leg(client: &mut Client, name: &str) -> Result<(), Failure> {
    for _ in 0..LOOKS {
        let status = client.call("mirror_get_status", Some(json!({"name": name})))?;
        match status[0]["role"].as_str() {
            Some("failed") => {
                let why = status[0]["reason"].as_str().unwrap_or("it cannot be used");
                return Err(Failure::Usage(format!("the leg of {name}: {why}")));
            }
            Some("starting" | "opening") => std::thread::park_timeout(LOOK),
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// The bdev that is this node's leg.
fn open_leg(builder: &mut Builder<'_>, place: &Place) -> Result<(String, Content), Failure> {
    if let Some(name) = place.leg.strip_prefix("bdev:") {
        return Ok((name.to_owned(), Content::Unknown));
    }
    let (leg, content) = leg_file(&place.leg)?;
    let disk = format!("{}_disk", place.name);
    let device = json!({"name": disk, "filename": leg, "block_size": 512});
    builder.make("bdev_uring_create", device, ("bdev_uring_delete", json!({"name": disk})))?;
    Ok((disk, content))
}

fn next_tag(client: &mut Client, method: &str) -> Result<i64, Failure> {
    let groups = client.call(method, None)?;
    let used = groups.as_array().into_iter().flatten().filter_map(|group| group["tag"].as_i64());
    Ok(used.max().unwrap_or(0) + 1)
}

/// A target to make.
struct Shown<'a> {
    name: &'a str,
    alias: &'a str,
    bdev: &'a str,
    at: &'a [SocketAddr],
    /// Initiators' names, and their networks.
    who: [Value; 2],
    durability: &'a str,
    /// The one account of mutual CHAP; `None` for no CHAP.
    chap: Option<Value>,
    /// What else its call gets.
    more: Value,
}

/// An authentication group of one account, asked for by whoever comes.
fn authentication(builder: &mut Builder<'_>, account: &Value) -> Result<Value, Failure> {
    let tag = next_tag(builder.client, "iscsi_get_auth_groups")?;
    let group = json!({"tag": tag, "secrets": [account]});
    builder.make("iscsi_create_auth_group", group, ("iscsi_delete_auth_group", json!({"tag": tag})))?;
    Ok(json!({"require_chap": true, "mutual_chap": true, "chap_group": tag}))
}

fn merge(mut params: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        params[key] = value.clone();
    }
    params
}

/// A target for one bdev, and where it listens: the portal group's tag.
fn target(builder: &mut Builder<'_>, shown: &Shown<'_>) -> Result<i64, Failure> {
    let Shown { name, alias, bdev, at, who, durability, chap, more } = shown;
    let chap = chap.as_ref().map(|account| authentication(builder, account)).transpose()?;
    let portal = next_tag(builder.client, "iscsi_get_portal_groups")?;
    let portals = at.iter().map(|at| json!({"host": at.ip().to_string(), "port": at.port().to_string()}));
    let portals: Vec<Value> = portals.collect();
    let made = json!({"tag": portal, "portals": portals});
    builder.make("iscsi_create_portal_group", made, ("iscsi_delete_portal_group", json!({"tag": portal})))?;
    if let Some(chap) = &chap {
        // Nobody else needs to know what is here, either.
        builder.client.call("iscsi_portal_group_set_auth", Some(merge(json!({"tag": portal}), chap)))?;
    }
    let group = next_tag(builder.client, "iscsi_get_initiator_groups")?;
    let [initiators, netmasks] = who;
    let members = json!({"tag": group, "initiators": initiators, "netmasks": netmasks});
    let undo = ("iscsi_delete_initiator_group", json!({"tag": group}));
    builder.make("iscsi_create_initiator_group", members, undo)?;
    let node = json!({
        "name": name, "alias_name": alias, "pg_ig_maps": [{"pg_tag": portal, "ig_tag": group}],
        "luns": [{"bdev_name": bdev, "lun_id": 0}], "queue_depth": 128, "durability": durability,
    });
    let node = merge(merge(node, &chap.unwrap_or_default()), more);
    builder.make("iscsi_create_target_node", node, ("iscsi_delete_target_node", json!({"name": name})))?;
    Ok(portal)
}

/// The leg, for the peer alone; the holder says of each write how durable it has to be.
fn show_leg(builder: &mut Builder<'_>, place: &Place, index: Index) -> Result<i64, Failure> {
    let name = iqn(&place.name, &index.leg());
    let peer = iqn(&place.name, &index.other().node());
    let bdev = format!("{}_leg", place.name);
    let shown = Shown {
        name: &name,
        alias: "leg",
        bdev: &bdev,
        at: &place.listen,
        who: [json!([peer]), json!(place.peer.iter().map(|peer| peer.ip().to_string()).collect::<Vec<_>>())],
        durability: "sync-cached",
        chap: Some(place.chap(index.other())),
        more: json!({}),
    };
    target(builder, &shown)
}

/// The volume, for hosts; commands of the peer's hosts come over the replication link.
fn show_volume(
    builder: &mut Builder<'_>,
    place: &Place,
    index: Index,
    replication: i64,
) -> Result<i64, Failure> {
    let name = iqn(&place.name, "");
    let who = [json!(["ANY"]), json!([place.allow])];
    let standby = match place.standby {
        Standby::Forward => "forward",
        Standby::Refuse => "refuse",
    };
    let alua = match place.alua {
        Alua::Implicit => "implicit",
        Alua::Explicit => "explicit",
    };
    // The portal group asks for the leg's CHAP of those that are relayed, too.
    let mut peer = json!({
        "address": place.peer.first(), "pg_tag": replication, "standby": standby, "alua": alua,
        "chap": place.chap(index),
    });
    if let Some(more) = place.peer.get(1..).filter(|more| !more.is_empty()) {
        peer["more_addresses"] = json!(more);
    }
    let (at, durability, more) = (&[place.portal], &show::choice(&place.durability), json!({"peer": peer}));
    target(
        builder,
        &Shown { name: &name, alias: &place.name, bdev: &place.name, at, who, durability, chap: None, more },
    )
}

fn url(place: &Place) -> String {
    format!("iscsi://{}/{}/0", place.portal, iqn(&place.name, ""))
}

fn told(place: &Place, index: Index, made: &Value) -> String {
    let mut text = format!("LUN: {}\n{}", url(place), kept(&made["config_file"]));
    if index.0 == 0 {
        let uuid = made["uuid"].as_str().unwrap_or("-");
        let secrets = place.secret_file();
        text += &format!(
            "\nCopy {} to the other node, and there:\n  {}",
            secrets.display(),
            join::command(place, uuid)
        );
    }
    text
}

/// Whether the node will know the pair after a restart.
fn kept(config: &Value) -> String {
    match (config["file"].as_str(), config["write_back"].as_bool(), config["error"].as_str()) {
        (_, _, Some(error)) => format!("Not kept: {error}"),
        (Some(file), Some(true), None) => format!("Kept in {file}"),
        (Some(file), ..) => format!(
            "Not kept for the node's next start: run gemel config save {file}, or start gemeld with --write-back"
        ),
        (None, ..) => "Not kept for the node's next start: run gemel config save FILE and start gemeld with \
                       --config FILE, or with --config FILE --write-back from the beginning"
            .to_owned(),
    }
}
