//! Data on their way for one task.

use crate::coverage::Coverage;

/// A burst that the initiator sends: the unsolicited one or an R2T's.
#[derive(Clone, Debug)]
pub(super) struct Burst {
    pub(super) ttt: u32,
    pub(super) r2t_sn: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) arrived: Coverage,
    /// Where the next Data-Out begins, where they come in order.
    pub(super) next_offset: u32,
    /// The end of the last byte that any Data-Out was about, damaged ones among them.
    pub(super) reach: u32,
    pub(super) next_data_sn: u32,
}

impl Burst {
    pub(super) fn new((ttt, r2t_sn): (u32, u32), start: u32, end: u32) -> Self {
        let arrived = Coverage::from(start);
        Self { ttt, r2t_sn, start, end, arrived, next_offset: start, reach: start, next_data_sn: 0 }
    }

    /// These bytes are of this burst, and have not come yet.
    pub(super) fn has_room_for(&self, offset: u32, end: u32) -> bool {
        self.start <= offset && end <= self.end && !self.arrived.overlaps(offset, end)
    }
}
