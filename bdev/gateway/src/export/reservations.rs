//! Changes of what a unit keeps, reservations above all, as far as they reach beyond the session that made them: unit attentions for other nexuses, aborts
//! of their commands, and what goes with a nexus.

use std::collections::BTreeSet;
use std::rc::Rc;

use engine::mutation::{Mutation, is_broken};
use engine::{Instant, Progress};
use iscsi::TaskId;
use iscsi::chap::Algorithm;
use iscsi::target::LoginRequest;
use scsi::Sense;
use scsi::reservation::{Nexus, Table};

use super::logical_unit::{Alteration, Changed, LogicalUnit, News};
use super::session::{Aborter, Origin};
use super::state::Medium;
use super::{Target, relay};
use crate::auth;

/// Which way the service of a unit has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    Here,
    Away,
}

/// A change that a session has computed.
pub(super) struct Changing {
    pub(super) task: TaskId,
    pub(super) unit: Rc<LogicalUnit>,
    pub(super) change: Box<Alteration>,
}

/// A change in force, which is answered when the commands that it aborts have ended.
pub(super) struct Preemption {
    by: u64,
    task: TaskId,
    unit: Rc<LogicalUnit>,
    aborted: BTreeSet<Nexus>,
}

impl Target {
    /// A session wants to pass commands to the peer.
    pub(super) fn on_dial(&mut self, id: u64, now: Instant) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let peer = entry.session.node.as_ref().and_then(|node| node.config.borrow().peer.clone());
        let Some(peer) = peer else { return };
        let at = entry.session.relay_dials() % peer.addresses.len().max(1);
        let credentials =
            peer.account.map(|account| auth::proving(account, Algorithm::ALL.to_vec())).transpose();
        match (credentials, peer.addresses.get(at)) {
            (Ok(credentials), Some(address)) => {
                let stream = self.network.connect(*address);
                entry.session.attach_relay(stream, credentials, now);
            }
            (Err(_), _) | (_, None) => entry.session.put_off_relay(now),
        }
    }

    /// Whoever comes from the peer's address, through the portal group for it, and says so, is relayed: the peer has let him
    /// in.
    pub(super) fn look_for_relay(&mut self, id: u64, who: &LoginRequest) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let node = who.target.as_deref().and_then(|name| self.nodes.get(name));
        let Some(peer) = node.and_then(|node| node.config.borrow().peer.clone()) else { return };
        let session = &mut entry.session;
        let from = session.stream().peer_addr().map(|address| address.ip());
        let named = relay::port_of(&who.initiator_alias).is_some();
        if named && session.portal_group == peer.portal_group && from.is_some_and(|ip| peer.is_at(ip)) {
            session.become_relayed();
        }
    }

    /// Drives the units, and tells everybody what their changes mean.
    pub(super) fn poll_units(&mut self, now: Instant) -> Progress {
        let (progress, news) = self.units.poll(&self.core, now);
        for (unit, news) in news {
            match news {
                News::Changed(changed) => self.on_changed(unit, changed, now),
                News::TakenUp => self.on_moved(&unit, Moved::Here, now),
                News::GivenUp => self.on_moved(&unit, Moved::Away, now),
                News::Unreadable => {
                    let shown = self.nodes.values().find_map(|node| node.device_of(&unit));
                    self.unreadable.extend(shown);
                }
            }
        }
        progress
    }

    /// Another node serves the unit than before, which knows of it what is kept beside its data. Of the rest SAM-5 section 6.3.2
    /// makes a logical unit reset, whose cause is the device's own: older reservations and prevented removals are gone, the medium is in,
    /// commands that were under way have ended, and every nexus is told so in place of what it was to be told.
    fn on_moved(&mut self, unit: &Rc<LogicalUnit>, moved: Moved, now: Instant) {
        unit.change_older(Table::reset);
        unit.forget_all();
        // Nobody else's medium is out when its service begins.
        unit.medium.set(Medium::default());
        for entry in self.sessions.values_mut() {
            let session = &mut entry.session;
            // The peer, which serves now or has served, tells whom it relays here: nobody is told twice.
            if session.origin == Origin::Peer {
                continue;
            }
            if moved == Moved::Here {
                session.take_back_passed(unit, now);
            }
            session.establish(unit, Sense::INTERNAL_RESET);
        }
    }

    fn on_changed(&mut self, unit: Rc<LogicalUnit>, changed: Changed, now: Instant) {
        let Changed { by, outcome } = changed;
        // What the unit has changed by itself nobody waits for.
        let Some((by, task)) = by else { return };
        let change = match outcome {
            Ok(change) => change,
            Err(error) => {
                if let Some(entry) = self.sessions.get_mut(&by) {
                    entry.session.finish_change(task, Err(error), now);
                }
                return;
            }
        };
        let attention = change.attention();
        let Alteration::Reservations(change) = *change else {
            return self.finish_alteration((by, task), &unit, attention, now);
        };
        for entry in self.sessions.values_mut() {
            let Some(nexus) = entry.session.nexus.clone() else { continue };
            for (_, sense) in change.attentions.iter().filter(|(told, _)| *told == *nexus) {
                entry.session.establish(&unit, *sense);
            }
            if change.aborted.contains(&*nexus) && !is_broken(Mutation::PreemptWithoutAbort) {
                entry.session.abort_all(&unit, Aborter::Another, now);
                entry.session.end_copies(&unit);
            }
        }
        self.preemptions.push(Preemption { by, task, unit, aborted: change.aborted });
    }

    /// A change that aborts nobody.
    fn finish_alteration(
        &mut self,
        (by, task): (u64, TaskId),
        unit: &Rc<LogicalUnit>,
        attention: Option<Sense>,
        now: Instant,
    ) {
        for (id, entry) in &mut self.sessions {
            match attention {
                Some(sense) if *id != by => entry.session.establish(unit, sense),
                _ => {}
            }
        }
        if let Some(entry) = self.sessions.get_mut(&by) {
            entry.session.finish_change(task, Ok(()), now);
        }
    }

    pub(super) fn finish_preemptions(&mut self, now: Instant) {
        let sessions = &mut self.sessions;
        self.preemptions.retain(|preemption| {
            let at_work = sessions.values().any(|entry| {
                let session = &entry.session;
                let named = session.nexus.as_ref().is_some_and(|nexus| preemption.aborted.contains(&**nexus));
                named && session.is_aborting(&preemption.unit)
            });
            if !at_work && let Some(entry) = sessions.get_mut(&preemption.by) {
                entry.session.finish_change(preemption.task, Ok(()), now);
            }
            at_work
        });
    }

    /// The older reservations of nexuses that are no more go with them.
    pub(super) fn release_lost(&self) {
        for entry in self.sessions.values().filter(|entry| entry.session.is_over()) {
            let (Some(nexus), Some(node)) = (&entry.session.nexus, &entry.session.node) else { continue };
            for lun in node.luns.borrow().values() {
                lun.unit.change_older(|table| table.forget_older(nexus));
            }
        }
    }
}
