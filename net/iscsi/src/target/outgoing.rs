//! What is to be sent, in order, and how read data are cut into PDUs.

use alloc::collections::VecDeque;

use super::Response;
use crate::keys::SessionParameters;
use crate::pdu::Header;
use crate::protocol::{Body, CloseReason, OUTGOING_BYTES_MAX, OUTGOING_MAX, TaskId};

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
    /// The data of a layout from its beginning, then the response.
    pub(super) fn rest(task: TaskId, layout: Layout, response: Response) -> Self {
        let (data_sn, offset) = layout.begin();
        if offset == layout.len {
            Self::Response { task, data_sn, layout: Some(layout), response }
        } else {
            Self::Data { task, sent: offset, layout, data_sn, response }
        }
    }

    /// True for what takes a StatSN when it leaves.
    pub(super) fn is_numbered(&self) -> bool {
        matches!(self, Self::Control { .. } | Self::Data { .. } | Self::Response { .. })
    }

    /// Data-In PDUs that have left for the task that this answers.
    pub(super) fn data_sn(&self) -> Option<u32> {
        match self {
            Self::Data { data_sn, .. } | Self::Response { data_sn, .. } => Some(*data_sn),
            _ => None,
        }
    }

    /// Bytes of its data segment, where they lie in no task's buffer.
    fn body_len(&self) -> usize {
        match self {
            Self::Control { body, .. } | Self::Again { body, .. } => body.held_len(),
            _ => 0,
        }
    }

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

/// What waits to be sent. Of what was made here, and lies in no buffer of a task, it knows the bytes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Outgoing>,
    bytes: usize,
}

impl core::ops::Deref for Queue {
    type Target = VecDeque<Outgoing>;

    fn deref(&self) -> &VecDeque<Outgoing> {
        &self.waiting
    }
}

impl Queue {
    /// True when nothing more may come that is answered: see [`OUTGOING_MAX`].
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= OUTGOING_MAX || self.bytes >= OUTGOING_BYTES_MAX
    }

    pub(super) fn push_back(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.body_len();
        self.waiting.push_back(outgoing);
    }

    /// What is to be sent next, before everything else.
    pub(super) fn push_front(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.body_len();
        self.waiting.push_front(outgoing);
    }

    pub(super) fn extend(&mut self, outgoing: impl IntoIterator<Item = Outgoing>) {
        outgoing.into_iter().for_each(|outgoing| self.push_back(outgoing));
    }

    pub(super) fn pop_front(&mut self) -> Option<Outgoing> {
        self.remove(0)
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<Outgoing> {
        let removed = self.waiting.remove(at)?;
        self.bytes -= removed.body_len();
        Some(removed)
    }

    pub(super) fn retain(&mut self, keeps: impl FnMut(&Outgoing) -> bool) {
        self.waiting.retain(keeps);
        self.bytes = self.waiting.iter().map(Outgoing::body_len).sum();
    }
}

/// The longest data segment in bytes, whatever the initiator takes: of frames of that length it is in two at the most.
const SEGMENT_MAX: u32 = 1 << 20;

/// What read data look like on the wire, so that a part can be sent again. It changes only where the initiator says so: by an
/// R-Data SNACK, or when the task goes on at another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes in all.
    pub(super) len: u32,
    /// The longest data segment.
    segment: u32,
    /// The longest burst.
    burst: u32,
    /// What was acknowledged of an earlier layout: so many PDUs,
    first_sn: u32,
    /// and so many bytes.
    start: u32,
}

impl Layout {
    pub(super) fn new(len: u32, parameters: &SessionParameters) -> Self {
        let (segment, burst) = (parameters.max_send_data_segment_length, parameters.max_burst_length);
        let segment = segment.min(SEGMENT_MAX);
        Self { len, segment, burst, first_sn: 0, start: 0 }
    }

    /// The same data with the segments of `parameters` from one PDU on; `None` when it is not among them.
    pub(super) fn again_from(self, data_sn: u32, parameters: &SessionParameters) -> Option<Self> {
        let start = if data_sn == self.count() { self.len } else { self.offset_of(data_sn)? };
        Some(Self { first_sn: data_sn, start, ..Self::new(self.len, parameters) })
    }

    /// Where it begins: a DataSN and an offset.
    pub(super) fn begin(self) -> (u32, u32) {
        (self.first_sn, self.start)
    }

    /// PDUs in all, those of an earlier layout among them.
    pub(super) fn count(self) -> u32 {
        let (mut data_sn, mut offset) = self.begin();
        while offset < self.len {
            offset += self.segment(offset);
            data_sn += 1;
        }
        data_sn
    }

    /// Bytes of the segment at this offset: never across the end of a burst.
    pub(super) fn segment(self, offset: u32) -> u32 {
        let burst_left = self.burst - offset % self.burst;
        //= rfc7143#section-11.7.1(b): no longer than the initiator takes.
        (self.len - offset).min(self.segment).min(burst_left)
    }

    /// True when a burst ends at this offset, or all.
    pub(super) fn ends_at(self, offset: u32) -> bool {
        offset == self.len || offset.is_multiple_of(self.burst)
    }

    /// The offset of the segment with this DataSN; `None` when there are not so many.
    pub(super) fn offset_of(self, data_sn: u32) -> Option<u32> {
        let mut offset = self.start;
        for _ in 0..data_sn.checked_sub(self.first_sn)? {
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
        assert_eq!(layout.count(), 5);
    }

    #[test]
    fn a_segment_is_in_two_frames_at_the_most_whatever_the_initiator_takes() {
        let parameters = SessionParameters {
            max_burst_length: 1 << 22,
            max_send_data_segment_length: (1 << 24) - 1,
            ..SessionParameters::default()
        };
        let layout = Layout::new(1 << 22, &parameters);
        assert_eq!((layout.segment(0), layout.count()), (1 << 20, 4));
    }

    #[test]
    fn the_rest_may_have_other_segments() {
        let of = |segment| SessionParameters {
            max_burst_length: 1000,
            max_send_data_segment_length: segment,
            ..SessionParameters::default()
        };
        let layout = Layout::new(2100, &of(600)).again_from(3, &of(512)).expect("among them");
        assert_eq!(layout.begin(), (3, 1600));
        let offsets: Vec<Option<u32>> = (2..7).map(|data_sn| layout.offset_of(data_sn)).collect();
        assert_eq!(offsets, [None, Some(1600), Some(2000), None, None]);
        assert_eq!(layout.count(), 5);
        let nothing = layout.again_from(5, &of(512)).expect("all of it is there");
        assert_eq!((nothing.begin(), nothing.count()), ((5, 2100), 5));
        assert!(layout.again_from(6, &of(512)).is_none() && layout.again_from(2, &of(512)).is_none());
    }
}
