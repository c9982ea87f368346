//! CHAP with real initiators: libiscsi's suite and tools, this project's own end, the control socket, the saved configuration.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::node::{Node, has_tool, pause};
use tests::pair::{Pair, gemel, must};

const TARGET: &str = "iqn.2026-11.org.gemel:m0";

fn target() -> (Node, String) {
    let node = Node::start(&[]);
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 65536}));
    let url = node.export("m0");
    (node, url)
}

/// A URL with credentials as libiscsi writes them; `target` for mutual CHAP.
fn with_user(url: &str, user: &str, target: Option<(&str, &str)>) -> String {
    let url = url.replace("iscsi://", &format!("iscsi://{user}@"));
    match target {
        None => url,
        Some((name, secret)) => format!("{url}?target_user={name}&target_password={secret}"),
    }
}

fn logs_in(url: &str) -> bool {
    Command::new("iscsi-inq").arg(url).output().expect("iscsi-inq").status.success()
}

fn require(node: &Node, group: i32, mutual: bool) {
    let auth = json!({"name": TARGET, "require_chap": true, "mutual_chap": mutual, "chap_group": group});
    node.must("iscsi_target_node_set_auth", auth);
}

#[test]
fn libiscsis_chap_tests_pass_with_every_kind_of_name() {
    if !has_tool("iscsi-test-cu") {
        return;
    }
    let (node, url) = target();
    let users: Vec<Value> = ["x", "0xuser", "0buser"]
        .iter()
        .map(|user| json!({"user": user, "secret": "abcdefgh12345"}))
        .collect();
    node.must("iscsi_create_auth_group", json!({"tag": 1, "secrets": users}));
    require(&node, 1, false);
    let suite = |test: &str, user: &str| {
        let url = with_user(&url, &format!("{user}%abcdefgh12345"), None);
        let run = Command::new("timeout").args(["30", "iscsi-test-cu", "-V", "-t", test, &url]).output();
        let run = run.expect("the suite");
        String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr)
    };
    let text = suite("iSCSI.iSCSICHAP", "x");
    let summary = text.lines().find(|line| line.trim_start().starts_with("tests ")).unwrap_or_default();
    let counts: Vec<&str> = summary.split_whitespace().collect();
    assert!(
        counts.len() == 6 && counts[2] == counts[1] && counts[3] == counts[1] && counts[4] == "0",
        "{text}"
    );
    for user in ["0xuser", "0buser"] {
        assert!(logs_in(&with_user(&url, &format!("{user}%abcdefgh12345"), None)), "{user}");
    }
}

#[test]
fn a_login_needs_the_secret_that_the_administrator_asked_for() {
    if !has_tool("iscsi-inq") {
        return;
    }
    let (node, url) = target();
    assert!(logs_in(&url));
    let secrets =
        json!([{"user": "host", "secret": "the-host-secret", "muser": "node", "msecret": "the-node-secret"}]);
    node.must("iscsi_create_auth_group", json!({"tag": 1, "secrets": secrets}));
    require(&node, 1, false);
    let right = with_user(&url, "host%the-host-secret", None);
    let mutual = with_user(&url, "host%the-host-secret", Some(("node", "the-node-secret")));
    assert!(!logs_in(&url), "no credentials");
    assert!(!logs_in(&with_user(&url, "host%another-secret", None)));
    assert!(!logs_in(&with_user(&url, "guest%the-host-secret", None)));
    assert!(logs_in(&right) && logs_in(&mutual));
    assert!(!logs_in(&with_user(&url, "host%the-host-secret", Some(("node", "a-wrong-node-secret")))));
    require(&node, 1, true);
    assert!(!logs_in(&right), "mutual CHAP is asked for");
    assert!(logs_in(&mutual));
    let error = node.call("iscsi_delete_auth_group", json!({"tag": 1})).expect_err("in use").to_string();
    assert!(error.contains(TARGET), "{error}");
    node.must("iscsi_auth_group_remove_secret", json!({"tag": 1, "user": "host"}));
    assert!(!logs_in(&mutual));
    node.must("iscsi_target_node_set_auth", json!({"name": TARGET, "disable_chap": true}));
    assert!(logs_in(&url));
    node.must("iscsi_delete_auth_group", json!({"tag": 1}));
}

#[test]
fn discovery_has_chap_of_its_own() {
    if !has_tool("iscsi-ls") {
        return;
    }
    let (node, url) = target();
    node.must(
        "iscsi_create_auth_group",
        json!({"tag": 3, "secrets": [{"user": "finder", "secret": "finders-keepers"}]}),
    );
    node.must("iscsi_set_discovery_auth", json!({"require_chap": true, "chap_group": 3}));
    let portal = url.rsplit_once("/iqn").expect("a target name").0.to_owned();
    let finds = |portal: &str| {
        let listing = Command::new("iscsi-ls").arg(portal).output().expect("iscsi-ls");
        String::from_utf8_lossy(&listing.stdout).contains(TARGET)
    };
    assert!(!finds(&portal));
    assert!(finds(&portal.replace("iscsi://", "iscsi://finder%finders-keepers@")));
    // A portal group's own comes first.
    node.must("iscsi_portal_group_set_auth", json!({"tag": 1, "disable_chap": true}));
    assert!(finds(&portal));
}

#[test]
fn an_import_authenticates_and_a_saved_configuration_does_too_without_showing_a_secret() {
    let (far, url) = target();
    let near = Node::start(&[]);
    let secrets = near.folder.path().join("secrets");
    let far_secrets = far.folder.path().join("secrets");
    let text = "# both directions\nhost a-host-of-secrets\nnode a-node-of-secrets\n";
    for file in [&secrets, &far_secrets] {
        std::fs::write(file, text).expect("written");
    }
    let (file, far_file) = (secrets.to_str().expect("a path"), far_secrets.to_str().expect("a path"));
    let create = [
        "auth",
        "create",
        "1",
        "--user",
        "host",
        "--secret-file",
        far_file,
        "--target-user",
        "node",
        "--target-secret-file",
        far_file,
    ];
    let refused = gemel(&far, &create);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("chmod 600"));
    for file in [&secrets, &far_secrets] {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    }
    must(gemel(&far, &create));
    must(gemel(&far, &["auth", "target", TARGET, "mutual", "--group", "1"]));
    let listed = must(gemel(&far, &["auth", "list"]));
    assert!(listed.contains("host (and node in turn)") && !listed.contains("secrets"), "{listed}");
    let import = json!({
        "name": "r0", "initiator_iqn": "iqn.2026-11.example:near", "url": url,
        "chap": {"user": "host", "secret_file": file, "muser": "node", "msecret_file": file},
    });
    near.must("bdev_iscsi_create", import);
    let up = |node: &Node| {
        for _ in 0..200 {
            if node.must("bdev_get_bdevs", json!({"name": "r0"}))[0]["num_blocks"] == 65536 {
                return true;
            }
            pause(Duration::from_millis(20));
        }
        false
    };
    assert!(up(&near), "{}", near.log());
    for node in [&near, &far] {
        let saved = node.save_config();
        let mode = std::fs::metadata(&saved).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let saved = std::fs::read_to_string(saved).expect("text");
        assert!(saved.contains("secret_file") && !saved.contains("-of-secrets"), "{saved}");
        assert!(!node.log().contains("-of-secrets"));
    }
    assert_eq!(shown_to_all("-of-secrets"), [""; 0], "what any user sees with ps");
    let config = near.save_config();
    let (folder, status) = near.stop();
    assert!(status.success());
    let near = Node::start_in(folder, &["--config", config.to_str().expect("a path")]);
    assert!(up(&near), "{}", near.log());
}

/// The command lines of this machine that show a text.
fn shown_to_all(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

#[test]
fn the_nodes_of_a_pair_prove_themselves_to_each_other() {
    if !has_tool("iscsi-ls") {
        return;
    }
    let pair = Pair::start();
    for index in [0, 1] {
        let nodes = pair.node(index).must("iscsi_get_target_nodes", Value::Null);
        let leg = nodes
            .as_array()
            .expect("targets")
            .iter()
            .find(|node| node["alias_name"] == "leg")
            .expect("a leg");
        assert_eq!((&leg["require_chap"], &leg["mutual_chap"]), (&json!(true), &json!(true)));
        // The names alone open nothing, and find nothing.
        let groups = pair.node(index).must("iscsi_get_portal_groups", Value::Null);
        let tag = &leg["pg_ig_maps"][0]["pg_tag"];
        let group =
            groups.as_array().expect("groups").iter().find(|group| group["tag"] == *tag).expect("one");
        let portal = format!("iscsi://127.0.0.1:{}", group["portals"][0]["port"].as_str().expect("a port"));
        let peer = format!("iqn.2026-11.org.gemel:vol0.node{}", 1 - index);
        let name = leg["name"].as_str().expect("a name");
        assert!(
            !Command::new("iscsi-inq")
                .args(["-i", &peer, &format!("{portal}/{name}/0")])
                .output()
                .expect("run")
                .status
                .success()
        );
        assert!(
            !Command::new("iscsi-ls").args(["-i", &peer, &portal]).output().expect("run").status.success()
        );
    }
    let mode =
        std::fs::metadata(pair.node(0).folder.path().join("vol0.chap")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
