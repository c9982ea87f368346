//! CHAP: authentication groups, and where they are asked for.

use gateway::{AuthGroup, AuthPolicy};
use iscsi::chap::{Algorithm, Requirement};
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::negotiation::algorithms;
use super::{change, forget, remember, replace};
use crate::node::Node;
use crate::params;
use crate::secret::AccountParams;

/// SPDK's way to say which CHAP is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    pub(super) disable_chap: bool,
    pub(super) require_chap: bool,
    pub(super) mutual_chap: bool,
    pub(super) chap_group: i32,
}

impl Flags {
    pub(super) fn policy(self) -> Result<AuthPolicy, RpcError> {
        let bad = |message: &str| Err(RpcError::invalid_params(message));
        let requirement = match self {
            Self { chap_group: ..0, .. } => return bad("chap_group must not be negative"),
            Self { disable_chap: true, require_chap: false, mutual_chap: false, .. } => Requirement::Disabled,
            Self { disable_chap: true, .. } => {
                return bad("disable_chap excludes require_chap and mutual_chap");
            }
            Self { require_chap: false, mutual_chap: true, .. } => {
                return bad("mutual_chap needs require_chap");
            }
            Self { require_chap: true, chap_group: 0, .. } => {
                return bad("require_chap needs a chap_group: with none nobody could log in");
            }
            Self { mutual_chap: true, .. } => Requirement::Mutual,
            Self { require_chap: true, .. } => Requirement::Required,
            Self { chap_group: 0, .. } => Requirement::Disabled,
            _ => Requirement::Optional,
        };
        Ok(AuthPolicy { requirement, group: self.chap_group })
    }

    pub(super) fn params(self) -> Value {
        let Self { disable_chap, require_chap, mutual_chap, chap_group } = self;
        json!({
            "disable_chap": disable_chap, "require_chap": require_chap, "mutual_chap": mutual_chap,
            "chap_group": chap_group,
        })
    }

    pub(super) fn of(policy: AuthPolicy) -> Self {
        Self {
            disable_chap: policy.requirement == Requirement::Disabled,
            require_chap: matches!(policy.requirement, Requirement::Required | Requirement::Mutual),
            mutual_chap: policy.requirement == Requirement::Mutual,
            chap_group: policy.group,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateGroup {
    tag: i32,
    #[serde(default)]
    secrets: Vec<AccountParams>,
    /// The hashes that will do; ours. All when absent.
    chap_algorithms: Option<Vec<String>>,
}

pub(super) fn create_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: CreateGroup = params::parse(given)?;
    if parsed.tag < 1 {
        return Err(RpcError::invalid_params("tag must be 1 or more"));
    }
    let users = parsed.secrets.iter().map(AccountParams::user).collect::<Result<_, _>>()?;
    let taken = parsed.chap_algorithms.as_deref().map_or_else(|| Ok(Algorithm::ALL.to_vec()), algorithms)?;
    // The target's tables are its reactor's: the group is made there.
    change(node, move |target| target.add_auth_group(parsed.tag, AuthGroup::new(users, &taken)))?;
    remember(node, "iscsi_create_auth_group", given);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tagged {
    tag: i32,
}

pub(super) fn delete_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Tagged = params::parse(given)?;
    change(node, move |target| target.remove_auth_group(given.tag))?;
    forget(node, &["iscsi_create_auth_group", "iscsi_auth_group_add_secret"], "tag", &json!(given.tag));
    Ok(json!(true))
}

/// A user as he is shown.
struct Named {
    user: String,
    muser: Option<String>,
    initiators: Vec<String>,
}

/// Who is in each group; secrets stay covered.
pub(super) fn groups(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let groups = node.target(|target| {
        let hashes = |taken: &[Algorithm]| taken.iter().map(|one| one.name()).collect::<Vec<_>>();
        let names = |user: &gateway::User| Named {
            user: user.name().to_owned(),
            muser: user.account.target.as_ref().map(|target| target.name.clone()),
            initiators: user.initiators.clone(),
        };
        let one = |(tag, users, taken): (i32, &[_], &[_])| {
            (tag, users.iter().map(names).collect::<Vec<_>>(), hashes(taken))
        };
        target.auth_groups().map(one).collect::<Vec<_>>()
    })?;
    let user = |Named { user, muser, initiators }: Named| {
        let mut shown = json!({"user": user, "secret": "***"});
        if let Some(muser) = muser {
            (shown["muser"], shown["msecret"]) = (json!(muser), json!("***"));
        }
        if !initiators.is_empty() {
            shown["initiators"] = json!(initiators);
        }
        shown
    };
    let one = |(tag, users, hashes): (i32, Vec<_>, Vec<_>)| {
        let users: Value = users.into_iter().map(user).collect();
        json!({"tag": tag, "secrets": users, "chap_algorithms": hashes})
    };
    Ok(groups.into_iter().map(one).collect())
}

/// A group's tag and a user of it: SPDK's parameters of both lie side by side.
fn tagged_account(given: Option<&Value>) -> Result<(i32, AccountParams), RpcError> {
    let mut account = given.cloned().unwrap_or_else(|| json!({}));
    let tag = account.as_object_mut().and_then(|account| account.remove("tag"));
    let tag = json!({"tag": tag});
    let Tagged { tag } = params::parse(Some(&tag))?;
    Ok((tag, params::parse(Some(&account))?))
}

pub(super) fn check_add_secret(given: Option<&Value>) -> Result<(), RpcError> {
    tagged_account(given).map(drop)
}

pub(super) fn add_secret(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let (tag, account) = tagged_account(given)?;
    let user = account.user()?;
    change(node, move |target| target.add_account(tag, user))?;
    remember(node, "iscsi_auth_group_add_secret", given);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveSecret {
    tag: i32,
    user: String,
}

pub(super) fn remove_secret(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let RemoveSecret { tag, user } = params::parse(given)?;
    let name = user.clone();
    change(node, move |target| target.remove_account(tag, &name))?;
    let (tag, user) = (json!(tag), json!(user));
    node.target_calls.retain_mut(|(method, params)| match method.as_str() {
        "iscsi_auth_group_add_secret" => params["tag"] != tag || params["user"] != user,
        "iscsi_create_auth_group" if params["tag"] == tag => {
            if let Some(secrets) = params["secrets"].as_array_mut() {
                secrets.retain(|account| account["user"] != user);
            }
            true
        }
        _ => true,
    });
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetDiscovery {
    #[serde(default)]
    disable_chap: bool,
    #[serde(default)]
    require_chap: bool,
    #[serde(default)]
    mutual_chap: bool,
    #[serde(default)]
    chap_group: i32,
}

pub(super) fn set_discovery(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let SetDiscovery { disable_chap, require_chap, mutual_chap, chap_group } = params::parse(given)?;
    let policy = Flags { disable_chap, require_chap, mutual_chap, chap_group }.policy()?;
    change(node, move |target| target.set_discovery_auth(policy))?;
    node.target_calls.retain(|(method, _)| method != "iscsi_set_discovery_auth");
    remember(node, "iscsi_set_discovery_auth", given);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPortalGroup {
    tag: i32,
    #[serde(default)]
    disable_chap: bool,
    #[serde(default)]
    require_chap: bool,
    #[serde(default)]
    mutual_chap: bool,
    #[serde(default)]
    chap_group: i32,
}

pub(super) fn set_portal_group(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let SetPortalGroup { tag, disable_chap, require_chap, mutual_chap, chap_group } = params::parse(given)?;
    let policy = Flags { disable_chap, require_chap, mutual_chap, chap_group }.policy()?;
    change(node, move |target| target.set_portal_group_auth(tag, Some(policy)))?;
    replace(node, "iscsi_portal_group_set_auth", "tag", given);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetNode {
    name: String,
    #[serde(default)]
    disable_chap: bool,
    #[serde(default)]
    require_chap: bool,
    #[serde(default)]
    mutual_chap: bool,
    #[serde(default)]
    chap_group: i32,
}

pub(super) fn set_node(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let SetNode { name, disable_chap, require_chap, mutual_chap, chap_group } = params::parse(given)?;
    let policy = Flags { disable_chap, require_chap, mutual_chap, chap_group }.policy()?;
    change(node, move |target| target.set_node_auth(&name, policy))?;
    replace(node, "iscsi_target_node_set_auth", "name", given);
    Ok(json!(true))
}
