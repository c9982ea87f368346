//! `gemel portal`, `gemel initiators`, `gemel target`: where a node is reached, who may use what, and sending initiators away.

use std::net::SocketAddr;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::show;

/// Portal groups: where initiators connect.
#[derive(Subcommand)]
pub(crate) enum Portals {
    /// List them.
    List,
    /// Listen on a group of portals.
    Create {
        /// The group's tag.
        tag: i32,
        /// Addresses to listen on, as `ADDRESS:PORT`, or `ADDRESS:PORT=ADDRESS:PORT` with what discovery says instead.
        #[arg(required = true)]
        portals: Vec<String>,
        /// Discovery at other portals does not tell of it.
        #[arg(long)]
        private: bool,
    },
    /// Stop listening; sessions are asked to log out.
    Delete {
        /// The group's tag.
        tag: i32,
    },
}

/// Initiator groups: who may be let in.
#[derive(Subcommand)]
pub(crate) enum Initiators {
    /// List them.
    List,
    /// Make a group.
    Create {
        /// The group's tag.
        tag: i32,
        #[command(flatten)]
        entries: Entries,
    },
    /// Delete a group that no target uses.
    Delete {
        /// The group's tag.
        tag: i32,
    },
    /// Add entries, before those that are there.
    Add {
        /// The group's tag.
        tag: i32,
        #[command(flatten)]
        entries: Entries,
    },
    /// Remove entries; sessions that they let in end.
    Remove {
        /// The group's tag.
        tag: i32,
        #[command(flatten)]
        entries: Entries,
    },
}

#[derive(Args)]
pub(crate) struct Entries {
    /// An initiator's name, `alias:ALIAS`, or ANY; with `!` before it, it is kept out. The first that fits decides.
    #[arg(long = "initiator")]
    initiators: Vec<String>,
    /// A network, `ADDRESS/PREFIX`, an address, or ANY; with `!` before it, it is kept out. The first that fits decides.
    #[arg(long = "netmask")]
    netmasks: Vec<String>,
}

impl Entries {
    fn params(&self, tag: i32) -> Option<Value> {
        Some(json!({"tag": tag, "initiators": self.initiators, "netmasks": self.netmasks}))
    }
}

/// Targets: who may use them, and sending their initiators away.
#[derive(Subcommand)]
pub(crate) enum Targets {
    /// List them with who may use them.
    List,
    /// Let a group of initiators use a target through a portal group.
    Allow {
        /// The target's iSCSI name.
        name: String,
        #[command(flatten)]
        map: Map,
        /// The LUNs that show, with commas between; all when absent.
        #[arg(long, value_delimiter = ',')]
        luns: Option<Vec<u16>>,
    },
    /// Take that back; sessions that it let in end.
    Deny {
        /// The target's iSCSI name.
        name: String,
        #[command(flatten)]
        map: Map,
    },
    /// Send logins at a portal group to another portal; without an address, not any more.
    Redirect {
        /// The target's iSCSI name.
        name: String,
        /// The portal group.
        #[arg(long)]
        portal_group: i32,
        /// Where to.
        #[arg(long)]
        to: Option<SocketAddr>,
        /// For good: initiators may keep the new address.
        #[arg(long, requires = "to")]
        permanent: bool,
    },
    /// Export a device as a LUN of a target that serves already. Whoever sees it is told.
    AddLun {
        /// The target's iSCSI name.
        name: String,
        /// The device.
        bdev: String,
        /// Its number; the first that is free when absent.
        #[arg(long)]
        lun: Option<u16>,
        /// Hosts may not write.
        #[arg(long)]
        read_only: bool,
        /// Its medium can be ejected.
        #[arg(long)]
        removable: bool,
    },
    /// Remove a LUN other than 0. Commands at it end, and whoever saw it is told; of a pair, at both nodes.
    RemoveLun {
        /// The target's iSCSI name.
        name: String,
        /// The LUN.
        lun: u16,
    },
    /// Give up a LUN's reservations, mode parameters and identifying information, which cannot be read: whoever they keep
    /// out gets in.
    GiveUpUnitState {
        /// The target's iSCSI name.
        name: String,
        /// The LUN.
        lun: u16,
        /// Do it: without this, nothing happens.
        #[arg(long)]
        yes: bool,
    },
    /// Ask initiators to log out; those that do not are sent away.
    RequestLogout {
        /// The target's iSCSI name.
        name: String,
        /// Those at this portal group alone.
        #[arg(long)]
        portal_group: Option<i32>,
    },
}

#[derive(Args)]
pub(crate) struct Map {
    /// The portal group.
    #[arg(long)]
    portal_group: i32,
    /// The initiator group.
    #[arg(long)]
    initiator_group: i32,
}

/// How an answer is shown.
pub(crate) type Show = fn(&Value) -> String;
/// A call, and how its answer is shown.
pub(crate) type Call = (&'static str, Option<Value>, Show);

fn portal(text: &str) -> Value {
    let (address, advertise) = match text.split_once('=') {
        Some((address, advertise)) => (address, Some(advertise)),
        None => (text, None),
    };
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "3260"));
    let mut portal = json!({"host": host, "port": port});
    if let Some(advertise) = advertise {
        portal["advertise"] = json!(advertise);
    }
    portal
}

impl Portals {
    pub(crate) fn call(&self) -> Call {
        match self {
            Self::List => ("iscsi_get_portal_groups", None, portals),
            Self::Create { tag, portals, private } => {
                let portals: Value = portals.iter().map(|text| portal(text)).collect();
                let params = json!({"tag": tag, "portals": portals, "private": private});
                ("iscsi_create_portal_group", Some(params), show::done)
            }
            Self::Delete { tag } => ("iscsi_delete_portal_group", Some(json!({"tag": tag})), show::done),
        }
    }
}

impl Initiators {
    pub(crate) fn call(&self) -> Call {
        match self {
            Self::List => ("iscsi_get_initiator_groups", None, groups),
            Self::Create { tag, entries } => {
                ("iscsi_create_initiator_group", entries.params(*tag), show::done)
            }
            Self::Delete { tag } => ("iscsi_delete_initiator_group", Some(json!({"tag": tag})), show::done),
            Self::Add { tag, entries } => {
                ("iscsi_initiator_group_add_initiators", entries.params(*tag), show::done)
            }
            Self::Remove { tag, entries } => {
                ("iscsi_initiator_group_remove_initiators", entries.params(*tag), show::done)
            }
        }
    }
}

impl Targets {
    pub(crate) fn call(&self) -> Call {
        let maps = |name: &str, map: &Map, luns: Option<&Vec<u16>>| {
            let mut one = json!({"pg_tag": map.portal_group, "ig_tag": map.initiator_group});
            if let Some(luns) = luns {
                one["luns"] = json!(luns);
            }
            Some(json!({"name": name, "pg_ig_maps": [one]}))
        };
        match self {
            Self::List => ("iscsi_get_target_nodes", None, targets),
            Self::Allow { name, map, luns } => {
                ("iscsi_target_node_add_pg_ig_maps", maps(name, map, luns.as_ref()), show::done)
            }
            Self::Deny { name, map } => {
                ("iscsi_target_node_remove_pg_ig_maps", maps(name, map, None), show::done)
            }
            Self::Redirect { name, portal_group, to, permanent } => {
                let mut params = json!({"name": name, "pg_tag": portal_group, "permanent": permanent});
                if let Some(to) = to {
                    params["redirect_host"] = json!(to.ip().to_string());
                    params["redirect_port"] = json!(to.port().to_string());
                }
                ("iscsi_target_node_set_redirect", Some(params), show::done)
            }
            Self::AddLun { name, bdev, lun, read_only, removable } => {
                let mut params = json!({
                    "name": name, "bdev_name": bdev, "read_only": read_only, "removable": removable,
                });
                if let Some(number) = lun {
                    params["lun_id"] = json!(number);
                }
                ("iscsi_target_node_add_lun", Some(params), show::done)
            }
            Self::RemoveLun { name, lun } => {
                let params = json!({"name": name, "lun_id": lun});
                ("iscsi_target_node_remove_lun", Some(params), show::done)
            }
            Self::GiveUpUnitState { name, lun, yes } => {
                let params = json!({"name": name, "lun_id": lun, "confirm": yes});
                ("iscsi_target_node_give_up_unit_state", Some(params), show::done)
            }
            Self::RequestLogout { name, portal_group } => {
                let mut params = json!({"name": name});
                if let Some(tag) = portal_group {
                    params["pg_tag"] = json!(tag);
                }
                ("iscsi_target_node_request_logout", Some(params), show::done)
            }
        }
    }
}

fn words(list: &Value) -> String {
    let word = |entry: &Value| entry.as_str().map_or_else(|| entry.to_string(), str::to_owned);
    list.as_array().into_iter().flatten().map(word).collect::<Vec<_>>().join(" ")
}

fn lines(list: &Value, one: impl Fn(&Value) -> String) -> String {
    list.as_array().into_iter().flatten().map(one).collect::<Vec<_>>().join("\n")
}

fn portals(answer: &Value) -> String {
    lines(answer, |group| {
        let one = |portal: &Value| {
            let text = |key: &str| portal[key].as_str().unwrap_or("-").to_owned();
            match portal["advertise"].as_str() {
                None => format!("{}:{}", text("host"), text("port")),
                Some(advertise) => format!("{}:{} (told as {advertise})", text("host"), text("port")),
            }
        };
        let portals: Vec<String> = group["portals"].as_array().into_iter().flatten().map(one).collect();
        let private = if group["private"] == true { ", private" } else { "" };
        format!("portal group {}{private}: {}", group["tag"], portals.join(", "))
    })
}

fn groups(answer: &Value) -> String {
    lines(answer, |group| {
        let (names, masks) = (words(&group["initiators"]), words(&group["netmasks"]));
        format!("initiator group {}: {names} from {masks}", group["tag"])
    })
}

fn targets(answer: &Value) -> String {
    lines(answer, |target| {
        let chap = match (&target["disable_chap"], &target["require_chap"], &target["mutual_chap"]) {
            (Value::Bool(true), ..) => "no CHAP",
            (_, _, Value::Bool(true)) => "mutual CHAP",
            (_, Value::Bool(true), _) => "CHAP",
            _ => "optional CHAP",
        };
        let map = |map: &Value| {
            let luns = if map["luns"].is_array() {
                format!(", LUNs {}", words(&map["luns"]))
            } else {
                String::new()
            };
            format!("\n      initiator group {} at portal group {}{luns}", map["ig_tag"], map["pg_tag"])
        };
        let maps: String = target["pg_ig_maps"].as_array().into_iter().flatten().map(map).collect();
        format!("{} ({chap}){maps}", target["name"].as_str().unwrap_or("-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portals_are_read_and_shown() {
        assert_eq!(portal("10.0.0.1:3261"), json!({"host": "10.0.0.1", "port": "3261"}));
        assert_eq!(portal("[::]:3260=10.0.2.2:3260")["advertise"], "10.0.2.2:3260");
        let groups = json!([{"tag": 2, "private": true, "portals": [
            {"host": "::", "port": "3260", "advertise": "10.0.2.2:3260"}]}]);
        assert_eq!(portals(&groups), "portal group 2, private: :::3260 (told as 10.0.2.2:3260)");
    }

    #[test]
    fn targets_are_shown_with_who_may_use_them() {
        let target = json!([{"name": "iqn.x:t", "require_chap": true, "pg_ig_maps": [
            {"pg_tag": 1, "ig_tag": 2, "luns": [0, 3]}, {"pg_tag": 1, "ig_tag": 3}]}]);
        assert_eq!(
            targets(&target),
            "iqn.x:t (CHAP)\n      initiator group 2 at portal group 1, LUNs 0 3\n      initiator group 3 at portal group 1"
        );
    }
}
