//! LUNs of other nodes.

use core::net::SocketAddr;
use core::time::Duration;
use gateway::url::UrlError;
use gateway::{DiscoveryConfig, LunUrl, Remote, RemoteConfig, Served};
use iscsi::Preferences;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Method, Named, delete, replay, uuid_of};
use crate::errands::discovered;
use crate::methods::negotiation::{
    Digest, LENGTHS, PROTOCOL_LEVELS, SECONDS, algorithms, check_bursts, choose, within,
};
use crate::methods::{Awaited, LongMethod};
use crate::node::{Entry, Node, Resident};
use crate::params;
use crate::params::check;
use crate::pollers::Polled;
use crate::secret::AccountParams;

pub(super) const METHODS: &[Method] = &[
    Method::always("bdev_iscsi_set_options", check::<Options>, set_options),
    Method::runtime("bdev_iscsi_create", check::<IscsiCreate>, create),
    Method::runtime("bdev_iscsi_delete", check::<Named>, iscsi_delete),
];

pub(in crate::methods) const LONG_METHODS: &[LongMethod] =
    &[LongMethod::runtime("bdev_iscsi_discover", check::<Discover>, discover)];

/// Connections of one import at the most.
const CONNECTIONS_MAX: u32 = 16;

const SET_OPTIONS: &str = "bdev_iscsi_set_options";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    timeout_sec: Option<u64>,
    /// How long the target may take to abort an I/O that has had no answer, before its LUN is reset; ours.
    abort_timeout_ms: Option<u64>,
    /// How long it may take for the reset, before the session is dropped; ours.
    reset_timeout_ms: Option<u64>,
}

/// Milliseconds of an abort and of a reset.
const RUNG_MS: core::ops::RangeInclusive<u64> = 10..=60_000;

/// How long an I/O may take, and what is tried then; for imports that are made from now on.
fn set_options(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Options = params::parse(given)?;
    if parsed.timeout_sec.is_some_and(|seconds| !(1..=600).contains(&seconds)) {
        return Err(RpcError::invalid_params(
            "timeout_sec must be 1 to 600: an import never waits for ever on a dead peer",
        ));
    }
    let rungs =
        [("abort_timeout_ms", parsed.abort_timeout_ms), ("reset_timeout_ms", parsed.reset_timeout_ms)];
    let wrong = |(_, given): &&(&str, Option<u64>)| given.is_some_and(|millis| !RUNG_MS.contains(&millis));
    if let Some((name, _)) = rungs.iter().find(wrong) {
        return Err(RpcError::invalid_params(format!("{name} must be 10 to 60000")));
    }
    let seconds = [("timeout_sec", parsed.timeout_sec)];
    let named = seconds.into_iter().chain(rungs).filter_map(|(name, given)| Some((name, given?)));
    let options = node.options.entry(SET_OPTIONS.to_owned()).or_insert_with(|| json!({}));
    for (name, value) in named {
        options[name] = json!(value);
    }
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IscsiCreate {
    name: String,
    initiator_iqn: String,
    url: String,
    /// More portals of the same group, as `ADDRESS[:PORT]`: ways over other links. All are used, and I/Os outlive the cut of one; ours.
    #[serde(default)]
    more_addresses: Vec<String>,
    uuid: Option<String>,
    /// The far end counts as dead after so many milliseconds without a sign of life; ours.
    silence_ms: Option<u64>,
    /// How to authenticate; ours.
    chap: Option<AccountParams>,
    /// ErrorRecoveryLevel to offer: 1 to have damaged data repaired on the connection, 2 to have I/Os outlive it; ours.
    error_recovery_level: Option<u32>,
    /// Connections of the session, as many as the target allows; ours.
    connections: Option<u32>,
    /// Hashes of CHAP to offer, the preferred first; ours. For targets that number them in their own way.
    chap_algorithms: Option<Vec<String>>,
    // What to offer the target, in the words of RFC 7143 section 13; ours. What is absent is as a replication link wants it.
    header_digest: Option<Digest>,
    data_digest: Option<Digest>,
    initial_r2t: Option<bool>,
    immediate_data: Option<bool>,
    max_burst_length: Option<u32>,
    first_burst_length: Option<u32>,
    max_recv_data_segment_length: Option<u32>,
    max_outstanding_r2t: Option<u32>,
    data_pdu_in_order: Option<bool>,
    data_sequence_in_order: Option<bool>,
    default_time2wait: Option<u32>,
    default_time2retain: Option<u32>,
    protocol_level: Option<u32>,
}

impl IscsiCreate {
    fn offer(&self, preferences: &mut Preferences) -> Result<(), RpcError> {
        let digests = (self.header_digest.map(Into::into), self.data_digest.map(Into::into));
        preferences.header_digest = digests.0.unwrap_or(preferences.header_digest);
        preferences.data_digest = digests.1.unwrap_or(preferences.data_digest);
        choose(self.initial_r2t, &mut preferences.initial_r2t);
        choose(self.immediate_data, &mut preferences.immediate_data);
        choose(self.data_pdu_in_order, &mut preferences.data_pdu_in_order);
        choose(self.data_sequence_in_order, &mut preferences.data_sequence_in_order);
        self.offer_lengths(preferences)?;
        let outstanding = self.max_outstanding_r2t;
        within("max_outstanding_r2t", outstanding, (1, 65535), &mut preferences.max_outstanding_r2t)?;
        let (wait, retain) = (self.default_time2wait, self.default_time2retain);
        within("default_time2wait", wait, SECONDS, &mut preferences.default_time2wait)?;
        within("default_time2retain", retain, SECONDS, &mut preferences.default_time2retain)?;
        within("protocol_level", self.protocol_level, PROTOCOL_LEVELS, &mut preferences.protocol_level)
    }

    fn offer_lengths(&self, preferences: &mut Preferences) -> Result<(), RpcError> {
        let (most, first) = (self.max_burst_length, self.first_burst_length);
        within("max_burst_length", most, LENGTHS, &mut preferences.max_burst_length)?;
        // What nobody names follows.
        preferences.first_burst_length = preferences.first_burst_length.min(preferences.max_burst_length);
        within("first_burst_length", first, LENGTHS, &mut preferences.first_burst_length)?;
        let segment = self.max_recv_data_segment_length;
        let into = &mut preferences.max_recv_data_segment_length;
        within("max_recv_data_segment_length", segment, LENGTHS, into)?;
        check_bursts(preferences)
    }
}

fn create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: IscsiCreate = params::parse(given)?;
    iscsi::name::check(&parsed.initiator_iqn).map_err(|why| {
        RpcError::invalid_params(format!("initiator_iqn: {:?} is no iSCSI name: {why}", parsed.initiator_iqn))
    })?;
    let url: LunUrl =
        parsed.url.parse().map_err(|error: UrlError| RpcError::invalid_params(error.to_string()))?;
    let uuid = uuid_of(parsed.uuid.as_deref())?;
    let mut config = RemoteConfig {
        lun: url.lun,
        ..RemoteConfig::new(parsed.initiator_iqn.as_str(), url.target, url.portal)
    };
    if let Some(millis) = parsed.silence_ms {
        config.silence_max = params::millis("silence_ms", millis)?;
        config.keep_alive = config.silence_max / 4;
    }
    let option = |name: &str| node.options.get(SET_OPTIONS).and_then(|options| options[name].as_u64());
    if let Some(seconds) = option("timeout_sec") {
        config.io_timeout = Duration::from_secs(seconds);
    }
    for (name, time) in [
        ("abort_timeout_ms", &mut config.rung_times.abort),
        ("reset_timeout_ms", &mut config.rung_times.reset),
    ] {
        *time = option(name).map_or(*time, Duration::from_millis);
    }
    config.account = parsed.chap.as_ref().map(AccountParams::account).transpose()?;
    for text in &parsed.more_addresses {
        config.add_way(address("more_addresses", text)?);
    }
    if config.ways().len() > CONNECTIONS_MAX as usize {
        return Err(RpcError::invalid_params(format!("there can be {CONNECTIONS_MAX} addresses")));
    }
    match parsed.error_recovery_level {
        None => {}
        Some(level @ 0..=2) => config.offer_recovery(level),
        Some(_) => return Err(RpcError::invalid_params("error_recovery_level must be 0, 1 or 2")),
    }
    match parsed.connections {
        None => {}
        Some(connections @ 1..=CONNECTIONS_MAX) => {
            let least = config.preferences.max_connections;
            config.preferences.max_connections = connections.max(least);
        }
        Some(_) => {
            return Err(RpcError::invalid_params(format!("connections must be 1 to {CONNECTIONS_MAX}")));
        }
    }
    parsed.offer(&mut config.preferences)?;
    if let Some(names) = &parsed.chap_algorithms {
        config.algorithms = algorithms(names)?;
    }
    node.check_new(&parsed.name)?;
    let ways = config.ways();
    let remote = Remote::new(parsed.name.as_str(), uuid, config);
    let made = replay("bdev_iscsi_create", given, &*remote);
    let (reactor, key) = (node.place_for(&ways), parsed.name.clone());
    let bdev = node.on(reactor, move |residents, _| {
        let network = Box::new(residents.routes.clone());
        let (bdev, import) = Served::over(&remote, network, &residents.core);
        residents.imports.insert(key, Polled::new(import));
        bdev
    })?;
    let entry = Entry { resident: Resident::Import(reactor), ..Entry::new(bdev, Some(made)) };
    node.add_bdev(&parsed.name, entry)
}

fn iscsi_delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    delete(node, given, "bdev_iscsi_create")
}

/// Time for a discovery where nothing is said.
const DISCOVERY_MS: u64 = 1000;
/// And at the most.
const DISCOVERY_MS_MAX: u64 = 5000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Discover {
    /// `ADDRESS[:PORT]`, numerical.
    address: String,
    initiator_iqn: String,
    chap: Option<AccountParams>,
    /// Hashes of CHAP to offer, the preferred first; ours.
    chap_algorithms: Option<Vec<String>>,
    timeout_ms: Option<u64>,
}

/// A portal, numerical.
fn address(what: &str, text: &str) -> Result<SocketAddr, RpcError> {
    let none =
        || RpcError::invalid_params(format!("{what}: {text:?} is no portal: use ADDRESS[:PORT], numerical"));
    gateway::url::portal(text).ok_or_else(none)
}

/// The targets that a portal shows, and where they are: what to give to `bdev_iscsi_create`.
fn discover(node: &mut Node, given: Option<&Value>) -> Result<Awaited, RpcError> {
    let parsed: Discover = params::parse(given)?;
    let address = address("address", &parsed.address)?;
    let millis = parsed.timeout_ms.unwrap_or(DISCOVERY_MS);
    if !(1..=DISCOVERY_MS_MAX).contains(&millis) {
        return Err(RpcError::invalid_params(format!("timeout_ms must be 1 to {DISCOVERY_MS_MAX}")));
    }
    let config = DiscoveryConfig {
        address,
        initiator: parsed.initiator_iqn,
        account: parsed.chap.as_ref().map(AccountParams::account).transpose()?,
        algorithms: match &parsed.chap_algorithms {
            Some(names) => algorithms(names)?,
            None => RemoteConfig::ALGORITHMS.to_vec(),
        },
        patience: Duration::from_millis(millis),
    };
    let waiting = node.discover(config)?;
    let finish = move |found| {
        let targets = discovered(found, &address.to_string())?.into_iter();
        Ok(targets.map(|target| json!({"name": target.name, "portals": target.addresses})).collect())
    };
    Ok(Awaited { waiting, finish: Box::new(finish) })
}
