//! What the kernel offers, found out once at start. For each capability that is absent there is a path that works, except for timed
//! waits: without them (before Linux 5.11) there is no ring, and the reason is said.

use core::fmt;
use core::str::FromStr;
use std::io;

use io_uring::{IoUring, Probe, opcode};

use super::RingConfig;

/// What to use of what the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingMode {
    /// Everything that works.
    Probe,
    /// Nothing beyond the oldest interface: to test the fall-backs, or to rule out a kernel's fault.
    Plain,
}

/// Not a ring mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown ring mode {0:?}: use probe or plain")]
pub struct UnknownRingMode(String);

impl FromStr for RingMode {
    type Err = UnknownRingMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "probe" => Ok(Self::Probe),
            "plain" => Ok(Self::Plain),
            _ => Err(UnknownRingMode(text.to_owned())),
        }
    }
}

impl fmt::Display for RingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "probe",
            Self::Plain => "plain",
        })
    }
}

/// What a ring uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCapabilities {
    /// Completions are prepared when the reactor asks, not by interrupting it (`DEFER_TASKRUN`). Without: signalled task work.
    pub deferred_work: bool,
    /// A wait takes its timeout as an argument (`EXT_ARG`). Without: waiting is refused at start.
    pub timed_wait: bool,
    /// The arena is registered: no page pinning for each disk operation. Without: ordinary reads and writes.
    pub fixed_buffers: bool,
    /// Files and sockets are registered: no look-up for each operation. Without: operations name descriptors.
    pub fixed_files: bool,
    /// A reactor wakes another by a message between their rings. Without: by the event counter.
    pub messages: bool,
    /// The ring can punch holes and zero ranges. Without: the devices say that they cannot.
    pub fallocate: bool,
}

impl RingCapabilities {
    /// Each capability by name, for people and logs.
    pub fn by_name(&self) -> [(&'static str, bool); 6] {
        [
            ("deferred work", self.deferred_work),
            ("timed wait", self.timed_wait),
            ("fixed buffers", self.fixed_buffers),
            ("fixed files", self.fixed_files),
            ("fallocate", self.fallocate),
            ("messages", self.messages),
        ]
    }
}

/// What it has, and what it does without.
impl fmt::Display for RingCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |wanted: bool| {
            let names =
                self.by_name().into_iter().filter(|(_, there)| *there == wanted).map(|(name, _)| name);
            names.collect::<Vec<_>>().join(", ")
        };
        f.write_str(&list(true))?;
        let absent = list(false);
        if absent.is_empty() { Ok(()) } else { write!(f, "; without {absent}") }
    }
}

/// Builds the best ring that the kernel allows.
pub(super) fn build(config: RingConfig) -> io::Result<(IoUring, RingCapabilities)> {
    let mut capabilities = RingCapabilities::default();
    let deferred = match config.mode {
        RingMode::Probe => IoUring::builder()
            .setup_cqsize(config.entries * 2)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(config.entries),
        RingMode::Plain => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    let uring = match deferred {
        Ok(uring) => {
            capabilities.deferred_work = true;
            uring
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().setup_cqsize(config.entries * 2).build(config.entries)?
        }
        Err(error) => return Err(error),
    };
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe)?;
    capabilities.fallocate = config.mode == RingMode::Probe && probe.is_supported(opcode::Fallocate::CODE);
    capabilities.messages = capabilities.deferred_work && probe.is_supported(opcode::MsgRingData::CODE);
    capabilities.timed_wait = uring.params().is_feature_ext_arg();
    if !capabilities.timed_wait {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "io_uring without timed waits: Linux 5.11 or later is needed",
        ));
    }
    Ok((uring, capabilities))
}
