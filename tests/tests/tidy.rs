//! The house rules that a machine can hold: the crate graph, and what must not appear in the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which of our crates each crate may use, lowest first; ARCHITECTURE.md's table says which layer each is in.
const LAYERS: [(&str, &[&str]); 13] = [
    ("engine-sys", &[]),
    ("iscsi", &[]),
    ("scsi", &[]),
    ("rpc", &[]),
    ("engine", &["engine-sys"]),
    ("net", &["engine"]),
    ("bdev", &["engine"]),
    ("mirror", &["bdev", "engine"]),
    ("gateway", &["bdev", "engine", "iscsi", "net", "scsi"]),
    ("daemon", &["bdev", "engine", "gateway", "iscsi", "mirror", "net", "rpc", "scsi"]),
    ("ctl", &["mirror", "rpc"]),
    ("perf", &["bdev", "engine", "gateway", "iscsi", "mirror", "net", "rpc"]),
    ("tests", &["bdev", "daemon", "engine", "gateway", "iscsi", "mirror", "net", "perf", "rpc", "scsi"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn crates_use_only_the_layers_below_them() {
    let layers = BTreeMap::from(LAYERS);
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |package: &Value| package["name"].as_str().expect("a name").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    for package in packages {
        let crate_name = name(package);
        let allowed =
            layers.get(crate_name.as_str()).unwrap_or_else(|| panic!("{crate_name} is in no layer"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = dependency["name"].as_str().expect("a name");
            let counts = ours.contains(used) && dependency["kind"] != "dev";
            assert!(!counts || allowed.contains(&used), "{crate_name} must not use {used}");
        }
    }
}

/// ARCHITECTURE.md's table of layers: a crate and its number.
fn written_layers() -> BTreeMap<String, u8> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut layers = BTreeMap::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| L")) {
        let mut cells = row.split('|').map(str::trim);
        let number = cells.next().and_then(|number| number.parse().ok()).expect("a layer's number");
        let crates = cells.next().expect("crates").split('`').skip(1).step_by(2);
        layers.extend(crates.map(|one| (one.replace('/', "-"), number)));
    }
    layers
}

/// What a crate may use is in a lower layer, or, where the table says so, beside it.
#[test]
fn layers_are_as_they_are_written() {
    let written = written_layers();
    let layer = |name: &str| *written.get(name).unwrap_or_else(|| panic!("ARCHITECTURE.md has no {name}"));
    for (name, used) in LAYERS {
        for other in used {
            assert!(layer(other) < layer(name) || layer(name) == 5, "{name} uses {other}");
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().expect("git");
    let list = String::from_utf8(output.stdout).expect("names");
    list.lines().map(|line| root().join(line)).filter(|path| path.exists()).collect()
}

/// A dependency that no source of its crate names is not there.
#[test]
fn dependencies_are_used() {
    // Packages whose library has another name than theirs.
    let library =
        |package: &str| if package == "md-5" { "md5".to_owned() } else { package.replace('-', "_") };
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let folder = manifest.parent().expect("a folder");
        // A folder may hold other crates of ours, below folders of their own.
        let own = ["src", "tests", "benches"].map(|part| folder.join(part));
        let texts: Vec<String> = sources()
            .iter()
            .filter(|path| own.iter().any(|part| path.starts_with(part)))
            .map(|path| std::fs::read_to_string(path).expect("a source"))
            .collect();
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let name = library(dependency["name"].as_str().expect("a name"));
            assert!(texts.iter().any(|text| text.contains(&name)), "{} does not use {name}", package["name"]);
        }
    }
}

/// Code without comments and string contents is not needed: the words are chosen so that neither holds them.
fn offenders(banned: &str, exempt: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in sources() {
        let shown = path.strip_prefix(root()).expect("inside").display().to_string();
        if exempt(&shown) || shown == "tests/tests/tidy.rs" {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source");
        for (number, line) in text.lines().enumerate() {
            if line.contains(banned) {
                found.push(format!("{shown}:{}: {line}", number + 1));
            }
        }
    }
    found
}

#[test]
fn unsafe_code_lives_in_one_crate() {
    for banned in ["unsafe {", "unsafe fn", "unsafe impl"] {
        let found = offenders(banned, |path| path.starts_with("engine/sys/"));
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    for banned in ["todo!", "unimplemented!", "TODO", "FIXME", "XXX"] {
        let found = offenders(banned, |_| false);
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn protocol_crates_do_no_io() {
    for banned in ["std::net", "std::fs", "std::time", "std::thread"] {
        let pure = ["net/iscsi/src", "net/scsi/src"];
        let found = offenders(banned, |path| !pure.iter().any(|crate_path| path.starts_with(crate_path)));
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn files_stay_short() {
    for path in sources() {
        let lines = std::fs::read_to_string(&path).expect("a source").lines().count();
        assert!(lines <= 800, "{} has {lines} lines: split it", path.display());
    }
}

/// Files and folders of the repository; a folder has a slash behind it.
fn paths() -> BTreeSet<String> {
    let output = Command::new("git").arg("ls-files").current_dir(root()).output().expect("git");
    let files = String::from_utf8(output.stdout).expect("names");
    let mut paths = BTreeSet::new();
    for file in files.lines() {
        let folders = file.match_indices('/').map(|(at, _)| &file[..=at]);
        paths.extend(folders.chain([file]).map(str::to_owned));
    }
    paths
}

/// A document calls files and folders by the ends of their paths, between backticks.
#[test]
fn documents_name_files_that_exist() {
    let paths = paths();
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root().join(document)).expect("a document");
        let quoted = text.split('`').skip(1).step_by(2);
        let is_path = |name: &&str| {
            let one_of_ours = [".rs", ".sh", ".txt", "/"].iter().any(|end| name.ends_with(end));
            one_of_ours && !name.starts_with('/') && !name.contains(' ')
        };
        let gone: Vec<&str> = quoted
            .filter(is_path)
            .filter(|name| !paths.iter().any(|path| path == name || path.ends_with(&format!("/{name}"))))
            .collect();
        assert!(gone.is_empty(), "{document} names what is not there: {gone:?}");
    }
}

/// Every `make TARGET` that a document names, on a line of its own or between backticks.
#[test]
fn documents_name_commands_that_exist() {
    let read = |name: &str| {
        std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let makefile = read("Makefile");
    let mut named = BTreeSet::new();
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = read(document);
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("make "));
        let quoted = text.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("make "));
        for command in lines.chain(quoted) {
            let target = command.split_whitespace().next().expect("a target");
            assert!(makefile.contains(&format!("\n{target}:")), "{document} names make {target}");
            named.insert(target.to_owned());
        }
    }
    assert!(["run", "test"].iter().all(|target| named.contains(*target)), "{named:?}");
}
