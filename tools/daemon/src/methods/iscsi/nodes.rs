//! Target nodes and their LUNs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use core::net::SocketAddr;

use gateway::{
    LunAccess, LunConfig, LunMask, LunMode, LunOptions, LunProvisioning, Map, NodeConfig, PeerConfig,
    Percent, Redirect, StandbyMode, Target,
};
use iscsi::Moved;
use iscsi::keys::{DigestPreference, Digests};
use rpc::RpcError;
use scsi::alua::Management;
use scsi::{Medium, ZeroCount};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::negotiation::Digest;
use super::auth::Flags;
use super::{change, forget, remember};
use crate::node::Node;
use crate::params;
use crate::secret::AccountParams;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MapParams {
    ig_tag: i32,
    pg_tag: i32,
    /// Which LUNs show to these initiators; ours. All when absent.
    luns: Option<BTreeSet<u16>>,
}

impl MapParams {
    fn map(self) -> Map {
        let luns = self.luns.map_or(LunMask::All, LunMask::Only);
        Map { portal_group: self.pg_tag, initiator_group: self.ig_tag, luns }
    }
}

fn map_json(map: &Map) -> Value {
    let mut shown = json!({"pg_tag": map.portal_group, "ig_tag": map.initiator_group});
    if let LunMask::Only(luns) = &map.luns {
        shown["luns"] = json!(luns);
    }
    shown
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lun {
    pub(super) bdev_name: String,
    pub(super) lun_id: Option<u16>,
    #[serde(default)]
    pub(super) removable: bool,
    #[serde(default)]
    pub(super) read_only: bool,
    #[serde(default)]
    pub(super) provisioning: Provisioning,
    pub(super) sanitize_mb_per_sec: Option<NonZeroU64>,
    /// WSNZ: a WRITE SAME of zero blocks is refused.
    #[serde(default)]
    pub(super) wsnz: bool,
    /// Hosts are told when this share of a thin LUN has storage.
    pub(super) soft_threshold_percent: Option<u8>,
    /// Where the unit is managed, for VPD page 85h.
    pub(super) management_url: Option<String>,
}

impl Lun {
    fn options(&self) -> Result<LunOptions, RpcError> {
        let percent = |given: u8| {
            let wrong = || RpcError::invalid_params("soft_threshold_percent must be 1 to 100");
            Percent::new(given).ok_or_else(wrong)
        };
        Ok(LunOptions {
            medium: if self.removable { Medium::Removable } else { Medium::Fixed },
            access: if self.read_only { LunAccess::ReadOnly } else { LunAccess::ReadWrite },
            provisioning: match self.provisioning {
                Provisioning::Thin => LunProvisioning::Thin,
                Provisioning::Thick => LunProvisioning::Thick,
            },
            sanitize_rate: self.sanitize_mb_per_sec.map(|rate| rate.saturating_mul(MIB)),
            write_same_zero: if self.wsnz { ZeroCount::Refused } else { ZeroCount::ToTheEnd },
            soft_threshold: self.soft_threshold_percent.map(percent).transpose()?,
        })
    }
}

/// Longest management URL, which goes whole into a page of INQUIRY.
const URL_MAX: usize = 255;

const MIB: NonZeroU64 = NonZeroU64::new(1 << 20).expect("not zero");

/// Whether a LUN takes UNMAP; ours.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Provisioning {
    #[default]
    Thin,
    Thick,
}

/// Durability mode of the LUNs; ours.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    #[default]
    SyncDurable,
    SyncCached,
}

impl From<Mode> for LunMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::SyncDurable => Self::SyncDurable,
            Mode::SyncCached => Self::SyncCached,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateTargetNode {
    name: String,
    alias_name: String,
    pg_ig_maps: Vec<MapParams>,
    luns: Vec<Lun>,
    queue_depth: u32,
    #[serde(default)]
    durability: Mode,
    #[serde(default)]
    disable_chap: bool,
    #[serde(default)]
    require_chap: bool,
    #[serde(default)]
    mutual_chap: bool,
    #[serde(default)]
    chap_group: i32,
    #[serde(default)]
    header_digest: DigestWish,
    #[serde(default)]
    data_digest: DigestWish,
    /// The node that serves the same LUNs, too; ours.
    peer: Option<Peer>,
}

/// A digest of the target's sessions: SPDK's yes or no, or a word; ours.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "use true, false, or one of prefer, require, avoid, never")]
enum DigestWish {
    Required(bool),
    Word(Digest),
}

impl Default for DigestWish {
    fn default() -> Self {
        Self::Required(false)
    }
}

impl DigestWish {
    fn preference(self) -> DigestPreference {
        match self {
            Self::Required(true) => DigestPreference::Require,
            Self::Required(false) => DigestPreference::Avoid,
            Self::Word(digest) => digest.into(),
        }
    }

    /// As SPDK shows it where it has a way to.
    fn shown(preference: DigestPreference) -> Value {
        match preference {
            DigestPreference::Require => json!(true),
            DigestPreference::Avoid => json!(false),
            other => json!(Digest::word(other)),
        }
    }
}

/// What becomes of commands while the peer serves.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Standby {
    #[default]
    Forward,
    Refuse,
}

/// Who chooses which of the pair serves.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Alua {
    #[default]
    Implicit,
    Explicit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    /// Address and port of the peer's end of the replication link.
    address: String,
    /// More of them, over other links, for when that one does not answer.
    #[serde(default)]
    more_addresses: Vec<String>,
    /// The portal group of this node's end.
    pg_tag: i32,
    #[serde(default)]
    standby: Standby,
    #[serde(default)]
    alua: Alua,
    /// How to authenticate there.
    chap: Option<AccountParams>,
}

impl Peer {
    fn config(&self) -> Result<PeerConfig, RpcError> {
        let parse = |text: &String| {
            let bad = |_| RpcError::invalid_params(format!("peer: {text:?} is no address and port"));
            text.parse::<SocketAddr>().map_err(bad)
        };
        let standby = match self.standby {
            Standby::Forward => StandbyMode::Forward,
            Standby::Refuse => StandbyMode::Refuse,
        };
        let alua = match self.alua {
            Alua::Implicit => Management::Implicit,
            Alua::Explicit => Management::ImplicitAndExplicit,
        };
        let addresses = core::iter::once(&self.address).chain(&self.more_addresses).map(parse);
        let addresses = addresses.collect::<Result<_, _>>()?;
        let account = self.chap.as_ref().map(AccountParams::account).transpose()?;
        Ok(PeerConfig { addresses, portal_group: self.pg_tag, standby, alua, account })
    }
}

pub(super) fn lun_config(node: &Node, lun: &Lun, mode: Mode) -> Result<LunConfig, RpcError> {
    let name = &lun.bdev_name;
    let bdev = node.bdev(name)?.bdev.clone();
    node.check_free(name)?;
    let management_url = lun.management_url.clone();
    if management_url
        .as_ref()
        .is_some_and(|url| url.len() > URL_MAX || !url.bytes().all(|b| b.is_ascii_graphic()))
    {
        return Err(RpcError::invalid_params(format!(
            "management_url must be a URL of at most {URL_MAX} printable ASCII characters, without spaces"
        )));
    }
    Ok(LunConfig { options: lun.options()?, management_url, ..LunConfig::new(bdev, mode.into()) })
}

pub(super) fn create_target_node(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: CreateTargetNode = params::parse(given)?;
    let CreateTargetNode { disable_chap, require_chap, mutual_chap, chap_group, .. } = parsed;
    let auth = Flags { disable_chap, require_chap, mutual_chap, chap_group }.policy()?;
    let mut luns = BTreeMap::new();
    for lun in &parsed.luns {
        let next = || u16::try_from(luns.len()).unwrap_or(u16::MAX);
        let number = lun.lun_id.unwrap_or_else(next);
        let config = lun_config(node, lun, parsed.durability)?;
        if luns.insert(number, config).is_some() {
            return Err(RpcError::invalid_params(format!("LUN {number} is named twice")));
        }
    }
    let maps = parsed.pg_ig_maps.into_iter().map(MapParams::map).collect();
    let config = NodeConfig {
        name: parsed.name,
        alias: parsed.alias_name,
        maps,
        luns,
        queue_depth: parsed.queue_depth,
        auth,
        digests: Digests { header: parsed.header_digest.preference(), data: parsed.data_digest.preference() },
        redirects: BTreeMap::new(),
        peer: parsed.peer.as_ref().map(Peer::config).transpose()?,
    };
    change(node, move |target| target.add_node(config))?;
    remember(node, "iscsi_create_target_node", given);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    name: String,
}

pub(super) fn delete_target_node(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    let name = given.name.clone();
    change(node, move |target| target.remove_node(&name))?;
    forget(
        node,
        &[
            "iscsi_create_target_node",
            "iscsi_target_node_add_lun",
            "iscsi_target_node_set_auth",
            "iscsi_target_node_set_redirect",
        ],
        "name",
        &json!(given.name),
    );
    Ok(json!(true))
}

pub(super) fn target_nodes(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let lun =
        |(number, config): (&u16, &LunConfig)| json!({"bdev_name": config.bdev.name(), "lun_id": number});
    let one = |config: NodeConfig| {
        let Flags { disable_chap, require_chap, mutual_chap, chap_group } = Flags::of(config.auth);
        json!({
            "name": config.name,
            "alias_name": config.alias,
            "pg_ig_maps": config.maps.iter().map(map_json).collect::<Value>(),
            "luns": config.luns.iter().map(lun).collect::<Value>(),
            "queue_depth": config.queue_depth,
            "peer": config.peer.map(|peer| json!({
                "address": peer.addresses.first(), "more_addresses": peer.addresses.get(1..), "pg_tag": peer.portal_group,
                "standby": if peer.standby == StandbyMode::Forward { "forward" } else { "refuse" },
                "alua": if peer.alua == Management::Implicit { "implicit" } else { "explicit" },
            })),
            "disable_chap": disable_chap, "require_chap": require_chap, "mutual_chap": mutual_chap,
            "chap_group": chap_group,
            "header_digest": DigestWish::shown(config.digests.header),
            "data_digest": DigestWish::shown(config.digests.data),
        })
    };
    let nodes: Vec<NodeConfig> = node.target(|target| target.nodes().collect())?;
    Ok(nodes.into_iter().map(one).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Maps {
    name: String,
    pg_ig_maps: Vec<MapParams>,
}

/// The maps of a target's call, as they are now.
fn keep_maps(node: &mut Node, name: &str) -> Result<(), RpcError> {
    let wanted = name.to_owned();
    let same = move |config: &NodeConfig| config.name.eq_ignore_ascii_case(&wanted);
    let config = node.target(move |target: &mut Target| target.nodes().find(|config| same(config)))?;
    let Some(config) = config else { return Ok(()) };
    let created = |(method, params): &&mut (String, Value)| {
        method == "iscsi_create_target_node" && params["name"] == config.name
    };
    if let Some((_, params)) = node.target_calls.iter_mut().find(created) {
        params["pg_ig_maps"] = config.maps.iter().map(map_json).collect();
    }
    // Groups that were made after the target must be replayed before it.
    let of_target = |(method, params): &mut (String, Value)| {
        params["name"] == config.name
            && (method == "iscsi_create_target_node" || method.contains("_target_node_"))
    };
    let moved: Vec<_> = node.target_calls.extract_if(.., of_target).collect();
    node.target_calls.extend(moved);
    Ok(())
}

pub(super) fn add_maps(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let Maps { name, pg_ig_maps } = params::parse(given)?;
    let target_name = name.clone();
    let maps: Vec<Map> = pg_ig_maps.into_iter().map(MapParams::map).collect();
    change(node, move |target| maps.into_iter().try_for_each(|map| target.add_map(&target_name, map)))?;
    keep_maps(node, &name)?;
    Ok(json!(true))
}

pub(super) fn remove_maps(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let Maps { name, pg_ig_maps } = params::parse(given)?;
    let target_name = name.clone();
    change(node, move |target| {
        pg_ig_maps.iter().try_for_each(|map| target.remove_map(&target_name, map.pg_tag, map.ig_tag))
    })?;
    keep_maps(node, &name)?;
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetRedirect {
    name: String,
    pg_tag: i32,
    redirect_host: Option<String>,
    redirect_port: Option<String>,
    /// Initiators may keep the new address (status 0102); ours.
    #[serde(default)]
    permanent: bool,
}

pub(super) fn set_redirect(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: SetRedirect = params::parse(given)?;
    let address = match (&parsed.redirect_host, &parsed.redirect_port) {
        (None, None) => None,
        (Some(host), port) => {
            let port = port.as_deref().unwrap_or("3260");
            let bad = || RpcError::invalid_params(format!("{host}:{port} is no numerical address and port"));
            let ip = host.trim_matches(['[', ']']).parse().map_err(|_| bad())?;
            Some(SocketAddr::new(ip, port.parse().map_err(|_| bad())?))
        }
        (None, Some(_)) => return Err(RpcError::invalid_params("redirect_port needs redirect_host")),
    };
    let (name, tag) = (parsed.name.clone(), parsed.pg_tag);
    let how = if parsed.permanent { Moved::Permanently } else { Moved::Temporarily };
    let redirect = address.map(|address| Redirect { address, how });
    change(node, move |target| target.set_redirect(&name, tag, redirect))?;
    let method = "iscsi_target_node_set_redirect";
    let (name, tag) = (json!(parsed.name), json!(parsed.pg_tag));
    node.target_calls
        .retain(|(made, params)| made != method || params["name"] != name || params["pg_tag"] != tag);
    if address.is_some() {
        remember(node, method, given);
    }
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GiveUpUnitState {
    name: String,
    lun_id: u16,
    /// Whoever was kept out by a reservation gets in.
    #[serde(default)]
    confirm: bool,
}

pub(super) fn give_up_unit_state(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let GiveUpUnitState { name, lun_id, confirm } = params::parse(given)?;
    if !confirm {
        return Err(RpcError::invalid_params(
            "reservations and write protection of the LUN are lost, and whoever they keep out gets in: call again with confirm",
        ));
    }
    let device = change(node, move |target| target.give_up_unit_state(&name, lun_id))?;
    node.unit_state_given_up(device);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestLogout {
    name: String,
    pg_tag: Option<i32>,
}

pub(super) fn request_logout(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let RequestLogout { name, pg_tag } = params::parse(given)?;
    change(node, move |target| target.request_logouts(&name, pg_tag))?;
    Ok(json!(true))
}
