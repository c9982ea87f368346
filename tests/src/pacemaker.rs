//! A real Pacemaker with corosync on the two nodes of a [`Net`], each with processes, mounts and a name of its own, and a switch that
//! cuts a node's power when the cluster fences it.
//!
//! The cluster's rings are the replication link and the way over the host: when the link alone is lost, the cluster is whole.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::net::{Net, Way};
use crate::node::{binary, has_tool, pause};
use crate::pair::status_at;

/// The nodes' names in the cluster.
pub const NAMES: [&str; 2] = ["one", "two"];
/// How often the cluster is looked at, and its power switch served.
const LOOK: Duration = Duration::from_millis(100);

/// See the module. Dropping it ends both nodes and all that runs there.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    spaces: [Vec<String>; 2],
    data: [PathBuf; 2],
    machines: [Option<Child>; 2],
    /// Nodes whose power the cluster cut.
    pub fenced: Vec<&'static str>,
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join(name)
}

fn written(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("ours");
}

fn filled(name: &str, values: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(source(name)).expect("part of the project");
    values.iter().fold(text, |text, (key, value)| text.replace(key, value))
}

impl Cluster {
    /// True where Pacemaker and corosync are installed.
    ///
    /// # Panics
    /// As [`has_tool`].
    pub fn is_ready() -> bool {
        ["pacemakerd", "corosync", "crm_attribute", "cibadmin", "nsenter"].into_iter().all(has_tool)
    }

    /// Starts both nodes and gives them the array, whose nodes were saved to `configs`; their legs are beside these.
    ///
    /// # Panics
    /// When the cluster does not come up.
    pub fn start(net: &Net, configs: [PathBuf; 2]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let address = |way: Way, node: usize| net.address(way, node);
        let (links, controls) = (
            [0, 1].map(|node| address(Way::Link, node)),
            [0, 1].map(|node| address(Way::Control(node), node)),
        );
        let addresses = [
            ("LINK0", links[0].as_str()),
            ("LINK1", links[1].as_str()),
            ("CONTROL0", controls[0].as_str()),
            ("CONTROL1", controls[1].as_str()),
        ];
        written(&at("corosync.conf"), &filled("corosync.conf", &addresses));
        let place = folder.path().display().to_string();
        written(&at("power.sh"), &filled("power.sh", &[("FOLDER", &place)]));
        std::fs::create_dir_all(at("ocf/gemel")).expect("a folder");
        let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/cluster/gemel");
        written(&at("ocf/gemel/gemel"), &std::fs::read_to_string(agent).expect("the agent"));
        for (name, config) in NAMES.iter().zip(&configs) {
            std::fs::create_dir(at(name)).expect("a folder");
            std::fs::copy(config, at(name).join("vol0.json")).expect("copied");
        }
        net.join_controls();
        let data = configs.map(|config| config.parent().expect("a folder").to_owned());
        let spaces = [0, 1].map(|node| net.node(node));
        let mut cluster = Self { folder, spaces, data, machines: [None, None], fenced: Vec::new() };
        cluster.power_on(0);
        cluster.power_on(1);
        cluster.wait("two members", 60, |cluster| cluster.shows(0, "Online: [ one two ]"));
        let [gemeld, gemel] = ["gemeld", "gemel"].map(|name| binary(name).display().to_string());
        let resources = filled("resources.xml", &[("GEMELD", &gemeld), ("GEMEL", &gemel)]);
        cluster.must(0, &["cibadmin", "--replace", "--scope", "resources", "--xml-text", &resources]);
        cluster
    }

    /// Starts a node that is off.
    ///
    /// # Panics
    /// When it is on, or cannot start.
    pub fn power_on(&mut self, index: usize) {
        assert!(self.machines[index].is_none(), "{} is on", NAMES[index]);
        let _ = std::fs::remove_file(self.folder.path().join(format!("{}.is-off", NAMES[index])));
        let [first, rest @ ..] = self.spaces[index].as_slice() else { panic!("a namespace") };
        let machine = Command::new(first)
            .args(rest)
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc"])
            .arg("bash")
            .arg(source("node.sh"))
            .args([NAMES[index].as_ref(), self.folder.path().as_os_str(), self.data[index].as_os_str()])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare");
        self.machines[index] = Some(machine);
    }

    /// Cuts a node's power: everything there ends at once.
    ///
    /// # Panics
    /// When it cannot be ended.
    pub fn power_off(&mut self, index: usize) {
        if let Some(mut machine) = self.machines[index].take() {
            // Process 1 of the namespaces goes with its parent, and the others with it.
            machine.kill().expect("ours");
            machine.wait().expect("ours");
        }
        written(&self.folder.path().join(format!("{}.is-off", NAMES[index])), "");
    }

    /// Does what the cluster asks of the switch.
    fn serve_power(&mut self) {
        for (index, name) in NAMES.into_iter().enumerate() {
            let asked = self.folder.path().join(format!("{name}.off"));
            if asked.exists() {
                self.power_off(index);
                std::fs::remove_file(asked).expect("ours");
                self.fenced.push(name);
            }
        }
    }

    /// Waits for something, at most so many seconds.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait(&mut self, what: &str, seconds: u32, until: impl Fn(&Self) -> bool) {
        for _ in 0..seconds * 10 {
            self.serve_power();
            if until(self) {
                return;
            }
            pause(LOOK);
        }
        panic!("no {what}: {}", self.describe());
    }

    fn describe(&self) -> String {
        let mut all = String::new();
        for (index, name) in NAMES.into_iter().enumerate() {
            let shown = self.run(index, &["crm_mon", "-1", "-A", "-f"]);
            let log = std::fs::read_to_string(self.folder.path().join(name).join("log")).unwrap_or_default();
            let cluster = std::fs::read_to_string(self.folder.path().join(format!("{name}.pacemaker.log")));
            let told: Vec<String> =
                cluster.unwrap_or_default().lines().rev().take(60).map(str::to_owned).collect();
            let told: Vec<&str> = told.iter().rev().map(String::as_str).collect();
            all += &format!(
                "\n--- {name}\n{}\n{}\n{log}\n{}",
                String::from_utf8_lossy(&shown.stdout),
                self.status(index),
                told.join("\n")
            );
        }
        all
    }

    /// Runs a program at a node.
    ///
    /// # Panics
    /// When there is no `nsenter`.
    pub fn run(&self, index: usize, arguments: &[&str]) -> Output {
        let inside = self.machines[index].as_ref().and_then(|machine| {
            let parent = machine.id();
            let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
            children.split_whitespace().next().map(str::to_owned)
        });
        // A node that is off has no process 0.
        let inside = inside.unwrap_or_else(|| "0".to_owned());
        let mut command = Command::new("nsenter");
        command.args(["--target", &inside, "--all"]).args(arguments).stdin(Stdio::null());
        command.output().expect("nsenter")
    }

    /// As [`Cluster::run`], and it has to succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn must(&self, index: usize, arguments: &[&str]) -> String {
        let output = self.run(index, arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {told}\n{}", self.describe());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Whether the cluster's own monitor shows something.
    pub fn shows(&self, index: usize, what: &str) -> bool {
        String::from_utf8_lossy(&self.run(index, &["crm_mon", "-1", "-A"]).stdout).contains(what)
    }

    /// What a node says of the mirror; null while it does not answer.
    pub fn status(&self, index: usize) -> Value {
        status_at(&self.folder.path().join(NAMES[index]).join("vol0.sock"))
    }

    /// Whether a node serves, with so many legs in sync.
    pub fn serves_with(&self, index: usize, legs: usize) -> bool {
        let status = self.status(index);
        let in_sync = |legs: &Vec<Value>| legs.iter().filter(|leg| leg["in_sync"] == true).count();
        status["role"] == "holder" && status["legs"].as_array().map_or(0, in_sync) == legs
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.power_off(0);
        self.power_off(1);
    }
}
