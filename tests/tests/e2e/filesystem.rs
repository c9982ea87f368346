//! QEMU's own initiator against a pair: fio's verifying random writes over NBD, then a file system that is written
//! and read back through the LUN, and read from each leg with ordinary tools once both nodes are down.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::node::{binary, has_tool, pause, skipped_without};
use tests::pair::Pair;

/// Where `make setup` put QEMU's iSCSI driver, of the same version as the installed tools.
pub(crate) fn modules() -> Option<PathBuf> {
    let target = binary("gemeld").parent().and_then(Path::parent).expect("a target folder").to_owned();
    let found = target.join("qemu-modules/iscsi");
    let tools = ["qemu-img", "qemu-storage-daemon", "fio", "mkfs.ext4", "e2fsck", "debugfs", "cmp"];
    if !tools.iter().all(|tool| has_tool(tool)) {
        return None;
    }
    if !found.join("block-iscsi.so").exists() {
        skipped_without("QEMU's iSCSI driver");
        return None;
    }
    Some(found)
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// An ext4 image that holds this repository's sources; and those sources.
fn image_of_sources(folder: &Path) -> (PathBuf, PathBuf) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let (tree, image) = (folder.join("tree"), folder.join("image"));
    std::fs::create_dir(&tree).expect("a folder");
    for part in ["engine", "net", "bdev", "tools", "perf", "tests", "Cargo.toml", "README.md"] {
        run(Command::new("cp").arg("-r").arg(root.join(part)).arg(&tree));
    }
    run(Command::new("mkfs.ext4").args(["-q", "-d", path(&tree), path(&image), "40M"]));
    (image, tree)
}

/// The image's file system is clean and holds the tree.
fn check(image: &Path, tree: &Path, folder: &Path) {
    run(Command::new("e2fsck").args(["-f", "-n", path(image)]));
    let out = folder.join("out");
    std::fs::create_dir(&out).expect("a folder");
    run(Command::new("debugfs").args(["-R", &format!("rdump / {}", path(&out)), path(image)]));
    run(Command::new("diff").args(["-r", "--exclude=lost+found", path(tree), path(&out)]));
    std::fs::remove_dir_all(&out).expect("removed");
}

/// qemu-storage-daemon with the LUN as an NBD export on a UNIX socket.
struct Nbd {
    daemon: Child,
    socket: PathBuf,
}

impl Nbd {
    fn start(url: &str, modules: &Path, folder: &Path) -> Self {
        let rest = url.strip_prefix("iscsi://").expect("an iSCSI URL");
        let parts: Vec<&str> = rest.split('/').collect();
        let [portal, target, lun] = parts[..] else { panic!("{url}") };
        let socket = folder.join("nbd");
        let blockdev =
            format!("driver=iscsi,node-name=lun,transport=tcp,portal={portal},target={target},lun={lun}");
        let daemon = Command::new("qemu-storage-daemon")
            .env("QEMU_MODULE_DIR", modules)
            .args(["--blockdev", &blockdev])
            .args(["--nbd-server", &format!("addr.type=unix,addr.path={}", path(&socket))])
            .args(["--export", "type=nbd,id=lun,node-name=lun,name=lun,writable=on"])
            .spawn()
            .expect("qemu-storage-daemon");
        let nbd = Self { daemon, socket };
        for _ in 0..500 {
            if nbd.socket.exists() {
                return nbd;
            }
            pause(Duration::from_millis(10));
        }
        panic!("qemu-storage-daemon does not listen");
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn a_file_system_lives_on_a_pair_and_on_each_leg() {
    let Some(modules) = modules() else { return };
    let folder = TempDir::new().expect("a folder");
    let mut pair = Pair::start();
    let url = pair.urls[0].clone();

    let nbd = Nbd::start(&url, &modules, folder.path());
    let uri = format!("--uri=nbd+unix:///lun?socket={}", path(&nbd.socket));
    run(Command::new("fio").current_dir(folder.path()).args([
        "--name=verify",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bs=4k",
        "--size=32m",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--do_verify=1",
        &uri,
    ]));
    drop(nbd);

    let (image, tree) = image_of_sources(folder.path());
    let qemu = |from: &str, to: &str, more: &[&str]| {
        let mut command = Command::new("qemu-img");
        command.env("QEMU_MODULE_DIR", &modules).args(["convert", "-f", "raw", "-O", "raw"]);
        run(command.args(more).args([from, to]));
    };
    qemu(path(&image), &url, &["-n"]);
    let back = folder.path().join("back");
    qemu(&url, path(&back), &[]);
    let size = std::fs::metadata(&image).expect("the image").len();
    std::fs::OpenOptions::new().write(true).open(&back).and_then(|file| file.set_len(size)).expect("cut");
    run(Command::new("cmp").args([&image, &back]));
    check(&back, &tree, folder.path());

    let status: Value = pair.wait_in_sync(0);
    pair.stop_both(0);
    pair.compare(&status);
    let offset = status["data_offset"].as_u64().expect("an offset");
    for leg in 0..2 {
        let cut = folder.path().join("cut");
        let input = format!("if={}", path(&pair.leg(leg)));
        let output = format!("of={}", path(&cut));
        let (skip, count) = (format!("skip={}", offset >> 20), format!("count={}", size >> 20));
        run(Command::new("dd").args([&input, &output, "bs=1M", &skip, &count, "status=none"]));
        check(&cut, &tree, folder.path());
    }
}
