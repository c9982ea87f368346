//! What is to be sent, in order, and how read data are cut into PDUs.

use super::Response;
use crate::keys::SessionParameters;
use crate::pdu::Header;
use crate::protocol::{Body, CloseReason, TaskId};

/// Something to send, in order.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A PDU that takes a StatSN.
    Control {
        header: Header,
        body: Body,
    },
    /// A PDU that shows the next StatSN and does not take it.
    Unnumbered(Header),
    R2t {
        task: TaskId,
        header: Header,
    },
    /// Read data from `sent` on, then the response.
    Data {
        task: TaskId,
        sent: u32,
        layout: Layout,
        data_sn: u32,
        response: Response,
    },
    /// Read data again, from one DataSN up to another.
    DataAgain {
        task: TaskId,
        lun: u64,
        layout: Layout,
        offset: u32,
        data_sn: u32,
        until: u32,
    },
    /// A PDU again that has its StatSN.
    Again {
        header: Header,
        body: Body,
    },
    Response {
        task: TaskId,
        data_sn: u32,
        /// Of the data that it follows.
        layout: Option<Layout>,
        response: Response,
    },
    /// The final login response is out: digests begin.
    EnterFullFeature,
    Close(CloseReason),
}

impl Outgoing {
    pub(super) fn task(&self) -> Option<TaskId> {
        match self {
            Self::R2t { task, .. }
            | Self::Data { task, .. }
            | Self::DataAgain { task, .. }
            | Self::Response { task, .. } => Some(*task),
            _ => None,
        }
    }
}

/// What read data look like on the wire: it does not change while a task is sent, and a part can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes in all.
    pub(super) len: u32,
    /// The longest data segment.
    segment: u32,
    /// The longest burst.
    burst: u32,
}

impl Layout {
    pub(super) fn new(len: u32, parameters: &SessionParameters) -> Self {
        let (segment, burst) = (parameters.max_send_data_segment_length, parameters.max_burst_length);
        Self { len, segment, burst }
    }

    /// Bytes of the segment at this offset: never across the end of a burst.
    pub(super) fn segment(self, offset: u32) -> u32 {
        let burst_left = self.burst - offset % self.burst;
        (self.len - offset).min(self.segment).min(burst_left)
    }

    /// True when a burst ends at this offset, or all.
    pub(super) fn ends_at(self, offset: u32) -> bool {
        offset == self.len || offset.is_multiple_of(self.burst)
    }

    /// The offset of the segment with this DataSN; `None` when there are not so many.
    pub(super) fn offset_of(self, data_sn: u32) -> Option<u32> {
        let mut offset = 0;
        for _ in 0..data_sn {
            if offset >= self.len {
                return None;
            }
            offset += self.segment(offset);
        }
        (offset < self.len).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn segments_are_found_by_their_numbers() {
        let parameters = SessionParameters {
            max_burst_length: 1000,
            max_send_data_segment_length: 600,
            ..SessionParameters::default()
        };
        let layout = Layout::new(2100, &parameters);
        let offsets: Vec<u32> = (0..).map_while(|data_sn| layout.offset_of(data_sn)).collect();
        assert_eq!(offsets, [0, 600, 1000, 1600, 2000]);
        assert_eq!(offsets.iter().map(|offset| layout.segment(*offset)).sum::<u32>(), 2100);
        assert!(layout.ends_at(1000) && layout.ends_at(2100) && !layout.ends_at(600));
    }
}
