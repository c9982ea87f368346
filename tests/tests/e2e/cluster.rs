//! The resource agent, as Pacemaker calls it: judged by Debian's `ocf-tester`, and by what it does when a demotion cannot be
//! done in order.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tests::node::{binary, has_tool, pause};
use tests::pair::{Pair, Unusual, gemel, must};

const SUCCESS: i32 = 0;
const ERR_GENERIC: i32 = 1;
const NOT_RUNNING: i32 = 7;
const RUNNING_PROMOTED: i32 = 8;

/// A pair of which node 0 belongs to the agent; node 1 runs as ever.
struct Managed {
    /// Where anybody may look, as the tester does as nobody.
    folder: TempDir,
    pair: Pair,
}

impl Managed {
    fn new() -> Self {
        let unusual = Unusual { create: &["--policy", "external"], ..Unusual::default() };
        let mut pair = Pair::build(unusual, |_| {}, None);
        // With this policy nobody holds the array before somebody says so.
        must(gemel(pair.node(0), &["promote", "vol0"]));
        pair.wait_in_sync(0);
        pair.stop(0);
        let folder = TempDir::new().expect("a folder");
        let open = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        };
        open(folder.path());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/cluster/gemel");
        std::fs::copy(source, folder.path().join("gemel")).expect("the agent");
        open(&folder.path().join("gemel"));
        Self { folder, pair }
    }

    fn agent(&self) -> PathBuf {
        self.folder.path().join("gemel")
    }

    fn parameters(&self) -> Vec<(&'static str, String)> {
        let shown = |path: PathBuf| path.display().to_string();
        vec![
            ("mirror", "vol0".to_owned()),
            ("config", shown(self.pair.config(0))),
            ("socket", shown(self.folder.path().join("control"))),
            ("gemeld", shown(binary("gemeld"))),
            ("gemel", shown(binary("gemel"))),
            ("options", "--memory 32".to_owned()),
            ("log", shown(self.folder.path().join("log"))),
            ("demote_timeout", "2".to_owned()),
        ]
    }

    fn act(&self, action: &str) -> Output {
        let parameters = self.parameters().into_iter();
        Command::new(self.agent())
            .arg(action)
            .env("OCF_ROOT", "/usr/lib/ocf")
            .env("OCF_RESOURCE_INSTANCE", "vol0")
            .env("__OCF_ACTION", action)
            .envs(parameters.map(|(name, value)| (format!("OCF_RESKEY_{name}"), value)))
            .stdin(Stdio::null())
            .output()
            .expect("the agent")
    }

    fn must(&self, action: &str, code: i32) {
        let done = self.act(action);
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let told = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{action}: {told}\n{log}");
    }

    fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.folder.path().join("control.pid")).expect("a process id");
        let sent = Command::new("kill").args([&format!("-{name}"), pid.trim()]).status();
        assert!(sent.expect("kill").success());
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        // A test that failed leaves a node behind.
        let _ = self.act("stop");
    }
}

fn is_ready() -> bool {
    has_tool("ocf-tester") && has_tool("xmllint")
}

#[test]
fn ocf_tester_finds_nothing_wrong_with_the_agent() {
    if !is_ready() {
        return;
    }
    let managed = Managed::new();
    let mut tester = Command::new("ocf-tester");
    tester.args(["-n", "vol0"]);
    for (name, value) in managed.parameters() {
        // The tester splits words.
        if name != "options" {
            tester.args(["-o", &format!("{name}={value}")]);
        }
    }
    let tested = tester.arg(managed.agent()).output().expect("ocf-tester");
    let told =
        [tested.stdout, tested.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    println!("{told}");
    assert!(tested.status.success() && told.contains("passed all tests"), "{told}");
    assert!(!told.contains("does not support the promote") && !told.contains("does not support the notify"));
}

/// The node stands still and cannot let go of the array: it is killed, so that the other one can have it.
#[test]
fn an_unclean_demotion_kills_the_node_and_the_peer_is_promoted() {
    if !is_ready() {
        return;
    }
    let managed = Managed::new();
    managed.must("monitor", NOT_RUNNING);
    managed.must("start", SUCCESS);
    managed.must("promote", SUCCESS);
    managed.must("monitor", RUNNING_PROMOTED);
    managed.pair.wait(1, "the holder's config", |status| {
        status["legs"].as_array().is_some_and(|legs| legs.iter().all(|leg| leg["in_sync"] == true))
    });
    managed.signal("STOP");
    managed.must("demote", ERR_GENERIC);
    managed.must("monitor", NOT_RUNNING);
    managed.must("stop", SUCCESS);
    pause(Duration::from_secs(2));
    must(gemel(managed.pair.node(1), &["promote", "vol0"]));
    // It comes back as a standby, and is promoted again only when the array is given up there.
    managed.must("start", SUCCESS);
    managed.must("monitor", SUCCESS);
    managed.must("stop", SUCCESS);
}
