//! The log of events: what mirrors noted, which devices came and went, and which initiators were sent away, each with an id that
//! rises.
//!
//! Owner: the control plane. Reactors send what mirrors note ([`EventSender`], never blocks them); it is taken in whenever
//! somebody asks, and at least twice a second, when it also goes to the process's own log. The last `KEPT` are kept.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use ::mirror::events::{Codes, Event, EventKind, Severity};
use engine::Instant;
use engine::packet::LinkState;
use gateway::{Departure, Rung, WayNews};
use iscsi::CloseReason;
use net::smol::{LinkNews, PathCheck};
use serde_json::{Value, json};

/// Events kept.
const KEPT: usize = 4096;
/// A device was made, and a device was removed: SPDK's types.
const DEVICE_TYPES: [&str; 2] = ["bdev_register", "bdev_unregister"];

/// An initiator's connection was closed by this end.
const CONNECTION_CLOSED: &str = "iscsi_connection_closed";

/// What is kept beside a LUN's data cannot be read, and the operator gave it up.
const UNIT_STATE_TYPES: [&str; 2] = ["unit-state-unreadable", "unit-state-given-up"];
/// An I/O behind an import had no answer in its time, and this was done about it.
const IMPORT_TYPES: [&str; 3] = ["import_abort_task", "import_lun_reset", "import_session_drop"];
/// A way of an import was cut while another stayed, or is used again.
const WAY_TYPES: [&str; 2] = ["import_way_lost", "import_way_back"];
/// A link's interface came or went, a path of it became known, its sockets are all in use, or the kernel took its address.
const LINK_TYPES: [&str; 4] = ["link_carrier", "link_path", "link_sockets", "link_address"];

/// What a reactor has to tell.
#[derive(Debug)]
pub enum News {
    /// A mirror noted something: its name, and what.
    Mirror(String, Event),
    /// Something about a link: its name, and what.
    Link(String, LinkNews),
    /// An import, and what was done for the sake of a late I/O.
    Late(String, Rung),
    /// An import, and what became of one of its ways.
    Way(String, WayNews),
    /// A connection was closed.
    Departed(Departure),
    /// What is kept of a device's LUNs cannot be read.
    Unreadable(String),
    /// So many more were closed at the same time.
    MoreDeparted(u64),
}

/// Where a reactor puts what it has to tell.
pub type EventSender = Sender<News>;

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Rises by one with each entry, from 0.
    pub id: u64,
    /// When, on the wall clock.
    pub time: SystemTime,
    /// What, as a code.
    pub code: &'static str,
    /// Why, as a code.
    pub reason: &'static str,
    /// How much it asks of the operator.
    pub severity: Severity,
    /// The mirror's or the device's name.
    pub subject: String,
    /// In words.
    pub text: String,
    /// Figures, where there are some.
    pub data: Value,
    is_mirrors: bool,
}

impl Entry {
    /// One of now, without figures, of what is no mirror: what and why, in codes and in words.
    fn now(
        (code, reason): (&'static str, &'static str),
        severity: Severity,
        subject: String,
        text: String,
    ) -> Self {
        Self {
            id: 0,
            time: wall(),
            code,
            reason,
            severity,
            subject,
            text,
            data: Value::Null,
            is_mirrors: false,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct EventLog {
    sender: EventSender,
    inbox: Receiver<News>,
    kept: VecDeque<Entry>,
    next_id: u64,
}

/// To the log, where what the operator has to see is a warning.
fn log(severity: Severity, text: core::fmt::Arguments<'_>) {
    match severity {
        Severity::Info => tracing::info!("{text}"),
        Severity::Warning | Severity::Alarm => tracing::warn!("{text}"),
    }
}

impl Default for EventLog {
    fn default() -> Self {
        let (sender, inbox) = channel();
        Self { sender, inbox, kept: VecDeque::new(), next_id: 0 }
    }
}

/// The wall clock: for what people read alone.
#[expect(clippy::disallowed_methods, reason = "the daemon stamps events for people")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// All types that entries can have.
pub fn types() -> impl Iterator<Item = &'static str> {
    let others = UNIT_STATE_TYPES.into_iter().chain([CONNECTION_CLOSED]);
    DEVICE_TYPES
        .into_iter()
        .chain(LINK_TYPES)
        .chain(IMPORT_TYPES)
        .chain(WAY_TYPES)
        .chain(others)
        .chain(EventKind::CODES)
}

impl EventLog {
    /// For a reactor.
    pub fn sender(&self) -> EventSender {
        self.sender.clone()
    }

    /// Takes in what reactors sent; `now` is the time on their clock.
    pub fn collect(&mut self, now: Instant) {
        while let Ok(news) = self.inbox.try_recv() {
            match news {
                News::Mirror(mirror, event) => self.mirror(mirror, event, now),
                News::Link(link, news) => self.link(link, &news),
                News::Late(import, rung) => self.late(import, rung),
                News::Way(import, news) => self.way(import, &news),
                News::Departed(departure) => self.departed(&departure),
                News::Unreadable(device) => self.unreadable(device),
                News::MoreDeparted(count) => {
                    tracing::warn!("iscsi: {count} more connections were closed at the same time");
                }
            }
        }
    }

    fn mirror(&mut self, mirror: String, event: Event, now: Instant) {
        let time = wall() - Duration::from_nanos((now - event.at).as_nanos() as u64);
        let Event { kind, .. } = event;
        tell(&mirror, &kind);
        self.push(Entry {
            id: 0,
            time,
            code: kind.code(),
            reason: kind.reason(),
            severity: kind.severity(),
            text: kind.to_string(),
            data: figures(&kind),
            subject: mirror,
            is_mirrors: true,
        });
    }

    fn link(&mut self, link: String, news: &LinkNews) {
        let (code, reason, severity, data) = match news {
            LinkNews::Carrier { state: LinkState::Up, .. } => {
                (LINK_TYPES[0], "carrier", Severity::Info, Value::Null)
            }
            LinkNews::Carrier { .. } => (LINK_TYPES[0], "no-carrier", Severity::Warning, Value::Null),
            LinkNews::Unusable { .. } => (LINK_TYPES[0], "unusable", Severity::Warning, Value::Null),
            LinkNews::Narrow { has, wanted, .. } => {
                (LINK_TYPES[1], "narrow", Severity::Alarm, json!({"has": has, "wanted": wanted}))
            }
            LinkNews::Crowded { limit, .. } => {
                (LINK_TYPES[2], "all-in-use", Severity::Warning, json!({"limit": limit}))
            }
            LinkNews::Clash { address, interface } => {
                let data = json!({"address": address, "interface": interface});
                (LINK_TYPES[3], "taken", Severity::Alarm, data)
            }
            LinkNews::Path { host, check, mtu } => {
                let data = json!({"host": host, "mtu": mtu});
                match check {
                    PathCheck::TooNarrow => (LINK_TYPES[1], "too-narrow", Severity::Alarm, data),
                    PathCheck::Silent => (LINK_TYPES[1], "silent", Severity::Info, data),
                    PathCheck::Whole | PathCheck::Asking => (LINK_TYPES[1], "whole", Severity::Info, data),
                }
            }
        };
        log(severity, format_args!("link {link}: {news}"));
        self.push(Entry { data, ..Entry::now((code, reason), severity, link, news.to_string()) });
    }

    fn departed(&mut self, departure: &Departure) {
        let address = departure.address.map_or_else(|| "an unknown address".to_owned(), |at| at.to_string());
        // What an initiator says of itself stays on one line.
        let who = departure
            .initiator
            .as_ref()
            .map_or_else(|| address.clone(), |name| format!("{} at {address}", name.escape_debug()));
        let text = format!("connection of {who} closed: {}", departure.why);
        tracing::warn!("iscsi: {text}");
        self.push(Entry {
            data: json!({"initiator": departure.initiator}),
            ..Entry::now((CONNECTION_CLOSED, why_closed(&departure.why)), Severity::Warning, address, text)
        });
    }

    fn late(&mut self, import: String, rung: Rung) {
        let (code, text) = match rung {
            Rung::AbortTask => (IMPORT_TYPES[0], "an I/O had no answer in its time: it is being aborted"),
            Rung::LogicalUnitReset => (
                IMPORT_TYPES[1],
                "a late I/O could not be aborted: the LUN is being reset, with all that is under way",
            ),
            Rung::SessionDrop => (
                IMPORT_TYPES[2],
                "a late I/O survived an abort and a reset: the session is dropped and made anew",
            ),
        };
        tracing::warn!("{import}: {text}");
        self.push(Entry::now((code, "no-answer"), Severity::Warning, import, text.to_owned()));
    }

    fn way(&mut self, import: String, news: &WayNews) {
        let (code, reason, severity, address, text) = match news {
            WayNews::Lost(address, why) => {
                let text = format!("the way to {address} is lost ({why}): everything goes over the others");
                (WAY_TYPES[0], "lost", Severity::Warning, address, text)
            }
            WayNews::Back(address) => {
                (WAY_TYPES[1], "back", Severity::Info, address, format!("the way to {address} is used"))
            }
        };
        log(severity, format_args!("{import}: {text}"));
        self.push(Entry {
            data: json!({"address": address}),
            ..Entry::now((code, reason), severity, import, text)
        });
    }

    fn unreadable(&mut self, device: String) {
        let text = "the reservations, mode parameters and identifying information that are kept beside the data cannot be \
                    read: nobody may use the LUN until another version of the program can read them, or \
                    `gemel target give-up-unit-state` has given them up";
        tracing::error!("{device}: {text}");
        self.unit_state(UNIT_STATE_TYPES[0], "record", Severity::Alarm, device, text);
    }

    /// The operator gave up what is kept beside the data of a device.
    pub fn unit_state_given_up(&mut self, device: String) {
        let text = "the reservations, mode parameters and identifying information that could not be read are given up: the \
                    LUN serves whoever may use it";
        tracing::warn!("{device}: {text}");
        self.unit_state(UNIT_STATE_TYPES[1], "command", Severity::Warning, device, text);
    }

    /// Mirrors alone keep anything.
    fn unit_state(
        &mut self,
        code: &'static str,
        reason: &'static str,
        severity: Severity,
        device: String,
        text: &str,
    ) {
        self.push(Entry {
            is_mirrors: true,
            ..Entry::now((code, reason), severity, device, text.to_owned())
        });
    }

    /// A device came.
    pub fn registered(&mut self, name: &str) {
        self.device(name, DEVICE_TYPES[0], "device made");
    }

    /// A device went.
    pub fn unregistered(&mut self, name: &str) {
        self.device(name, DEVICE_TYPES[1], "device removed");
    }

    fn device(&mut self, name: &str, code: &'static str, text: &str) {
        self.push(Entry::now((code, "command"), Severity::Info, name.to_owned(), text.to_owned()));
    }

    fn push(&mut self, entry: Entry) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Entry { id: self.next_id, ..entry });
        self.next_id += 1;
    }

    /// All entries from an id on.
    pub fn since(&self, id: u64) -> impl Iterator<Item = &Entry> {
        self.kept.iter().filter(move |entry| entry.id >= id)
    }

    /// Of them, those of mirrors.
    pub fn of_mirrors(&self, id: u64) -> impl Iterator<Item = &Entry> {
        self.since(id).filter(|entry| entry.is_mirrors)
    }
}

fn why_closed(why: &CloseReason) -> &'static str {
    match why {
        CloseReason::LoggedOut => "logged-out",
        CloseReason::LoginRefused { .. } => "login-refused",
        CloseReason::Moved { .. } => "moved",
        CloseReason::NotAuthenticated(_) => "not-authenticated",
        CloseReason::PeerMisbehaved(_) => "initiator-misbehaved",
        CloseReason::HeaderDigest => "header-digest",
        CloseReason::Local(_) => "node-decided",
    }
}

fn tell(mirror: &str, kind: &EventKind) {
    let (code, reason) = (kind.code(), kind.reason());
    match kind.severity() {
        Severity::Info => tracing::info!("{mirror}: {kind} ({code}, {reason})"),
        Severity::Warning => tracing::warn!("{mirror}: {kind} ({code}, {reason})"),
        Severity::Alarm => tracing::error!("{mirror}: {kind} ({code}, {reason})"),
    }
}

/// What a program would otherwise have to read out of the words.
fn figures(kind: &EventKind) -> Value {
    match kind {
        EventKind::ConfigChanged(config) => {
            let in_sync = ::mirror::format::LegIndex::BOTH.into_iter().filter(|leg| config.in_sync.has(*leg));
            json!({
                "generation": config.generation(), "holder": config.holder.number(),
                "in_sync": in_sync.map(|leg| leg.number()).collect::<Vec<_>>(),
                "forced": config.flags.contains(::mirror::format::ConfigFlags::FORCED),
            })
        }
        EventKind::Serving { generation }
        | EventKind::NamedHolder { generation }
        | EventKind::PeerWentOn { generation }
        | EventKind::InSync { generation, .. }
        | EventKind::Promoting { generation, .. } => json!({"generation": generation}),
        EventKind::Fenced { by, generation } => json!({"node": by, "generation": generation}),
        EventKind::ArbiterDecided { holder, generation } => {
            json!({"holder": holder.number(), "generation": generation})
        }
        EventKind::ArbiterOlder { expected } => json!({"expected_generation": expected}),
        EventKind::ResyncBegun { bytes } => json!({"bytes": bytes}),
        EventKind::ResyncStopped { at, .. } => json!({"byte": at}),
        _ => Value::Null,
    }
}

/// How severe, in words.
pub fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Alarm => "alarm",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_and_times_are_those_of_the_events() {
        let mut log = EventLog::default();
        log.registered("m0");
        let at = Instant::EPOCH + core::time::Duration::from_secs(5);
        let event = Event { at, kind: EventKind::Serving { generation: 7 } };
        log.sender().send(News::Mirror("vol0".to_owned(), event)).expect("the log is there");
        log.collect(at + core::time::Duration::from_secs(2));
        log.unregistered("m0");
        let codes: Vec<_> = log.since(0).map(|entry| (entry.id, entry.code)).collect();
        assert_eq!(codes, [(0, "bdev_register"), (1, "serving"), (2, "bdev_unregister")]);
        let served = log.of_mirrors(0).next().expect("one");
        let age = served.time.elapsed().expect("the past");
        assert!((1900..2500).contains(&age.as_millis()), "{age:?}");
        assert_eq!(served.data, json!({"generation": 7}));
        assert_eq!(log.since(2).count(), 1);
    }

    #[test]
    fn what_an_initiator_says_of_itself_stays_on_one_line() {
        let mut log = EventLog::default();
        let initiator = Some("iqn.a\nalarm: \u{1b}[2J".to_owned());
        let departure = Departure { address: None, initiator, why: CloseReason::HeaderDigest };
        log.sender().send(News::Departed(departure)).expect("the log is there");
        log.collect(Instant::EPOCH);
        let text = &log.since(0).next().expect("one").text;
        assert!(!text.chars().any(char::is_control) && text.contains("iqn.a\\nalarm"), "{text}");
    }

    #[test]
    fn every_code_is_a_type() {
        let codes: Vec<_> = types().collect();
        for kind in [EventKind::Stopping, EventKind::Thawed, EventKind::ArbiterVacant] {
            assert!(codes.contains(&kind.code()));
        }
    }
}
