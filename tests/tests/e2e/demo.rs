//! `make run`: what a newcomer starts first.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tests::node::{binary, has_tool};

/// `make run` below a folder, as it is run by hand; `wrapper` runs its last argument as a command.
fn demo(folder: &Path, wrapper: &[&str]) -> Child {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let built = binary("gemeld");
    let target = built.parent().and_then(Path::parent).expect("a target folder");
    let command = [wrapper, &["make --silent run"]].concat();
    Command::new(command[0])
        .args(&command[1..])
        .current_dir(root)
        .env("RUN_DIR", folder)
        .env("PORT", first_port().to_string())
        .env("PROFILE", "dev")
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the demo")
}

fn lines(demo: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(demo.stdout.take().expect("piped")).lines().map_while(Result::ok)
}

/// Ends node a by its control socket, and waits for the demo's end.
fn end(folder: &Path, mut demo: Child) {
    let socket = folder.join("a.sock");
    let stopped = Command::new(binary("gemel"))
        .arg("--socket")
        .arg(&socket)
        .args(["rpc", "spdk_kill_instance", r#"{"sig_name":"SIGTERM"}"#])
        .stdout(Stdio::null())
        .status();
    assert!(stopped.expect("gemel").success());
    demo.wait().expect("the demo ends with its node");
    assert!(!socket.exists() && !folder.join("b.sock").exists(), "nothing is left behind");
}

#[test]
fn the_demo_mirrors_a_lun_and_ends_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    // As an interrupted start leaves it: a part of a leg, and no configuration.
    std::fs::write(folder.path().join("a.img"), [0x5a; 8192]).expect("a file");
    let mut demo = demo(folder.path(), &["sh", "-c"]);
    let mut lines = lines(&mut demo);
    let url =
        lines.find_map(|line| line.strip_prefix("LUN:").map(|url| url.trim().to_owned())).expect("a URL");
    let mirror = lines.find(|line| line.starts_with("vol0 :")).unwrap_or_default();
    assert!(mirror.contains("holder") && mirror.contains("[2/2] [UU]"), "{mirror}");
    assert_eq!(addresses_of(folder.path()), [Ipv4Addr::LOCALHOST; 4], "portals and legs");
    if has_tool("iscsi-inq") {
        assert!(
            Command::new("iscsi-inq").arg(&url).stdout(Stdio::null()).status().expect("iscsi-inq").success()
        );
    }
    end(folder.path(), demo);
}

/// On a terminal the status stays and is drawn anew each second; a pair that is there is taken up again.
#[test]
fn the_demo_is_alive_on_a_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    for _ in 0..2 {
        let mut demo = demo(folder.path(), &["script", "--quiet", "--return", "/dev/null", "--command"]);
        let mut lines = lines(&mut demo);
        for _ in 0..2 {
            let mirror = lines.find(|line| line.contains("vol0 :")).unwrap_or_default();
            assert!(mirror.contains("[2/2] [UU]"), "{mirror}");
        }
        end(folder.path(), demo);
    }
}

/// Where the processes of a folder listen; an address of the other family is nowhere that these would.
fn addresses_of(folder: &Path) -> Vec<Ipv4Addr> {
    let folder = folder.to_str().expect("a path");
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten().map(|process| process.path());
    let ours = processes.filter(|process| {
        std::fs::read(process.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(folder))
    });
    let sockets: BTreeSet<String> = ours
        .flat_map(|process| std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten())
        .filter_map(|file| {
            Some(std::fs::read_link(file.path()).ok()?.to_str()?.strip_prefix("socket:[")?.replace(']', ""))
        })
        .collect();
    let listening = |table: &str| -> Vec<String> {
        let table = std::fs::read_to_string(table).unwrap_or_default();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row[3] == "0A" && sockets.contains(row[9])).map(|row| row[1].to_owned()).collect()
    };
    assert_eq!(listening("/proc/net/tcp6"), [""; 0]);
    // In the order of the network, as a number of this machine.
    let address = |at: &String| u32::from_be(u32::from_str_radix(&at[..8], 16).expect("hexadecimal digits"));
    listening("/proc/net/tcp").iter().map(|at| Ipv4Addr::from(address(at))).collect()
}

/// The first of four ports in a row that are free.
fn first_port() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    static DEMOS: AtomicU16 = AtomicU16::new(0);
    // Below the range that the system gives out by itself, and each demo of this process apart from the others.
    let start = 20_000 + u16::try_from(std::process::id() % 2000).expect("small") * 4;
    let start = start + DEMOS.fetch_add(400, Ordering::Relaxed);
    (start..32_000).step_by(4).find(|&port| (port..port + 4).all(free)).expect("four ports")
}
