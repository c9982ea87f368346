//! `gemel auth`: CHAP. Secrets come from files, never from the command line, which everybody on the machine can read.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Auth {
    /// List the authentication groups; secrets stay covered.
    List,
    /// Make an authentication group with one user.
    Create {
        /// The group's tag.
        tag: i32,
        #[command(flatten)]
        user: User,
        /// Take these hashes only, of MD5, SHA1, SHA-256 and SHA3-256.
        #[arg(long, value_name = "HASH", value_delimiter = ',')]
        chap_algorithms: Option<Vec<String>>,
    },
    /// Delete a group that nothing asks for.
    Delete {
        /// The group's tag.
        tag: i32,
    },
    /// Add a user to a group.
    Add {
        /// The group's tag.
        tag: i32,
        #[command(flatten)]
        user: User,
    },
    /// Remove a user from a group.
    Remove {
        /// The group's tag.
        tag: i32,
        /// The user.
        user: String,
    },
    /// Say which CHAP a target's sessions need.
    Target {
        /// The target's iSCSI name.
        name: String,
        #[command(flatten)]
        policy: Policy,
    },
    /// Say which CHAP discovery sessions need.
    Discovery {
        /// At this portal group alone.
        #[arg(long)]
        portal_group: Option<i32>,
        #[command(flatten)]
        policy: Policy,
    },
}

/// A user and what proves him. A file of secrets has lines `NAME SECRET`, or nothing but the secret, and mode 0600.
#[derive(Args)]
pub(crate) struct User {
    /// The initiator's CHAP name.
    #[arg(long)]
    user: String,
    /// File with its secret.
    #[arg(long)]
    secret_file: PathBuf,
    /// The target's CHAP name, for mutual CHAP.
    #[arg(long, requires = "target_secret_file")]
    target_user: Option<String>,
    /// File with the target's secret.
    #[arg(long, requires = "target_user")]
    target_secret_file: Option<PathBuf>,
    /// The initiator's name that the user may log in with, and no other one; may be given several times.
    #[arg(long)]
    initiator: Vec<String>,
}

/// Who asks another node, where it wants to know.
#[derive(Args)]
pub(crate) struct Asker {
    /// This end's CHAP name.
    #[arg(long, requires = "secret_file")]
    user: Option<String>,
    /// File with its secret: lines `NAME SECRET`, or nothing but the secret; mode 0600.
    #[arg(long, requires = "user")]
    secret_file: Option<PathBuf>,
    /// The other end's CHAP name, for mutual CHAP.
    #[arg(long, requires = "user", requires = "target_secret_file")]
    target_user: Option<String>,
    /// File with the other end's secret.
    #[arg(long, requires = "target_user")]
    target_secret_file: Option<PathBuf>,
    /// Offer these hashes, the preferred first, of MD5, SHA1, SHA-256 and SHA3-256.
    #[arg(long, value_name = "HASH", value_delimiter = ',', requires = "user")]
    chap_algorithms: Option<Vec<String>>,
}

#[derive(Args)]
pub(crate) struct Policy {
    /// What is needed.
    #[arg(value_enum)]
    need: Need,
    /// The authentication group whose users may log in.
    #[arg(long, default_value_t = 0)]
    group: i32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Need {
    /// Nothing: no CHAP.
    Disabled,
    /// The initiator chooses.
    Optional,
    /// The initiator authenticates itself.
    Required,
    /// And the target does.
    Mutual,
}

/// As the node, which is somewhere else, finds the file.
pub(crate) fn absolute(file: &Path) -> Value {
    json!(std::path::absolute(file).unwrap_or_else(|_| file.to_owned()))
}

impl User {
    fn params(&self) -> Value {
        let target = self.target_user.as_deref().zip(self.target_secret_file.as_deref());
        let mut params = account((&self.user, &self.secret_file), target);
        if !self.initiator.is_empty() {
            params["initiators"] = json!(self.initiator);
        }
        params
    }
}

/// A method's account: names, and the files with their secrets.
fn account((user, file): (&str, &Path), target: Option<(&str, &Path)>) -> Value {
    let mut params = json!({"user": user, "secret_file": absolute(file)});
    if let Some((name, file)) = target {
        params["muser"] = json!(name);
        params["msecret_file"] = absolute(file);
    }
    params
}

impl Asker {
    /// Adds who asks to the parameters of a method.
    pub(crate) fn add_to(&self, params: &mut Value) {
        let target = self.target_user.as_deref().zip(self.target_secret_file.as_deref());
        if let Some(own) = self.user.as_deref().zip(self.secret_file.as_deref()) {
            params["chap"] = account(own, target);
        }
        if let Some(names) = &self.chap_algorithms {
            params["chap_algorithms"] = json!(names);
        }
    }
}

impl Policy {
    fn params(&self) -> Value {
        let (disable, require, mutual) = match self.need {
            Need::Disabled => (true, false, false),
            Need::Optional => (false, false, false),
            Need::Required => (false, true, false),
            Need::Mutual => (false, true, true),
        };
        json!({"disable_chap": disable, "require_chap": require, "mutual_chap": mutual, "chap_group": self.group})
    }
}

/// The call.
pub(crate) fn call(auth: &Auth) -> (&'static str, Option<Value>) {
    let with = |mut params: Value, key: &str, value: Value| {
        params[key] = value;
        Some(params)
    };
    match auth {
        Auth::List => ("iscsi_get_auth_groups", None),
        Auth::Create { tag, user, chap_algorithms } => {
            let mut params = json!({"tag": tag, "secrets": [user.params()]});
            if let Some(names) = chap_algorithms {
                params["chap_algorithms"] = json!(names);
            }
            ("iscsi_create_auth_group", Some(params))
        }
        Auth::Delete { tag } => ("iscsi_delete_auth_group", Some(json!({"tag": tag}))),
        Auth::Add { tag, user } => ("iscsi_auth_group_add_secret", with(user.params(), "tag", json!(tag))),
        Auth::Remove { tag, user } => {
            ("iscsi_auth_group_remove_secret", Some(json!({"tag": tag, "user": user})))
        }
        Auth::Target { name, policy } => {
            ("iscsi_target_node_set_auth", with(policy.params(), "name", json!(name)))
        }
        Auth::Discovery { portal_group: Some(tag), policy } => {
            ("iscsi_portal_group_set_auth", with(policy.params(), "tag", json!(tag)))
        }
        Auth::Discovery { portal_group: None, policy } => ("iscsi_set_discovery_auth", Some(policy.params())),
    }
}

/// The groups as a table's lines.
pub(crate) fn show(groups: &Value) -> String {
    let user = |user: &Value| {
        let name = user["user"].as_str().unwrap_or("-");
        match user["muser"].as_str() {
            None => name.to_owned(),
            Some(target) => format!("{name} (and {target} in turn)"),
        }
    };
    let one = |group: &Value| {
        let users: Vec<String> = group["secrets"].as_array().into_iter().flatten().map(user).collect();
        format!("group {}: {}", group["tag"], users.join(", "))
    };
    match groups.as_array() {
        Some(groups) => groups.iter().map(one).collect::<Vec<_>>().join("\n"),
        None => crate::show::done(groups),
    }
}
