//! A line that shows a running load, on a terminal.

use core::time::Duration;
use std::io::{IsTerminal, Write, stderr, stdout};

use engine::ReactorStats;

use crate::run::{Observer, Phase, Tick};

const INTERVAL: Duration = Duration::from_millis(250);
const CELLS: usize = 24;

/// Draws the line over another observer; nothing where standard output or standard error is no terminal.
#[derive(Debug)]
pub struct Live<O> {
    inner: O,
    drawn: Drawn,
    time: Duration,
    label: String,
}

/// Whether there is a line to take away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drawn {
    Never,
    No,
    Yes,
}

impl<O: Observer> Live<O> {
    /// For a load that measures for `time`.
    pub fn new(inner: O, time: Duration, label: impl Into<String>) -> Self {
        let terminal = stdout().is_terminal() && stderr().is_terminal();
        Self { inner, drawn: if terminal { Drawn::No } else { Drawn::Never }, time, label: label.into() }
    }

    /// The other observer; the line goes away.
    pub fn into_inner(mut self) -> O {
        self.clear();
        self.inner
    }

    fn clear(&mut self) {
        if self.drawn == Drawn::Yes {
            // Nothing depends on the line.
            let _ = write!(stderr(), "\r\x1b[K");
            self.drawn = Drawn::No;
        }
    }
}

impl<O: Observer> Observer for Live<O> {
    fn on_begin(&mut self, stats: &ReactorStats) {
        self.inner.on_begin(stats);
    }

    fn on_end(&mut self, stats: &ReactorStats) {
        self.inner.on_end(stats);
    }

    fn tick_interval(&self) -> Option<Duration> {
        (self.drawn != Drawn::Never).then_some(INTERVAL)
    }

    fn on_tick(&mut self, tick: &Tick) {
        let line = line(&self.label, tick, self.time);
        let _ = write!(stderr(), "\r{line}\x1b[K").and_then(|()| stderr().flush());
        self.drawn = Drawn::Yes;
    }
}

fn line(label: &str, tick: &Tick, time: Duration) -> String {
    let seconds = tick.interval.as_secs_f64().max(1e-9);
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let (iops, bytes) = (tick.since.operations as f64 / seconds, tick.since.bytes as f64 / seconds);
    let (bar, left) = match tick.phase {
        Phase::Measuring { .. } => {
            (bar(time, tick.left), format!(" {:.0} s left", tick.left.as_secs_f64().ceil()))
        }
        phase => (bar(time, time), format!(" {}", phase.name())),
    };
    let errors = if tick.errors > 0 { format!(", {} errors", tick.errors) } else { String::new() };
    format!("{label}[{bar}]{left}: {iops:.0} IOPS, {:.1} MiB/s{errors}", bytes / f64::from(1 << 20))
}

/// The part of a time that is over.
fn bar(time: Duration, left: Duration) -> String {
    let over = time.saturating_sub(left).as_nanos() * CELLS as u128 / time.as_nanos().max(1);
    let over = usize::try_from(over).unwrap_or(CELLS).min(CELLS);
    "#".repeat(over) + &"-".repeat(CELLS - over)
}

#[cfg(test)]
mod tests {
    use engine::Instant;

    use super::*;
    use crate::run::Window;

    #[test]
    fn the_line_says_how_far_and_how_fast() {
        let mut tick = Tick {
            phase: Phase::Measuring { until: Instant::EPOCH },
            left: Duration::from_secs(3),
            since: Window { operations: 250, bytes: 250 * 4096 },
            interval: Duration::from_millis(250),
            errors: 0,
        };
        let shown = line("", &tick, Duration::from_secs(4));
        assert_eq!(shown, "[######------------------] 3 s left: 1000 IOPS, 3.9 MiB/s");
        (tick.phase, tick.errors) = (Phase::Draining, 2);
        let shown = line("A: ", &tick, Duration::from_secs(4));
        assert_eq!(shown, "A: [------------------------] draining: 1000 IOPS, 3.9 MiB/s, 2 errors");
    }
}
