//! Two nodes that both might serve: fences against promotions, leases against restarts.

use mirror::command::Command;
use mirror::decide::{HolderState, PromoteMode};
use mirror::format::ArbiterKind;
use mirror::status::RoleKind;

use super::world::World;
use super::{SECOND, millis};

const TAKE: Command = Command::Promote { mode: PromoteMode::Ordinary, holder: HolderState::ConfirmedDown };

/// The old holder may read under the lease that the standby granted before its own restart.
#[test]
fn a_lease_that_was_granted_before_a_restart_is_waited_out() {
    let mut world = World::new(510, ArbiterKind::Manual);
    world.create();
    world.spread = 8;
    world.load(0, millis(50));
    world.drain();
    world.cut();
    world.kill(1);
    world.start(1);
    world.wait("standby", SECOND, |world| world.status(1).role == RoleKind::Standby);
    world.run(millis(5));
    world.command(1, TAKE).expect("in sync");
    for _ in 0..80_000 {
        if world.is_holder(1) {
            world.write(1);
        }
        let block = world.prng.below(8) * 5;
        world.read(0, block);
        world.step();
    }
    assert!(world.is_holder(1), "{}", world.describe());
}
