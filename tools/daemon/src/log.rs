//! The node's log: lines on standard error. Level, flags and timestamps may be changed while it runs.
//!
//! SPDK's five levels are kept apart: what the node says at start and what changes are notices, so that the library's `info` is
//! SPDK's NOTICE. A line is written when both levels allow it: there is one place where lines go. A flag adds lines of one
//! kind, whatever the levels.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What failed.
    Error,
    /// What may fail soon.
    Warning,
    /// What changed.
    Notice,
    /// More than most want to know.
    Info,
    /// Everything.
    Debug,
}

impl Level {
    const ALL: [Self; 5] = [Self::Error, Self::Warning, Self::Notice, Self::Info, Self::Debug];

    /// SPDK's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }

    /// The level of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    fn directive(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warn",
            Self::Notice => "info",
            Self::Info => "debug",
            Self::Debug => "trace",
        }
    }
}

/// A kind of lines that is off unless somebody wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Each call of the control socket: method, object, outcome.
    Control,
}

impl Flag {
    /// Its name, which is the target of its lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
        }
    }
}

/// Whether lines begin with the time.
#[derive(Clone, Debug)]
struct Timestamps(Arc<AtomicBool>);

impl FormatTime for Timestamps {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        if self.0.load(Ordering::Relaxed) { SystemTime.format_time(writer) } else { Ok(()) }
    }
}

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send>;

/// What is logged, to be changed.
pub struct Log {
    level: Level,
    print_level: Level,
    flags: Vec<Flag>,
    timestamps: Timestamps,
    reload: Reload,
}

impl Log {
    /// Begins to log for the whole process.
    pub fn start(colours: bool) -> Self {
        let timestamps = Timestamps(Arc::new(AtomicBool::new(true)));
        let level = Level::Notice;
        let builder = tracing_subscriber::fmt()
            .with_ansi(colours)
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_timer(timestamps.clone())
            .with_env_filter(filter(level, &[]))
            .with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        let reload = Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        Self { level, print_level: level, flags: Vec::new(), timestamps, reload }
    }

    /// The level, and the level of what is printed.
    pub fn levels(&self) -> (Level, Level) {
        (self.level, self.print_level)
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// Sets the level.
    ///
    /// # Errors
    /// The library's reason.
    pub fn set_level(&mut self, level: Level) -> Result<(), String> {
        self.level = level;
        self.apply()
    }

    /// Sets the level of what is printed.
    ///
    /// # Errors
    /// The library's reason.
    pub fn set_print_level(&mut self, level: Level) -> Result<(), String> {
        self.print_level = level;
        self.apply()
    }

    /// Sets these flags, and no others.
    ///
    /// # Errors
    /// The library's reason.
    pub fn set_flags(&mut self, flags: &[Flag]) -> Result<(), String> {
        self.flags = flags.to_vec();
        self.apply()
    }

    /// Whether lines begin with the time from now on.
    pub fn set_timestamps(&self, wanted: bool) {
        self.timestamps.0.store(wanted, Ordering::Relaxed);
    }

    fn apply(&self) -> Result<(), String> {
        (self.reload)(filter(self.level.min(self.print_level), &self.flags))
    }
}

fn filter(level: Level, flags: &[Flag]) -> EnvFilter {
    let control = if flags.contains(&Flag::Control) { "trace" } else { "off" };
    EnvFilter::new(format!("{},{}={control}", level.directive(), Flag::Control.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_spdks_names_and_order() {
        assert_eq!(Level::of("WARNING"), Some(Level::Warning));
        assert_eq!(Level::of("warning"), None);
        assert!(Level::ALL.is_sorted());
        assert!(filter(Level::Notice, &[Flag::Control]).to_string().contains("control=trace"));
    }
}
