//! Options of the whole target: limits, patience, what is negotiated for. Names are SPDK's where SPDK has them; unlike there,
//! they may be set at any time, for logins from then on.

use core::time::Duration;
use gateway::{Limits, Target, TargetConfig};
use iscsi::Preferences;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::negotiation::{
    LENGTHS, PROTOCOL_LEVELS, SECONDS, check_bursts, choose, shorten_first_burst, within,
};
use super::auth::Flags;
use crate::node::{Node, State};
use crate::params;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// Seconds of silence after which an initiator is pinged,
    nop_in_interval: Option<u64>,
    /// and seconds that it then has.
    nop_timeout: Option<u64>,
    disable_chap: Option<bool>,
    require_chap: Option<bool>,
    mutual_chap: Option<bool>,
    chap_group: Option<i32>,
    immediate_data: Option<bool>,
    max_sessions: Option<usize>,
    max_queue_depth: Option<u32>,
    max_connections_per_session: Option<u32>,
    default_time2wait: Option<u32>,
    default_time2retain: Option<u32>,
    first_burst_length: Option<u32>,
    error_recovery_level: Option<u32>,
    // What else is negotiated, in the words of RFC 7143 section 13 and RFC 7144 section 7.1.1; ours.
    initial_r2t: Option<bool>,
    max_burst_length: Option<u32>,
    /// Above error recovery level 0, with sequences in order, one is agreed on whatever this says (RFC 7143 section 13.19).
    max_outstanding_r2t: Option<u32>,
    data_pdu_in_order: Option<bool>,
    data_sequence_in_order: Option<bool>,
    protocol_level: Option<u32>,
    /// Longest data segment that is taken, in bytes: initiators that are logged in are asked to negotiate (RFC 7143 section 11.9.1,
    /// event 4); ours.
    max_recv_data_segment_length: Option<u32>,
    /// Connections at once, logged in or not; ours, as what follows.
    max_connections: Option<usize>,
    /// Of them, from one address,
    max_connections_per_address: Option<usize>,
    /// normal sessions of one initiator's name,
    max_sessions_per_initiator: Option<usize>,
    /// and discovery sessions from one address.
    max_discovery_sessions_per_address: Option<usize>,
    /// Connections that are logging in,
    max_logins: Option<usize>,
    /// and of one address.
    max_logins_per_address: Option<usize>,
    /// Logins that one address may begin in a second, in the long run,
    logins_per_second: Option<u32>,
    /// and at once.
    login_burst: Option<u32>,
    login_timeout_ms: Option<u64>,
}

/// A target keeps what comes unasked, whatever else it has to do: no more of each command than a frame has.
const FIRST_BURST: (u32, u32) = (512, 1 << 20);
/// R2Ts of one task that are open at once: each is looked up for each data PDU.
const OUTSTANDING_R2TS: (u32, u32) = (1, 64);

impl Options {
    fn limits(&self, limits: &mut Limits) -> Result<(), RpcError> {
        within("max_sessions", self.max_sessions, (1, 4096), &mut limits.sessions)?;
        within("max_connections", self.max_connections, (1, 8192), &mut limits.connections)?;
        let per_address = (self.max_connections_per_address, self.max_discovery_sessions_per_address);
        within("max_connections_per_address", per_address.0, (1, 8192), &mut limits.connections_per_address)?;
        within(
            "max_discovery_sessions_per_address",
            per_address.1,
            (1, 1024),
            &mut limits.discovery_per_address,
        )?;
        let per_initiator = self.max_sessions_per_initiator;
        within("max_sessions_per_initiator", per_initiator, (1, 4096), &mut limits.sessions_per_initiator)?;
        within("max_queue_depth", self.max_queue_depth, (1, 256), &mut limits.queue_depth)?;
        within("max_logins", self.max_logins, (1, 1024), &mut limits.logins)?;
        let per_address = self.max_logins_per_address;
        within("max_logins_per_address", per_address, (1, 1024), &mut limits.logins_per_address)?;
        within("logins_per_second", self.logins_per_second, (1, 100_000), &mut limits.logins_per_second)?;
        within("login_burst", self.login_burst, (1, 100_000), &mut limits.login_burst)?;
        let mut quiet = limits.quiet.as_secs();
        let mut timeout = limits.silence.as_secs() - quiet;
        within("nop_in_interval", self.nop_in_interval, (1, 3600), &mut quiet)?;
        within("nop_timeout", self.nop_timeout, (1, 3600), &mut timeout)?;
        limits.quiet = Duration::from_secs(quiet);
        limits.silence = Duration::from_secs(quiet + timeout);
        if let Some(millis) = self.login_timeout_ms {
            limits.login_timeout = params::millis("login_timeout_ms", millis)?;
        }
        Ok(())
    }

    fn config(&self, mut config: TargetConfig) -> Result<TargetConfig, RpcError> {
        self.limits(&mut config.limits)?;
        self.offer(&mut config.preferences)?;
        Ok(config)
    }

    fn offer(&self, preferences: &mut Preferences) -> Result<(), RpcError> {
        choose(self.immediate_data, &mut preferences.immediate_data);
        choose(self.initial_r2t, &mut preferences.initial_r2t);
        choose(self.data_pdu_in_order, &mut preferences.data_pdu_in_order);
        choose(self.data_sequence_in_order, &mut preferences.data_sequence_in_order);
        let Self { max_burst_length, first_burst_length, max_outstanding_r2t, .. } = *self;
        within("max_burst_length", max_burst_length, LENGTHS, &mut preferences.max_burst_length)?;
        within("first_burst_length", first_burst_length, FIRST_BURST, &mut preferences.first_burst_length)?;
        let outstanding = &mut preferences.max_outstanding_r2t;
        within("max_outstanding_r2t", max_outstanding_r2t, OUTSTANDING_R2TS, outstanding)?;
        let segment = self.max_recv_data_segment_length;
        let into = &mut preferences.max_recv_data_segment_length;
        within("max_recv_data_segment_length", segment, LENGTHS, into)?;
        let (wait, retain) = (self.default_time2wait, self.default_time2retain);
        within("default_time2wait", wait, SECONDS, &mut preferences.default_time2wait)?;
        within("default_time2retain", retain, SECONDS, &mut preferences.default_time2retain)?;
        let connections = self.max_connections_per_session;
        within("max_connections_per_session", connections, (1, 64), &mut preferences.max_connections)?;
        let level = self.error_recovery_level;
        within("error_recovery_level", level, (0, 2), &mut preferences.error_recovery_level)?;
        within("protocol_level", self.protocol_level, PROTOCOL_LEVELS, &mut preferences.protocol_level)
    }

    /// The CHAP of discovery sessions, where any of it is given.
    fn discovery(&self) -> Option<Flags> {
        let given = self.disable_chap.or(self.require_chap).or(self.mutual_chap).is_some();
        (given || self.chap_group.is_some()).then(|| Flags {
            disable_chap: self.disable_chap.unwrap_or_default(),
            require_chap: self.require_chap.unwrap_or_default(),
            mutual_chap: self.mutual_chap.unwrap_or_default(),
            chap_group: self.chap_group.unwrap_or_default(),
        })
    }
}

pub(super) fn set(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Options = params::parse(given)?;
    let discovery = parsed.discovery();
    let policy = discovery.map(Flags::policy).transpose()?;
    let mut config = parsed.config(node.target(|target: &mut Target| target.config())?)?;
    match node.state {
        State::Startup => shorten_first_burst(&mut config.preferences),
        State::Runtime => check_bursts(&config.preferences)?,
    }
    if let (Some(policy), Some(flags)) = (policy, discovery) {
        super::change(node, move |target| target.set_discovery_auth(policy))?;
        // Options are replayed before the groups that they would name.
        node.target_calls.retain(|(method, _)| method != "iscsi_set_discovery_auth");
        super::remember(node, "iscsi_set_discovery_auth", Some(&flags.params()));
    }
    node.target(move |target| target.set_config(config))?;
    // What was set before and is not named now stays.
    let kept = node.options.entry("iscsi_set_options".to_owned()).or_insert_with(|| json!({}));
    for (key, value) in given.and_then(Value::as_object).into_iter().flatten() {
        if !key.ends_with("_chap") && key != "chap_group" {
            kept[key] = value.clone();
        }
    }
    Ok(json!(true))
}

pub(super) fn get(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let (config, policy) = node.target(|target: &mut Target| (target.config(), target.discovery_auth()))?;
    let TargetConfig { limits, preferences } = config;
    let Flags { disable_chap, require_chap, mutual_chap, chap_group } = Flags::of(policy);
    Ok(json!({
        "nop_in_interval": limits.quiet.as_secs(), "nop_timeout": (limits.silence - limits.quiet).as_secs(),
        "disable_chap": disable_chap, "require_chap": require_chap, "mutual_chap": mutual_chap,
        "chap_group": chap_group,
        "immediate_data": preferences.immediate_data.is_yes(), "initial_r2t": preferences.initial_r2t.is_yes(),
        "data_pdu_in_order": preferences.data_pdu_in_order.is_yes(),
        "data_sequence_in_order": preferences.data_sequence_in_order.is_yes(),
        "max_sessions": limits.sessions, "max_queue_depth": limits.queue_depth,
        "max_connections_per_session": preferences.max_connections, "error_recovery_level": preferences.error_recovery_level,
        "default_time2wait": preferences.default_time2wait,
        "default_time2retain": preferences.default_time2retain,
        "first_burst_length": preferences.first_burst_length, "max_burst_length": preferences.max_burst_length,
        "max_outstanding_r2t": preferences.max_outstanding_r2t, "protocol_level": preferences.protocol_level,
        "max_recv_data_segment_length": preferences.max_recv_data_segment_length,
        "max_connections_per_address": limits.connections_per_address,
        "max_sessions_per_initiator": limits.sessions_per_initiator,
        "max_discovery_sessions_per_address": limits.discovery_per_address,
        "max_connections": limits.connections, "max_logins": limits.logins,
        "max_logins_per_address": limits.logins_per_address, "logins_per_second": limits.logins_per_second,
        "login_burst": limits.login_burst,
        "login_timeout_ms": u64::try_from(limits.login_timeout.as_millis()).unwrap_or(u64::MAX),
    }))
}
