//! gemeld under a service manager: readiness, watchdog, end (sd_notify(3)); and the units that say so.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tests::node::{binary, has_tool};

/// A service manager that listens.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        Self { folder, socket }
    }

    fn start(&self, watchdog: Duration) -> Child {
        Command::new(binary("gemeld"))
            .arg("--socket")
            .arg(self.folder.path().join("socket"))
            .args(["--memory", "16"])
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("gemeld is built by the same cargo command")
    }

    /// What it is told next; `None` when nothing comes for so long.
    fn next(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).expect("a timeout");
        let mut bytes = [0; 4096];
        let count = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.expect("kill").success());
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_service_manager_hears_of_readiness_life_and_end() {
    let manager = Manager::new();
    let watchdog = 2 * SECOND;
    let mut child = manager.start(watchdog);
    let ready = manager.next(10 * SECOND).expect("readiness");
    assert!(ready.starts_with("READY=1\nSTATUS=control socket "), "{ready}");
    assert!(manager.folder.path().join("socket").exists(), "ready before there is a socket");
    for _ in 0..4 {
        assert_eq!(manager.next(watchdog).as_deref(), Some("WATCHDOG=1\n"), "in time");
    }
    // A process that stands still says nothing.
    signal(&child, "STOP");
    while manager.next(Duration::from_millis(300)).is_some() {}
    assert_eq!(manager.next(watchdog), None);
    signal(&child, "CONT");
    assert_eq!(manager.next(watchdog).as_deref(), Some("WATCHDOG=1\n"));
    signal(&child, "TERM");
    let last = core::iter::from_fn(|| manager.next(5 * SECOND)).find(|told| told != "WATCHDOG=1\n");
    assert_eq!(last.as_deref(), Some("STOPPING=1\n"));
    assert!(child.wait().expect("it ends").success());
}

/// The units as they are, with our binary in the place of the installed one.
#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !has_tool("systemd-analyze") {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/systemd");
    for (unit, instance) in [("gemeld.service", "gemeld.service"), ("gemeld@.service", "gemeld@a.service")] {
        let text = std::fs::read_to_string(units.join(unit)).expect("a unit");
        assert!(text.contains("Type=notify") && text.contains("WatchdogSec="), "{unit}");
        let installed = binary("gemeld").display().to_string();
        let file = folder.path().join(instance);
        std::fs::write(&file, text.replace("/usr/bin/gemeld", &installed)).expect("a file");
        let checked = Command::new("systemd-analyze").arg("verify").arg(&file).output().expect("it runs");
        let told = String::from_utf8_lossy(&checked.stderr);
        let ours: Vec<&str> = told.lines().filter(|line| line.contains("gemeld")).collect();
        assert!(ours.is_empty(), "{unit}: {ours:#?}");
    }
    // What the unit asks for is what the program takes.
    let help = Command::new(binary("gemeld")).arg("--help").output().expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(["--socket", "--config", "--write-back"].iter().all(|option| help.contains(option)));
}

#[test]
fn what_is_installed_is_where_it_is_looked_for() {
    let folder = TempDir::new().expect("a folder");
    let built = binary("gemeld");
    let installed = Command::new("make")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .arg("install")
        .arg(format!("DESTDIR={}", folder.path().display()))
        .arg(format!("BIN={}", built.parent().expect("a folder").display()))
        .output()
        .expect("make");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let text = |path: &str| std::fs::read_to_string(folder.path().join(path)).expect("installed");
    for unit in ["gemeld.service", "gemeld@.service"] {
        let unit = text(&format!("usr/lib/systemd/system/{unit}"));
        let program = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/")).expect("a program");
        let program = program.split(' ').next().expect("a path");
        assert!(folder.path().join(program).exists(), "{program}");
    }
    assert!(text("usr/lib/ocf/resource.d/gemel/gemel").starts_with("#!/bin/sh"));
    let version =
        Command::new(folder.path().join("usr/bin/gemel")).arg("--version").output().expect("it runs");
    assert!(version.status.success());
}
