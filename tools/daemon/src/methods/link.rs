//! Links: network interfaces that a reactor polls itself, with TCP/IP in this process. What listens at an address of a link, and
//! what connects into one of its networks, goes over it.

use core::net::IpAddr;
use core::time::Duration;
use std::path::PathBuf;

use engine::Clock;
use engine::packet::LinkState;
use net::smol::{
    Congestion, DeviceKind, IpNet, Link, LinkConfig, LinkError, LinkStatus, PathCheck, UnknownCongestion,
    UnknownDevice, UnknownNet,
};
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Method;
use super::iostat::summary as percentiles;
use crate::capture::{Capture, Plan};
use crate::node::{LinkEntry, Node};
use crate::params;
use crate::params::check;
use crate::pollers::Polled;

pub(super) const METHODS: &[Method] = &[
    Method::runtime("link_create", check::<Create>, create),
    Method::runtime("link_delete", check::<Named>, delete),
    Method::runtime("link_capture", check::<CaptureParams>, capture),
    Method::runtime("link_get_links", check::<Which>, links),
];

/// The reactor that has the links: the first, which has the portals. What connects over a link lives there too.
const REACTOR: usize = 0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    /// The network interface.
    interface: String,
    /// Its addresses, `ADDRESS/PREFIX`.
    addresses: Vec<String>,
    /// The way to other networks, for each of IPv4 and IPv6 at the most one.
    #[serde(default)]
    gateways: Vec<IpAddr>,
    /// What carries its frames: `packet` when absent, `xdp`, `auto` or `tap`.
    device: Option<String>,
    /// The longest packet in bytes; 9000 when absent.
    mtu: Option<u32>,
    /// Its Ethernet address, `02:00:00:00:00:01`; one of its own, derived from the interface's, when absent.
    hardware_address: Option<String>,
    /// Connections at the most.
    sockets: Option<usize>,
    /// KiB that a connection buffers in each direction.
    buffer_kb: Option<usize>,
    /// Frames of a ring.
    ring_frames: Option<u32>,
    /// What a loss is taken for: `none` when absent, or `reno`.
    congestion: Option<String>,
    /// The shortest retransmission timeout in microseconds.
    min_rto_us: Option<u64>,
    /// How long an acknowledgement may wait, in microseconds.
    ack_delay_us: Option<u64>,
}

impl Create {
    fn config(&self) -> Result<LinkConfig, RpcError> {
        let bad = |error: UnknownNet| RpcError::invalid_params(format!("addresses: {error}"));
        let nets = self.addresses.iter().map(|text| text.parse::<IpNet>().map_err(bad));
        let defaults = LinkConfig::new(&self.interface, Uuid::new_v4().as_u64_pair().1 ^ random());
        let min_rto = self.min_rto_us.map_or(defaults.min_rto, Duration::from_micros);
        let ack_delay =
            self.ack_delay_us.map_or(defaults.ack_delay.min(min_rto * 2 / 5), Duration::from_micros);
        Ok(LinkConfig {
            device: self.device.as_deref().map(device).transpose()?.unwrap_or_default(),
            addresses: nets.collect::<Result<_, _>>()?,
            gateways: self.gateways.clone(),
            mtu: self.mtu.unwrap_or(defaults.mtu),
            hardware_address: self.hardware_address.as_deref().map(hardware).transpose()?,
            sockets: self.sockets.unwrap_or(defaults.sockets),
            buffer: self.buffer_kb.map_or(defaults.buffer, |kib| kib.saturating_mul(1024)),
            ring_frames: self.ring_frames.unwrap_or(if self.mtu.is_some_and(|mtu| mtu < 4000) {
                512
            } else {
                256
            }),
            congestion: self.congestion.as_deref().map(congestion).transpose()?.unwrap_or_default(),
            min_rto,
            ack_delay,
            ..defaults
        })
    }
}

fn device(text: &str) -> Result<DeviceKind, RpcError> {
    text.parse().map_err(|error: UnknownDevice| RpcError::invalid_params(format!("device: {error}")))
}

fn congestion(text: &str) -> Result<Congestion, RpcError> {
    let bad = |error: UnknownCongestion| RpcError::invalid_params(format!("congestion: {error}"));
    text.parse().map_err(bad)
}

/// A version 4 UUID has fixed bits: those of another one cover them.
fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0
}

fn hardware(text: &str) -> Result<[u8; 6], RpcError> {
    let bad =
        || RpcError::invalid_params(format!("hardware_address: {text:?} is none: use 02:00:00:00:00:01"));
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).map_err(|_| bad()))
        .collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| bad())
}

fn create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Create = params::parse(given)?;
    if node.links.contains_key(&parsed.name) {
        return Err(RpcError::exists(format!("link {:?} exists already", parsed.name)));
    }
    if let Some((other, _)) =
        node.links.iter().find(|(_, link)| link.created_by.1["interface"] == parsed.interface)
    {
        return Err(RpcError::busy(format!("interface {} has link {other} already", parsed.interface)));
    }
    let config = parsed.config()?;
    let overlap = node.links.iter().find(|(_, link)| {
        link.addresses.iter().any(|net| config.addresses.iter().any(|mine| net.contains(mine.address)))
    });
    if let Some((other, _)) = overlap {
        return Err(RpcError::busy(format!(
            "link {other} is in the same network: one of them would never be used"
        )));
    }
    let (name, addresses) = (parsed.name.clone(), config.addresses.clone());
    let opened = node.on(REACTOR, move |residents, now| {
        let link = Link::open(&config, &residents.core, now)?;
        residents.routes.add(&name, link.network());
        let device = link.status().device;
        residents.links.insert(name, Polled::new(link));
        Ok::<_, LinkError>(device)
    })?;
    let device = opened.map_err(|error| refused(&error))?;
    for reason in &device.fallbacks {
        tracing::warn!("link {}: its device is {}; {reason}", parsed.name, device.kind);
    }
    let created_by = ("link_create".to_owned(), given.cloned().unwrap_or_default());
    node.links.insert(parsed.name.clone(), LinkEntry::new(REACTOR, addresses, created_by));
    Ok(json!(parsed.name))
}

fn refused(error: &LinkError) -> RpcError {
    match error {
        LinkError::Config(_) => RpcError::invalid_params(error.to_string()),
        LinkError::AddressTaken { .. } => RpcError::exists(error.to_string()),
        LinkError::Device(_) | LinkError::System { .. } => RpcError::refused(error.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

fn delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    if !node.links.contains_key(&given.name) {
        return Err(RpcError::no_device(format!("there is no link {:?}", given.name)));
    }
    let name = given.name.clone();
    let users = node.on(REACTOR, move |residents, _| {
        let users = residents.links.get(&name).map_or(0, |link| link.what.users());
        if users == 0 {
            residents.routes.remove(&name);
            residents.links.remove(&name);
        }
        users
    })?;
    if users > 0 {
        return Err(RpcError::busy(format!(
            "link {} is used by {users} portals and connections: remove those first",
            given.name
        )));
    }
    node.links.remove(&given.name);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptureParams {
    name: String,
    /// By its absolute path; it must not be there yet.
    file: PathBuf,
    /// For how long.
    seconds: u32,
    /// Bytes of each frame at the most.
    #[serde(default = "whole")]
    snap_len: u32,
}

/// Longer than any frame.
fn whole() -> u32 {
    1 << 18
}

/// Captures last an hour at the most.
const CAPTURE_MAX: u32 = 3600;

/// Writes a link's frames to a file for a while; answers at once.
fn capture(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: CaptureParams = params::parse(given)?;
    if !(1..=CAPTURE_MAX).contains(&given.seconds) || !(64..=whole()).contains(&given.snap_len) {
        return Err(RpcError::invalid_params(format!(
            "seconds must be 1 to {CAPTURE_MAX}, and snap_len 64 to {}",
            whole()
        )));
    }
    if !given.file.is_absolute() {
        return Err(RpcError::invalid_params(
            "file must be an absolute path: the node's folder is not yours",
        ));
    }
    let now = node.clock().now();
    let link = node.links.get(&given.name);
    let link = link.ok_or_else(|| RpcError::no_device(format!("there is no link {:?}", given.name)))?;
    if link.capture.as_ref().is_some_and(Capture::is_running) {
        return Err(RpcError::busy(format!("link {} is being captured", given.name)));
    }
    let duration = Duration::from_secs(given.seconds.into());
    let plan = Plan { file: given.file.clone(), snap_len: given.snap_len, duration };
    let started = Capture::start(plan, now);
    let (capture, tap) =
        started.map_err(|error| RpcError::refused(format!("{}: {error}", given.file.display())))?;
    let name = given.name.clone();
    node.on(REACTOR, move |residents, _| {
        if let Some(link) = residents.links.get_mut(&name) {
            link.what.set_tap(tap());
        }
    })?;
    if let Some(link) = node.links.get_mut(&given.name) {
        link.capture = Some(capture);
    }
    Ok(json!(true))
}

fn capture_json(capture: &Capture) -> Value {
    let (frames, left_out) = capture.counts();
    json!({"file": capture.file(), "running": capture.is_running(), "frames": frames, "left_out": left_out})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    name: Option<String>,
}

fn links(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Which = params::parse(given)?;
    if let Some(name) = given.name.as_ref().filter(|name| !node.links.contains_key(*name)) {
        return Err(RpcError::no_device(format!("there is no link {name:?}")));
    }
    let all = node.on(REACTOR, |residents, _| {
        let one = |(name, link): (&String, &Polled<Link>)| (name.clone(), link.what.status());
        residents.links.iter().map(one).collect::<Vec<_>>()
    })?;
    let wanted = |name: &str| given.name.as_deref().is_none_or(|wanted| wanted == name);
    let shown = all.iter().filter(|(name, _)| wanted(name));
    Ok(shown.map(|(name, status)| describe(name, &node.links[name], status)).collect())
}

fn state(state: LinkState) -> &'static str {
    match state {
        LinkState::Up => "up",
        LinkState::NoCarrier => "no-carrier",
        LinkState::Down => "down",
        LinkState::Gone => "gone",
    }
}

fn path(check: PathCheck) -> &'static str {
    match check {
        PathCheck::Asking => "asking",
        PathCheck::Whole => "whole",
        PathCheck::TooNarrow => "too-narrow",
        PathCheck::Silent => "silent",
    }
}

fn describe(name: &str, entry: &LinkEntry, status: &LinkStatus) -> Value {
    let LinkStatus { device, counters, .. } = status;
    let frames = counters.frames;
    let bytes: Vec<String> = device.address.iter().map(|byte| format!("{byte:02x}")).collect();
    let paths = status.paths.iter().map(|(host, check)| json!({"host": host, "path": path(*check)}));
    json!({
        "name": name,
        "interface": entry.created_by.1["interface"],
        "state": state(status.state),
        "why": status.why,
        "rates": {"received_bytes_per_s": status.rates[0], "sent_bytes_per_s": status.rates[1]},
        "device": device.kind,
        "fallbacks": device.fallbacks,
        "driver": device.driver,
        "mtu": status.mtu,
        "interface_mtu": device.mtu,
        "hardware_address": bytes.join(":"),
        "addresses": status.addresses.iter().map(IpNet::to_string).collect::<Vec<_>>(),
        "offloads": device.offloads,
        "segmentation": device.segmentation,
        "sockets": {"used": status.sockets.1, "limit": status.sockets.0},
        "peers": paths.collect::<Vec<_>>(),
        "round_trips": percentiles(&status.round_trips),
        "capture": entry.capture.as_ref().map(capture_json),
        "counters": {
            "received_frames": frames.received, "received_bytes": frames.received_bytes,
            "sent_frames": frames.sent, "sent_bytes": frames.sent_bytes,
            "ring_drops": frames.ring_drops, "unusable_frames": frames.unusable, "refused_frames": frames.refused,
            "kicks": frames.kicks, "segments": counters.segments, "retransmissions": counters.retransmissions,
            "checksum_errors": counters.corrupt, "unsent_answers": counters.unsent,
            "copied_in_bytes": counters.copied_in, "copied_out_bytes": counters.copied_out,
            "accepted": counters.accepted, "connects": counters.connects, "carrier_losses": counters.carrier_losses,
        },
    })
}
