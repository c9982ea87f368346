//! Crypto bdevs with real processes: what a host writes is noise in the file, the key reads it after a restart, another key is
//! refused, and nothing shows a key.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::host::{GOOD, Host};
use tests::node::Node;

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
    let file = node.file("disk", 16 << 20);
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
    assert!(!again.log().contains(&KEY[..8]) && !again.log().contains(&KEY2[..8]));
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
