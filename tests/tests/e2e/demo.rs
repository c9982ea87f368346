//! `make run`: what a newcomer starts first.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tests::node::{binary, has_tool};

#[test]
fn the_demo_exports_a_lun_and_ends_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let built = binary("gemeld");
    let target = built.parent().and_then(Path::parent).expect("a target folder");
    let mut demo = Command::new("make")
        .args(["--silent", "run"])
        .current_dir(root)
        .env("RUN_DIR", folder.path())
        .env("PORT", "0")
        .env("PROFILE", "dev")
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("make");
    let mut lines =
        BufReader::new(demo.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let url =
        lines.find_map(|line| line.strip_prefix("LUN:").map(|url| url.trim().to_owned())).expect("a URL");
    let table = lines.find(|line| line.contains("iqn.2026-11.org.gemel:demo")).unwrap_or_default();
    assert!(table.contains("1 GiB"), "{table}");
    if has_tool("iscsi-inq") {
        assert!(
            Command::new("iscsi-inq").arg(&url).stdout(Stdio::null()).status().expect("iscsi-inq").success()
        );
    }
    let socket = folder.path().join("gemeld.sock");
    let stopped = Command::new(binary("gemel"))
        .arg("--socket")
        .arg(&socket)
        .args(["rpc", "spdk_kill_instance", r#"{"sig_name":"SIGTERM"}"#])
        .stdout(Stdio::null())
        .status();
    assert!(stopped.expect("gemel").success());
    demo.wait().expect("the demo ends with its node");
    assert!(!socket.exists(), "nothing is left behind");
}
