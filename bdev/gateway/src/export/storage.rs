//! How full the storage of thin units is: looked at once a second where somebody wants to be told (SBC-4 section 4.7.3.7), at the node
//! that serves.

use bdev::AccessState;
use core::time::Duration;
use engine::Instant;
use scsi::thresholds::{Thresholds, Watch};
use scsi::{Provisioning, Sense};

use super::Target;
use super::node::Lun;

/// Between looks.
const PERIOD: Duration = Duration::from_secs(1);

/// When to look.
#[derive(Debug)]
pub(super) struct Looks {
    next: Instant,
}

impl Default for Looks {
    fn default() -> Self {
        Self { next: Instant::EPOCH }
    }
}

/// The thresholds of a LUN that somebody wants to be told of, where this node is to tell him.
fn watched(lun: &Lun) -> Option<Thresholds> {
    let serves = lun.config.bdev.access().state() == AccessState::Optimized && lun.unit.is_ready();
    let thresholds = lun.config.thresholds(lun.unit.modes());
    let wanted = thresholds.is_watching() && lun.config.provisioning() == Provisioning::Thin;
    (serves && wanted).then_some(thresholds)
}

/// Tells every nexus what was crossed since the last look.
fn look(lun: &Lun) {
    // What is crossed while nobody wants to be told, or at another node, was not seen.
    let mut watch = Watch::default();
    if let (Some(thresholds), Some(resources)) = (watched(lun), lun.config.resources()) {
        watch = lun.state.storage.get();
        let crossed = watch.look(thresholds, resources, lun.config.bdev.geometry().blocks);
        for information in crossed.information() {
            let sense = Sense::SOFT_THRESHOLD_REACHED.with_information(information);
            lun.state.nexuses.borrow_mut().tell_all(sense);
        }
    }
    lun.state.storage.set(watch);
}

impl Target {
    /// Looks, where it is time.
    pub(super) fn watch_storage(&mut self, now: Instant) {
        if now >= self.looks.next {
            self.looks.next = now + PERIOD;
            self.nodes.values().flat_map(|node| node.all_luns()).for_each(|lun| look(&lun));
        }
    }

    /// When to look next, if there is anything to look at.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let mut luns = self.nodes.values().flat_map(|node| node.all_luns());
        luns.any(|lun| watched(&lun).is_some()).then_some(self.looks.next)
    }
}
