//! A node as the daemon builds it on one core, over a [`Wire`]: the target, and of a pair's node the mirror and the import of the peer's leg.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use bdev::malloc::MallocBdev;
use bdev::{Bdev, Geometry};
use engine::{Core, Instant, Progress};
use gateway::{
    InitiatorGroup, LunConfig, LunMode, Map, NetMask, NodeConfig, PortalGroup, Remote, RemoteConfig, Served,
    Stations, Target, TargetConfig, poll_in_order,
};
use mirror::driver::Driver;
use mirror::format::LegIndex;
use uuid::Uuid;

use super::wire::Wire;
use crate::pair;

const LEG: Geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: (64 << 20) / 512 };
const QUEUE_DEPTH: u32 = 128;

/// What hosts log in to.
pub(super) const FRONT: &str = "iqn.2026-11.org.gemel:ratchet";

/// Of a node of a pair.
struct Half {
    driver: Driver,
    import: Served,
}

pub(super) struct Node {
    half: Option<Half>,
    target: Target,
}

/// Where a node's hosts come in.
pub(super) fn front_portal(node: LegIndex) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 3260 + 2 * u16::from(node.number())))
}

fn leg_portal(node: LegIndex) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 3261 + 2 * u16::from(node.number())))
}

fn leg_name(node: LegIndex) -> String {
    format!("{FRONT}-leg{}", node.number())
}

impl Node {
    /// A node with a RAM disk as its LUN.
    pub(super) fn with_ram(core: &Core, wire: &Wire) -> Self {
        let disk = MallocBdev::new("ram", Uuid::from_u128(9), LEG);
        let mut target = Target::new(core, Box::new(wire.clone()), TargetConfig::default());
        show(&mut target, (1, front_portal(LegIndex::Zero)), FRONT, disk);
        Self { half: None, target }
    }

    /// A node of a pair with a RAM leg; its LUN is the mirror.
    pub(super) fn of_pair(who: LegIndex, core: &Core, wire: &Wire, now: Instant) -> Self {
        let (own, other) = (leg_name(who), leg_name(who.other()));
        let config = RemoteConfig::new(format!("{own}:host"), other, leg_portal(who.other()));
        let remote = Remote::new("peer", Uuid::nil(), config);
        let (peer, import) = Served::over(&remote, Box::new(wire.clone()), core);
        let leg = MallocBdev::new("leg", Uuid::from_u128(1), LEG);
        let (volumes, driver) =
            Driver::start("vol", pair::setup(who), leg, peer, core, now).expect("RAM opens everywhere");
        let mut target = Target::new(core, Box::new(wire.clone()), TargetConfig::default());
        show(&mut target, (1, front_portal(who)), FRONT, volumes.front);
        show(&mut target, (2, leg_portal(who)), &own, volumes.guarded);
        Self { half: Some(Half { driver, import }), target }
    }

    /// One turn of its reactor, as the daemon's shard takes it.
    pub(super) fn poll(&mut self, now: Instant) -> Progress {
        poll_in_order(self, now)
    }

    /// True when it serves, and what is mirrored is in sync.
    pub(super) fn is_ready(&self) -> bool {
        self.half.as_ref().is_none_or(|half| pair::in_sync(&half.driver))
    }
}

impl Stations for Node {
    fn poll_imports(&mut self, now: Instant) -> Progress {
        self.half.as_mut().map_or(Progress::Idle, |half| half.import.poll(now))
    }

    fn poll_mirrors(&mut self, now: Instant) -> Progress {
        let Some(Half { driver, .. }) = &mut self.half else { return Progress::Idle };
        let progress = driver.poll(now);
        // Nobody reads the log.
        while driver.next_event().is_some() {}
        progress
    }

    fn poll_target(&mut self, now: Instant) -> Progress {
        self.target.poll(now)
    }
}

fn show(target: &mut Target, (tag, portal): (i32, SocketAddr), name: &str, disk: Arc<dyn Bdev>) {
    target.add_portal_group(&PortalGroup::new(tag, [portal])).expect("the port is free");
    let everybody = InitiatorGroup { tag, initiators: vec!["ANY".into()], netmasks: vec![NetMask::Any] };
    target.add_initiator_group(everybody).expect("a new tag");
    let luns = BTreeMap::from([(0, LunConfig::new(disk, LunMode::SyncCached))]);
    let config = NodeConfig {
        maps: vec![Map::new(tag, tag)],
        luns,
        queue_depth: QUEUE_DEPTH,
        ..NodeConfig::new(name)
    };
    target.add_node(config).expect("a new name");
}
