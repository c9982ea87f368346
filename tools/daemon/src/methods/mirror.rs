//! Mirrors: create, join, assemble, look at, command. SPDK's raid methods are beside it.

use std::sync::Arc;

use core::time::Duration;

use ::bdev::{Bdev, OpenError};
use ::mirror::command::{Command, Demotion, Refusal};
use ::mirror::decide::{DataAge, HolderState, PromoteMode, Promotion};
use ::mirror::driver::{Driver, Volumes};
use ::mirror::events::Codes;
use ::mirror::format::{ArbiterKind, ArrayName, LegFlags, LegIndex, LegRecord, LegState};
use ::mirror::holder::resync::{Progress, Throttle};
use ::mirror::setup::{ArbiterLink, Content, DegradedPolicy, OnBlank, Setup, Timing};
use ::mirror::status::Status;
use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Method, bdev};
use crate::etcd::{Courier, EtcdConfig, EtcdError};
use crate::node::{Entry, Node, ReactorIndex, Resident};
use crate::params;
use crate::params::check;
use crate::pollers::PollCount;
use crate::reactor::{Array, deliver_to};

pub(super) const METHODS: &[Method] = &[
    Method::runtime("mirror_create", check::<Make>, create),
    Method::runtime("mirror_assemble", check::<Make>, assemble),
    Method::runtime("mirror_get_status", check::<Which>, status),
    Method::runtime("mirror_promote", check::<Promote>, promote),
    Method::runtime("mirror_may_promote", check::<Promote>, may_promote),
    Method::runtime("mirror_demote", check::<Demote>, demote),
    Method::runtime("mirror_switchover", check::<Named>, switchover),
    Method::runtime("mirror_start_degraded", check::<Named>, start_degraded),
    Method::runtime("mirror_degrade", check::<Named>, degrade),
    Method::runtime("mirror_resync_pause", check::<Named>, pause),
    Method::runtime("mirror_resync_resume", check::<Named>, resume),
    Method::runtime("mirror_delete", check::<Named>, delete),
];

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Policy {
    #[default]
    Biased,
    Manual,
    Etcd,
    /// A cluster manager that fences.
    External,
    /// What people ask for, and what cannot be had.
    Heartbeat,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LegContent {
    Zeroed,
    #[default]
    Unknown,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Profile {
    #[default]
    Default,
    Fast,
}

/// Of `mirror_create` and `mirror_assemble`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Make {
    /// The volume's name, which is the array's.
    name: String,
    /// The own leg's bdev.
    leg: String,
    /// The bdev that is the peer's leg.
    peer: String,
    /// This node's number in the array: 0 or 1.
    index: u8,
    /// The array; a fresh one when absent.
    uuid: Option<String>,
    /// What a blank leg is known to hold.
    #[serde(default)]
    content: LegContent,
    /// Who decides when the peer is gone. For a new array.
    #[serde(default)]
    policy: Policy,
    /// Bytes of the data area. For a new array.
    data_size: Option<u64>,
    /// Most bytes to copy after a crash. For a new array.
    max_crash_resync: Option<u64>,
    /// Start without the peer after so many milliseconds; by command alone when absent.
    degraded_start_ms: Option<u64>,
    /// How patient the node is, where nothing else is said. The read lease of a new array is its creator's.
    #[serde(default)]
    profile: Profile,
    /// How long a lost peer has to come back before the holder goes on without it.
    grace_ms: Option<u64>,
    /// How long one I/O on the peer's leg may take.
    io_timeout_ms: Option<u64>,
    /// How long one I/O on the own leg may take, where the peer's leg can stand in.
    disk_timeout_ms: Option<u64>,
    /// How long an I/O waits for the last leg in sync, out of reach or busy, before its host gets the error.
    stall_ms: Option<u64>,
    /// The arbiter, for an array whose policy is etcd.
    etcd: Option<EtcdConfig>,
}

impl Make {
    fn timing(&self) -> Result<Timing, RpcError> {
        let mut timing = match self.profile {
            Profile::Default => Timing::default(),
            Profile::Fast => Timing::fast(),
        };
        for (name, given, time) in [
            ("grace_ms", self.grace_ms, &mut timing.grace),
            ("io_timeout_ms", self.io_timeout_ms, &mut timing.io_timeout),
            ("disk_timeout_ms", self.disk_timeout_ms, &mut timing.disk_timeout),
            ("stall_ms", self.stall_ms, &mut timing.stall),
        ] {
            if let Some(millis) = given {
                *time = params::millis(name, millis)?;
            }
        }
        Ok(timing)
    }
}

pub(super) fn create(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Make = params::parse(given)?;
    let arbiter = match parsed.policy {
        Policy::Biased => ArbiterKind::Biased,
        Policy::Manual => ArbiterKind::Manual,
        Policy::External => ArbiterKind::ClusterManager,
        Policy::Etcd if parsed.etcd.is_some() => ArbiterKind::Etcd,
        Policy::Etcd => return Err(RpcError::invalid_params("policy etcd needs etcd.endpoints")),
        Policy::Heartbeat => {
            return Err(RpcError::refused(
                "a heartbeat alone is no policy: when the link between the nodes is cut, both would go on and the \
                 legs would diverge; name an arbiter (etcd), or choose external (a cluster manager that fences), biased \
                 or manual",
            ));
        }
    };
    let (data_size, max_crash_resync) = (parsed.data_size, parsed.max_crash_resync);
    make(node, given, parsed, OnBlank::Create { arbiter, data_size, max_crash_resync })
}

/// Takes up an array whose leg is there; a blank leg joins the peer's array.
fn assemble(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let parsed: Make = params::parse(given)?;
    if parsed.uuid.is_none() {
        return Err(RpcError::invalid_params("uuid is missing: name the array to assemble"));
    }
    make(node, given, parsed, OnBlank::Join)
}

/// The machine's boot id: a volatile cache is intact while it stays the same.
fn boot_id() -> Uuid {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // Where the system does not tell, each start counts as a boot: the safe side.
    text.trim().parse().unwrap_or_else(|_| Uuid::new_v4())
}

fn make(node: &mut Node, given: Option<&Value>, parsed: Make, on_blank: OnBlank) -> Result<Value, RpcError> {
    let bad = RpcError::invalid_params;
    let name = ArrayName::new(&parsed.name).ok_or_else(|| bad("name must have 1 to 64 bytes"))?;
    let who = LegIndex::from_number(parsed.index).ok_or_else(|| bad("index must be 0 or 1"))?;
    let leg = format!("{}_leg", parsed.name);
    node.check_new(&parsed.name)?;
    node.check_new(&leg)?;
    let own = free(node, &parsed.leg)?;
    let peer = free(node, &parsed.peer)?;
    if own.geometry().block_size > 4096 {
        return Err(bad("the leg's blocks must have 512 or 4096 bytes"));
    }
    let array = bdev::uuid_of(parsed.uuid.as_deref())?;
    let timing = parsed.timing()?;
    let setup = Setup {
        array,
        name,
        who,
        node: Uuid::new_v4(),
        incarnation: boot_id(),
        on_blank,
        content: match parsed.content {
            LegContent::Zeroed => Content::Zeroed,
            LegContent::Unknown => Content::Unknown,
        },
        flags: LegFlags::empty(),
        arbiter: if parsed.etcd.is_some() { ArbiterLink::Etcd } else { ArbiterLink::None },
        degraded: parsed
            .degraded_start_ms
            .map_or(DegradedPolicy::Ask, |millis| DegradedPolicy::After(Duration::from_millis(millis))),
        timing,
        seed: Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1,
    };
    let reactor = place(node, &parsed.peer);
    let deliver = deliver_to(node.reactors()[reactor].sender(), parsed.name.clone());
    let courier = parsed.etcd.as_ref().map(|etcd| Courier::start(etcd, array, deliver)).transpose();
    let courier = courier.map_err(|error| bad_etcd(&error))?;
    let volumes = start(node, reactor, parsed.name.clone(), setup, [own, peer], courier)?;
    // Once there is an array, a blank leg joins it: it never makes another one of the same name.
    let mut replay = given.cloned().unwrap_or_else(|| json!({}));
    replay["uuid"] = json!(array.to_string());
    for only_new in ["policy", "data_size", "max_crash_resync", "content"] {
        replay.as_object_mut().map(|params| params.remove(only_new));
    }
    let created_by = ("mirror_assemble".to_owned(), replay);
    let bases = vec![parsed.leg, parsed.peer];
    let volume = Entry::new(volumes.front, Some(created_by));
    node.add_bdev(&parsed.name, Entry { resident: Resident::Mirror(reactor), bases, ..volume })?;
    node.add_bdev(&leg, Entry::new(volumes.guarded, None))?;
    Ok(json!({"name": parsed.name, "leg": leg, "uuid": array.to_string()}))
}

fn bad_etcd(error: &EtcdError) -> RpcError {
    RpcError::invalid_params(error.to_string())
}

/// A mirror lives with the session to its peer.
fn place(node: &Node, peer: &str) -> ReactorIndex {
    match node.bdevs.get(peer).map(|entry| entry.resident) {
        Some(Resident::Import(reactor)) => reactor,
        _ => node.place(),
    }
}

fn start(
    node: &mut Node,
    reactor: ReactorIndex,
    name: String,
    setup: Setup,
    legs: [Arc<dyn Bdev>; 2],
    courier: Option<Courier>,
) -> Result<Volumes, RpcError> {
    let [own, peer] = legs;
    let events = node.events().sender();
    let started = node.on(reactor, move |residents, now| {
        let (volumes, driver) = Driver::start(&name, setup, own, peer, &residents.core, now)?;
        residents.mirrors.insert(
            name.clone(),
            Array { driver, courier, events: (name, events), polls: PollCount::default() },
        );
        Ok::<_, OpenError>(volumes)
    })?;
    started.map_err(|error| RpcError::refused(error.to_string()))
}

fn free(node: &Node, name: &str) -> Result<Arc<dyn Bdev>, RpcError> {
    let bdev = node.bdev(name)?.bdev.clone();
    node.check_free(name)?;
    Ok(bdev)
}

/// How long a mirror gets to stop.
const STOP: Duration = Duration::from_secs(3);

/// Stops a mirror in order and forgets it; what is on the legs stays, and assembles again.
pub(super) fn delete(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    let leg = format!("{}_leg", given.name);
    node.check_free(&given.name)?;
    node.check_free(&leg)?;
    let until = node.mirror(&given.name, |driver, now| {
        driver.stop(now);
        now + STOP
    })?;
    while node.mirror(&given.name, move |driver, now| !driver.is_stopped() && now < until)? {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    node.remove_bdev(&leg)?;
    node.remove_bdev(&given.name)?;
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

pub(super) fn command(node: &Node, name: &str, command: Command) -> Result<Value, RpcError> {
    let done = node.mirror(name, move |driver, now| driver.command(command, now))?;
    done.map_err(|refusal| refused(&refusal))?;
    Ok(json!(true))
}

/// Each mirror with what it says of itself.
pub(super) fn all(node: &Node) -> Result<Vec<(&String, &Entry, Status)>, RpcError> {
    let mirrors = node.bdevs.iter().filter(|(_, entry)| matches!(entry.resident, Resident::Mirror(_)));
    mirrors.map(|(name, entry)| Ok((name, entry, node.mirror(name, |driver, _| driver.status())?))).collect()
}

fn refused(refusal: &Refusal) -> RpcError {
    RpcError::refused(format!("{refusal} ({})", refusal.code()))
}

fn start_degraded(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    command(node, &given.name, Command::StartDegraded)
}

fn degrade(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    command(node, &given.name, Command::Degrade)
}

fn pause(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    command(node, &given.name, Command::Resync(Throttle::Paused))
}

fn resume(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    command(node, &given.name, Command::Resync(Throttle::Running))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promote {
    name: String,
    /// Even if acknowledged writes are missing.
    #[serde(default)]
    force: bool,
    /// The operator says that the old holder is down.
    #[serde(default)]
    peer_is_down: bool,
    /// What comes of force is understood.
    #[serde(default)]
    confirm: bool,
}

/// An ordinary promotion begins. By force it begins where that is confirmed; else the answer says what it would mean.
fn promote(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Promote = params::parse(given)?;
    let (mode, holder) = (given.mode(), given.holder());
    if mode == PromoteMode::Forced && !given.confirm {
        let outlook = node.mirror(&given.name, move |driver, _| Outlook::of(driver, mode, holder))?;
        let promotion = outlook.asked.map_err(|refusal| refused(&refusal))?;
        return Ok(json!({
            "begun": false, "reason": "nothing has happened: confirm is not set",
            "consequences": consequences(mode, promotion, outlook.force),
        }));
    }
    command(node, &given.name, Command::Promote { mode, holder })
}

impl Promote {
    fn mode(&self) -> PromoteMode {
        if self.force { PromoteMode::Forced } else { PromoteMode::Ordinary }
    }

    fn holder(&self) -> HolderState {
        if self.peer_is_down { HolderState::ConfirmedDown } else { HolderState::Unknown }
    }
}

/// What a promotion would do, or why it may not be: an answer, not an error.
fn may_promote(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Promote = params::parse(given)?;
    let (mode, holder) = (given.mode(), given.holder());
    let Outlook { asked, force } =
        node.mirror(&given.name, move |driver, _| Outlook::of(driver, mode, holder))?;
    Ok(match asked {
        Ok(promotion) => json!({
            "may_promote": true, "code": "ok", "reason": promotion.data.words(),
            "generation": promotion.generation, "consequences": consequences(mode, promotion, force),
        }),
        Err(refusal) => {
            json!({"may_promote": false, "code": refusal.code(), "reason": refusal.to_string()})
        }
    })
}

/// Whether force is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Force {
    /// An ordinary promotion would be refused.
    Needed,
    /// It would not.
    Needless,
}

/// What would come of a promotion.
struct Outlook {
    asked: Result<Promotion, Refusal>,
    force: Force,
}

impl Outlook {
    fn of(driver: &Driver, mode: PromoteMode, holder: HolderState) -> Self {
        let ordinary = driver.may_promote(PromoteMode::Ordinary, holder);
        let force = if ordinary.is_ok() { Force::Needless } else { Force::Needed };
        Self { asked: driver.may_promote(mode, holder), force }
    }
}

/// What an operator has to know before a forced promotion.
fn consequences(mode: PromoteMode, Promotion { generation, data }: Promotion, force: Force) -> Vec<String> {
    if mode == PromoteMode::Ordinary {
        return Vec::new();
    }
    let mut all = vec![
        format!("this node serves what its own leg holds: {}", data.words()),
        format!("the array's generation jumps by 2^32, to {generation}, and the config is marked FORCED"),
        "whatever the other node has acknowledged since both legs were last in sync is not here".to_owned(),
        "a node that went on without this one will find the legs diverged (split): both data sets are kept, nothing \
         is overwritten, and one of them has to be chosen by hand"
            .to_owned(),
    ];
    if data == DataAge::Mixed {
        all.push("file systems and databases on this volume need a check before they are used".to_owned());
    }
    if force == Force::Needless {
        all.push("an ordinary promotion would be made, too, and splits nothing".to_owned());
    }
    all
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Demote {
    name: String,
    /// Do not wait for what hosts have under way: it comes back with an error.
    #[serde(default)]
    at_once: bool,
}

fn demote(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Demote = params::parse(given)?;
    let how = if given.at_once { Demotion::AtOnce } else { Demotion::Orderly };
    command(node, &given.name, Command::Demote(how))
}

fn switchover(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Named = params::parse(given)?;
    command(node, &given.name, Command::Switchover)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    name: Option<String>,
}

fn status(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Which = params::parse(given)?;
    if let Some(name) = &given.name {
        node.bdev(name)?;
    }
    let wanted = |name: &str| given.name.as_deref().is_none_or(|wanted| wanted == name);
    let mirrors = all(node)?.into_iter().filter(|(name, ..)| wanted(name));
    Ok(mirrors.map(|(name, entry, status)| describe(name, entry, &status)).collect())
}

fn policy(arbiter: ArbiterKind) -> &'static str {
    match arbiter {
        ArbiterKind::Biased => "biased",
        ArbiterKind::Manual => "manual",
        ArbiterKind::ClusterManager => "external",
        ArbiterKind::Etcd => "etcd",
    }
}

fn leg_state(state: LegState) -> &'static str {
    match state {
        LegState::Spare => "spare",
        LegState::Joining => "joining",
        LegState::Syncing => "syncing",
        LegState::InSync => "in-sync",
        LegState::Missing => "missing",
        LegState::Faulty => "faulty",
        LegState::Stale => "stale",
        LegState::Split => "split",
    }
}

fn progress(progress: &Progress, left: u64) -> Value {
    json!({
        "total_bytes": progress.total,
        "copied_bytes": progress.copied,
        "left_bytes": left,
        "bytes_per_second": progress.rate(),
        "seconds_left": progress.time_left(left).map(|left| left.as_secs()),
        "seconds": (progress.until - progress.began).as_secs_f64(),
    })
}

fn describe(name: &str, entry: &Entry, status: &Status) -> Value {
    let legs = status.legs.map(|legs| {
        let in_sync = |index: usize| {
            let leg = LegIndex::BOTH[index];
            status.config.is_some_and(|config| config.in_sync.has(leg))
        };
        let one = |(index, leg): (usize, &LegRecord)| {
            json!({
                "index": index,
                "uuid": leg.uuid.to_string(),
                "state": leg_state(leg.state),
                "in_sync": in_sync(index),
                "own": index == status.own,
            })
        };
        legs.iter().enumerate().map(one).collect::<Value>()
    });
    let transitions = status.events.iter().map(|event| {
        json!({
            "seconds_ago": (status.now - event.at).as_secs_f64(), "event": event.kind.code(),
            "reason": event.kind.reason(), "what": event.kind.to_string(),
        })
    });
    json!({
        "name": name,
        "uuid": entry.bdev.uuid().to_string(),
        "role": status.role.words(),
        "reason": status.reason,
        "access_state": status.access.words(),
        "generation": status.config.map(|config| config.generation()),
        "holder": status.config.map(|config| config.holder.number()),
        "policy": status.arbiter.map(policy),
        "config_reason": status.config.map(|config| config.reason.words()),
        "legs": legs,
        "data_size": status.data_size,
        "data_offset": status.data_offset,
        "peer": status.peer.as_ref().map(|peer| json!({
            "state": peer.sight.words(), "cause": peer.cause,
            "diverged": peer.diverged.map(|id| json!({"generation": id.generation, "nonce": id.nonce})),
        })),
        "intent_log": status.log.map(|log| json!({
            "slots": log.slots, "used": log.used, "exposed_bytes": log.exposed_bytes,
            "transactions": log.transactions, "hits": log.hits, "misses": log.misses,
        })),
        "dirty_bytes": status.dirty_bytes,
        "resync": status.resync.as_ref().map(|resync| progress(resync, status.dirty_bytes)),
        "resync_paused": status.throttle == Throttle::Paused,
        "last_resync": status.last_resync.as_ref().map(|resync| progress(resync, 0)),
        "counters": json!({
            "reads": status.counters.reads, "writes": status.counters.writes, "flushes": status.counters.flushes,
            "errors": status.counters.errors, "bytes_read": status.counters.read_bytes,
            "bytes_written": status.counters.written_bytes, "mended": status.counters.mended,
        }),
        "transitions": transitions.collect::<Value>(),
    })
}
