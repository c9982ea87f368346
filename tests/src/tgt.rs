//! tgt, another target (Debian package `tgt`), on loopback: a judge of this project's initiator.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::node::{has_tool, pause, skipped_because};

/// Its one target.
pub const TARGET: &str = "iqn.2026-11.example:tgt";

/// A running tgtd with one LUN: number 1, 64 MiB.
#[derive(Debug)]
pub struct Tgt {
    _folder: TempDir,
    child: Child,
    /// Names its control socket.
    control: String,
    /// Where it listens.
    pub portal: SocketAddr,
}

impl Tgt {
    /// Starts one; `None`, with a line that says so, where tgt is not installed or may not run.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn start() -> Option<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let portal = socket.local_addr().expect("bound");
        drop(socket);
        Self::start_at(&[], portal)
    }

    /// The same at an address, by a command that begins with something else: where it runs.
    ///
    /// # Panics
    /// As [`Tgt::start`].
    pub fn start_at(place: &[String], portal: SocketAddr) -> Option<Self> {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        if !has_tool("tgtd") || !has_tool("tgtadm") {
            return None;
        }
        if !is_root() {
            skipped_because("tgtd runs as root alone");
            return None;
        }
        // tgtadm keeps the number in sixteen bits, one of which is a sign. Ports of other namespaces may be the same.
        let number = portal.port() % 29_000 + 1 + COUNT.fetch_add(1, Ordering::Relaxed) % 1_000;
        let control = number.to_string();
        let mut command = match place {
            [] => Command::new("tgtd"),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg("tgtd");
                command
            }
        };
        let child = command
            .args(["--foreground", "--control-port", &control, "--iscsi", &format!("portal={portal}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tgtd");
        let folder = TempDir::new().expect("a folder");
        let tgt = Self { _folder: folder, child, control, portal };
        tgt.make();
        Some(tgt)
    }

    fn make(&self) {
        let leg = self._folder.path().join("leg");
        std::fs::File::create(&leg).and_then(|file| file.set_len(64 << 20)).expect("a file");
        let target = ["--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET];
        let up = (0..500).any(|_| {
            pause(Duration::from_millis(20));
            self.adm(&target).is_some()
        });
        assert!(up, "tgtd does not answer");
        let leg = leg.to_str().expect("a path");
        self.must(&["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", leg]);
        self.must(&["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"]);
    }

    /// What `tgtadm` says; `None` when it fails.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn adm(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("tgtadm")
            .args(["--lld", "iscsi", "--control-port", &self.control])
            .args(arguments)
            .stderr(Stdio::null())
            .output()
            .expect("tgtadm");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// As [`Tgt::adm`], for what has to succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn must(&self, arguments: &[&str]) -> String {
        self.adm(arguments).unwrap_or_else(|| panic!("tgtadm {arguments:?} fails"))
    }

    /// Both digests that it agrees to: `CRC32C` or, as it begins, `None`.
    ///
    /// # Panics
    /// When tgtadm refuses.
    pub fn set_digests(&self, digest: &str) {
        for name in ["HeaderDigest", "DataDigest"] {
            self.set(name, digest);
        }
    }

    /// What it would like a key to be, from the next login on.
    ///
    /// # Panics
    /// When tgtadm refuses.
    pub fn set(&self, key: &str, value: &str) {
        let update = ["--op", "update", "--mode", "target", "--tid", "1", "--name", key];
        self.must(&[&update[..], &["--value", value]].concat());
    }

    /// Asks for CHAP in discovery sessions, and proves itself to those that ask back.
    ///
    /// # Panics
    /// When tgtadm refuses.
    pub fn require_chap_of_discovery(&self, initiator: [&str; 2], target: [&str; 2]) {
        for [user, password] in [initiator, target] {
            self.must(&["--op", "new", "--mode", "account", "--user", user, "--password", password]);
        }
        self.must(&["--op", "bind", "--mode", "account", "--user", initiator[0]]);
        self.must(&["--op", "bind", "--mode", "account", "--user", target[0], "--outgoing"]);
    }

    /// Asks initiators for CHAP, and proves itself to those that ask back.
    ///
    /// # Panics
    /// When tgtadm refuses.
    pub fn require_chap(&self, initiator: [&str; 2], target: [&str; 2]) {
        for [user, password] in [initiator, target] {
            self.must(&["--op", "new", "--mode", "account", "--user", user, "--password", password]);
        }
        self.must(&["--op", "bind", "--mode", "account", "--tid", "1", "--user", initiator[0]]);
        self.must(&["--op", "bind", "--mode", "account", "--tid", "1", "--user", target[0], "--outgoing"]);
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

impl Drop for Tgt {
    fn drop(&mut self) {
        // It was started here, and nobody else waits for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
