//! Plans from seeds: each run has a few kinds of faults out of all, and a load of its own.

use core::time::Duration;

use engine::Prng;
use gateway::{LunMode, StandbyMode};
use mirror::command::Demotion;
use mirror::format::ArbiterKind;

use super::acts::Act;
use super::coverage::Phase;
use super::fault::{Event, Fault, Gone, Keeps, Point, Rot, Spoilt, Still, Upset, Way, Who};
use super::plan::{Load, Patience, Plan, Span};

/// A promotion by force that loses something takes its time, and so does what follows.
const SPLIT_TAIL: Duration = Duration::from_secs(9);
/// As hosts come.
const IO_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn pick<T: Copy>(prng: &mut Prng, list: &[T]) -> T {
    list[prng.below(list.len() as u64) as usize]
}

pub(super) fn millis(prng: &mut Prng, least: u64, most: u64) -> Duration {
    Duration::from_millis(least + prng.below(most - least + 1))
}

fn span(prng: &mut Prng, list: &[(u64, u64)]) -> Span {
    let (least, most) = pick(prng, list);
    (Duration::from_micros(least), Duration::from_micros(most))
}

pub(crate) fn plan(seed: u64) -> Plan {
    let mut prng = Prng::from_seed(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
    let prng = &mut prng;
    let drawn = match prng.below(10) {
        0..=6 => ArbiterKind::Etcd,
        7 | 8 => ArbiterKind::Biased,
        _ => by_hand(seed),
    };
    let split = Splitting::draw(seed);
    let policy = split.map_or(drawn, |split| split.policy);
    let drift = if prng.percent(40) { 10_000 } else { 50 };
    let load_for = millis(prng, 1500, 9000);
    let registers = pick(prng, &[0, 0, 2, 6]);
    let rots = record_rots(seed, load_for);
    let contenders = if split.is_none() && rots.is_empty() { contenders(seed) } else { 0 };
    // Changes of reservations are there to be struck.
    let registers = if rots.is_empty() && contenders == 0 { registers } else { 6 };
    let act = prng.percent(25).then(|| Act::draw(prng));
    let mut events = match act {
        Some(_) if prng.percent(60) => Vec::new(),
        _ => events(prng, policy, registers, load_for),
    };
    events.extend(force(seed, load_for));
    events.extend(hang(seed, load_for));
    events.extend(wishes(seed, policy, contenders, load_for));
    events.extend(retire(seed, policy, load_for));
    let behind = split.map(|split| split.event(load_for));
    events.extend(behind);
    events.extend(rots);
    events.sort_by_key(|event| event.at);
    // Also what strikes last is followed by a while of load.
    let mut length = events.last().map_or(load_for, |event| load_for.max(event.at + millis(prng, 500, 2500)));
    length = behind.map_or(length, |event| length.max(event.at + SPLIT_TAIL));
    if let Some(act) = act {
        let at = millis(prng, 100, 2000);
        let played = act.play(prng, at);
        events.extend(played.events);
        events.sort_by_key(|event| event.at);
        length = length.max(at + played.tail);
    }
    let mode = match act {
        Some(Act::LostCache) => LunMode::SyncCached,
        _ if prng.percent(65) => LunMode::SyncDurable,
        _ => LunMode::SyncCached,
    };
    Plan {
        seed,
        policy,
        mode,
        standby: standby(seed),
        patience: if prng.percent(30) { Patience::Fast } else { Patience::Ordinary },
        load: beside(
            contenders,
            Load {
                register_percent: registers,
                patience: patience_of_hosts(seed),
                ..load(prng, length, act)
            },
        ),
        contenders,
        net: span(prng, &[(20, 200), (20, 200), (100, 3000), (5, 20)]),
        disk: span(prng, &[(10, 200), (10, 200), (50, 5000), (1, 10)]),
        drift_ppm: [0, 1].map(|_| prng.below(2 * drift + 1) as i64 - drift as i64),
        turn_cost: Duration::from_micros(pick(prng, &[2, 5, 20])),
        length,
        events,
    }
}

/// A promotion by force. It has dice of its own, so that other seeds show what they showed without it.
fn force(seed: u64, load_for: Duration) -> Option<Event> {
    let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xf0ce);
    let most = u64::try_from(load_for.as_millis()).expect("short");
    let (at, during) = (millis(prng, 0, most), prng.percent(60).then(|| pick(prng, &Phase::ALL)));
    prng.percent(5).then_some(Event { at, during, fault: Fault::ForcePromote })
}

/// A promotion by force that loses something; dice of its own, too. Each policy has its way to two data sets.
#[derive(Clone, Copy)]
struct Splitting {
    policy: ArbiterKind,
    /// When, in thousandths of the load.
    moment: u32,
    during: Option<Phase>,
    fault: Fault,
}

impl Splitting {
    fn draw(seed: u64) -> Option<Self> {
        let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5b11);
        let policies =
            [ArbiterKind::Etcd, ArbiterKind::Manual, ArbiterKind::ClusterManager, ArbiterKind::Biased];
        let split = Self {
            policy: pick(prng, &policies),
            moment: prng.below(1000) as u32,
            during: prng.percent(60).then(|| pick(prng, &Phase::ALL)),
            fault: behind_by_force(prng),
        };
        prng.percent(8).then_some(split)
    }

    fn event(self, load_for: Duration) -> Event {
        Event { at: load_for * self.moment / 1000, during: self.during, fault: self.fault }
    }
}

fn behind_by_force(prng: &mut Prng) -> Fault {
    let who = pick(prng, &[Who::Holder, Who::Peer, Who::Both]);
    let upset = match prng.below(4) {
        0 => Upset::None,
        1 => Upset::Pause(who),
        _ => Upset::Kill(who),
    };
    let gone = pick(prng, &[Gone::Down, Gone::CutOff]);
    Fault::ForceBehind(gone, pick(prng, &[Keeps::Promoted, Keeps::Old]), upset)
}

/// The record of reservations rots, and is often read after that; dice of its own, too.
fn record_rots(seed: u64, load_for: Duration) -> Vec<Event> {
    let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x4ec0);
    let most = u64::try_from(load_for.as_millis()).expect("short");
    let (who, place) = (who(prng), pick(prng, &[Rot::UnitState, Rot::UnitStates, Rot::UnitStates]));
    let rot = if prng.percent(80) { Fault::Rot(who, place) } else { Fault::Misdirect(who, place) };
    let at = millis(prng, 200, most);
    let during =
        prng.percent(50).then(|| pick(prng, &[Phase::Idle, Phase::Resync, Phase::ReservationChange]));
    let mut events = vec![Event { at, during, fault: rot }];
    for _ in 0..1 + prng.below(2) {
        let (who, down) =
            (pick(prng, &[Who::Holder, Who::Holder, Who::Peer, Who::Both]), millis(prng, 1, 5000));
        let fault = if prng.percent(70) { Fault::Kill(who, down) } else { Fault::PowerCut(who, down) };
        events.push(Event { at: at + millis(prng, 1, 4000), during: None, fault });
    }
    if prng.percent(8) { events } else { Vec::new() }
}

/// A disk that hangs, for a while or for so long that a holder does without it; dice of its own, too.
fn hang(seed: u64, load_for: Duration) -> Option<Event> {
    let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd15c);
    let most = u64::try_from(load_for.as_millis()).expect("short");
    let (at, during) = (millis(prng, 0, most), prng.percent(60).then(|| pick(prng, &Phase::ALL)));
    let who = pick(prng, &[Who::Holder, Who::Holder, Who::Holder, Who::Peer]);
    let fault = Fault::HangDisk(who, millis(prng, 500, 16_000));
    prng.percent(6).then_some(Event { at, during, fault })
}

/// Hosts that contend by reservations; dice of its own, too.
fn contenders(seed: u64) -> usize {
    let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xc0e7);
    let count = 2 + prng.below(2) as usize;
    if prng.percent(12) { count } else { 0 }
}

/// The load of other hosts: where some contend, one other one is kept out most of the time, and registers nothing.
fn beside(contenders: usize, load: Load) -> Load {
    match contenders {
        0 => load,
        _ => Load { hosts: 1, readers: 0, register_percent: 0, large_percent: 0, granules: 2, ..load },
    }
}

/// What an operator or a host may wish; dice of its own, too.
fn wishes(seed: u64, policy: ArbiterKind, contenders: usize, load_for: Duration) -> Vec<Event> {
    let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x3154);
    let most = u64::try_from(load_for.as_millis()).expect("short");
    let mut wishes = vec![Point::StartAlone, Point::PauseResync];
    // Where an arbiter decides it has dice of its own.
    wishes.extend((policy != ArbiterKind::Etcd).then_some(Point::Demote));
    wishes.extend((contenders > 0).then_some(Point::ChooseGroup));
    let (at, kind) = (millis(prng, 0, most), pick(prng, &wishes));
    let during = match kind {
        Point::PauseResync => Some(Phase::Resync),
        _ => prng.percent(60).then(|| pick(prng, &Phase::ALL)),
    };
    let mut events = vec![Event { at, during, fault: fault(prng, &[kind]) }];
    if during == Some(Phase::Resync) {
        let before = at.saturating_sub(millis(prng, 300, 2500));
        events.insert(0, Event { at: before, during: None, fault: cause(prng) });
    }
    if prng.percent(if contenders > 0 { 40 } else { 12 }) { events } else { Vec::new() }
}

/// Where an arbiter decides the operator takes out of service who serves, or who is about to after both were away; dice of its own, too.
fn retire(seed: u64, policy: ArbiterKind, load_for: Duration) -> Vec<Event> {
    let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x4e71);
    let most = u64::try_from(load_for.as_millis()).expect("short");
    let (at, how) = (millis(prng, 0, most), pick(prng, &[Demotion::Orderly, Demotion::AtOnce]));
    let demotion = |at, during| Event { at, during, fault: Fault::Demote(how) };
    let events = if prng.percent(50) {
        let away = millis(prng, 20, 1000);
        let death = Event { at, during: None, fault: Fault::Kill(Who::Both, away) };
        vec![death, demotion(at + away + millis(prng, 0, 2500), None)]
    } else {
        vec![demotion(at, prng.percent(60).then(|| pick(prng, &Phase::ALL)))]
    };
    if policy == ArbiterKind::Etcd && prng.percent(6) { events } else { Vec::new() }
}

/// When hosts begin to abort; dice of its own, too.
fn patience_of_hosts(seed: u64) -> Duration {
    let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xab07);
    if prng.percent(25) { millis(prng, 20, 1500) } else { IO_TIMEOUT }
}

/// Who decides where no machine does; dice of its own, too.
fn by_hand(seed: u64) -> ArbiterKind {
    let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xc1a5);
    if prng.percent(50) { ArbiterKind::ClusterManager } else { ArbiterKind::Manual }
}

/// What a standby does; dice of its own, too.
fn standby(seed: u64) -> StandbyMode {
    let prng = &mut Prng::from_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x57a4);
    if prng.percent(35) { StandbyMode::Forward } else { StandbyMode::Refuse }
}

fn load(prng: &mut Prng, length: Duration, act: Option<Act>) -> Load {
    let (ops, think) =
        (pick(prng, &[100, 300, 600]), Duration::from_micros(pick(prng, &[200, 1000, 10_000])));
    let bursts = think * ops / 2;
    let hosts = 1 + prng.below(3) as usize;
    let (hosts, readers) = match act {
        Some(Act::Isolation) => (hosts.max(2), 1),
        _ => (hosts, usize::from(hosts > 1 && prng.percent(10))),
    };
    // What meets in one place is seen.
    let granules: &[u64] = if act.is_some() { &[2, 6] } else { &[2, 6, 40, 192] };
    Load {
        hosts,
        readers,
        depth: pick(prng, &[1, 4, 16]),
        think,
        gap: length.saturating_sub(bursts) * 40 / ops,
        granules: pick(prng, granules),
        stride: pick(prng, &[1, 5, 37]),
        read_percent: pick(prng, &[5, 30, 60]),
        flush_percent: pick(prng, &[1, 8]),
        register_percent: 0,
        patience: IO_TIMEOUT,
        large_percent: pick(prng, &[0, 5, 20]),
        ops: u64::from(ops),
    }
}

fn events(prng: &mut Prng, policy: ArbiterKind, registers: u64, length: Duration) -> Vec<Event> {
    let fits = |point: &Point| match point {
        Point::SlowArbiter | Point::RestoreArbiter | Point::LoseArbiter => policy == ArbiterKind::Etcd,
        Point::Promote => policy != ArbiterKind::Etcd,
        // Drawn apart.
        Point::ForcePromote | Point::ForceBehind | Point::HangDisk => false,
        Point::Demote | Point::StartAlone | Point::ChooseGroup | Point::PauseResync => false,
        _ => true,
    };
    let all: Vec<Point> = Point::ALL.into_iter().filter(fits).collect();
    let kinds: Vec<Point> = (0..1 + prng.below(4)).map(|_| pick(prng, &all)).collect();
    let most = u64::try_from(length.as_millis()).expect("short");
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..1 + prng.below(6) {
        let during = during(prng, registers);
        let at = match events.last() {
            // Often into what the one before has left behind.
            Some(before) if prng.percent(50) => before.at + millis(prng, 0, 3000),
            _ => millis(prng, 0, most),
        };
        let fault = fault(prng, &kinds);
        let resync = during == Some(Phase::Resync) || matches!(fault, Fault::RevertLeg(_));
        if resync && prng.percent(60) {
            // What brings a resync about.
            let before = at.saturating_sub(millis(prng, 300, 2500));
            events.push(Event { at: before, during: Some(Phase::Write), fault: cause(prng) });
        }
        events.push(Event { at, during, fault });
    }
    events.sort_by_key(|event| event.at);
    events
}

fn during(prng: &mut Prng, registers: u64) -> Option<Phase> {
    let phases = if registers > 0 { &Phase::ALL[1..] } else { &Phase::ALL[1..5] };
    prng.percent(60).then(|| pick(prng, phases))
}

/// Leaves the peer's leg behind.
fn cause(prng: &mut Prng) -> Fault {
    match prng.below(4) {
        0 => Fault::Kill(Who::Peer, millis(prng, 1, 1500)),
        1 => Fault::Cut(Way::Nodes, millis(prng, 1, 3000)),
        2 => Fault::Spoil(Who::Peer, Spoilt::Writes, 1),
        _ => Fault::ReplaceDisk(millis(prng, 1, 1000)),
    }
}

fn fault(prng: &mut Prng, kinds: &[Point]) -> Fault {
    let one = |prng: &mut Prng| pick(prng, &[Who::Holder, Who::Peer]);
    match pick(prng, kinds) {
        Point::Kill => Fault::Kill(who(prng), millis(prng, 1, 3500)),
        Point::PowerCut => Fault::PowerCut(who(prng), millis(prng, 1, 3500)),
        Point::Pause => {
            let length =
                if prng.percent(10) { millis(prng, 60_000, 180_000) } else { millis(prng, 10, 6000) };
            Fault::Pause(one(prng), pick(prng, &[Still::Process, Still::Machine]), length)
        }
        Point::Stop => Fault::Stop(who(prng), millis(prng, 1, 3000)),
        Point::Cut => {
            let ways = [Way::Nodes, Way::Arbiter(who(prng)), Way::Hosts(who(prng))];
            Fault::Cut(pick(prng, &ways), millis(prng, 1, 5000))
        }
        Point::CutOneWay => {
            let ways =
                [Way::HolderToPeer, Way::PeerToHolder, Way::FromArbiter(who(prng)), Way::ToHosts(one(prng))];
            Fault::Cut(pick(prng, &ways), millis(prng, 1, 5000))
        }
        Point::Reset => Fault::Reset(pick(prng, &[Way::Nodes, Way::Hosts(Who::Holder)])),
        Point::Corrupt => {
            let ways = [Way::HolderToPeer, Way::PeerToHolder, Way::ToHosts(Who::Holder)];
            Fault::Corrupt(pick(prng, &ways))
        }
        Point::SlowWay => {
            let way =
                pick(prng, &[Way::Nodes, Way::HolderToPeer, Way::PeerToHolder, Way::ToHosts(Who::Holder)]);
            Fault::SlowWay(way, millis(prng, 1, 400), millis(prng, 50, 4000))
        }
        Point::SlowDisk => Fault::SlowDisk(one(prng), millis(prng, 1, 1500), millis(prng, 50, 4000)),
        Point::StickWrites => {
            Fault::StickWrites(one(prng), 1 + prng.below(4) as u32, millis(prng, 200, 5000))
        }
        Point::Isolate => Fault::Isolate(millis(prng, 500, 6000)),
        Point::HangDisk => Fault::HangDisk(one(prng), millis(prng, 500, 16_000)),
        Point::Spoil => {
            let what = pick(prng, &[Spoilt::Reads, Spoilt::Writes, Spoilt::Writes, Spoilt::Flushes]);
            Fault::Spoil(one(prng), what, 1 + prng.below(4) as u32)
        }
        Point::BadBlock => Fault::BadBlock(one(prng)),
        Point::Rot => Fault::Rot(one(prng), pick(prng, &Rot::DRAWN)),
        Point::Misdirect => Fault::Misdirect(one(prng), pick(prng, &Rot::DRAWN)),
        Point::ReplaceDisk => Fault::ReplaceDisk(millis(prng, 1, 2000)),
        Point::RevertLeg => Fault::RevertLeg(millis(prng, 1, 2000)),
        Point::CloneLeg => Fault::CloneLeg(millis(prng, 1, 2000)),
        Point::SlowArbiter => Fault::SlowArbiter(millis(prng, 50, 2500), millis(prng, 500, 4000)),
        Point::RestoreArbiter => Fault::RestoreArbiter,
        Point::LoseArbiter => Fault::LoseArbiter,
        Point::Promote => Fault::Promote,
        Point::ForcePromote => Fault::ForcePromote,
        Point::ForceBehind => behind_by_force(prng),
        Point::Switchover => Fault::Switchover,
        Point::Demote => Fault::Demote(pick(prng, &[Demotion::Orderly, Demotion::AtOnce])),
        Point::StartAlone => Fault::StartAlone(millis(prng, 200, 2500)),
        Point::ChooseGroup => Fault::ChooseGroup,
        Point::PauseResync => Fault::PauseResync(millis(prng, 50, 3000)),
    }
}

fn who(prng: &mut Prng) -> Who {
    pick(prng, &[Who::Holder, Who::Holder, Who::Peer, Who::Peer, Who::Both])
}
