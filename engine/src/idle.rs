//! What a reactor does when a turn found nothing.
//!
//! The default polls for a while and then sleeps in the ring: pure spinning starves whoever shares the core, and waking a
//! blocked thread costs tens of microseconds, so the window must exceed the round trip of a chain of nodes. While polling,
//! it yields the core; where yielding keeps it away for long (beside a thread that never yields), it stops yielding for a
//! while.

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
    /// Yield for the window, then sleep until something happens.
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

/// A yield that keeps the reactor away for longer than this is slow.
const SLOW_YIELD: Duration = Duration::from_millis(1);
/// This many slow yields in a row switch yielding off,
const SLOW_YIELDS_MAX: u32 = 2;
/// for this long.
const YIELD_HOLIDAY: Duration = Duration::from_millis(50);

/// The idle state of one reactor: pure, the reactor carries out what it says.
#[derive(Clone, Debug)]
pub struct Idler {
    policy: IdlePolicy,
    idle_since: Option<Instant>,
    slow_yields: u32,
    no_yield_before: Instant,
}

impl Idler {
    /// An idler that has just seen work.
    pub fn new(policy: IdlePolicy) -> Self {
        Self { policy, idle_since: None, slow_yields: 0, no_yield_before: Instant::EPOCH }
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
            IdlePolicy::Yield => self.yield_or_pause(now),
            IdlePolicy::Adaptive { window } if now.saturating_since(since) >= window => Rest::Sleep,
            IdlePolicy::Adaptive { .. } => self.yield_or_pause(now),
        }
    }

    fn yield_or_pause(&self, now: Instant) -> Rest {
        if now < self.no_yield_before { Rest::Pause } else { Rest::Yield }
    }

    /// A yield lasted from `before` to `after`.
    pub fn on_yielded(&mut self, before: Instant, after: Instant) {
        if after.saturating_since(before) <= SLOW_YIELD {
            self.slow_yields = 0;
            return;
        }
        self.slow_yields += 1;
        if self.slow_yields >= SLOW_YIELDS_MAX {
            self.slow_yields = 0;
            self.no_yield_before = after + YIELD_HOLIDAY;
        }
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
    fn slow_yields_switch_yielding_off_for_a_while() {
        let mut idler = Idler::new(IdlePolicy::Yield);
        idler.on_yielded(at(0), at(5_000));
        assert_eq!(idler.on_idle(at(5_000)), Rest::Yield);
        idler.on_yielded(at(5_000), at(10_000));
        assert_eq!(idler.on_idle(at(10_000)), Rest::Pause);
        assert_eq!(idler.on_idle(at(60_000)), Rest::Yield);
    }
}
