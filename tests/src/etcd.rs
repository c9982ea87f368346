//! An etcd of one member on loopback, for a test: its own folder and ports, ended by process id.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::node::{has_tool, pause};

/// A running etcd.
#[derive(Debug)]
pub struct Etcd {
    folder: TempDir,
    ports: [u16; 2],
    child: Child,
}

impl Etcd {
    /// Starts one; `None`, with a line that says so, where etcd is not installed.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn start() -> Option<Self> {
        if !has_tool("etcd") || !has_tool("etcdctl") {
            return None;
        }
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let ports = sockets.each_ref().map(|socket| socket.local_addr().expect("bound").port());
        drop(sockets);
        // Its own syncs, on a disk that the tests load, would be what is measured.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        let folder = folder.expect("a folder");
        let child = spawn(&folder, ports);
        let etcd = Self { folder, ports, child };
        etcd.wait();
        Some(etcd)
    }

    fn wait(&self) {
        for _ in 0..500 {
            if self.ctl(&["endpoint", "health"]).is_some() {
                return;
            }
            pause(Duration::from_millis(20));
        }
        panic!("etcd does not answer");
    }

    /// Its client URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// What `etcdctl` says; `None` when it fails.
    ///
    /// # Panics
    /// When etcdctl cannot be run.
    pub fn ctl(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url()])
            .args(arguments)
            .stderr(Stdio::null())
            .output()
            .expect("etcdctl");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// SIGKILL; its data stay.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child");
    }

    /// Starts again, with its data.
    pub fn restart(&mut self) {
        self.child = spawn(&self.folder, self.ports);
        self.wait();
    }
}

fn spawn(folder: &TempDir, [client, peer]: [u16; 2]) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(["--name", "one", "--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("one={peer}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd")
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // One that was killed by the test is reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
