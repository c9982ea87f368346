//! Reservation tables, looked at from outside with the production decoders (I17): a registration that was granted is on
//! every leg that counts, and both legs say the same in the end.

use mirror::format::UnitStateHealth;
use scsi::kept::Kept;

use super::host::Registration;
use super::records;
use super::spc::{Held, Kind, Nexus, Table};
use super::world::{Check, World};

impl World {
    fn kept(&self, node: usize) -> Check<Option<Kept>> {
        let Some(state) = records::newest(&self.machines[node].disk) else { return Ok(None) };
        if state.health == UnitStateHealth::Lost && self.records.may_be_unreadable(node) {
            return Ok(None);
        }
        if state.health == UnitStateHealth::Lost {
            return Err(format!("I17: the logical unit's state on the leg of node {node} is lost"));
        }
        let kept = Kept::from_record(&state.content);
        kept.map(Some).map_err(|why| format!("I17: what is kept on the leg of node {node}: {why:?}"))
    }

    /// Hosts are sent to the data set of this node: what its leg has was granted, and nothing else.
    pub(crate) fn regrant(&mut self, node: usize) -> Check {
        let kept = self.kept(node)?;
        for host in &mut self.hosts {
            for path in 0..2 {
                let here = |it: &Registration| (it.host, it.node) == (host.number, path);
                let all = kept.iter().flat_map(|kept| kept.reservations.registrations());
                let all = all.filter_map(|(_, key)| Registration::of_key(key)).filter(here);
                host.regrant(path, all.map(|it| it.count).max().unwrap_or(0));
            }
        }
        Ok(())
    }

    /// A registration was granted: that it is there, or a later one of the same path.
    pub(crate) fn check_granted(&self, granted: Registration) -> Check {
        for node in self.counted() {
            if !self.damage[node].leg_lost {
                self.check_registered(node, granted)?;
            }
        }
        Ok(())
    }

    pub(crate) fn check_registered(&self, node: usize, granted: Registration) -> Check {
        let Some(kept) = self.kept(node)? else { return Ok(()) };
        let found = kept.reservations.registrations().filter_map(|(_, key)| Registration::of_key(key));
        let same = |it: &Registration| (it.host, it.node) == (granted.host, granted.node);
        let newest = found.filter(same).map(|it| it.count).max();
        if newest.is_none_or(|count| count < granted.count) {
            return Err(format!(
                "I17: the leg of node {node}, which counts, has {newest:?} of {granted:?}, which was granted"
            ));
        }
        Ok(())
    }

    /// A command about reservations was answered: every leg that counts has a table that explains it.
    pub(crate) fn check_claimed(&self) -> Check {
        for node in self.counted() {
            if self.damage[node].leg_lost {
                continue;
            }
            let Some(kept) = self.kept(node)? else { continue };
            let table =
                table_of(&kept).ok_or_else(|| format!("I17: node {node} has keys of nobody: {kept:?}"))?;
            if !self.orders.may_be(&table) {
                let what = self.orders.describe();
                return Err(format!("I17: the leg of node {node}, which counts, has {table:?}{what}"));
            }
        }
        Ok(())
    }

    /// The end: both legs have the same table, with everything in it that was granted.
    pub(crate) fn check_reservations(&self) -> Check {
        let [a, b] = [self.kept(0)?, self.kept(1)?];
        if a != b && a.is_some() && b.is_some() {
            return Err(format!("I17: the legs' reservations differ: {a:?} and {b:?}"));
        }
        if !self.contenders.is_empty() {
            self.check_claimed()?;
        }
        let mut granted = self.hosts.iter().flat_map(super::host::Host::granted);
        granted.try_for_each(|registration| self.check_granted(registration))
    }
}

/// As the model has it; nothing where a key is none of a contender's.
fn table_of(kept: &Kept) -> Option<Table> {
    let keys = kept.reservations.registrations();
    let registrations = keys.map(|(_, key)| Some((Nexus::of_key(key)?, key))).collect::<Option<_>>()?;
    let reservation = match kept.reservations.reservation() {
        None => None,
        Some((kind, 0)) => Some((Kind::of_code(kind as u8)?, Held::ByAll)),
        Some((kind, key)) => Some((Kind::of_code(kind as u8)?, Held::By(Nexus::of_key(key)?))),
    };
    Some(Table { registrations, reservation })
}
