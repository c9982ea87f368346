//! The tools that hosts are administered with: QEMU's, whose iSCSI driver has its own ideas of a thin LUN, and libiscsi's.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::host::{GOOD, Host, check};
use tests::node::Node;
use tests::pair::Pair;
use tests::suite::Suite;

use crate::filesystem::{modules, path, run};

const MIB: u64 = 1 << 20;
/// Bytes of a LUN of these tests.
const SIZE: u64 = 64 * MIB;

/// A node with a thin LUN; its file, and its URL.
fn thin(name: &str) -> (Node, std::path::PathBuf, String) {
    let node = Node::start(&[]);
    let file = node.file(name, SIZE);
    node.must("bdev_uring_create", json!({"name": name, "filename": file, "block_size": 512}));
    let url = node.export(name);
    (node, file, url)
}

/// Bytes that a file has on its disk.
fn allocated(file: &Path) -> u64 {
    std::fs::metadata(file).expect("the file").blocks() * 512
}

/// qemu-io with these commands on a LUN: what it prints, and whether all went well.
fn try_qemu_io(modules: &Path, url: &str, commands: &[&str]) -> (String, bool) {
    let mut qemu = Command::new("qemu-io");
    qemu.env("QEMU_MODULE_DIR", modules).args(["-f", "raw", "-t", "none"]);
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    let output = qemu.args(commands).arg(url).output().expect("qemu-io");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout) + &text(&output.stderr), output.status.success())
}

fn qemu_io(modules: &Path, url: &str, commands: &[&str]) {
    let (said, well) = try_qemu_io(modules, url, commands);
    assert!(well && !said.contains("failed"), "{commands:?}: {said}");
}

/// Start, length and whether there are data, of each extent of a LUN as QEMU sees it.
fn extents(modules: &Path, url: &str) -> Vec<(u64, u64, bool)> {
    let map = run(Command::new("qemu-img").env("QEMU_MODULE_DIR", modules).args([
        "map",
        "-f",
        "raw",
        "--output=json",
        url,
    ]));
    let map: Vec<Value> = serde_json::from_str(&map).expect("JSON");
    let figure = |extent: &Value, key: &str| extent[key].as_u64().expect("a figure");
    let extent = |extent: &Value| (figure(extent, "start"), figure(extent, "length"), extent["data"] == true);
    map.iter().map(extent).collect()
}

/// GET LBA STATUS: blocks from an address on that are alike, and whether they have storage.
fn lba_status(host: &mut Host, lba: u64) -> (u32, bool) {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x12, 24);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    let data = host.fetch(&cdb, 24);
    assert_eq!(data[8..16], lba.to_be_bytes(), "it begins where it was asked");
    (u32::from_be_bytes(data[16..20].try_into().expect("four bytes")), data[20] & 0x0f == 0)
}

#[test]
fn qemu_io_writes_zeroes_maps_and_frees_a_thin_lun() {
    let Some(modules) = modules() else { return };
    let (_node, file, url) = thin("d0");
    let written =
        ["write -P 0x5a 0 4M", "aio_write -P 0xa5 8M 1M", "aio_write -P 0x11 9M 1M", "aio_flush", "flush"];
    qemu_io(&modules, &url, &written);
    let read = [
        "read -P 0x5a 1M 2M",
        "aio_read -P 0xa5 8M 1M",
        "aio_flush",
        "read -P 0x11 9M 1M",
        "read -P 0 4M 4M",
    ];
    qemu_io(&modules, &url, &read);
    let (said, well) = try_qemu_io(&modules, &url, &["read -P 0x5b 1M 4k"]);
    assert!(!well && said.contains("Pattern verification failed"), "a wrong pattern is told: {said}");
    let holes = [
        (0, 4 * MIB, true),
        (4 * MIB, 4 * MIB, false),
        (8 * MIB, 2 * MIB, true),
        (10 * MIB, 54 * MIB, false),
    ];
    assert_eq!(extents(&modules, &url), holes);
    let full = allocated(&file);
    assert!((6 * MIB..7 * MIB).contains(&full), "{full}");

    // A discard gives the storage back, and says so; what is beside it stays.
    qemu_io(&modules, &url, &["discard 1M 2M", "read -P 0 1M 2M", "read -P 0x5a 0 1M", "read -P 0x5a 3M 1M"]);
    assert!(allocated(&file) <= full - 2 * MIB, "{} of {full}", allocated(&file));
    assert_eq!(extents(&modules, &url)[..3], [(0, MIB, true), (MIB, 2 * MIB, false), (3 * MIB, MIB, true)]);
    let mut host = Host::login(&url, "iqn.2026-11.org.gemel:host");
    host.attentions();
    let status = [0, 2048, 6144, 8192].map(|lba| lba_status(&mut host, lba));
    assert_eq!(status, [(2048, true), (4096, false), (2048, true), (8192, false)]);

    // WRITE SAME, with UNMAP and without.
    qemu_io(
        &modules,
        &url,
        &["write -z 8M 512k", "write -z -u 8704k 256k", "read -P 0 8M 768k", "read -P 0xa5 8960k 256k"],
    );
}

#[test]
fn qemu_img_copies_to_a_lun_and_compares_with_it() {
    let Some(modules) = modules() else { return };
    let (node, file, url) = thin("d0");
    let image = node.folder.path().join("image");
    let mut bytes = vec![0; SIZE as usize];
    for (number, block) in bytes.chunks_mut(4096).enumerate().filter(|(number, _)| number % 5 < 2) {
        block.iter_mut().enumerate().for_each(|(at, byte)| *byte = (number * 7 + at / 512) as u8 | 1);
    }
    std::fs::write(&image, &bytes).expect("written");
    let qemu = |arguments: &[&str]| {
        let mut command = Command::new("qemu-img");
        command.env("QEMU_MODULE_DIR", &modules).args(arguments);
        command
    };
    run(&mut qemu(&["convert", "-n", "-f", "raw", "-O", "raw", path(&image), &url]));
    let compare = ["compare", "-f", "raw", "-F", "raw", path(&image), &url];
    assert!(run(&mut qemu(&compare)).contains("identical"));
    assert!(std::fs::read(&file).expect("the leg") == bytes, "what the LUN has is what was copied");
    qemu_io(&modules, &url, &["write -P 0xee 12345k 512"]);
    let differ = qemu(&compare).output().expect("qemu-img");
    let said = String::from_utf8_lossy(&differ.stdout).into_owned();
    assert!(!differ.status.success() && said.contains(&format!("offset {}", 12345 << 10)), "{said}");
}

#[test]
fn libiscsi_tools_look_at_a_lun_sum_it_protect_it_and_discard_it() {
    let Some(suite) = Suite::find() else { return };
    let (node, file, url) = thin("d0");
    let mut host = Host::login(&url, "iqn.2026-11.org.gemel:host");
    host.attentions();
    for block in 0..64 {
        assert_eq!(host.write(block * 33, block as u8 + 1), GOOD);
    }
    let portal = url.rsplit_once("/iqn").expect("a target name").0;
    assert!(suite.tool("iscsi-ls", &["-s", portal]).contains("Type:DIRECT_ACCESS"));
    let standard = suite.tool("iscsi-inq", &[&url]);
    assert!(
        standard.contains("Vendor:GEMEL") && standard.contains("Peripheral Device Type:DIRECT_ACCESS"),
        "{standard}"
    );
    let provisioning = suite.tool("iscsi-inq", &["-e", "1", "-c", "178", &url]);
    for line in ["lbpu:1", "lbpws:1", "lbpws10:1", "lbprz:1", "provisioning type:2"] {
        assert!(provisioning.contains(line), "{line}: {provisioning}");
    }
    let capacity = suite.tool("iscsi-readcapacity16", &[&url]);
    for line in ["ADDRESS:131071", "LENGTH IN BYTES:512", "LBPME:1 LBPRZ:1", "Total size:67108864"] {
        assert!(capacity.contains(line), "{line}: {capacity}");
    }

    let sum = suite.tool("iscsi-md5sum", &[&url]);
    let wanted = run(Command::new("md5sum").arg(&file));
    assert_eq!(sum.trim(), wanted.split_whitespace().next().expect("a sum"));

    // Software write protection, which other hosts are told of.
    assert!(suite.tool("iscsi-swp", &[&url]).contains("SWP:0"));
    suite.tool("iscsi-swp", &["-s", "on", &url]);
    assert_eq!((host.ready(), host.write(0, 9)), (check(0x2a01), check(0x2702)));
    assert!(suite.tool("iscsi-swp", &[&url]).contains("SWP:1"));
    let (said, well) = suite.attempt("iscsi-discard", &["-o", "0", "-l", "1048576", &url]);
    assert!(!well && host.read(0) == Ok(1), "nothing is discarded meanwhile: {said}");
    suite.tool("iscsi-swp", &["-s", "off", &url]);
    assert_eq!((host.ready(), host.write(0, 9)), (check(0x2a01), GOOD));

    let before = allocated(&file);
    suite.tool("iscsi-discard", &["-o", "0", "-l", "524288", &url]);
    assert!(allocated(&file) < before, "{} of {before}", allocated(&file));
    assert_eq!([0, 33, 1023, 1056].map(|block| host.read(block)), [Ok(0), Ok(0), Ok(0), Ok(33)]);
    suite.tool("iscsi-discard", &["-z", "-o", "540672", "-l", "512", &url]);
    assert_eq!([1056, 1089].map(|block| host.read(block)), [Ok(0), Ok(34)]);

    let load = suite.tool("iscsi-perf", &["-b", "8", "-m", "16", "-r", "-t", "1", &url]);
    assert!(load.contains("finished"), "{load}");
    let luns = node.must("lun_get_list", Value::Null);
    assert!(
        luns[0]["commands"].as_u64().expect("a count") > 100 && luns[0]["active_commands"] == 0,
        "{luns}"
    );
}

/// The host that iscsi-pr is, by a name of its own. Each time it is another port of that host.
fn reserve(suite: &Suite, host: &str, arguments: &[&str], url: &str) -> String {
    let name = format!("iqn.2026-11.org.gemel:{host}");
    suite.tool("iscsi-pr", &[&["-i", &name][..], arguments, &[url]].concat())
}

#[test]
fn libiscsi_tools_reserve_and_sum_a_mirrored_lun_through_either_node() {
    let Some(suite) = Suite::find() else { return };
    let pair = Pair::start();
    let [one, other] = pair.urls.each_ref().map(String::as_str);
    let mut paths = [one, other].map(|url| Host::login(url, "iqn.2026-11.org.gemel:stranger"));
    paths.iter_mut().for_each(|path| drop(path.attentions()));
    assert_eq!((paths[0].write(0, 0x51), paths[1].write(200, 0x52)), (GOOD, GOOD));
    let sums = [one, other].map(|url| suite.tool("iscsi-md5sum", &["-l", "1048576", url]));
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0].trim().len(), 32, "{}", sums[0]);

    reserve(&suite, "n1", &["-G", "-S", "a1"], one);
    reserve(&suite, "n2", &["-G", "-S", "b2"], other);
    for url in [one, other] {
        let keys = reserve(&suite, "n1", &["-k"], url);
        assert!(keys.contains("2 registered") && keys.contains("0xa1") && keys.contains("0xb2"), "{keys}");
    }
    // Write exclusive, all registrants: set through one node, seen and kept through the other.
    reserve(&suite, "n1", &["-R", "-S", "a1", "-T", "7"], one);
    let held = reserve(&suite, "n2", &["-r"], other);
    assert!(held.contains("Write Exclusive, All Registrants"), "{held}");
    for path in &mut paths {
        path.attentions();
        assert_eq!((path.write(0, 0x53), path.read(0)), (tests::host::CONFLICT, Ok(0x51)));
    }
    let protect = ["-i", "iqn.2026-11.org.gemel:stranger", "-s", "on", other];
    let (said, well) = suite.attempt("iscsi-swp", &protect);
    assert!(!well && said.contains("RESERVATION CONFLICT"), "{said}");
    reserve(&suite, "n2", &["-C", "-S", "b2"], other);
    let keys = reserve(&suite, "n1", &["-k"], one);
    assert!(keys.contains("0 registered"), "{keys}");
    paths[0].attentions();
    assert_eq!(paths[0].write(0, 0x53), GOOD);
}

/// From one LUN to another of the same target, by READ and WRITE of a host.
#[test]
fn qemu_img_copies_from_lun_to_lun() {
    let Some(modules) = modules() else { return };
    let (node, file, url) = thin("d0");
    let copied = node.file("d1", SIZE);
    node.must("bdev_uring_create", json!({"name": "d1", "filename": copied, "block_size": 512}));
    let lun = json!({"name": "iqn.2026-11.org.gemel:d0", "bdev_name": "d1", "lun_id": 1});
    node.must("iscsi_target_node_add_lun", lun);
    let to = format!("{}1", url.strip_suffix('0').expect("LUN 0"));
    qemu_io(&modules, &url, &["write -P 0x5a 0 3M", "write -P 0xa5 20M 513k", "write -P 0x11 65535k 1k"]);
    qemu_io(&modules, &to, &["write -P 0xee 30M 1M"]);
    let mut convert = Command::new("qemu-img");
    convert
        .env("QEMU_MODULE_DIR", &modules)
        .args(["convert", "-n", "-W", "-f", "raw", "-O", "raw", &url, &to]);
    run(&mut convert);
    assert!(std::fs::read(&file).expect("a file") == std::fs::read(&copied).expect("a file"));
}
