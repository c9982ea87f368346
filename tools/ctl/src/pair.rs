//! `gemel pair`: a mirrored volume in two commands, one for each node. Each makes the leg, the way to the peer, the
//! mirror, and the two targets: the leg for the peer alone, the volume for hosts.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use rpc::Client;
use serde_json::{Value, json};

use crate::{Failure, Options, show};

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
    /// This node's leg: a block device, or a file, with `:SIZE` (K, M, G, T) to make one that is not there.
    #[arg(long)]
    leg: String,
    /// Where this node shows its leg to the peer.
    #[arg(long)]
    listen: SocketAddr,
    /// Where the peer shows its leg.
    #[arg(long)]
    peer: SocketAddr,
    /// Where hosts reach the volume on this node.
    #[arg(long)]
    portal: SocketAddr,
    /// Who may use the volume, as an address with a prefix length.
    #[arg(long, default_value = "127.0.0.0/8")]
    allow: String,
    /// Start without the peer after so many milliseconds; by command alone when absent.
    #[arg(long)]
    degraded_start_ms: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Policy {
    Biased,
    Manual,
}

/// This node's number in the array: the one that creates it is 0.
#[derive(Clone, Copy)]
struct Index(u8);

impl Index {
    fn other(self) -> Self {
        Self(1 - self.0)
    }
}

fn iqn(name: &str, what: &str) -> String {
    format!("iqn.2026-11.org.gemel:{name}{what}")
}

/// Runs it; the text for the administrator.
pub(crate) fn run(client: &mut Client, options: &Options, pair: &Pair) -> Result<String, Failure> {
    let (place, index) = match pair {
        Pair::Create { place, .. } => (place, Index(0)),
        Pair::Join { place, .. } => (place, Index(1)),
    };
    let (leg, content) = leg_file(&place.leg)?;
    let name = &place.name;
    let (disk, way) = (format!("{name}_disk"), format!("{name}_peer"));
    let block_device = json!({"name": disk, "filename": leg, "block_size": 512});
    client.call("bdev_uring_create", Some(block_device))?;
    let url = format!("iscsi://{}/{}/0", place.peer, iqn(name, &format!(".leg{}", index.other().0)));
    let initiator = iqn(name, &format!(".node{}", index.0));
    client.call("bdev_iscsi_create", Some(json!({"name": way, "initiator_iqn": initiator, "url": url})))?;
    let mut mirror = json!({
        "name": name, "leg": disk, "peer": way, "index": index.0, "content": content.word(),
    });
    if let Some(millis) = place.degraded_start_ms {
        mirror["degraded_start_ms"] = json!(millis);
    }
    let made = match pair {
        Pair::Create { policy, max_crash_resync, .. } => {
            mirror["policy"] = json!(match policy {
                Policy::Biased => "biased",
                Policy::Manual => "manual",
            });
            if let Some(bytes) = max_crash_resync {
                mirror["max_crash_resync"] = json!(bytes);
            }
            client.call("mirror_create", Some(mirror))?
        }
        Pair::Join { uuid, .. } => {
            mirror["uuid"] = json!(uuid);
            client.call("mirror_assemble", Some(mirror))?
        }
    };
    show_leg(client, place, index)?;
    show_volume(client, place, index)?;
    Ok(if options.json { show::pretty(&made) } else { told(place, index, &made) })
}

fn next_tag(client: &mut Client, method: &str) -> Result<i64, Failure> {
    let groups = client.call(method, None)?;
    let used = groups.as_array().into_iter().flatten().filter_map(|group| group["tag"].as_i64());
    Ok(used.max().unwrap_or(0) + 1)
}

fn target(
    client: &mut Client,
    (name, alias, bdev): (&str, &str, &str),
    at: SocketAddr,
    who: &[Value; 2],
    durability: &str,
) -> Result<(), Failure> {
    let portal = next_tag(client, "iscsi_get_portal_groups")?;
    let portals = json!([{"host": at.ip().to_string(), "port": at.port().to_string()}]);
    client.call("iscsi_create_portal_group", Some(json!({"tag": portal, "portals": portals})))?;
    let group = next_tag(client, "iscsi_get_initiator_groups")?;
    let [initiators, netmasks] = who;
    let members = json!({"tag": group, "initiators": initiators, "netmasks": netmasks});
    client.call("iscsi_create_initiator_group", Some(members))?;
    let node = json!({
        "name": name, "alias_name": alias, "pg_ig_maps": [{"pg_tag": portal, "ig_tag": group}],
        "luns": [{"bdev_name": bdev, "lun_id": 0}], "queue_depth": 128, "durability": durability,
    });
    client.call("iscsi_create_target_node", Some(node))?;
    Ok(())
}

/// The leg, for the peer alone; the holder says of each write how durable it has to be.
fn show_leg(client: &mut Client, place: &Place, index: Index) -> Result<(), Failure> {
    let name = iqn(&place.name, &format!(".leg{}", index.0));
    let peer = iqn(&place.name, &format!(".node{}", index.other().0));
    let bdev = format!("{}_leg", place.name);
    target(client, (&name, "leg", &bdev), place.listen, &[json!([peer]), json!(["ANY"])], "sync-cached")
}

fn show_volume(client: &mut Client, place: &Place, _: Index) -> Result<(), Failure> {
    let name = iqn(&place.name, "");
    let who = [json!(["ANY"]), json!([place.allow])];
    target(client, (&name, &place.name, &place.name), place.portal, &who, "sync-durable")
}

fn told(place: &Place, index: Index, made: &Value) -> String {
    let name = &place.name;
    let url = format!("LUN: iscsi://{}/{}/0", place.portal, iqn(name, ""));
    if index.0 == 1 {
        return url;
    }
    let uuid = made["uuid"].as_str().unwrap_or("-");
    format!(
        "{url}\nOn the other node:\n  gemel pair join {name} --uuid {uuid} --leg FILE --listen {} --peer {} --portal ADDRESS:PORT",
        place.peer, place.listen
    )
}

/// Whether the leg is known to be zeroes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Zeroed,
    Unknown,
}

impl Content {
    fn word(self) -> &'static str {
        match self {
            Self::Zeroed => "zeroed",
            Self::Unknown => "unknown",
        }
    }
}

/// The leg's path, made if a size is given and nothing is there.
fn leg_file(leg: &str) -> Result<(PathBuf, Content), Failure> {
    let (path, size) = match leg.rsplit_once(':') {
        Some((path, size)) => (Path::new(path), Some(parse_size(size)?)),
        None => (Path::new(leg), None),
    };
    let mut content = Content::Unknown;
    if let Some(size) = size.filter(|_| !path.exists()) {
        let create = || OpenOptions::new().write(true).create_new(true).open(path)?.set_len(size);
        create().map_err(|error| Failure::Write(path.to_owned(), error))?;
        content = Content::Zeroed;
    }
    let path = fs::canonicalize(path).map_err(|error| {
        Failure::Usage(format!(
            "leg {}: {error}; give a size to make it: {}:10G",
            path.display(),
            path.display()
        ))
    })?;
    Ok((path, content))
}

fn parse_size(text: &str) -> Result<u64, Failure> {
    let bad = || Failure::Usage(format!("{text:?} is no size: write a number and K, M, G or T"));
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        Some((at, 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("64M").expect("a size"), 64 << 20);
        assert_eq!(parse_size("4096").expect("a size"), 4096);
        assert!(parse_size("1X").is_err() && parse_size("").is_err() && parse_size("99999999T").is_err());
    }

    #[test]
    fn a_leg_that_is_not_there_needs_a_size() {
        let missing = leg_file("/nonexistent/leg.img").expect_err("nothing there");
        assert!(missing.to_string().contains("give a size"), "{missing}");
    }
}
