//! The resource agent, as Pacemaker calls it: judged by Debian's `ocf-tester`, and by what it does when a demotion cannot be
//! done in order.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::node::{binary, has_tool, pause};
use tests::pair::{Pair, Unusual, gemel, must, status_at};

const SUCCESS: i32 = 0;
const ERR_GENERIC: i32 = 1;
const NOT_RUNNING: i32 = 7;
const RUNNING_PROMOTED: i32 = 8;

/// `crm_node` of node "one".
const CRM_NODE: &str = r#"#!/bin/sh
case $1 in
-n) echo one ;;
*) exit 64 ;;
esac
"#;
/// `crm_attribute`: a file for each attribute of a node.
const CRM_ATTRIBUTE: &str = r#"#!/bin/sh
node=one name= verb= value= default=
while [ $# -gt 0 ]; do
    case $1 in
    --node | -N) node=$2; shift ;;
    --name | -n) name=$2; shift ;;
    --lifetime | -l) shift ;;
    --promotion | -p) name=promotion ;;
    --promotion=* | -p?*) name=promotion ;;
    --update | -v) verb=update value=$2; shift ;;
    --delete | -D) verb=delete ;;
    --query | -G) verb=query ;;
    --quiet | -q | -Q) ;;
    --default) default=$2; shift ;;
    *) echo "crm_attribute: $1" >&2; exit 64 ;;
    esac
    shift
done
file=$(dirname "$0")/$node.$name
case $verb in
update) echo "$value" >"$file" ;;
delete) rm -f "$file" ;;
query) cat "$file" 2>/dev/null || { [ -n "$default" ] && echo "$default"; } ;;
esac
"#;
/// `cibadmin`: what another node has of its attributes, which a cluster that falls apart does not tell it.
const CIBADMIN: &str = r#"#!/bin/sh
[ "$1 $2" = "--query --node" ] || exit 64
grep -qw "$3" "$(dirname "$0")/members" || exit 6
[ -e "$(dirname "$0")/$3.gemel-vol0-excluded" ] && echo '<nvpair name="gemel-vol0-excluded" value="yes"/>'
"#;
/// `crm_mon`: who is down, and whether that is certain.
const CRM_MON: &str = r#"#!/bin/sh
for node in one two; do
    online=false unclean=false
    grep -qw "$node" "$(dirname "$0")/members" && online=true
    [ -e "$(dirname "$0")/$node.unclean" ] && unclean=true
    echo "<node name=\"$node\" id=\"1\" online=\"$online\" standby=\"false\" unclean=\"$unclean\"/>"
done
"#;
/// What `ocf-shellfuncs` asks for the version.
const PACEMAKERD: &str = "#!/bin/sh\necho Pacemaker 2.1.5-1\n";
const POST_STOP_OF_TWO: &[(&str, &str)] = &[
    ("OCF_RESKEY_CRM_meta_notify_type", "post"),
    ("OCF_RESKEY_CRM_meta_notify_operation", "stop"),
    ("OCF_RESKEY_CRM_meta_notify_stop_uname", "two"),
];

/// What became of a node that is no member any more.
#[derive(Clone, Copy)]
enum Fenced {
    NotYet,
    Yes,
}

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

    /// Its node is promoted by a cluster of "one" and "two".
    fn promoted_in_a_cluster() -> Self {
        let managed = Self::new();
        managed.must("start", SUCCESS);
        managed.join_cluster();
        managed.must("promote", SUCCESS);
        managed
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
        self.act_with(action, &[])
    }

    fn act_with(&self, action: &str, more: &[(&str, &str)]) -> Output {
        let parameters = self.parameters().into_iter();
        let path = std::env::var("PATH").expect("a path");
        // As Pacemaker, which kills an action that takes too long.
        Command::new("timeout")
            .arg("60")
            .arg(self.agent())
            .arg(action)
            .env("PATH", format!("{}:{path}", self.tools().display()))
            .env("HA_SBIN_DIR", self.tools())
            .envs(more.iter().copied())
            .env("OCF_ROOT", "/usr/lib/ocf")
            .env("OCF_RESOURCE_INSTANCE", "vol0")
            .env("__OCF_ACTION", action)
            .envs(self.tools().exists().then_some(("OCF_RESKEY_crm_feature_set", "3.16.1")))
            .envs(parameters.map(|(name, value)| (format!("OCF_RESKEY_{name}"), value)))
            .stdin(Stdio::null())
            .output()
            .expect("the agent")
    }

    fn must(&self, action: &str, code: i32) {
        self.must_with(action, code, &[]);
    }

    fn must_with(&self, action: &str, code: i32, more: &[(&str, &str)]) {
        let done = self.act_with(action, more);
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let told = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{action}: {told}\n{log}");
    }

    /// Where Pacemaker's tools are, if the test has put any there.
    fn tools(&self) -> PathBuf {
        self.folder.path().join("tools")
    }

    /// Pacemaker's tools as far as the agent uses them, over files: node attributes, and who is a member.
    fn join_cluster(&self) {
        std::fs::create_dir(self.tools()).expect("a folder");
        for (name, script) in [
            ("crm_node", CRM_NODE),
            ("crm_attribute", CRM_ATTRIBUTE),
            ("cibadmin", CIBADMIN),
            ("crm_mon", CRM_MON),
            ("pacemakerd", PACEMAKERD),
        ] {
            let tool = self.tools().join(name);
            std::fs::write(&tool, script).expect("written");
            std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).expect("ours");
        }
        self.members(&["one", "two"]);
        self.must_with("notify", SUCCESS, &[("OCF_RESKEY_CRM_meta_notify_all_uname", "one two")]);
    }

    fn members(&self, names: &[&str]) {
        std::fs::write(self.tools().join("members"), names.join(" ")).expect("written");
    }

    /// A node that is no member is down, or may be at work elsewhere.
    fn fenced(&self, node: &str, fenced: Fenced) {
        let file = self.tools().join(format!("{node}.unclean"));
        match fenced {
            Fenced::NotYet => std::fs::write(file, "").expect("written"),
            Fenced::Yes => std::fs::remove_file(file).expect("removed"),
        }
    }

    /// A node attribute.
    fn attribute(&self, node: &str, name: &str) -> Option<String> {
        std::fs::read_to_string(self.tools().join(format!("{node}.{name}"))).ok()
    }

    fn is_excluded(&self, node: &str) -> bool {
        self.attribute(node, "gemel-vol0-excluded").is_some()
    }

    /// What the agent's node says of itself; null while it does not answer.
    fn status(&self) -> Value {
        status_at(&self.folder.path().join("control"))
    }

    fn role(&self) -> String {
        self.status()["role"].as_str().unwrap_or_default().to_owned()
    }

    fn wait(&self, what: &str, until: impl Fn(&Value) -> bool) {
        let came = (0..300).any(|_| {
            pause(Duration::from_millis(100));
            until(&self.status())
        });
        assert!(came, "no {what}: {:#}", self.status());
    }

    fn wait_for_role(&self, role: &str) {
        self.wait(role, |status| status["role"] == role);
    }

    fn wait_for_both_legs(&self) {
        self.wait("resync", both_in_sync);
    }

    /// The agent's note of its node: the process id, and when that process began.
    fn pidfile(&self) -> PathBuf {
        self.folder.path().join("control.pid")
    }

    fn signal(&self, name: &str) {
        let noted = std::fs::read_to_string(self.pidfile()).expect("a process id");
        let pid = noted.split(' ').next().expect("a word");
        let sent = Command::new("kill").args([&format!("-{name}"), pid]).status();
        assert!(sent.expect("kill").success());
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        // A test that failed leaves a node behind.
        let _ = self.act("stop");
    }
}

/// As a node's status says.
fn both_in_sync(status: &Value) -> bool {
    status["legs"].as_array().is_some_and(|legs| legs.iter().all(|leg| leg["in_sync"] == true))
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
    managed.pair.wait(1, "the holder's config", both_in_sync);
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

/// A node that lost its power leaves its process id behind, which the system gives to somebody else: here to one that has all the
/// words of gemeld's command line, as the agent's own tools may.
#[test]
fn a_process_that_has_got_the_nodes_number_is_not_the_node() {
    if !is_ready() {
        return;
    }
    let managed = Managed::new();
    managed.must("start", SUCCESS);
    managed.signal("KILL");
    pause(Duration::from_millis(500));
    managed.must("monitor", NOT_RUNNING);
    let socket = managed.folder.path().join("control").display().to_string();
    let mut other = Command::new("sh")
        .args(["-c", "read never", "gemeld", "--socket", &socket])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    let noted = std::fs::read_to_string(managed.pidfile()).expect("a note");
    let renumbered: Vec<_> =
        std::iter::once(other.id().to_string()).chain(noted.split(' ').skip(1).map(str::to_owned)).collect();
    std::fs::write(managed.pidfile(), renumbered.join(" ")).expect("written");
    managed.must("monitor", NOT_RUNNING);
    managed.must("start", SUCCESS);
    managed.must("monitor", SUCCESS);
    assert!(other.try_wait().expect("ours").is_none(), "somebody else's process was ended");
    managed.must("stop", SUCCESS);
    drop(other.stdin.take());
    other.wait().expect("the shell");
}

/// The peer dies: the holder freezes, and goes on once the cluster has fenced it; the peer must not be promoted before it is in
/// sync again.
#[test]
fn the_survivor_goes_on_when_its_peer_was_fenced() {
    if !is_ready() {
        return;
    }
    let mut managed = Managed::promoted_in_a_cluster();
    managed.pair.wait(1, "the holder's config", both_in_sync);
    managed.pair.kill(1);
    managed.members(&["one"]);
    managed.fenced("two", Fenced::NotYet);
    managed.wait_for_role("frozen");
    managed.must("monitor", RUNNING_PROMOTED);
    assert_eq!(managed.role(), "frozen", "nobody was fenced yet");
    assert_eq!(
        managed.attribute("one", "promotion").as_deref().map(str::trim),
        Some("1000"),
        "it is not to be demoted"
    );
    managed.fenced("two", Fenced::Yes);
    managed.must_with("notify", SUCCESS, POST_STOP_OF_TWO);
    managed.wait_for_role("holder");
    assert!(managed.is_excluded("two"));
    managed.pair.restart(1);
    managed.members(&["one", "two"]);
    managed.wait_for_both_legs();
    managed.must("monitor", RUNNING_PROMOTED);
    assert!(!managed.is_excluded("two"), "it takes part again");
    managed.must("stop", SUCCESS);
}

/// The peer is a member as ever and its leg cannot be reached: it hears that it is out, so the holder goes on.
#[test]
fn the_holder_goes_on_when_the_link_is_lost_and_the_cluster_is_whole() {
    if !is_ready() {
        return;
    }
    let managed = Managed::promoted_in_a_cluster();
    managed.pair.wait(1, "the holder's config", both_in_sync);
    managed.pair.node(1).signal("STOP");
    managed.wait_for_role("frozen");
    managed.must("monitor", RUNNING_PROMOTED);
    managed.wait_for_role("holder");
    assert!(managed.is_excluded("two"));
    managed.pair.node(1).signal("CONT");
    managed.must("stop", SUCCESS);
}

/// Both nodes died, and the old holder is alone in a cluster that has fenced the other one; then one that was left behind.
#[test]
fn the_old_holder_is_promoted_alone_unless_it_was_left_behind() {
    if !is_ready() {
        return;
    }
    let mut managed = Managed::promoted_in_a_cluster();
    managed.signal("KILL");
    managed.pair.kill(1);
    pause(Duration::from_millis(500));
    managed.must("monitor", NOT_RUNNING);
    managed.must("start", SUCCESS);
    managed.must_with("notify", SUCCESS, &[("OCF_RESKEY_CRM_meta_notify_all_uname", "one two")]);
    std::fs::write(managed.tools().join("one.gemel-vol0-excluded"), "yes").expect("written");
    managed.must("promote", ERR_GENERIC);
    std::fs::remove_file(managed.tools().join("one.gemel-vol0-excluded")).expect("removed");
    managed.members(&["one"]);
    managed.must("promote", SUCCESS);
    managed.must("monitor", RUNNING_PROMOTED);
    managed.must("stop", SUCCESS);
}
