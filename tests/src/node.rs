//! A gemeld process for a test: its own folder, socket and ports, ended by process id.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rpc::{Client, ClientError};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where the binaries of this build are.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test binary");
    // target/PROFILE/deps/TEST
    test.parent().and_then(Path::parent).expect("a target folder").join(name)
}

/// Says that a test is skipped because something is missing.
///
/// # Panics
/// As [`skipped_because`].
pub fn skipped_without(what: &str) {
    skipped_because(&format!("{what} is missing (make setup installs it)"));
}

/// Says why a test is skipped.
///
/// # Panics
/// Where nothing may be skipped: in CI (`CI=true`, or `GEMEL_REQUIRE_TOOLS=1`, which `.ci/run` sets).
pub fn skipped_because(why: &str) {
    let is_set = |name: &str| std::env::var(name).is_ok_and(|value| value == "1" || value == "true");
    let required = is_set("GEMEL_REQUIRE_TOOLS") || is_set("CI");
    assert!(!required, "{why}, and here no test is skipped");
    eprintln!("skipped: {why}");
}

/// True when a tool is there; otherwise says that the test is skipped.
///
/// # Panics
/// As [`skipped_without`].
pub fn has_tool(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).exists()));
    if !found {
        skipped_without(name);
    }
    found
}

/// A command of this build, in a place of its own.
pub fn command_at(place: &[String], name: &str) -> Command {
    match place {
        [] => Command::new(binary(name)),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(binary(name));
            command
        }
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its folder: files for bdevs go here.
    pub folder: TempDir,
    child: Child,
}

impl Node {
    /// Starts a node and waits until it answers.
    ///
    /// # Panics
    /// When it does not within ten seconds.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        Self::start_in(folder, arguments)
    }

    /// As [`Node::start`], in the folder of a node that ended.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        Self::start_at(&[], folder, arguments)
    }

    /// As [`Node::start_in`], by a command that begins with something else: where it runs.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn start_at(place: &[String], folder: TempDir, arguments: &[&str]) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.path().join("log"))
            .expect("a log file");
        let child = command_at(place, "gemeld")
            .arg("--socket")
            .arg(folder.path().join("socket"))
            .args(["--memory", "64"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("gemeld is built by the same cargo command (cargo build -p daemon)");
        let node = Self { folder, child };
        for _ in 0..1000 {
            if Client::connect(&node.socket()).is_ok() {
                return node;
            }
            pause(Duration::from_millis(10));
        }
        panic!("the node does not answer: {}", node.log());
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Calls a method.
    ///
    /// # Errors
    /// The method's.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        let params = if params.is_null() { None } else { Some(params) };
        Client::connect(&self.socket())?.call(method, params)
    }

    /// Calls a method that must succeed.
    ///
    /// # Panics
    /// When it is refused.
    pub fn must(&self, method: &str, params: Value) -> Value {
        self.call(method, params)
            .unwrap_or_else(|error| panic!("{method}: {error}; the node says: {}", self.log()))
    }

    /// Exports a bdev on a free port of loopback; returns the LUN's URL.
    ///
    /// # Panics
    /// When a call is refused.
    pub fn export(&self, bdev: &str) -> String {
        let name = format!("iqn.2026-11.org.gemel:{bdev}");
        self.must(
            "iscsi_create_portal_group",
            json!({"tag": 1, "portals": [{"host": "127.0.0.1", "port": "0"}]}),
        );
        let group = json!({"tag": 1, "initiators": ["ANY"], "netmasks": ["127.0.0.1"]});
        self.must("iscsi_create_initiator_group", group);
        self.must(
            "iscsi_create_target_node",
            json!({"name": name, "alias_name": bdev, "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}],
                   "luns": [{"bdev_name": bdev, "lun_id": 0}], "queue_depth": 64}),
        );
        let groups = self.must("iscsi_get_portal_groups", Value::Null);
        let port = groups[0]["portals"][0]["port"].as_str().expect("a port").to_owned();
        format!("iscsi://127.0.0.1:{port}/{name}/0")
    }

    /// Makes a sparse file of the node's folder.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn file(&self, name: &str, bytes: u64) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::File::create(&path).and_then(|file| file.set_len(bytes)).expect("a file");
        path
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    ///
    /// # Panics
    /// When there is no `kill`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill");
        assert!(sent.success(), "kill -{name} {pid}");
        // A process stops when the thread that takes the signal has run: until then the others go on.
        if name == "STOP" {
            let stops = (0..5000).any(|_| {
                pause(Duration::from_millis(1));
                is_stopped(&pid)
            });
            assert!(stops, "{pid} goes on");
        }
    }

    /// Kills the node (SIGKILL); gives its folder.
    ///
    /// # Panics
    /// When there is no other folder to be had.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().expect("the node is ours");
        self.child.wait().expect("the node ends");
        std::mem::replace(&mut self.folder, TempDir::new().expect("a folder"))
    }

    /// Saves the configuration into the node's folder; gives the file.
    ///
    /// # Panics
    /// When it cannot be saved.
    pub fn save_config(&self) -> PathBuf {
        let file = self.folder.path().join("config.json");
        let saved = Command::new(binary("gemel"))
            .arg("--socket")
            .arg(self.socket())
            .args(["config", "save"])
            .arg(&file)
            .stdout(Stdio::null())
            .status();
        assert!(saved.expect("gemel is built with the tests").success());
        file
    }

    /// Ends the node in order (SIGTERM); gives its folder and exit status.
    ///
    /// # Panics
    /// When it does not end within ten seconds.
    pub fn stop(mut self) -> (TempDir, ExitStatus) {
        self.signal("TERM");
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait().expect("wait") {
                let folder = std::mem::replace(&mut self.folder, TempDir::new().expect("a folder"));
                return (folder, status);
            }
            pause(Duration::from_millis(10));
        }
        panic!("the node does not end: {}", self.log());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A node that ended is reaped; one that did not is a failed test's.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether every thread of a process stands still for a signal (proc_pid_stat(5)).
fn is_stopped(pid: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    threads.filter_map(Result::ok).all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}

/// Sleeps: tests wait for other processes.
#[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
