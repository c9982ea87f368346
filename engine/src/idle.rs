//! What a reactor does when a turn found nothing.
//!
//! The default polls for a while and then sleeps in the ring: pure spinning starves whoever shares the core, and waking a
//! blocked thread costs tens of microseconds, so the window must exceed the round trip of a chain of nodes. While polling,
//! it yields the core where somebody else wants it, and otherwise pauses. It learns which from the yields themselves: one
//! that comes back at once found nobody, one that keeps it away for long met a thread that never yields. So reactors of
//! other processes count too. Beside such a thread it sleeps at once: a thread that polls away its share of the core waits for a whole
//! slice of the other's when there is work, one that sleeps is let in, with slices that are short enough (`slices.rs`).

use ::core::str::FromStr;
use ::core::time::Duration;
use std::fmt;

use thiserror::Error;

use crate::Instant;

/// How to be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Never give the core away: for a core that is this reactor's alone.
    Spin,
    /// Yield after each empty turn, never sleep.
    Yield,
    /// Poll for the window, yielding if the core is shared, then sleep until something happens.
    Adaptive {
        /// How long to poll without work before sleeping.
        window: Duration,
    },
    /// Sleep after the first empty turn.
    Block,
}

impl Default for IdlePolicy {
    fn default() -> Self {
        Self::Adaptive { window: Duration::from_micros(200) }
    }
}

/// Not an idle policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown idle policy {0:?}: use spin, yield, adaptive, adaptive:MICROSECONDS or block")]
pub struct UnknownIdlePolicy(String);

impl FromStr for IdlePolicy {
    type Err = UnknownIdlePolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownIdlePolicy(text.to_owned());
        match text.split_once(':') {
            None => match text {
                "spin" => Ok(Self::Spin),
                "yield" => Ok(Self::Yield),
                "adaptive" => Ok(Self::default()),
                "block" => Ok(Self::Block),
                _ => Err(unknown()),
            },
            Some(("adaptive", micros)) => {
                let micros = micros.parse().map_err(|_| unknown())?;
                Ok(Self::Adaptive { window: Duration::from_micros(micros) })
            }
            Some(_) => Err(unknown()),
        }
    }
}

impl fmt::Display for IdlePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spin => f.write_str("spin"),
            Self::Yield => f.write_str("yield"),
            Self::Adaptive { window } => write!(f, "adaptive:{}", window.as_micros()),
            Self::Block => f.write_str("block"),
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Run the next turn at once, with a pause instruction.
    Pause,
    /// Give the core to others once.
    Yield,
    /// Sleep in the ring.
    Sleep,
}

/// A yield that comes back sooner than this found nobody who wants the core.
const IDLE_YIELD: Duration = Duration::from_nanos(1_500);
/// Empty turns that pause before the next yield looks again.
const PAUSES: u32 = 8;
/// A yield that keeps the reactor away for longer than this is slow.
const SLOW_YIELD: Duration = Duration::from_millis(1);
/// Two slow yields within this time switch yielding off,
const HABIT: Duration = Duration::from_millis(20);
/// for this long.
const YIELD_HOLIDAY: Duration = Duration::from_millis(50);

/// What the last yields said of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbours {
    /// Somebody runs when this reactor yields.
    Yielding,
    /// Nobody: pause this often before looking again.
    Absent { pauses: u32 },
    /// Somebody who does not give the core back: neither yield nor poll before then.
    Hogging { until: Instant },
}

/// The idle state of one reactor: pure, the reactor carries out what it says.
#[derive(Clone, Debug)]
pub struct Idler {
    policy: IdlePolicy,
    idle_since: Option<Instant>,
    neighbours: Neighbours,
    /// When the last yield ended that kept it away for long. One that comes back at once in between says nothing where the reactor may
    /// sleep: who was away for long has its share to come.
    last_slow: Option<Instant>,
}

impl Idler {
    /// An idler that has just seen work.
    pub fn new(policy: IdlePolicy) -> Self {
        Self { policy, idle_since: None, neighbours: Neighbours::Yielding, last_slow: None }
    }

    /// A turn found work.
    pub fn on_busy(&mut self) {
        self.idle_since = None;
    }

    /// A turn found nothing: what to do.
    pub fn on_idle(&mut self, now: Instant) -> Rest {
        let since = *self.idle_since.get_or_insert(now);
        match self.policy {
            IdlePolicy::Spin => Rest::Pause,
            IdlePolicy::Block => Rest::Sleep,
            IdlePolicy::Yield => self.always_yield(now),
            IdlePolicy::Adaptive { window } if now.saturating_since(since) >= window => Rest::Sleep,
            IdlePolicy::Adaptive { .. } => self.yield_or_pause(now),
        }
    }

    fn always_yield(&self, now: Instant) -> Rest {
        match self.neighbours {
            Neighbours::Hogging { until } if now < until => Rest::Pause,
            Neighbours::Hogging { .. } | Neighbours::Absent { .. } | Neighbours::Yielding => Rest::Yield,
        }
    }

    fn yield_or_pause(&mut self, now: Instant) -> Rest {
        match &mut self.neighbours {
            Neighbours::Absent { pauses } if *pauses > 0 => {
                *pauses -= 1;
                Rest::Pause
            }
            Neighbours::Hogging { until } if now < *until => Rest::Sleep,
            Neighbours::Hogging { .. } | Neighbours::Absent { .. } | Neighbours::Yielding => {
                self.always_yield(now)
            }
        }
    }

    /// Somebody has the core who does not give it back.
    pub fn is_beside_a_hog(&self) -> bool {
        matches!(self.neighbours, Neighbours::Hogging { .. })
    }

    /// A yield lasted from `before` to `after`.
    pub fn on_yielded(&mut self, before: Instant, after: Instant) {
        let away = after.saturating_since(before);
        let is_slow = away > SLOW_YIELD;
        let before = if is_slow { self.last_slow.replace(after) } else { None };
        if !is_slow && self.policy == IdlePolicy::Yield {
            // What it does beside a hog, it must not do beside those who yield: it never sleeps.
            self.last_slow = None;
        }
        self.neighbours = if away <= IDLE_YIELD {
            Neighbours::Absent { pauses: PAUSES }
        } else if is_slow && before.is_some_and(|before| after.saturating_since(before) <= HABIT) {
            Neighbours::Hogging { until: after + YIELD_HOLIDAY }
        } else {
            Neighbours::Yielding
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1_000)
    }

    #[test]
    fn policies_parse_as_they_print() {
        for text in ["spin", "yield", "adaptive:200", "adaptive:0", "block"] {
            assert_eq!(text.parse::<IdlePolicy>().expect(text).to_string(), text);
        }
        assert_eq!("adaptive".parse(), Ok(IdlePolicy::default()));
        for text in ["", "adaptive:", "adaptive:-1", "adaptive:x", "spin:3", "Block"] {
            text.parse::<IdlePolicy>().expect_err(text);
        }
    }

    #[test]
    fn adaptive_yields_for_its_window_then_sleeps_until_work() {
        let mut idler = Idler::new(IdlePolicy::default());
        assert_eq!(idler.on_idle(at(0)), Rest::Yield);
        assert_eq!(idler.on_idle(at(199)), Rest::Yield);
        assert_eq!(idler.on_idle(at(200)), Rest::Sleep);
        idler.on_busy();
        assert_eq!(idler.on_idle(at(300)), Rest::Yield);
    }

    #[test]
    fn a_core_of_its_own_is_not_yielded_each_time() {
        let mut idler = Idler::new(IdlePolicy::Adaptive { window: Duration::from_secs(1) });
        assert_eq!(idler.on_idle(at(0)), Rest::Yield);
        idler.on_yielded(at(0), at(1));
        for pause in 0..PAUSES {
            assert_eq!(idler.on_idle(at(1 + u64::from(pause))), Rest::Pause);
        }
        assert_eq!(idler.on_idle(at(20)), Rest::Yield);
        idler.on_yielded(at(20), at(40));
        assert_eq!(idler.on_idle(at(40)), Rest::Yield, "somebody wants the core");
        idler.on_yielded(at(40), at(41));
        assert_eq!(idler.on_idle(at(41)), Rest::Pause, "nobody any more");
    }

    #[test]
    fn adaptive_sleeps_beside_a_thread_that_does_not_give_the_core_back() {
        let mut idler = Idler::new(IdlePolicy::default());
        idler.on_yielded(at(0), at(4_000));
        assert_eq!(idler.on_idle(at(4_000)), Rest::Yield, "once is no habit");
        idler.on_yielded(at(4_000), at(8_000));
        assert_eq!(idler.on_idle(at(8_000)), Rest::Sleep);
        idler.on_busy();
        assert_eq!(idler.on_idle(at(57_999)), Rest::Sleep, "work does not change who is there");
        idler.on_busy();
        assert_eq!(idler.on_idle(at(58_000)), Rest::Yield, "it looks again");
    }

    /// Who was away for a whole slice has its share to come: its next yields come back at once.
    #[test]
    fn quick_yields_between_slow_ones_say_nothing_where_it_may_sleep() {
        for (policy, rest) in [(IdlePolicy::default(), Rest::Sleep), (IdlePolicy::Yield, Rest::Yield)] {
            let mut idler = Idler::new(policy);
            idler.on_yielded(at(0), at(4_000));
            idler.on_yielded(at(4_001), at(4_002));
            idler.on_yielded(at(4_010), at(8_000));
            assert_eq!(idler.on_idle(at(8_000)), rest);
        }
    }

    #[test]
    fn slow_yields_switch_yielding_off_for_a_while() {
        let mut idler = Idler::new(IdlePolicy::Yield);
        idler.on_yielded(at(0), at(5_000));
        assert_eq!(idler.on_idle(at(5_000)), Rest::Yield);
        idler.on_yielded(at(5_000), at(10_000));
        assert_eq!(idler.on_idle(at(10_000)), Rest::Pause);
        assert_eq!(idler.on_idle(at(60_000)), Rest::Yield);
    }
}
