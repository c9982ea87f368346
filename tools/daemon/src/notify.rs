//! What the service manager is told (sd_notify(3)): ready, status, stopping; and the watchdog, fed only while every reactor
//! turns.
//!
//! Owner: the main thread. A node that no service manager has started tells nobody.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use core::time::Duration;

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. `None` where nobody wants to know.
    ///
    /// # Errors
    /// `NOTIFY_SOCKET` names no socket.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
        let name = name.into_encoded_bytes();
        let manager = match name.split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            _ => {
                let name = String::from_utf8_lossy(&name).into_owned();
                SocketAddr::from_pathname(name)?
            }
        };
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && ours);
        Ok(Some(Self {
            socket: UnixDatagram::unbound()?,
            manager,
            watchdog: watchdog.map(Duration::from_micros),
        }))
    }

    /// How often the watchdog has to be fed at least; `None` without one.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    fn tell(&self, state: &str) {
        // A manager that does not listen is its own affair: it will say what it missed.
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.manager) {
            tracing::warn!("the service manager cannot be told {state:?}: {error}");
        }
    }

    /// The node serves.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// Its end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    /// Every reactor turns.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1\n");
    }
}
