//! Crypto bdevs with real processes: what a host writes is noise in the file, the key reads it after a restart, another key is
//! refused, nothing shows a key, and after a cryptographic erase the old data are gone.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::host::{GOOD, Host, check};
use tests::node::Node;
use tests::pair::{Pair, Unusual};

const INITIATOR: &str = "iqn.2026-11.org.gemel:host";
const KEY: &str = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
const KEY2: &str = "ffeeddccbbaa99887766554433221100fedcba9876543210fedcba9876543210";

fn refused(node: &Node, method: &str, params: Value, word: &str) -> String {
    let error = node.call(method, params).expect_err(method).to_string();
    assert!(error.contains(word), "{method}: {error}");
    error
}

/// A file of a key, which nobody else may read.
fn key_file(node: &Node, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let file = node.folder.path().join(name);
    std::fs::write(&file, text).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    file
}

/// A crypto bdev `c0` over a file; gives the file.
fn encrypted(node: &Node) -> PathBuf {
    encrypted_of(node, 16 << 20)
}

fn encrypted_of(node: &Node, bytes: u64) -> PathBuf {
    let file = node.file("disk", bytes);
    let keys = key_file(node, "keys", &format!("# ours\n{KEY}\n{KEY2}\n"));
    node.must("accel_crypto_key_create", json!({"name": "k0", "cipher": "AES_XTS", "key_file": keys}));
    node.must("bdev_uring_create", json!({"name": "d0", "filename": file}));
    let base = json!({"name": "c0", "base_bdev_name": "d0", "key_name": "k0"});
    refused(node, "bdev_crypto_create", base.clone(), "never formatted");
    let mut format = base;
    format["format"] = json!(true);
    assert_eq!(node.must("bdev_crypto_create", format), json!("c0"));
    file
}

fn holds(file: &Path, bytes: &[u8]) -> bool {
    std::fs::read(file).expect("the file").windows(bytes.len()).any(|found| found == bytes)
}

#[test]
fn the_file_holds_noise_and_the_key_reads_it_after_a_restart() {
    let node = Node::start(&[]);
    let file = encrypted(&node);
    let mut host = Host::login(&node.export("c0"), INITIATOR);
    host.attentions();
    assert_eq!(host.write(3, 0x5a), GOOD);
    assert_eq!((host.read(3), host.read(4)), (Ok(0x5a), Ok(0)));
    assert!(!holds(&file, &[0x5a; 16]));
    drop(host);
    let saved = std::fs::read_to_string(node.save_config()).expect("the configuration");
    assert!(!saved.contains(&KEY[..8]) && saved.contains("\"key_file\"") && !saved.contains("\"format\""));
    let config = node.folder.path().join("config.json");
    let (folder, status) = node.stop();
    assert!(status.success());
    let again = Node::start_in(folder, &["--config", config.to_str().expect("a path")]);
    let groups = again.must("iscsi_get_portal_groups", Value::Null);
    let port = groups[0]["portals"][0]["port"].as_str().expect("a port").to_owned();
    let url = format!("iscsi://127.0.0.1:{port}/iqn.2026-11.org.gemel:c0/0");
    let mut host = Host::login(&url, INITIATOR);
    host.attentions();
    assert_eq!((host.read(3), host.read(4)), (Ok(0x5a), Ok(0)));
    erased(&again, &mut host);
    assert!(!again.log().contains(&KEY[..8]) && !again.log().contains(&KEY2[..8]));
}

/// After SANITIZE, CRYPTOGRAPHIC ERASE the same user's key reads noise, now and after the device is opened again.
fn erased(node: &Node, host: &mut Host) {
    assert_eq!(host.command(&[0x48, 0x03, 0, 0, 0, 0, 0, 0, 0, 0]), GOOD);
    let is_noise = |host: &mut Host| {
        let task = host.send(&[0x28, 0, 0, 0, 0, 3, 0, 0, 1, 0], &[], 512);
        let (outcome, data) = host.end(task);
        assert_eq!((outcome, data.len()), (GOOD, 512));
        !data.windows(4).any(|bytes| bytes == [0x5a; 4] || bytes == [0; 4])
    };
    assert!(is_noise(host));
    assert_eq!(host.write(4, 7), GOOD);
    node.must("iscsi_delete_target_node", json!({"name": "iqn.2026-11.org.gemel:c0"}));
    node.must("bdev_crypto_delete", json!({"name": "c0"}));
    node.must("bdev_crypto_create", json!({"name": "c0", "base_bdev_name": "d0", "key_name": "k0"}));
    let target = json!({"name": "iqn.2026-11.org.gemel:c0", "alias_name": "c0", "queue_depth": 64,
        "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}], "luns": [{"bdev_name": "c0", "lun_id": 0}]});
    node.must("iscsi_create_target_node", target);
    let groups = node.must("iscsi_get_portal_groups", Value::Null);
    let port = groups[0]["portals"][0]["port"].as_str().expect("a port").to_owned();
    let mut host = Host::login(&format!("iscsi://127.0.0.1:{port}/iqn.2026-11.org.gemel:c0/0"), INITIATOR);
    host.attentions();
    assert!(is_noise(&mut host));
    assert_eq!(host.read(4), Ok(7));
}

#[test]
fn a_unit_that_is_not_encrypted_refuses_the_erase_and_does_not_offer_it() {
    let node = Node::start(&[]);
    encrypted(&node);
    let mut host = Host::login(&node.export("c0"), INITIATOR);
    host.attentions();
    let offers = |host: &mut Host| {
        let task = host.send(&[0xa3, 0x0c, 0x03, 0x48, 0, 0x03, 0, 0, 0, 64, 0, 0], &[], 64);
        let support = host.end(task).1[1] & 0x07;
        let task = host.send(&[0x12, 1, 0xb1, 0, 64, 0], &[], 64);
        (support, host.end(task).1[7] & 0x30)
    };
    assert_eq!(offers(&mut host), (3, 0x10));
    assert_eq!(host.command(&[0x48, 0x03, 0, 0, 0, 0, 0, 0, 8, 0]), check(0x2400), "no parameter list");
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 2048}));
    let lun = json!({"name": "iqn.2026-11.org.gemel:c0", "bdev_name": "m0", "lun_id": 1});
    node.must("iscsi_target_node_add_lun", lun);
    let groups = node.must("iscsi_get_portal_groups", Value::Null);
    let port = groups[0]["portals"][0]["port"].as_str().expect("a port").to_owned();
    let mut plain = Host::login(&format!("iscsi://127.0.0.1:{port}/iqn.2026-11.org.gemel:c0/1"), INITIATOR);
    plain.attentions();
    assert_eq!(offers(&mut plain), (1, 0));
    assert_eq!(plain.command(&[0x48, 0x03, 0, 0, 0, 0, 0, 0, 0, 0]), check(0x2400));
}

#[test]
fn a_mirrors_leg_may_lie_on_a_crypto_bdev() {
    let unusual = Unusual { leg: Some("bdev:c0"), ..Unusual::default() };
    let prepare = |node: &Node| drop(encrypted_of(node, 96 << 20));
    let pair = Pair::build(unusual, prepare, None);
    pair.wait_in_sync(0);
    let mut host = Host::login(&pair.urls[0], INITIATOR);
    host.attentions();
    assert_eq!((host.write(3, 0x5a), host.read(3)), (GOOD, Ok(0x5a)));
    assert!(holds(&pair.leg(1), &[0x5a; 512]), "the peer's leg is as it is given");
    assert!(!holds(&pair.node(0).folder.path().join("disk"), &[0x5a; 16]));
    let over = json!({"name": "c1", "base_bdev_name": "c0", "key_name": "k0", "format": true});
    refused(pair.node(0), "bdev_crypto_create", over, "used by bdev vol0");
}

#[test]
fn another_key_is_refused_and_what_is_in_use_stays() {
    let node = Node::start(&[]);
    let file = encrypted(&node);
    let shown = node.must("bdev_get_bdevs", json!({"name": "c0"}))[0].clone();
    assert_eq!(shown["product_name"], json!("crypto"));
    let specific = json!({"name": "c0", "base_bdev_name": "d0", "key_name": "k0"});
    assert_eq!((&shown["driver_specific"]["crypto"], &shown["num_blocks"]), (&specific, &json!(30720)));
    let keys = node.must("accel_crypto_keys_get", json!({"key_name": "k0"})).to_string();
    assert!(keys.contains("\"k0\"") && keys.contains("***") && !keys.contains(&KEY[..8]), "{keys}");
    refused(&node, "accel_crypto_key_destroy", json!({"key_name": "k0"}), "used by bdev c0");
    refused(&node, "bdev_uring_delete", json!({"name": "d0"}), "used by bdev c0");
    node.must("bdev_crypto_delete", json!({"name": "c0"}));
    let before = std::fs::read(&file).expect("the file");
    let wrong = json!({"name": "k1", "cipher": "AES_XTS", "key": KEY, "key2": KEY2.replace('f', "e")});
    node.must("accel_crypto_key_create", wrong);
    let mut params = json!({"name": "c0", "base_bdev_name": "d0", "key_name": "k1"});
    refused(&node, "bdev_crypto_create", params.clone(), "formatted with another one");
    params["format"] = json!(true);
    refused(&node, "bdev_crypto_create", params.clone(), "not blank");
    params["key_name"] = json!("k2");
    refused(&node, "bdev_crypto_create", params, "no crypto key");
    assert!(std::fs::read(&file).expect("the file") == before, "nothing was written");
    let uuid = shown["uuid"].clone();
    let mut right = json!({"name": "c0", "base_bdev_name": "d0", "key_name": "k0", "uuid": uuid});
    node.must("bdev_crypto_create", right.clone());
    node.must("bdev_crypto_delete", json!({"name": "c0"}));
    right["uuid"] = json!("00000000-0000-4000-8000-000000000000");
    refused(&node, "bdev_crypto_create", right, "holds the crypto bdev of uuid");
    node.must("accel_crypto_key_destroy", json!({"key_name": "k0"}));
}

#[test]
fn what_spdk_has_and_this_node_has_not_is_refused() {
    let node = Node::start(&[]);
    let mut key = json!({"name": "k0", "cipher": "AES_CBC", "key": KEY, "key2": KEY2});
    refused(&node, "accel_crypto_key_create", key.clone(), "AES_XTS");
    key["cipher"] = json!("AES_XTS");
    key["tweak_mode"] = json!("INCR_512_FULL_LBA");
    refused(&node, "accel_crypto_key_create", key.clone(), "tweak_mode");
    key["tweak_mode"] = json!("SIMPLE_LBA");
    node.must("accel_crypto_key_create", key.clone());
    refused(&node, "accel_crypto_key_create", key, "exists already");
    refused(&node, "accel_crypto_keys_get", json!({"key_name": "k1"}), "no crypto key");
}
