//! Keys of crypto devices, under the names that SPDK's acceleration framework has for them. No answer shows one.
//!
//! The node's own configuration file has the key as the call had it: in the clear where it was given like that, so the file has mode 0600;
//! better, as `key_file`, a file of mode 0600 that holds the key, and `key2` after it, in hexadecimal digits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bdev::crypto::UserKey;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Method, neutral};
use crate::node::{CryptoKey, Node};
use crate::params;
use crate::params::check;
use crate::secret::{Hidden, private};

pub(super) const METHODS: &[Method] = &[
    Method::always("accel_crypto_key_create", check::<Create>, create),
    Method::always("accel_crypto_keys_get", check::<List>, list),
    Method::always("accel_crypto_key_destroy", check::<Destroy>, destroy),
];

const CREATE: &str = "accel_crypto_key_create";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    cipher: String,
    /// In hexadecimal digits.
    key: Option<Hidden>,
    key2: Option<Hidden>,
    /// Ours: a file that holds both.
    key_file: Option<PathBuf>,
    tweak_mode: Option<String>,
}

fn create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Create = params::parse(given)?;
    if parsed.cipher != "AES_XTS" {
        return Err(RpcError::refused(format!("cipher {:?} is not supported: use AES_XTS", parsed.cipher)));
    }
    let tweak_mode = parsed.tweak_mode.as_deref();
    neutral("tweak_mode", tweak_mode, "SIMPLE_LBA", "the tweak is the block's address")?;
    let name = parsed.name.clone();
    if name.is_empty() {
        return Err(RpcError::invalid_params("name must not be empty"));
    }
    if node.crypto_keys.contains_key(&name) {
        return Err(RpcError::exists(format!("crypto key {name:?} exists already")));
    }
    let key = Arc::new(parsed.user_key()?);
    let created_by = (CREATE.to_owned(), given.cloned().unwrap_or_else(|| json!({})));
    node.crypto_keys.insert(name, CryptoKey { key, created_by });
    Ok(json!(true))
}

impl Create {
    fn user_key(&self) -> Result<UserKey, RpcError> {
        match (&self.key, &self.key_file) {
            (Some(key), None) => user_key(key.reveal(), self.key2.as_ref().map(Hidden::reveal), "key"),
            (None, Some(file)) if self.key2.is_none() => from_file(file),
            (None, None) => Err(RpcError::invalid_params("key is missing: give key, or key_file")),
            _ => Err(RpcError::invalid_params("give key and key2, or key_file, which holds both")),
        }
    }
}

fn from_file(file: &Path) -> Result<UserKey, RpcError> {
    let text = private(file)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let parts: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let shown = file.display().to_string();
    match parts[..] {
        [key] => user_key(key, None, &shown),
        [key, key2] => user_key(key, Some(key2), &shown),
        _ => Err(RpcError::refused(format!("secret file {shown} does not hold one key, or two"))),
    }
}

fn user_key(key: &str, key2: Option<&str>, whence: &str) -> Result<UserKey, RpcError> {
    let no_digits = || RpcError::invalid_params(format!("{whence}: a key is given in hexadecimal digits"));
    let key = bytes(key).ok_or_else(no_digits)?;
    let key2 = key2.map(|key2| bytes(key2).ok_or_else(no_digits)).transpose()?;
    UserKey::new(&key, key2.as_deref().map(Vec::as_slice))
        .map_err(|error| RpcError::invalid_params(format!("{whence}: {error}")))
}

/// The bytes of hexadecimal digits.
fn bytes(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect::<Option<Vec<u8>>>())?.map(Zeroizing::new)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    key_name: Option<String>,
}

/// A key by name.
pub(super) fn find<'a>(node: &'a Node, name: &str) -> Result<&'a CryptoKey, RpcError> {
    let none =
        || RpcError::no_device(format!("there is no crypto key {name:?}: accel_crypto_key_create makes one"));
    node.crypto_keys.get(name).ok_or_else(none)
}

/// Which keys there are; what they are stays covered.
fn list(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: List = params::parse(given)?;
    if let Some(name) = &given.key_name {
        find(node, name)?;
    }
    let wanted = |name: &&String| given.key_name.as_ref().is_none_or(|wanted| wanted == *name);
    let one =
        |name: &String| json!({"name": name, "cipher": "AES_XTS", "tweak_mode": "SIMPLE_LBA", "key": "***"});
    Ok(node.crypto_keys.keys().filter(wanted).map(one).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Destroy {
    key_name: String,
}

fn destroy(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let Destroy { key_name } = params::parse(given)?;
    find(node, &key_name)?;
    let uses = |(_, made): &(&String, &(String, Value))| {
        made.0 == super::bdev::CRYPTO_CREATE && made.1["key_name"] == json!(key_name)
    };
    let made = node.bdevs.iter().filter_map(|(name, entry)| Some((name, entry.created_by.as_ref()?)));
    if let Some((user, _)) = made.into_iter().find(uses) {
        return Err(RpcError::busy(format!(
            "crypto key {key_name} is used by bdev {user}: remove that first"
        )));
    }
    node.crypto_keys.remove(&key_name);
    Ok(json!(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_bytes() {
        assert_eq!(bytes("00fFa5").as_deref(), Some(&vec![0, 255, 0xa5]));
        assert_eq!(bytes("").as_deref(), Some(&vec![]));
        for wrong in ["0", "0g", "00 1", "é0", "+1"] {
            assert!(bytes(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn nothing_that_goes_wrong_shows_a_key() {
        let secret = "c0ffee";
        let (whole, half) = (secret.repeat(11)[..64].to_owned(), secret.repeat(6)[..32].to_owned());
        let fails = |mut params: Value| {
            params["name"] = json!("k0");
            let why = match params::parse::<Create>(Some(&params)).and_then(|parsed| parsed.user_key()) {
                Ok(_) => panic!("{params} is a key"),
                Err(error) => error.to_string(),
            };
            assert!(!why.contains(secret), "{why}");
        };
        fails(json!({"cipher": "AES_XTS", "key": half}));
        fails(json!({"cipher": "AES_XTS", "key": whole, "key2": half}));
        fails(json!({"cipher": "AES_XTS", "key": whole, "key2": whole}));
        fails(json!({"cipher": "AES_XTS", "key": format!("{whole}x")}));
        fails(json!({"cipher": "AES_XTS", "key": [whole]}));
        fails(json!({"cipher": "AES_XTS", "key": whole, "key_file": "/f"}));
        fails(json!({"cipher": "AES_XTS"}));
    }

    #[test]
    fn a_file_holds_one_part_or_two_and_is_the_owners_alone() {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        writeln!(file, "# mine\n{}\n{}", "1".repeat(64), "2".repeat(64)).expect("written");
        from_file(file.path()).expect("two parts");
        std::fs::set_permissions(file.path(), mode(0o644)).expect("mode");
        assert!(from_file(file.path()).expect_err("open to others").message.contains("chmod 600"));
        std::fs::set_permissions(file.path(), mode(0o600)).expect("mode");
        writeln!(file, "{}", "3".repeat(64)).expect("written");
        from_file(file.path()).expect_err("three parts");
    }
}
