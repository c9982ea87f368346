//! WRITE AND VERIFY.

mod host;

use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use host::{GOOD, World, attention};

/// WRITE AND VERIFY has its blocks to itself while it compares, and compares only when it is asked to.
#[test]
fn what_is_verified_is_what_was_written() {
    let mut world = World::new(2);
    let verify = |byte_check: u8| [0x2e, byte_check << 1, 0, 0, 0, 0, 0, 0, 1, 0];
    for (byte_check, waits) in [(1, true), (0, false)] {
        // Its read is silent, and a write to the same block comes meanwhile.
        world.fault.plan().arm(FaultTarget::Read, Fault::Silence, 1);
        let verified = world.hosts[0].send(&verify(byte_check), &[1; 512], 0);
        world.run_for(Duration::from_millis(5));
        let write = world.hosts[1].send(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[2; 512], 0);
        world.run_for(Duration::from_millis(20));
        let ended = world.hosts[1].take(write).is_some();
        assert_eq!(ended, !waits, "BYTCHK {byte_check}");
        world.fault.plan().clear(FaultTarget::Read);
        assert_eq!(world.end(0, verified), GOOD, "BYTCHK {byte_check}");
        if !ended {
            assert_eq!(world.end(1, write), GOOD);
        }
        assert_eq!(world.first_byte(), 2);
    }
    // A medium that cannot be read is told of either way.
    world.fault.plan().arm(FaultTarget::Read, Fault::Error, 1);
    assert_eq!(world.run(0, &verify(0), &[1; 512]), attention(0x1100));
}
