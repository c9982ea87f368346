//! TCP segments in Ethernet frames: their checksums, and which of them are sent again. Pure.

use core::cell::{Cell, RefCell};
use core::net::IpAddr;
use core::num::NonZeroU16;

use engine::packet::{PartialChecksum, SegmentFormat, Segmentation, SendRequest};
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
}

/// Connections that are remembered; more forget the oldest.
const FLOWS_MAX: usize = 64;

/// What was noticed of frames.
#[derive(Debug, Default)]
pub(super) struct Ledger {
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
            Some(flow) if segment.opening && flow.next != end => flow.next = end,
            Some(flow) if is_after(end, flow.next) => {
                if is_after(flow.next, segment.sequence) {
                    add(&self.resent);
                }
                flow.next = end;
            }
            Some(_) => add(&self.resent),
            None => {
                if flows.len() == FLOWS_MAX {
                    flows.remove(0);
                }
                flows.push(Flow { destination, ports, next: end });
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
