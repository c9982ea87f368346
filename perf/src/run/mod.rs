//! A load on one core: sessions, each with a [`Generator`] and a [`Pacer`], and what was seen of their operations.
//!
//! Owner: the calling thread, which becomes a reactor until the load is over. It connects, warms up, waits for a steady rate
//! where that was asked for, measures, and waits for what is under way. Memory for all operations is taken at the start.

mod measure;
mod pace;
mod session;
mod steady;

use core::convert::Infallible;
use core::time::Duration;

use bdev::Completions;
use engine::{
    Clock, Core, IdlePolicy, Instant, MonotonicClock, Progress, Reactor, ReactorStats, Shard, mailbox,
};
use thiserror::Error;

use crate::target::Opened;
use crate::workload::{Generator, Kind, Stream, Workload, WorkloadError};
pub use measure::{Done, Latencies, Layer, Measurement, Window};
pub use pace::{Loop, Pacer, Spacing, SpacingError};
use session::{Ended, Session};
pub use steady::{Spread, Steadiness, WINDOWS};

/// What to do with the sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// What to ask for.
    pub workload: Workload,
    /// What decides when operations start.
    pub shape: Loop,
    /// Before anything counts.
    pub warm_up: Duration,
    /// After that, wait this long at the most for a steady rate; not at all where there is none.
    pub settle: Option<Duration>,
    /// How long to measure.
    pub time: Duration,
    /// Decides kinds, places, lengths and arrivals.
    pub seed: u64,
    /// How long nothing may be served before the load gives up.
    pub patience: Duration,
}

/// What a load is doing, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not every session is there.
    Connecting,
    /// Until then nothing counts.
    WarmingUp {
        /// Its end.
        until: Instant,
    },
    /// Until the rate is steady, or until then.
    Settling {
        /// Its latest end.
        until: Instant,
    },
    /// Until then everything counts.
    Measuring {
        /// Its end.
        until: Instant,
    },
    /// Nothing is started any more.
    Draining,
    /// Nothing is under way.
    Over,
}

impl Phase {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::WarmingUp { .. } => "warming up",
            Self::Settling { .. } => "settling",
            Self::Measuring { .. } => "measuring",
            Self::Draining => "draining",
            Self::Over => "over",
        }
    }

    fn until(self) -> Option<Instant> {
        match self {
            Self::WarmingUp { until } | Self::Settling { until } | Self::Measuring { until } => Some(until),
            Self::Connecting | Self::Draining | Self::Over => None,
        }
    }

    fn starts_operations(self) -> bool {
        matches!(self, Self::WarmingUp { .. } | Self::Settling { .. } | Self::Measuring { .. })
    }
}

/// A look at a running load.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// What it is doing.
    pub phase: Phase,
    /// Until the phase ends at the latest.
    pub left: Duration,
    /// Done since the last look.
    pub since: Window,
    /// Time since the last look.
    pub interval: Duration,
    /// Failed operations so far.
    pub errors: u64,
}

/// Whoever watches a load. Called on its thread: what takes long here delays operations.
pub trait Observer {
    /// Measuring begins now.
    fn on_begin(&mut self, _stats: &ReactorStats) {}
    /// Measuring has ended.
    fn on_end(&mut self, _stats: &ReactorStats) {}
    /// How often to call [`Observer::on_tick`]; never where there is no interval.
    fn tick_interval(&self) -> Option<Duration> {
        None
    }
    /// A look from time to time.
    fn on_tick(&mut self, _tick: &Tick) {}
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was seen.
    pub measurement: Measurement,
    /// How long it was measured.
    pub elapsed: Duration,
    /// Failed operations, in the warm-up as well.
    pub errors: u64,
    /// What the first of them said, and where.
    pub first_error: Option<String>,
    /// Operations that had arrived and were not started by the end: an open loop that the target cannot keep up with.
    pub unstarted: u64,
    /// Whether the rate was steady while it was measured.
    pub steadiness: Steadiness,
}

/// Why a load could not be carried out.
#[derive(Debug, Error)]
pub enum RunError {
    /// Nothing was served for too long.
    #[error("nothing was served for {0:?}: {1}")]
    NobodyServes(Duration, String),
    /// The workload does not fit a device.
    #[error("{0}: {1}")]
    Workload(String, WorkloadError),
    /// The reactor's ring failed.
    #[error("io_uring failed: {0}")]
    Ring(#[from] std::io::Error),
}

/// Settling and measuring look at the rate in windows: of a second, and never fewer than ten in the time that counts.
fn window_of(time: Duration) -> Duration {
    Duration::from_secs(1).min(time / 10)
}

/// Carries out a job, by the clock that the sessions were opened by.
///
/// # Errors
/// See [`RunError`]. Operations that fail are no error but counted.
///
/// # Panics
/// When the core has no ring.
pub fn run(
    core: Core,
    clock: MonotonicClock,
    opened: Vec<Opened>,
    job: Job,
    policy: IdlePolicy,
    observer: &mut dyn Observer,
) -> Result<Outcome, RunError> {
    let ring = core.ring().expect("a load's core has a ring").clone();
    let stats = ReactorStats::default();
    let (_sender, inbox) = mailbox(1, ring.waker());
    let shard = Load::new(core, clock, opened, job, observer, stats.clone());
    let load = Reactor::new(shard, inbox, ring, clock, policy, stats).run()?;
    load.into_outcome()
}

/// The shard.
struct Load<'a> {
    core: Core,
    clock: MonotonicClock,
    job: Job,
    sessions: Vec<Session>,
    phase: Phase,
    /// Of the phase; of the warm-up it is not shown to anybody.
    measurement: Measurement,
    started: Instant,
    last_success: Instant,
    errors: u64,
    first_error: Option<String>,
    unstarted: u64,
    failed: Option<RunError>,
    done: Completions,
    observer: &'a mut dyn Observer,
    stats: ReactorStats,
    last_tick: Instant,
    ticked: Window,
}

impl<'a> Load<'a> {
    fn new(
        core: Core,
        clock: MonotonicClock,
        opened: Vec<Opened>,
        job: Job,
        observer: &'a mut dyn Observer,
        stats: ReactorStats,
    ) -> Self {
        let now = clock.now();
        let noise = session::noise(&core);
        let sessions =
            opened.into_iter().map(|one| Session::new(one, job.shape.depth(), noise.clone())).collect();

        Self {
            core,
            clock,
            sessions,
            phase: Phase::Connecting,
            measurement: Measurement::new(now, Duration::ZERO, Duration::from_secs(1)),
            started: now,
            last_success: now,
            errors: 0,
            first_error: None,
            unstarted: 0,
            failed: None,
            done: Completions::new(),
            observer,
            stats,
            last_tick: now,
            ticked: Window::default(),
            job,
        }
    }

    fn into_outcome(self) -> Result<Outcome, RunError> {
        if let Some(error) = self.failed {
            // A channel must not be dropped with operations in flight, and nobody answers these.
            self.sessions.into_iter().filter(|session| !session.is_idle()).for_each(core::mem::forget);
            return Err(error);
        }
        let seconds = self.measurement.window().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rates: Vec<f64> =
            self.measurement.windows().iter().map(|one| one.operations as f64 / seconds).collect();
        Ok(Outcome {
            steadiness: Steadiness::of(&rates),
            elapsed: self.job.time,
            measurement: self.measurement,
            errors: self.errors,
            first_error: self.first_error,
            unstarted: self.unstarted,
        })
    }

    fn connect(&mut self, now: Instant) -> Result<(), RunError> {
        if !self.sessions.iter().all(|session| session.geometry(now).is_some()) {
            return Ok(());
        }
        let count = u32::try_from(self.sessions.len()).expect("sessions are few");
        for (session, index) in self.sessions.iter_mut().zip(0..) {
            let geometry = session.geometry(now).expect("looked at above");
            let device = (geometry.bytes(), geometry.block_size);
            let stream = Stream { index, count };
            let generator = Generator::new(&self.job.workload, device, stream, self.job.seed)
                .map_err(|error| RunError::Workload(session.name.clone(), error))?;
            let pacer = Pacer::new(self.job.shape, (index, count), now, self.job.seed);
            session.begin(generator, pacer, geometry.block_size);
        }
        self.last_success = now;
        self.enter(Phase::WarmingUp { until: now + self.job.warm_up }, self.job.warm_up, now);
        Ok(())
    }

    /// Begins a phase in which something is seen.
    fn enter(&mut self, phase: Phase, duration: Duration, now: Instant) {
        let window = match phase {
            Phase::Settling { .. } => Duration::from_secs(1),
            _ => window_of(duration),
        };
        self.measurement = Measurement::new(now, duration, window);
        (self.phase, self.started, self.ticked) = (phase, now, Window::default());
    }

    /// Goes on to the next phase where it is time.
    fn advance(&mut self, now: Instant) {
        match self.phase {
            Phase::Connecting => {
                if let Err(error) = self.connect(now) {
                    self.fail(error);
                }
            }
            Phase::WarmingUp { until } if now >= until => match self.job.settle {
                Some(most) => self.enter(Phase::Settling { until: now + most }, most, now),
                None => self.begin_measuring(),
            },
            Phase::Settling { until } if now >= until || self.has_settled(now) => self.begin_measuring(),
            Phase::Measuring { until } if now >= until => {
                self.phase = Phase::Draining;
                self.observer.on_end(&self.stats);
                self.count_unstarted(until);
            }
            Phase::Draining if self.sessions.iter().all(Session::is_idle) => self.phase = Phase::Over,
            _ => {}
        }
    }

    fn begin_measuring(&mut self) {
        self.observer.on_begin(&self.stats);
        // The observer may have taken its time.
        let now = self.clock.now();
        self.enter(Phase::Measuring { until: now + self.job.time }, self.job.time, now);
    }

    /// True when the last whole windows are steady.
    fn has_settled(&self, now: Instant) -> bool {
        let whole = (now - self.started).as_nanos() / self.measurement.window().as_nanos().max(1);
        let whole = usize::try_from(whole).unwrap_or(usize::MAX);
        let windows = self.measurement.windows().get(..whole).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rates: Vec<f64> = windows.iter().map(|one| one.operations as f64).collect();
        matches!(Steadiness::of(&rates), Steadiness::Steady(_))
    }

    fn count_unstarted(&mut self, end: Instant) {
        for session in &mut self.sessions {
            session.waiting_arrivals(end, |kind, intended| {
                self.unstarted += 1;
                self.measurement.on_unstarted(kind, intended, end);
            });
        }
    }

    fn fail(&mut self, error: RunError) {
        self.failed.get_or_insert(error);
        for session in &mut self.sessions {
            session.give_up();
        }
        self.phase = Phase::Over;
    }

    fn take_completions(&mut self, now: Instant) -> Progress {
        let mut progress = Progress::Idle;
        for session in &mut self.sessions {
            progress |= session.channel.poll(now, &mut self.done);
            if self.done.is_empty() {
                continue;
            }
            // One look at the clock for all that came back together.
            let replied = self.clock.now();
            while let Some(completed) = self.done.pop_front() {
                match session.on_completed(&completed, replied) {
                    Ended::Well(done) => {
                        self.last_success = replied;
                        self.measurement.on_done(&done);
                    }
                    Ended::Badly(why) => {
                        self.errors += 1;
                        self.first_error.get_or_insert(why);
                    }
                }
            }
        }
        progress
    }

    fn start_operations(&mut self) -> Progress {
        let mut count = 0;
        for session in &mut self.sessions {
            count += session.fill(&self.core, &self.clock);
        }
        Progress::from_count(count)
    }

    fn watch(&mut self, now: Instant) {
        let waits = self.phase == Phase::Connecting || self.sessions.iter().any(|session| !session.is_idle());
        if !waits {
            self.last_success = self.last_success.max(now);
        }
        let silence = now - self.last_success;
        if silence > self.job.patience && self.phase != Phase::Over {
            let down = self.sessions.iter().find_map(|session| session.why_down(now));
            let why = down.or_else(|| self.first_error.clone());
            let why = why.unwrap_or_else(|| "operations are not answered".to_owned());
            self.fail(RunError::NobodyServes(silence, why));
        }
    }

    fn tick(&mut self, now: Instant) {
        let Some(interval) = self.observer.tick_interval() else { return };
        let since = now - self.last_tick;
        if since < interval {
            return;
        }
        let total = self.measurement.total();
        let tick = Tick {
            phase: self.phase,
            left: self.phase.until().map_or(Duration::ZERO, |until| until - now),
            since: Window {
                operations: total.operations - self.ticked.operations,
                bytes: total.bytes - self.ticked.bytes,
            },
            interval: since,
            errors: self.errors,
        };
        (self.last_tick, self.ticked) = (now, total);
        self.observer.on_tick(&tick);
    }
}

impl Shard for Load<'_> {
    type Message = Infallible;

    fn handle(&mut self, message: Infallible, _now: Instant) {
        match message {}
    }

    fn poll(&mut self, now: Instant) -> Progress {
        let mut progress = self.take_completions(now);
        self.advance(now);
        if self.phase.starts_operations() {
            progress |= self.start_operations();
        }
        self.watch(now);
        self.tick(now);
        progress
    }

    fn next_deadline(&self) -> Option<Instant> {
        let tick = self.observer.tick_interval().map(|interval| self.last_tick + interval);
        let mut earliest = Instant::earliest(self.phase.until(), tick);
        for session in &self.sessions {
            earliest = Instant::earliest(earliest, session.next_deadline());
        }
        earliest
    }

    fn is_finished(&self) -> bool {
        self.phase == Phase::Over
    }
}

impl Outcome {
    /// Operations a second that ended well.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub fn iops(&self) -> f64 {
        self.measurement.total().operations as f64 / self.elapsed.as_secs_f64()
    }

    /// Bytes a second that they moved.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub fn bytes_per_second(&self) -> f64 {
        self.measurement.total().bytes as f64 / self.elapsed.as_secs_f64()
    }

    /// Latencies of a kind, if there were any.
    pub fn of(&self, kind: Kind) -> Option<&Latencies> {
        self.measurement.of(kind)
    }
}

#[cfg(test)]
mod tests;
