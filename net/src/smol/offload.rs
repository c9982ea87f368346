//! TCP segments in Ethernet frames: their checksums, which of them are sent again, and how long acknowledgements take. Pure.

use core::cell::{Cell, RefCell};
use core::net::IpAddr;
use core::num::NonZeroU16;
use core::ops::ControlFlow;

use engine::packet::{PartialChecksum, SegmentFormat, Segmentation, SendRequest};
use engine::{Instant, LatencyHistogram, LatencySummary};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, checksum,
};

use super::device::ETHERNET;

/// The TCP checksum's place in its header (RFC 9293, section 3.1).
const CHECKSUM: u16 = 16;

/// A TCP segment in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    format: SegmentFormat,
    source: IpAddress,
    destination: IpAddress,
    ports: (u16, u16),
    /// Where its header begins in the frame.
    start: usize,
    header_len: usize,
    /// Header and payload.
    len: usize,
    sequence: u32,
    /// What it acknowledges.
    acknowledged: Option<u32>,
    /// Sequence numbers that it takes.
    span: u32,
    opening: bool,
}

impl Segment {
    /// `None` where the frame holds none.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let (format, source, destination, start, payload) = match ethernet.ethertype() {
            EthernetProtocol::Ipv4 => {
                let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
                if packet.next_header() != IpProtocol::Tcp || packet.more_frags() || packet.frag_offset() != 0
                {
                    return None;
                }
                let start = ETHERNET + usize::from(packet.header_len());
                let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
                (SegmentFormat::TcpV4, source, destination, start, packet.payload())
            }
            EthernetProtocol::Ipv6 => {
                let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
                if packet.next_header() != IpProtocol::Tcp {
                    return None;
                }
                let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
                (SegmentFormat::TcpV6, source, destination, ETHERNET + packet.header_len(), packet.payload())
            }
            _ => return None,
        };
        let tcp = TcpPacket::new_checked(payload).ok()?;
        Some(Self {
            format,
            source,
            destination,
            ports: (tcp.src_port(), tcp.dst_port()),
            start,
            header_len: usize::from(tcp.header_len()),
            len: payload.len(),
            sequence: tcp.seq_number().0.cast_unsigned(),
            acknowledged: tcp.ack().then(|| tcp.ack_number().0.cast_unsigned()),
            span: u32::try_from(tcp.segment_len()).unwrap_or(0),
            opening: tcp.syn(),
        })
    }

    /// Leaves the checksum, and where `cut` says so the segmentation, to whoever sends the frame.
    pub(super) fn request(&self, frame: &mut [u8], cut: Option<NonZeroU16>) -> SendRequest {
        let len = u32::try_from(self.len).expect("a frame is short");
        let pseudo = checksum::pseudo_header(&self.source, &self.destination, IpProtocol::Tcp, len);
        let at = self.start + usize::from(CHECKSUM);
        frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        let short = |value: usize| u16::try_from(value).expect("headers are short");
        SendRequest {
            header_len: short(self.start + self.header_len),
            checksum: Some(PartialChecksum { start: short(self.start), offset: CHECKSUM }),
            segmentation: cut.map(|size| Segmentation { format: self.format, size }),
        }
    }
}

/// True unless the frame holds a TCP segment whose checksum is wrong.
pub(super) fn is_intact(frame: &[u8]) -> bool {
    let Some(segment) = Segment::of(frame) else { return true };
    let tcp = TcpPacket::new_unchecked(&frame[segment.start..segment.start + segment.len]);
    tcp.verify_checksum(&segment.source, &segment.destination)
}

/// One direction of one connection.
#[derive(Clone, Copy, Debug)]
struct Flow {
    destination: IpAddr,
    ports: (u16, u16),
    /// One past the highest sequence number sent.
    next: u32,
    /// The acknowledgement that is waited for, and since when. Never of what was sent twice (RFC 6298, section 3).
    timed: Option<(u32, Instant)>,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this node.
    In,
    /// From this node.
    Out,
}

/// Is shown each frame, until it has seen enough.
pub type See = Box<dyn FnMut(Instant, Direction, &[u8]) -> ControlFlow<()>>;

/// Sees each frame, until it has seen enough or its time is over.
pub struct Tap {
    /// When it ends, also where no frame passes.
    pub until: Instant,
    /// Is shown each frame.
    pub see: See,
}

/// Connections that are remembered; more forget the oldest.
const FLOWS_MAX: usize = 64;

/// What was noticed of frames.
#[derive(Default)]
pub(super) struct Ledger {
    now: Cell<Instant>,
    tap: RefCell<Option<Tap>>,
    round_trips: RefCell<LatencyHistogram>,
    corrupt: Cell<u64>,
    unsent: Cell<u64>,
    segments: Cell<u64>,
    resent: Cell<u64>,
    flows: RefCell<Vec<Flow>>,
}

fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Ledger {
    /// The time of what is noticed next.
    pub(super) fn set_now(&self, now: Instant) {
        self.now.set(now);
        self.tap.borrow_mut().take_if(|tap| now >= tap.until);
    }

    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn set_tap(&self, tap: Tap) {
        *self.tap.borrow_mut() = Some(tap);
    }

    pub(super) fn show(&self, direction: Direction, frame: &[u8]) {
        let now = self.now.get();
        self.tap.borrow_mut().take_if(|tap| (tap.see)(now, direction, frame).is_break());
    }

    /// How long acknowledgements took.
    pub(super) fn round_trips(&self) -> LatencySummary {
        self.round_trips.borrow().summary()
    }

    /// A received segment may be the acknowledgement that is waited for.
    pub(super) fn note_received(&self, segment: &Segment) {
        let Some(acknowledged) = segment.acknowledged else { return };
        let (far, ports): (IpAddr, _) = (segment.source.into(), (segment.ports.1, segment.ports.0));
        let mut flows = self.flows.borrow_mut();
        let Some(flow) = flows.iter_mut().find(|flow| flow.ports == ports && flow.destination == far) else {
            return;
        };
        if let Some((end, sent)) = flow.timed
            && !is_after(end, acknowledged)
        {
            flow.timed = None;
            self.round_trips.borrow_mut().record(self.now.get().saturating_since(sent));
        }
    }

    /// A received frame's checksum was wrong.
    pub(super) fn count_corrupt(&self) {
        add(&self.corrupt);
    }

    /// The ring had no room for an answer.
    pub(super) fn count_unsent(&self) {
        add(&self.unsent);
    }

    /// A segment is sent; one with sequence numbers that were sent before is a retransmission.
    pub(super) fn note(&self, segment: &Segment) {
        if segment.span == 0 {
            return;
        }
        add(&self.segments);
        let mut flows = self.flows.borrow_mut();
        let (destination, ports) = (segment.destination.into(), segment.ports);
        let end = segment.sequence.wrapping_add(segment.span);
        let same = |flow: &&mut Flow| flow.ports == ports && flow.destination == destination;
        match flows.iter_mut().find(same) {
            Some(flow) if segment.opening && flow.next != end => {
                (flow.next, flow.timed) = (end, None);
            }
            Some(flow) if is_after(end, flow.next) => {
                if is_after(flow.next, segment.sequence) {
                    flow.timed = None;
                    add(&self.resent);
                } else if flow.timed.is_none() {
                    flow.timed = Some((end, self.now.get()));
                }
                flow.next = end;
            }
            Some(flow) => {
                flow.timed = None;
                add(&self.resent);
            }
            None => {
                if flows.len() == FLOWS_MAX {
                    flows.remove(0);
                }
                flows.push(Flow { destination, ports, next: end, timed: None });
            }
        }
    }

    pub(super) fn corrupt(&self) -> u64 {
        self.corrupt.get()
    }

    pub(super) fn unsent(&self) -> u64 {
        self.unsent.get()
    }

    /// Segments with data sent, and how many of them were sent before.
    pub(super) fn segments(&self) -> (u64, u64) {
        (self.segments.get(), self.resent.get())
    }
}

/// Order of sequence numbers (RFC 9293, section 3.4).
fn is_after(one: u32, other: u32) -> bool {
    let distance = one.wrapping_sub(other);
    distance != 0 && distance < 1 << 31
}
