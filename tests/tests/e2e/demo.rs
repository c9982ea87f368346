//! `make run`: what a newcomer starts first.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::node::{binary, has_tool};

#[test]
fn the_demo_mirrors_a_lun_and_ends_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let built = binary("gemeld");
    let target = built.parent().and_then(Path::parent).expect("a target folder");
    let mut demo = Command::new("make")
        .args(["--silent", "run"])
        .current_dir(root)
        .env("RUN_DIR", folder.path())
        .env("PORT", first_port().to_string())
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
    let mirror = lines.find(|line| line.starts_with("vol0 :")).unwrap_or_default();
    assert!(mirror.contains("holder") && mirror.contains("[2/2] [UU]"), "{mirror}");
    if has_tool("iscsi-inq") {
        assert!(
            Command::new("iscsi-inq").arg(&url).stdout(Stdio::null()).status().expect("iscsi-inq").success()
        );
    }
    let socket = folder.path().join("a.sock");
    let stopped = Command::new(binary("gemel"))
        .arg("--socket")
        .arg(&socket)
        .args(["rpc", "spdk_kill_instance", r#"{"sig_name":"SIGTERM"}"#])
        .stdout(Stdio::null())
        .status();
    assert!(stopped.expect("gemel").success());
    demo.wait().expect("the demo ends with its node");
    assert!(!socket.exists() && !folder.path().join("b.sock").exists(), "nothing is left behind");
}

/// The first of four ports in a row that are free.
fn first_port() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Below the range that the system gives out by itself.
    let start = 20_000 + u16::try_from(std::process::id() % 2000).expect("small") * 4;
    (start..32_000).step_by(4).find(|&port| (port..port + 4).all(free)).expect("four ports")
}
