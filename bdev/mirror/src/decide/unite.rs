//! What may differ when a leg comes back: the union of both bitmaps and both logs (I5). The holder's log is in its bitmap
//! already; here comes what the target itself wrote down.

use super::peer::SyncPlan;
use crate::bitmap::Bitmap;
use crate::intent_log::Replay;
use crate::mutation::{Mutation, is_broken};
use crate::range::ByteRange;

/// Adds to `ours` what the target's log and bitmap say; `extent_shift` is log2 of the log's extent in bytes.
pub fn unite(ours: &mut Bitmap, plan: SyncPlan, log: &Replay, theirs: &Bitmap, extent_shift: u32) {
    if is_broken(Mutation::RejoinWithoutUnion) {
        return;
    }
    match (plan, log) {
        (SyncPlan::Full(_), _) | (_, Replay::Unreadable { .. }) => {
            ours.set_all();
        }
        (SyncPlan::Delta, Replay::Table(table)) => {
            ours.union(theirs);
            for extent in table.extents() {
                ours.set(ByteRange::new(u64::from(extent) << extent_shift, 1 << extent_shift));
            }
        }
    }
}
