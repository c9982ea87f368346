//! The Linux kernel's initiator in a QEMU guest (open-iscsi, dm-multipath, ALUA, sg3-utils), against a node and against a pair.
//!
//! The guest is software emulated and boots in seconds; `make setup` builds it of Debian packages (`tests/scripts/guest.sh`), and
//! what it does are the scripts under `tests/guest/`. It says on its console how far it is. Another one boots from the LUN itself.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tests::guest::{Guest, Image};
use tests::node::Node;
use tests::pair::Pair;
use tests::wire::Wire;

use crate::filesystem::{self, path, run};

/// CPU time that a guest may take. It needs a fifth of that.
const LIMIT: Duration = Duration::from_secs(150);

fn port(url: &str) -> u16 {
    let portal = url.trim_start_matches("iscsi://").split('/').next().expect("a portal");
    portal.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn the_kernel_makes_a_file_system_with_digests_and_with_chap() {
    let Some(image) = Image::find() else { return };
    let node = Node::start(&[]);
    let leg = node.file("leg", 128 << 20);
    node.must("bdev_uring_create", json!({"name": "d0", "filename": leg, "block_size": 512}));
    node.must("bdev_malloc_create", json!({"name": "m0", "block_size": 512, "num_blocks": 8192}));
    let url = node.export("d0");
    let secret = "iqn.2026-11.org.gemel:m0";
    node.must(
        "iscsi_create_target_node",
        json!({"name": secret, "alias_name": "m0", "pg_ig_maps": [{"pg_tag": 1, "ig_tag": 1}],
               "luns": [{"bdev_name": "m0", "lun_id": 0}], "queue_depth": 64}),
    );
    let secrets =
        json!([{"user": "host", "secret": "the-host-secret", "muser": "node", "msecret": "the-node-secret"}]);
    node.must("iscsi_create_auth_group", json!({"tag": 1, "secrets": secrets}));
    let auth = json!({"name": secret, "require_chap": true, "mutual_chap": true, "chap_group": 1});
    node.must("iscsi_target_node_set_auth", auth);
    let port = port(&url).to_string();
    let words = [("PORT", port.as_str()), ("PLAIN", "iqn.2026-11.org.gemel:d0"), ("SECRET", secret)];
    let mut guest = Guest::boot(&image, include_str!("../../guest/single.sh"), &words);
    guest.run(LIMIT, |_| {});
}

#[test]
fn a_way_that_is_cut_under_dm_multipath_costs_no_write() {
    let Some(image) = Image::find() else { return };
    let pair = Pair::start();
    let holder = ([127, 0, 0, 1], port(&pair.urls[0])).into();
    let wire = Wire::to(holder);
    let ports = [wire.near().port(), port(&pair.urls[1])].map(|port| port.to_string());
    let words = [
        ("PORT0", ports[0].as_str()),
        ("PORT1", ports[1].as_str()),
        ("TARGET", "iqn.2026-11.org.gemel:vol0"),
    ];
    let mut guest = Guest::boot(&image, include_str!("../../guest/multipath.sh"), &words);
    let mut asked = Vec::new();
    guest.run(LIMIT, |said| match said {
        "cut" => {
            wire.cut();
            asked.push("cut");
        }
        "mend" => {
            wire.heal();
            asked.push("mend");
        }
        _ => {}
    });
    assert_eq!(asked, ["cut", "mend"]);
    let status = pair.wait_in_sync(0);
    assert_eq!(status["role"], "holder", "{status:#}");
}

/// A bare machine boots from the pair's LUN through either node, and finds what it wrote at the last start: first through the
/// emulator's initiator, then by iPXE, whose session the kernel's initiator goes on from.
#[test]
fn a_machine_boots_from_the_lun_through_either_node() {
    const SYSTEM: u64 = 41 << 20;
    let (Some(image), Some(modules)) = (Image::find(), filesystem::modules()) else { return };
    let pair = Pair::start();
    let convert = || {
        let mut command = Command::new("qemu-img");
        command.env("QEMU_MODULE_DIR", &modules).args(["convert", "-f", "raw", "-O", "raw"]);
        command
    };
    run(convert().args(["-n", path(&image.disk()), &pair.urls[0]]));
    let starts: [(&str, &dyn Fn() -> Guest); 3] = [
        ("booted from a disk", &|| Guest::boot_from_disk(&pair.urls[0], &modules)),
        ("booted by iSCSI from iqn.2026-11.org.gemel:vol0", &|| {
            Guest::boot_from_network(&image, &pair.urls[1])
        }),
        ("booted by iSCSI from iqn.2026-11.org.gemel:vol0", &|| {
            Guest::boot_from_network(&image, &pair.urls[0])
        }),
    ];
    for (number, (way, boot)) in (1..).zip(starts) {
        let mut said = Vec::new();
        boot().run(LIMIT, |line| said.push(line.to_owned()));
        assert_eq!(said, [way.to_owned(), format!("start {number}")]);
    }
    let folder = tempfile::TempDir::new().expect("a folder");
    let after = folder.path().join("after");
    run(convert().args([&pair.urls[1], path(&after)]));
    run(Command::new("e2fsck").args(["-f", "-n", &format!("{}?offset={SYSTEM}", path(&after))]));
    pair.finish(0);
}
