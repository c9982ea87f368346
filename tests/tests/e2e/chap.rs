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

/// Secrets that calls gave, and where nobody may see them: every answer, the log with all of its lines, the list of processes.
#[test]
fn a_secret_that_was_given_in_a_call_shows_nowhere_but_in_a_file_of_its_owner() {
    const HUSH: &str = "hush-hush-7f3a";
    let node = Node::start(&[]);
    node.must("log_set_level", json!({"level": "DEBUG"}));
    node.must("log_set_flag", json!({"flag": "all"}));
    let account = |who: &str| json!({"user": format!("{who}0"), "secret": format!("{HUSH}-{who}"), "muser": format!("{who}1"), "msecret": format!("{HUSH}-not-{who}")});
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 4096}));
    node.must(
        "iscsi_create_auth_group",
        json!({"tag": 1, "secrets": [account("group")], "chap_algorithms": ["sha-256"]}),
    );
    let mut added = account("added");
    added["tag"] = json!(1);
    node.must("iscsi_auth_group_add_secret", added);
    let key = "5e".repeat(32);
    node.must("accel_crypto_key_create", json!({"name": "k0", "cipher": "AES_XTS", "key": key}));
    node.export("m0");
    node.must(
        "bdev_iscsi_create",
        json!({"name": "r0", "initiator_iqn": "iqn.2026-11.example:near",
        "url": "iscsi://127.0.0.1:9/iqn.2026-11.example:nobody/0", "chap": account("import")}),
    );
    let refused = node.call("iscsi_create_auth_group", json!({"tag": 1, "secrets": [account("again")]}));
    assert!(!refused.expect_err("the tag is taken").to_string().contains(HUSH));
    let hidden = |text: &str, what: &str| {
        assert!(!text.contains(HUSH) && !text.contains(&key), "{what}: {text}");
    };
    for method in node.must("rpc_get_methods", Value::Null).as_array().expect("a list") {
        let name = method.as_str().expect("a name");
        for params in [Value::Null, json!({"name": "r0"}), json!({"name": "m0"})] {
            if name.contains("_get") || name.ends_with("_list") {
                hidden(&format!("{:?}", node.call(name, params)), name);
            }
        }
    }
    for subsystem in ["accel", "bdev", "iscsi", "link"] {
        let config = node.must("framework_get_config", json!({"name": subsystem})).to_string();
        hidden(&config, subsystem);
        assert!(subsystem == "link" || config.contains("***"), "{config}");
    }
    let shown = must(gemel(&node, &["config", "save", "-"]));
    hidden(&shown, "gemel config save -");
    hidden(&node.log(), "the log");
    assert_eq!(shown_to_all(HUSH), [""; 0], "what any user sees with ps");
    // What is shown makes no node whose secret is three stars.
    let copy = node.folder.path().join("shown.json");
    std::fs::write(&copy, &shown).expect("written");
    let load = |node: &Node, file: &std::path::Path| {
        gemel(node, &["config", "load", file.to_str().expect("a path")])
    };
    let other = Node::start(&[]);
    let said = load(&other, &copy);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("does not show a secret"), "{said}");
    // The file of its owner makes the same node.
    let saved = node.save_config();
    let text = std::fs::read_to_string(&saved).expect("text");
    assert!(text.contains(&format!("{HUSH}-import")) && text.contains(&key), "{text}");
    assert_eq!(
        must(gemel(&node, &["config", "save", "--with-secrets", "-"])).matches(HUSH).count(),
        text.matches(HUSH).count()
    );
    let (folder, status) = node.stop();
    assert!(status.success());
    let groups = |node: &Node| node.must("iscsi_get_auth_groups", Value::Null);
    let again = Node::start_in(folder, &["--config", saved.to_str().expect("a path")]);
    assert_eq!(groups(&again)[0]["chap_algorithms"], json!(["SHA-256"]));
    assert_eq!(groups(&again)[0]["secrets"].as_array().map(Vec::len), Some(2));
}

/// A crash of a node leaves no secrets in a file, and its socket is its owner's, whatever the umask is.
#[test]
fn a_node_leaves_no_core_and_its_socket_is_private() {
    let limit = |node: &Node| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.pid())).expect("limits");
        let core =
            limits.lines().find(|line| line.starts_with("Max core file size")).expect("cores").to_owned();
        core.split_whitespace().nth(5).expect("the hard limit").to_owned()
    };
    let mode = |node: &Node| std::fs::metadata(node.socket()).expect("a socket").permissions().mode() & 0o777;
    let shell =
        ["sh", "-c", "umask 0; ulimit -c unlimited 2>/dev/null; exec \"$@\"", "sh"].map(str::to_owned);
    let start =
        |arguments: &[&str]| Node::start_at(&shell, tempfile::tempdir().expect("a folder"), arguments);
    let node = start(&[]);
    assert_eq!((limit(&node).as_str(), mode(&node)), ("0", 0o600));
    let group = "0";
    let open = start(&["--core-dumps", "--socket-mode", "0660", "--socket-group", group]);
    assert_eq!(mode(&open), 0o660);
    assert_ne!(limit(&open), "0", "a developer asked for it");
    for (wrong, word) in
        [(["--socket-mode", "0999"], "octal"), (["--socket-group", "no-such-group"], "no-such-group")]
    {
        let said = Command::new(tests::node::binary("gemeld")).args(wrong).output().expect("gemeld");
        assert!(String::from_utf8_lossy(&said.stderr).contains(word), "{said:?}");
    }
}

/// `gemel discover` proves who asks, and the portal who answers.
#[test]
fn a_discovery_authenticates_both_ends_with_secrets_out_of_a_file() {
    let (far, url) = target();
    let near = Node::start(&[]);
    let file = near.folder.path().join("secrets");
    std::fs::write(&file, "finder finders-keepers\nportal portals-keepers\n").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
    let file = file.to_str().expect("a path");
    let user = ["--user", "finder", "--secret-file", file];
    let mutual = [&user[..], &["--target-user", "portal", "--target-secret-file", file]].concat();
    let create = [&["auth", "create", "3", "--chap-algorithms", "SHA-256,SHA3-256"], &mutual[..]].concat();
    must(gemel(&far, &create));
    let portal = url.trim_start_matches("iscsi://").split('/').next().expect("a portal").to_owned();
    let ask = |with: &[&str]| {
        let output = gemel(&near, &[&["discover", &portal], with].concat());
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    must(gemel(&far, &["auth", "discovery", "required", "--group", "3"]));
    assert!(ask(&[]).contains("uthentication"), "{}", ask(&[]));
    assert!(ask(&user).contains(TARGET) && ask(&mutual).contains(TARGET), "{}", ask(&user));
    assert!(ask(&[&user[..], &["--chap-algorithms", "sha-256"]].concat()).contains(TARGET));
    assert!(
        !ask(&[&user[..], &["--chap-algorithms", "MD5,SHA1"]].concat()).contains(TARGET),
        "hashes that the group does not take"
    );
    must(gemel(&far, &["auth", "discovery", "mutual", "--group", "3"]));
    assert!(!ask(&user).contains(TARGET), "the portal is to be asked, too");
    assert!(ask(&mutual).contains(TARGET));
    std::fs::write(file, "finder finders-keepers\nportal another-keeper\n").expect("written");
    assert!(ask(&mutual).contains("name or secret is wrong"), "{}", ask(&mutual));
    assert!(!near.log().contains("keepers") && !far.log().contains("keepers"));
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
