//! CHAP secrets, and keys of crypto devices, as calls and files give them. No message, log line or list shows one.
//!
//! A file of secrets belongs to its owner alone (mode 0600). It holds lines `NAME SECRET`, or nothing but one secret; lines
//! that begin with `#` are comments. A file of a key holds its one or two parts in hexadecimal digits.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gateway::User;
use iscsi::chap::{Account, Credential, Secret};
use rpc::RpcError;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What an answer shows in place of a secret.
const COVER: &str = "***";

/// The names of parameters that are secrets wherever they are.
const SECRETS: [&str; 4] = ["secret", "msecret", "key", "key2"];

/// Parameters of a call as anybody may see them: without the secrets that were given in it. Files that hold some stay named.
pub fn covered(params: &Value) -> Value {
    let field = |(name, value): (&String, &Value)| match SECRETS.contains(&name.as_str()) {
        true => (name.clone(), Value::from(COVER)),
        false => (name.clone(), covered(value)),
    };
    match params {
        Value::Object(fields) => Value::Object(fields.iter().map(field).collect()),
        Value::Array(list) => list.iter().map(covered).collect(),
        other => other.clone(),
    }
}

/// A secret in a call. What it is shows nowhere, not even in the error that it is none.
pub struct Hidden(String);

impl Hidden {
    /// What it is.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) if text == COVER => Err(D::Error::custom(
                "\"***\" stands where a saved configuration does not show a secret: put the secret or a file there, or save it with secrets",
            )),
            Value::String(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a secret is a string")),
        }
    }
}

/// One user of an authentication group, or the account of an import: SPDK's parameters, and files beside them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountParams {
    /// CHAP_N of the initiator.
    pub user: String,
    secret: Option<Hidden>,
    secret_file: Option<PathBuf>,
    /// CHAP_N of the target, for mutual CHAP.
    muser: Option<String>,
    msecret: Option<Hidden>,
    msecret_file: Option<PathBuf>,
    /// Initiators that a user of a group may be; of any, where there are none.
    #[serde(default)]
    initiators: Vec<String>,
}

impl AccountParams {
    /// A user of an authentication group.
    ///
    /// # Errors
    /// As [`AccountParams::account`], and what he is tied to is no initiator's name.
    pub fn user(&self) -> Result<User, RpcError> {
        for name in &self.initiators {
            iscsi::name::check(name)
                .map_err(|error| RpcError::invalid_params(format!("initiators: {name:?}: {error}")))?;
        }
        Ok(User { account: self.read()?, initiators: self.initiators.clone() })
    }

    /// The account of an import or a peer.
    ///
    /// # Errors
    /// A secret is missing, given twice, or its file cannot be used; or there are initiators, which only users of a group are tied to.
    pub fn account(&self) -> Result<Account, RpcError> {
        match self.initiators.is_empty() {
            true => self.read(),
            false => Err(RpcError::invalid_params("initiators: for users of an authentication group only")),
        }
    }

    /// The account, with the secrets that its files hold now.
    fn read(&self) -> Result<Account, RpcError> {
        let initiator = credential("secret", &self.user, self.secret.as_ref(), self.secret_file.as_deref())?
            .ok_or_else(|| RpcError::invalid_params(format!("user {:?} has no secret", self.user)))?;
        let name = self.muser.as_deref().unwrap_or_default();
        let target = credential("msecret", name, self.msecret.as_ref(), self.msecret_file.as_deref())?;
        if target.is_some() != self.muser.is_some() {
            return Err(RpcError::invalid_params("muser and msecret (or msecret_file) belong together"));
        }
        let user = &self.user;
        for short in
            [Some(&initiator), target.as_ref()].into_iter().flatten().filter(|one| one.secret.is_short())
        {
            tracing::warn!("the CHAP secret of {:?} is shorter than 12 bytes: it can be guessed", short.name);
        }
        Account::new(initiator, target)
            .map_err(|error| RpcError::invalid_params(format!("user {user:?}: {error}")))
    }
}

fn credential(
    what: &str,
    name: &str,
    given: Option<&Hidden>,
    file: Option<&Path>,
) -> Result<Option<Credential>, RpcError> {
    let text = match (given, file) {
        (None, None) => return Ok(None),
        (Some(secret), None) => secret.0.clone(),
        (None, Some(file)) => read(file, name)?,
        (Some(_), Some(_)) => {
            return Err(RpcError::invalid_params(format!("give {what} or {what}_file, not both")));
        }
    };
    if name.is_empty() || name.contains('\0') {
        return Err(RpcError::invalid_params("a CHAP name is no empty text"));
    }
    let secret =
        Secret::new(text.into_bytes()).map_err(|error| RpcError::invalid_params(error.to_string()))?;
    Ok(Some(Credential { name: name.to_owned(), secret }))
}

/// A file of secrets is short.
const FILE_MAX: u64 = 64 << 10;

/// The text of a file that nobody but its owner may read.
///
/// # Errors
/// The system's, or others may read it.
pub fn private(file: &Path) -> Result<String, RpcError> {
    let shown = file.display();
    let system = |error: std::io::Error| RpcError::refused(format!("secret file {shown}: {error}"));
    let open = File::open(file).map_err(system)?;
    let metadata = open.metadata().map_err(system)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(RpcError::refused(format!("secret file {shown} is open to others: chmod 600 it")));
    }
    let mut text = String::new();
    open.take(FILE_MAX).read_to_string(&mut text).map_err(system)?;
    Ok(text)
}

fn read(file: &Path, name: &str) -> Result<String, RpcError> {
    let none = || RpcError::refused(format!("secret file {} has no secret of {name:?}", file.display()));
    find(&private(file)?, name).ok_or_else(none).map(str::to_owned)
}

fn find<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs =
        || lines().map(|line| line.split_once(char::is_whitespace).map(|(user, rest)| (user, rest.trim())));
    match (lines().count(), lines().next(), pairs().next()) {
        (1, Some(alone), Some(None)) => Some(alone),
        _ => pairs().flatten().find(|(user, _)| *user == name).map(|(_, secret)| secret),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_holds_one_secret_or_one_for_each_name() {
        assert_eq!(find("# mine\nonly one\n", "only"), Some("one"));
        assert_eq!(find("  alone  \n\n", "anybody"), Some("alone"));
        let pair = "a first secret\nb\tsecond\n";
        assert_eq!(
            (find(pair, "a"), find(pair, "b"), find(pair, "c")),
            (Some("first secret"), Some("second"), None)
        );
        assert_eq!(find("# nothing\n", "a"), None);
    }

    #[test]
    fn what_covers_a_secret_is_none() {
        let given = json!({"tag": 1, "secrets": [{"user": "u", "secret": "hush hush hush", "muser": "t", "msecret": "hush"}]});
        let shown = covered(&given);
        assert_eq!(
            shown["secrets"][0],
            json!({"user": "u", "secret": "***", "muser": "t", "msecret": "***"})
        );
        assert_eq!(
            covered(&json!({"name": "k0", "key": ["hush"], "key_file": "/f"})),
            json!({"name": "k0", "key": "***", "key_file": "/f"})
        );
        let refused = crate::params::parse::<AccountParams>(Some(&shown["secrets"][0]));
        assert!(refused.err().is_some_and(|error| error.message.contains("does not show a secret")));
    }

    #[test]
    fn nothing_that_goes_wrong_shows_a_secret() {
        let fails = |params: Value| {
            let parsed: Result<AccountParams, _> = crate::params::parse(Some(&params));
            let error = match parsed.and_then(|parsed| parsed.account()) {
                Ok(_) => panic!("{params} is an account"),
                Err(error) => error.to_string(),
            };
            assert!(!error.contains("hush"), "{error}");
            error
        };
        assert!(fails(json!({"user": "u", "secret": ["hush"]})).contains("secret"));
        fails(json!({"user": "u", "secret": {"hush": "hush"}}));
        fails(json!({"user": "u", "secret": "hush hush hush", "muser": "t"}));
        assert!(
            fails(
                json!({"user": "u", "secret": "hush hush hush", "muser": "t", "msecret": "hush hush hush"})
            )
            .contains("must differ")
        );
        fails(json!({"user": "u", "secret": "hush", "secret_file": "/f"}));
        fails(json!({"user": "u"}));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = std::env::temp_dir().join(format!("gemel-secret-{}", std::process::id()));
        std::fs::write(&folder, "twelve bytes at least\n").expect("written");
        let params = json!({"user": "u", "secret_file": folder});
        let account = || crate::params::parse::<AccountParams>(Some(&params)).expect("parameters").account();
        let mode =
            |mode| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).expect("mode");
        mode(0o640);
        assert!(account().expect_err("open to others").to_string().contains("chmod 600"));
        mode(0o600);
        account().expect_err("two words are a name and a secret of somebody else");
        std::fs::write(&folder, "u twelve bytes at least\n").expect("written");
        account().expect("a secret");
        std::fs::remove_file(&folder).expect("it was there");
    }
}
