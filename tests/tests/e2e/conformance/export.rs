//! Makes a profile's LUN.

use std::any::Any;

use serde_json::{Value, json};
use tests::node::Node;
use tests::pair::{Company, Pair, Unusual};

use super::profiles::{Backing, Profile, Way};

/// Long enough for RFC 7143's recommendation of 96 bits.
const SECRET: &str = "abcdefgh12345";

/// The authentication group of hosts, beside those of a pair's nodes.
const HOSTS: i64 = 100;

/// The target of a pair's volume.
const VOLUME: &str = "iqn.2026-11.org.gemel:vol0";

/// The URLs of a LUN's paths, and the node or pair that it lives in.
pub(super) struct Exported {
    pub(super) urls: Vec<String>,
    _home: Box<dyn Any>,
}

/// Makes the profile's LUN, with options of its own.
pub(super) fn export(profile: &Profile, options: &Value) -> Exported {
    match profile.backing {
        Backing::Pair { first } => pair(profile, first, options),
        Backing::File { .. } | Backing::Encrypted | Backing::Memory { .. } => node(profile, options),
    }
}

/// A LUN's parameters with options.
fn with(mut lun: Value, options: &Value) -> Value {
    for (key, value) in options.as_object().expect("options") {
        lun[key] = value.clone();
    }
    lun
}

fn pair(profile: &Profile, first: Way, options: &Value) -> Exported {
    let bytes = Some(profile.mib << 20);
    let pair = Pair::build(Unusual { bytes, company: Company::Welcome, ..Unusual::default() }, |_| {}, None);
    pair.wait_in_sync(0);
    for node in [0, 1].map(|index| pair.node(index)) {
        make_again(node, options);
        profile.user.into_iter().for_each(|user| require(node, VOLUME, user));
    }
    let login = login(profile);
    let path = |node: usize| pair.urls[node].replacen("iscsi://", &format!("iscsi://{login}"), 1);
    let urls = match first {
        Way::ToHolder => vec![path(0), path(1)],
        Way::ToStandby => vec![path(1), path(0)],
    };
    Exported { urls, _home: Box::new(pair) }
}

/// The target that `gemel pair` has made at a node, with options of its LUN.
fn make_again(node: &Node, options: &Value) {
    let config = node.must("framework_get_config", json!({"name": "iscsi"}));
    let is_it =
        |call: &&Value| call["method"] == "iscsi_create_target_node" && call["params"]["name"] == VOLUME;
    let made = config.as_array().expect("calls").iter().find(is_it).expect("the volume's target");
    let mut target = made["params"].clone();
    target["luns"][0] = with(target["luns"][0].clone(), options);
    node.must("iscsi_delete_target_node", json!({"name": VOLUME}));
    node.must("iscsi_create_target_node", target);
}

fn node(profile: &Profile, options: &Value) -> Exported {
    let node = Node::start(&[]);
    device(&node, profile);
    let group = json!({"tag": 1, "initiators": ["ANY"], "netmasks": ["127.0.0.1"]});
    node.must("iscsi_create_initiator_group", group);
    let portals = match profile.backing {
        Backing::Memory { portals, .. } => portals,
        _ => 1,
    };
    let mut maps = Vec::new();
    for tag in 1..=portals {
        let portals = json!({"tag": tag, "portals": [{"host": "127.0.0.1", "port": "0"}]});
        node.must("iscsi_create_portal_group", portals);
        maps.push(json!({"pg_tag": tag, "ig_tag": 1}));
    }
    let name = "iqn.2026-11.org.gemel:d0";
    let lun = with(json!({"bdev_name": "d0", "lun_id": 0}), options);
    let target =
        json!({"name": name, "alias_name": "d0", "pg_ig_maps": maps, "luns": [lun], "queue_depth": 64});
    node.must("iscsi_create_target_node", target);
    if let Some(user) = profile.user {
        require(&node, name, user);
    }
    let groups = node.must("iscsi_get_portal_groups", Value::Null);
    let port = |group: &Value| group["portals"][0]["port"].as_str().expect("a port").to_owned();
    let ports = groups.as_array().expect("groups").iter().map(port);
    let login = login(profile);
    let urls = ports.map(|port| format!("iscsi://{login}127.0.0.1:{port}/{name}/0")).collect();
    Exported { urls, _home: Box::new(node) }
}

/// The blocks of a LUN of one node: the device `d0`.
fn device(node: &Node, profile: &Profile) {
    let bytes = profile.mib << 20;
    match profile.backing {
        Backing::File { block_size } => {
            let file = node.file("d0", bytes);
            let device = json!({"name": "d0", "filename": file, "block_size": block_size});
            node.must("bdev_uring_create", device);
        }
        Backing::Encrypted => {
            let file = node.file("base", bytes);
            node.must("bdev_uring_create", json!({"name": "base", "filename": file, "block_size": 512}));
            let key = "0123456789abcdef".repeat(4);
            node.must("accel_crypto_key_create", json!({"name": "k0", "cipher": "AES_XTS", "key": key}));
            let device = json!({"name": "d0", "base_bdev_name": "base", "key_name": "k0", "format": true});
            node.must("bdev_crypto_create", device);
        }
        Backing::Memory { physical_block_size, .. } => {
            let device = json!({
                "name": "d0", "num_blocks": bytes / 512, "block_size": 512,
                "physical_block_size": physical_block_size,
            });
            node.must("bdev_malloc_create", device);
        }
        Backing::Pair { .. } => unreachable!("a pair's device is its volume"),
    }
}

/// What a URL has of the user.
fn login(profile: &Profile) -> String {
    profile.user.map(|user| format!("{user}%{SECRET}@")).unwrap_or_default()
}

/// CHAP, of everybody, with this user's secret.
fn require(node: &Node, target: &str, user: &str) {
    let secrets = json!([{"user": user, "secret": SECRET}]);
    node.must("iscsi_create_auth_group", json!({"tag": HOSTS, "secrets": secrets}));
    let auth = json!({"name": target, "require_chap": true, "mutual_chap": false, "chap_group": HOSTS});
    node.must("iscsi_target_node_set_auth", auth);
}
