//! What a contender sends, and when.

use core::ops::Range;
use core::time::Duration;

use engine::Instant;
use gateway::StandbyMode;
use scsi::initiator as cdb;

use super::super::claims::{self, Asker};
use super::super::history::Outcome;
use super::super::host::{self, BLOCK, Env};
use super::super::spc::{Ask, Demand, Nexus};
use super::super::swarm::millis;
use super::{Aim, Contender, MS, Open, Stage, What};

/// Commands open at the most.
const DEPTH: usize = 4;

impl Contender {
    pub(super) fn wants_more(&self) -> bool {
        match self.aim {
            Aim::Contend => self.ops_left > 0,
            Aim::Rest => false,
            Aim::Clear => true,
        }
    }

    fn is_usable(&self, node: usize, now: Instant) -> bool {
        let path = &self.paths[node];
        path.session.is_some() && path.stage == Stage::Usable && now >= path.not_before
    }

    pub(super) fn issue(&mut self, now: Instant, env: &mut Env<'_>) -> bool {
        if !self.wants_more() || now < self.next_issue || self.open().count() >= DEPTH {
            return false;
        }
        let ways = [self.preferred, 1 - self.preferred];
        let Some(node) = ways.into_iter().find(|node| self.is_usable(*node, now)) else {
            self.next_issue = now + 5 * MS;
            return false;
        };
        // Both ways lead to the node that serves.
        let around = env.standby == StandbyMode::Forward && self.is_usable(1 - node, now);
        let node = if around && self.prng.percent(30) { 1 - node } else { node };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).expect("short").max(1);
        self.next_issue = now + Duration::from_nanos(self.prng.below(nanos(env.load.think)));
        if self.prng.percent(5) {
            self.next_issue += Duration::from_nanos(self.prng.below(nanos(env.load.gap)));
        }
        match (self.aim, self.choice.take()) {
            (Aim::Clear, _) => self.clear(node, now, env),
            (_, Some(other)) => self.send_choice(node, other, now, env),
            _ => self.contend(node, now, env),
        }
        true
    }

    fn contend(&mut self, node: usize, now: Instant, env: &mut Env<'_>) {
        self.ops_left -= 1;
        let draw = self.prng.below(100);
        let blocks = self.place(env);
        // As other hosts do where a write may happen twice.
        let taken = env.standby == StandbyMode::Forward && env.history.is_being_written(blocks.clone());
        if draw < 30 && env.orders.is_wide() {
            self.claim(node, Ask::ReadKeys, now, env);
        } else if draw < 30 && !env.orders.is_unclear() {
            let keys = &mut self.paths[node].keys;
            let nexus = Nexus { host: self.number, node };
            let ask = Asker { nexus, keys }.choose(&mut self.prng, env.orders.likely());
            self.claim(node, ask, now, env);
        } else if draw < 65 && !taken {
            self.write(node, blocks, now, env);
            if self.prng.percent(15) {
                self.still = now + millis(&mut self.prng, 1, 60);
            }
        } else {
            self.read(node, blocks, now, env);
        }
    }

    /// SET TARGET PORT GROUPS: the group of that node is to be active and optimized.
    fn send_choice(&mut self, node: usize, wanted: usize, now: Instant, env: &Env<'_>) {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[9]) = (0xa4, 0x0a, 8);
        let group = u8::try_from(wanted + 1).expect("two nodes");
        let open = Open { invoked: now, service: (node, env.runs[node]), what: What::Choose };
        self.send(node, (cdb, vec![0, 0, 0, 0, 0, 0, 0, group], 0), open);
    }

    fn clear(&mut self, node: usize, now: Instant, env: &mut Env<'_>) {
        let own = env.orders.likely().registrations.get(&self.nexus(node)).copied();
        let ask = match own {
            _ if env.orders.is_wide() => Ask::ReadKeys,
            Some(key) => Ask::Clear(key),
            None => {
                let nexus = self.nexus(node);
                Ask::Ignore(Asker { nexus, keys: &mut self.paths[node].keys }.new_key())
            }
        };
        self.claim(node, ask, now, env);
    }

    /// Few places: operations meet.
    fn place(&mut self, env: &Env<'_>) -> Range<u64> {
        let granule = self.prng.below(env.load.granules.min(2)) * env.load.stride % env.granules;
        let first = granule * 128 + self.prng.below(2) * 2;
        first..first + 1 + self.prng.below(4)
    }

    /// One at a time.
    fn claim(&mut self, node: usize, ask: Ask, now: Instant, env: &mut Env<'_>) {
        if self.open().any(|open| matches!(open.what, What::Claim { .. })) {
            return;
        }
        let number = env.orders.begin(self.nexus(node), ask);
        env.look_at_bars();
        let open = Open { invoked: now, service: (node, env.runs[node]), what: What::Claim { ask, number } };
        if !self.send(node, claims::encode(ask), open) {
            env.orders.unsent(number);
        }
    }

    fn read(&mut self, node: usize, blocks: Range<u64>, now: Instant, env: &mut Env<'_>) {
        let before = blocks.clone().map(|block| env.history.acknowledged(block)).collect();
        let count = blocks.end - blocks.start;
        let cdb = cdb::read16(blocks.start, u32::try_from(count).expect("few"));
        let watched = env.orders.watch(self.nexus(node), Demand::Read);
        let what = What::Read { blocks, before, watched };
        let open = Open { invoked: now, service: (node, env.runs[node]), what };
        if !self.send(node, (cdb, Vec::new(), count as usize * BLOCK), open) {
            env.orders.unwatch(watched);
        }
    }

    fn write(&mut self, node: usize, blocks: Range<u64>, now: Instant, env: &mut Env<'_>) {
        let count = blocks.end - blocks.start;
        let service = (node, env.runs[node]);
        let value = env.history.invoke_write(blocks.clone(), self.number, service, now);
        let mut data = vec![0; count as usize * BLOCK];
        host::fill(&mut data, &blocks, value);
        let cdb = cdb::write16(blocks.start, u32::try_from(count).expect("few"));
        let watched = env.orders.watch(self.nexus(node), Demand::Write);
        let what = What::Write { blocks, value, watched };
        if !self.send(node, (cdb, data, 0), Open { invoked: now, service, what }) {
            env.orders.unwatch(watched);
            env.history.give_up(value, Outcome::Ended, now);
        }
    }
}
