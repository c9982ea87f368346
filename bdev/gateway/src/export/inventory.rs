//! The LUNs of a target, when they become others while sessions run, and what an I_T nexus is told when it begins.
//!
//! Owner: the target. A nexus that begins is told of the power on, or of the loss of the nexus that it was before (SAM-5 sections
//! 6.2 and 6.3.4); the others hear of a LUN that comes or goes at every LUN that they have (SPC-4 section 6.33).

use std::collections::BTreeSet;
use std::rc::Rc;

use scsi::Sense;
use scsi::reservation::Nexus;

use super::node::{ExportError, Lun};
use super::{LunConfig, Target};

/// Nexuses that are remembered. When there are more, all are forgotten: a power on is told then, which says as much.
const KNOWN_MAX: usize = 4096;

/// The nexuses that were here since the node began, by target.
#[derive(Debug, Default)]
pub(super) struct KnownNexuses(BTreeSet<(String, Nexus)>);

impl KnownNexuses {
    /// What a nexus is told when it begins.
    pub(super) fn greet(&mut self, target: &str, nexus: &Nexus) -> Sense {
        if self.0.len() >= KNOWN_MAX {
            self.0.clear();
        }
        match self.0.insert((target.to_ascii_lowercase(), nexus.clone())) {
            true => Sense::POWER_ON,
            false => Sense::NEXUS_LOSS,
        }
    }
}

impl Target {
    /// Adds a LUN to a target node. Whoever is to see it is told that there is something new to REPORT.
    ///
    /// # Errors
    /// There is no such node, or the number is taken.
    pub fn add_lun(&mut self, name: &str, number: u16, config: LunConfig) -> Result<(), ExportError> {
        let node = self.named(name)?;
        if node.luns.borrow().contains_key(&number) {
            return Err(ExportError::LunExists(number));
        }
        let lun = Rc::new(Lun::new(config.clone(), &mut self.units));
        node.luns.borrow_mut().insert(number, lun.clone());
        node.config.borrow_mut().luns.insert(number, config);
        for entry in self.sessions.values_mut().filter(|entry| entry.session.is_at(&node)) {
            entry.session.on_lun_added(number, &lun);
        }
        Ok(())
    }

    /// Removes a LUN from a target node. Commands at it end with LOGICAL UNIT NOT SUPPORTED, and whoever saw it is told at the
    /// others. What is kept beside its data stays.
    ///
    /// # Errors
    /// There is no such node or LUN, or it is LUN 0, which every target has.
    pub fn remove_lun(&mut self, name: &str, number: u16) -> Result<(), ExportError> {
        let node = self.named(name)?;
        if number == 0 {
            return Err(ExportError::NoLunZero(node.name()));
        }
        let lun = node.luns.borrow_mut().remove(&number);
        let lun = lun.ok_or_else(|| ExportError::NoLun { target: node.name(), number })?;
        node.config.borrow_mut().luns.remove(&number);
        node.tokens.borrow_mut().forget(&lun);
        for entry in self.sessions.values_mut().filter(|entry| entry.session.is_at(&node)) {
            entry.session.on_lun_removed(number, &lun);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use scsi::reservation::InitiatorPort;

    use super::*;

    #[test]
    fn a_nexus_is_new_once_and_what_is_remembered_is_bounded() {
        let nexus = |isid: u16| {
            let [high, low] = isid.to_be_bytes();
            let initiator = InitiatorPort::new("iqn.a", [0, 0, 0, 0, high, low]).expect("short");
            Nexus { initiator, port: 1 }
        };
        let mut known = KnownNexuses::default();
        assert_eq!(known.greet("iqn.t", &nexus(1)), Sense::POWER_ON);
        assert_eq!(known.greet("iqn.T", &nexus(1)), Sense::NEXUS_LOSS);
        assert_eq!(known.greet("iqn.u", &nexus(1)), Sense::POWER_ON);
        for isid in 0..10_000 {
            known.greet("iqn.v", &nexus(isid));
        }
        assert!(known.0.len() <= KNOWN_MAX);
    }
}
