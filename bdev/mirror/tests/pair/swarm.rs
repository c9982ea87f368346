//! Random runs by seed: every fault that the simulator knows, one or two at a time, under load of writes and reads.

use bdev::sim::SimFault;
use mirror::command::Command;
use mirror::decide::{HolderState, PromoteMode};
use mirror::format::ArbiterKind;
use mirror::status::RoleKind;

use super::world::{World, seeds_to_run};
use super::{PROMOTE, SECOND, millis, settle};

const TAKE: Command = Command::Promote { mode: PromoteMode::Ordinary, holder: HolderState::ConfirmedDown };

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Cut,
    KillPeer,
    KillHolder,
    PowerOffPeer,
    PowerOffHolder,
    PowerOffBoth,
    PeerErrors,
    OwnErrors,
    BothErrors,
    Busy,
    BadBlock,
    Pause,
    PauseAndCut,
    LosePeersDisk,
    StopBoth,
    Promote,
    PromoteBesideRestart,
}

const FAULTS: [Fault; 17] = [
    Fault::Cut,
    Fault::KillPeer,
    Fault::KillHolder,
    Fault::PowerOffPeer,
    Fault::PowerOffHolder,
    Fault::PowerOffBoth,
    Fault::PeerErrors,
    Fault::OwnErrors,
    Fault::BothErrors,
    Fault::Busy,
    Fault::BadBlock,
    Fault::Pause,
    Fault::PauseAndCut,
    Fault::LosePeersDisk,
    Fault::StopBoth,
    Fault::Promote,
    Fault::PromoteBesideRestart,
];

impl Fault {
    /// What only a volume whose writes are durable survives unless both legs have everything, or at all.
    fn needs_durable_writes(self, both_in_sync: bool) -> bool {
        match self {
            Self::PowerOffBoth => true,
            Self::PowerOffPeer | Self::PowerOffHolder => !both_in_sync,
            _ => false,
        }
    }
}

#[test]
fn seeds() {
    for seed in seeds_to_run(1..9) {
        random_run(seed);
    }
}

fn random_run(seed: u64) {
    let mut world = World::new(seed, ArbiterKind::Biased);
    world.create();
    world.spread = [600, 24][usize::from(seed.is_multiple_of(2))];
    world.accepted = [50, 0][usize::from(seed % 4 < 2)];
    for _ in 0..6 {
        let at = world.holder().expect("settled");
        let before = world.prng.below(40);
        world.load(at, millis(before));
        let both = world.is_in_sync(at);
        let fault = FAULTS[usize::try_from(world.prng.below(FAULTS.len() as u64)).expect("few")];
        if fault.needs_durable_writes(both) && world.accepted != 0 {
            continue;
        }
        strike(&mut world, at, fault);
        recover(&mut world, fault);
    }
    let at = world.holder().expect("settled");
    settle(&mut world, at);
}

fn strike(world: &mut World, at: usize, fault: Fault) {
    let peer = 1 - at;
    let count = 1 + u32::try_from(world.prng.below(3)).expect("few");
    let errors = SimFault::FailWrites { count };
    match fault {
        Fault::Cut => world.cut(),
        Fault::KillPeer => world.kill(peer),
        Fault::KillHolder => world.kill(at),
        Fault::PowerOffPeer => world.power_off(peer),
        Fault::PowerOffHolder => world.power_off(at),
        Fault::PowerOffBoth => {
            world.power_off(at);
            world.power_off(peer);
        }
        Fault::PeerErrors => world.disks[peer].inject(errors),
        Fault::OwnErrors => world.disks[at].inject(errors),
        Fault::BothErrors => {
            world.disks[at].inject(errors);
            world.disks[peer].inject(errors);
        }
        Fault::Busy => world.disks[at].inject(SimFault::BusyWrites { count: 20 }),
        Fault::BadBlock => {
            let block = world.prng.below(24) * 5;
            let lba = (world.status(at).data_offset + block * super::world::BLOCK) / 512;
            world.disks[at].inject(SimFault::BadBlock { lba });
        }
        Fault::Pause | Fault::PauseAndCut => pause(world, at, fault),
        Fault::LosePeersDisk => {
            world.kill(peer);
            world.replace_disk(peer);
        }
        Fault::StopBoth => stop_both(world, at),
        Fault::Promote => promote(world, at),
        Fault::PromoteBesideRestart => promote_beside_restart(world, at),
    }
    let pause = world.prng.below(1500);
    let serves = world.holder().unwrap_or(at);
    if world.nodes[serves].is_some() {
        world.load(serves, millis(pause));
    } else {
        world.run(millis(pause));
    }
}

/// The holder stands still for a while; nobody takes its place.
fn pause(world: &mut World, at: usize, fault: Fault) {
    let sleeper = world.pause(at);
    let time = world.prng.below(4000);
    world.run(millis(time));
    world.resume(at, sleeper);
    if fault == Fault::PauseAndCut {
        world.cut();
    }
}

fn stop_both(world: &mut World, at: usize) {
    for index in [at, 1 - at] {
        let now = world.now;
        world.nodes[index].as_mut().expect("runs").driver.stop(now);
        let between = world.prng.below(20);
        world.run(millis(between));
    }
    world
        .wait("stop", 20 * SECOND, |world| world.nodes.iter().flatten().all(|node| node.driver.is_stopped()));
    world.kill(0);
    world.kill(1);
}

/// The holder dies, and its peer is promoted if nothing is missing there.
fn promote(world: &mut World, at: usize) {
    let peer = 1 - at;
    if !world.is_in_sync(at) {
        return;
    }
    world.kill(at);
    world.command(peer, TAKE).expect("in sync");
    world.wait("promotion", 10 * SECOND, |world| world.is_holder(peer));
    world.check_acknowledged(peer);
}

/// It is promoted at a random moment of its holder's restart: one of the two serves.
fn promote_beside_restart(world: &mut World, at: usize) {
    let peer = 1 - at;
    if !world.is_in_sync(at) {
        return;
    }
    world.kill(at);
    let dead = world.prng.below(2000);
    world.run(millis(dead));
    world.start(at);
    for _ in 0..world.prng.below(200) {
        world.step();
    }
    let _: Result<(), _> = world.command(peer, PROMOTE);
}

/// Everything works again: in the end one node serves, with both legs in sync.
fn recover(world: &mut World, fault: Fault) {
    world.heal();
    for index in 0..2 {
        world.disks[index].heal();
        if world.nodes[index].is_none() {
            world.start(index);
        }
    }
    let told = format!("service after {fault:?}");
    let mut until_asked = 0;
    while world.holder().is_none_or(|at| !world.is_in_sync(at)) {
        world.step();
        until_asked += 1;
        assert!(until_asked < 1_600_000, "no {told}: {}", world.describe());
        // Both stand by: an operator promotes what may be.
        let idle = (0..2).all(|index| world.status(index).role == RoleKind::Standby);
        if until_asked % 100_000 == 0 && idle && world.command(0, PROMOTE).is_err() {
            let _: Result<(), _> = world.command(1, PROMOTE);
        }
    }
    let at = world.drained();
    world.check_acknowledged(at);
}
