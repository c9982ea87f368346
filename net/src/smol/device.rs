//! The seam between the stack and whatever carries Ethernet frames, and its adapter to smoltcp's.

pub use engine::packet::Transmit;
use engine::packet::{ChecksumState, LinkState, PacketStats, Received, SendRequest};
use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken,
};
use smoltcp::time::Instant;

use super::neighbours::{Neighbours, Talk};
use super::offload::{self, Direction, Ledger, Segment};

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// What kind of device: `packet`, `xdp-zero-copy`, `xdp-copy`, `tap`, `memory`.
    pub kind: &'static str,
    /// Its driver; empty where nobody tells.
    pub driver: String,
    /// Its own Ethernet address.
    pub address: [u8; 6],
    /// The longest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// The longest TCP/IPv4 frame in bytes that it cuts to segments, with the Ethernet header. It completes checksums then.
    pub segmentation: Option<usize>,
    /// What of that the hardware does, by ethtool's names.
    pub offloads: Vec<&'static str>,
    /// Better devices that were asked for, each with the reason why it is not there.
    pub fallbacks: Vec<String>,
}

/// Whether a device sees by itself that its interface has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watches {
    /// It is told.
    Itself,
    /// Somebody has to look.
    Nothing,
}

/// Carries Ethernet frames; polled.
pub trait FrameDevice {
    /// What it is.
    fn properties(&self) -> &Properties;

    /// The next received frame, with the other half, so that it can be answered while it is looked at.
    fn receive(&mut self) -> Option<(Received<'_>, &mut dyn Transmit)>;

    /// The sending half.
    fn transmitter(&mut self) -> &mut dyn Transmit;

    /// Ends a turn: committed frames leave. Those that cannot now leave with a later call.
    fn flush(&mut self);

    /// True while committed frames have not left.
    fn is_pending(&self) -> bool;

    /// Whether it carries frames now.
    fn state(&mut self) -> LinkState;

    /// The longest packet in bytes that it takes now, which is not what it took when it was opened.
    fn mtu(&mut self) -> u32 {
        self.properties().mtu
    }

    /// Whether [`FrameDevice::has_changed`] tells.
    fn watches(&self) -> Watches {
        Watches::Nothing
    }

    /// True when its interface, or another one, has changed since the last call. Wakes the reactor, too.
    fn has_changed(&mut self) -> bool {
        false
    }

    /// What passed.
    fn stats(&mut self) -> PacketStats;

    /// The reactor is about to sleep: a frame that arrives has to wake it.
    fn prepare_sleep(&mut self) {}
}

/// The Ethernet header's length.
pub(super) const ETHERNET: usize = 14;

/// A device as smoltcp wants it, and what was noticed on the way.
pub(super) struct Phy {
    pub(super) device: Box<dyn FrameDevice>,
    pub(super) ledger: Ledger,
    pub(super) neighbours: Neighbours,
    mtu: usize,
    segmentation: Option<usize>,
}

impl Phy {
    pub(super) fn new(device: Box<dyn FrameDevice>, mtu: u32) -> Self {
        let segmentation = device.properties().segmentation;
        let (ledger, neighbours) = (Ledger::default(), Neighbours::default());
        Self { device, ledger, neighbours, mtu: mtu as usize, segmentation }
    }

    /// Goes on with another device of an interface of the same name. It may do more or less than the one before: an [`Interface`] over
    /// this has to be made again.
    ///
    /// [`Interface`]: smoltcp::iface::Interface
    pub(super) fn replace(&mut self, device: Box<dyn FrameDevice>) {
        self.segmentation = device.properties().segmentation;
        self.device = device;
    }
}

impl Device for Phy {
    type RxToken<'a> = FrameIn<'a>;
    type TxToken<'a> = FrameOut<'a>;

    fn receive(&mut self, _: Instant) -> Option<(FrameIn<'_>, FrameOut<'_>)> {
        let (received, transmit) = self.device.receive()?;
        let (ledger, neighbours, meta) = (&self.ledger, &self.neighbours, PacketMeta::default());
        let completes = self.segmentation.is_some();
        let out = FrameOut { transmit, ledger, neighbours, meta, completes };
        Some((FrameIn { received, ledger, neighbours }, out))
    }

    fn transmit(&mut self, _: Instant) -> Option<FrameOut<'_>> {
        let transmit = self.device.transmitter();
        let (ledger, neighbours, meta) = (&self.ledger, &self.neighbours, PacketMeta::default());
        let completes = self.segmentation.is_some();
        transmit.has_room().then_some(FrameOut { transmit, ledger, neighbours, meta, completes })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET;
        let mut checksum = ChecksumCapabilities::default();
        // Received ones are verified by `FrameIn`, where nobody vouches for them.
        checksum.tcp = if self.segmentation.is_some() { Checksum::None } else { Checksum::Tx };
        capabilities.checksum = checksum;
        // smoltcp drops segmented packets of IPv6.
        capabilities.segmentation.tcpv4 = self.segmentation.and_then(core::num::NonZeroUsize::new);
        capabilities
    }
}

/// A received frame.
pub(super) struct FrameIn<'a> {
    received: Received<'a>,
    ledger: &'a Ledger,
    neighbours: &'a Neighbours,
}

impl FrameIn<'_> {
    fn note_talk(&self, bytes: &[u8]) {
        if let Some(Talk::Answers(host)) = Talk::of(bytes) {
            self.neighbours.answered(host);
        }
    }
}

impl RxToken for FrameIn<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let Received { bytes, checksum } = self.received;
        self.ledger.show(Direction::In, bytes);
        if checksum == ChecksumState::Unverified && !offload::is_intact(bytes) {
            self.ledger.count_corrupt();
            // An empty frame is no frame.
            return f(&[]);
        }
        match Segment::of(bytes) {
            Some(segment) => self.ledger.note_received(&segment),
            None => self.note_talk(bytes),
        }
        f(bytes)
    }
}

/// A frame to be sent.
pub(super) struct FrameOut<'a> {
    transmit: &'a mut dyn Transmit,
    ledger: &'a Ledger,
    neighbours: &'a Neighbours,
    meta: PacketMeta,
    completes: bool,
}

impl TxToken for FrameOut<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { transmit, ledger, neighbours, meta, completes } = self;
        let Some(frame) = transmit.reserve(len) else {
            // An answer that the ring has no room for is lost, as on any wire.
            ledger.count_unsent();
            return f(&mut vec![0; len]);
        };
        let result = f(frame);
        let request = match Segment::of(frame) {
            None if !may_leave(frame, neighbours, ledger.now()) => return result,
            None => SendRequest::default(),
            Some(segment) => {
                ledger.note(&segment);
                if completes {
                    segment.request(frame, meta.segmentation_offload_size)
                } else {
                    SendRequest::default()
                }
            }
        };
        ledger.show(Direction::Out, frame);
        transmit.commit(len, request);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

/// False for a question that comes too soon after the last one.
fn may_leave(frame: &[u8], neighbours: &Neighbours, now: engine::Instant) -> bool {
    match Talk::of(frame) {
        Some(Talk::Asks(host)) => neighbours.may_ask(host, now),
        Some(Talk::Answers(_)) | None => true,
    }
}
