//! One of two data sets is kept: the operator has seen that there are two, says which one stays, and sees to it that the other leg
//! becomes a copy of it, whatever happens meanwhile.

use core::time::Duration;

use mirror::command::{Command, Overwrite};
use mirror::decide::PromoteMode;
use mirror::format::{ArbiterKind, LegMask};
use mirror::status::RoleKind;

use super::fault::{Event, Fault, Keeps, Still, Upset};
use super::split::{PATIENCE, Split, Stage, Told};
use super::world::{Check, World};

impl World {
    /// Somebody has seen that there are two: by what a node says of itself, and by an event.
    pub(super) fn choose(&mut self, split: &mut Split) -> Check<bool> {
        self.serve_again(1 - split.old);
        if !(0..2).any(|node| self.says_so(node)) || split.told == Told::NotYet {
            return Ok(true);
        }
        split.enter(Stage::Choosing, self.now);
        if split.keeps == Keeps::Old {
            self.keep_hosts_off(1 - split.old);
            let other = split.other.take().ok_or("no other data set")?;
            split.other = Some(self.history.go_back(other, self.now));
            for granted in &split.granted {
                self.check_registered(split.old, *granted)?;
            }
            self.regrant(split.old)?;
            self.serving = split.old;
        }
        let (side, differing) = (split.side(), self.differing()?);
        self.note("operator", format_args!("keeps the data set of node {side}: {differing} blocks differ"));
        Ok(true)
    }

    pub(super) fn give_word(&mut self, split: &mut Split) -> Check<bool> {
        let node = split.side();
        if self.role(node) != Some(RoleKind::Holder) {
            self.take_the_array(split);
            return Ok(true);
        }
        self.let_hosts_in(node);
        self.check_apart(split)?;
        if self.resolve(node) {
            split.enter(Stage::Resolving, self.now);
            self.upset(split.upset);
        }
        Ok(true)
    }

    fn resolve(&mut self, node: usize) -> bool {
        let Some(theirs) = self.diverged(node) else { return false };
        let how = if self.prng.percent(70) { Overwrite::Tracked } else { Overwrite::Everything };
        self.command(node, Command::ResolveSplit { theirs, how })
    }

    fn upset(&mut self, upset: Upset) {
        let after = Duration::from_millis(self.prng.below(150));
        let down = Duration::from_millis(1 + self.prng.below(2000));
        let fault = match upset {
            Upset::None => return,
            Upset::Kill(who) => Fault::Kill(who, down),
            Upset::Pause(who) => {
                Fault::Pause(who, if self.prng.percent(50) { Still::Process } else { Still::Machine }, down)
            }
        };
        let at = self.now.saturating_since(self.began) + after;
        let place = self.events.partition_point(|event| event.at <= at);
        self.events.insert(place, Event { at, during: None, fault });
    }

    pub(super) fn see_to_the_end(&mut self, split: &mut Split) -> Check<bool> {
        let node = split.side();
        if self.newest_config().is_some_and(|config| config.in_sync == LegMask::both()) {
            (0..2).for_each(|node| self.let_hosts_in(node));
            return Ok(false);
        }
        if self.role(node) == Some(RoleKind::Holder) {
            self.resolve(node);
        } else {
            self.take_the_array(split);
        }
        Ok(true)
    }

    /// A node that was the holder is it again, where a cluster manager would see to that.
    pub(super) fn serve_again(&mut self, node: usize) -> bool {
        let stands_by = self.role(node) == Some(RoleKind::Standby);
        let managed = self.plan.policy == ArbiterKind::ClusterManager;
        stands_by && managed && self.promote(node, PromoteMode::Ordinary)
    }

    /// The node whose data set stays has to serve.
    fn take_the_array(&mut self, split: &mut Split) {
        let node = split.side();
        if self.serve_again(node) || self.promote(node, PromoteMode::Forced) {
            split.not_before = self.now + PATIENCE;
        }
    }
}
