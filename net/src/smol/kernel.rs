//! The kernel's ways to an interface's frames as devices, and which of them a link gets.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use engine::packet::{
    Interface, InterfaceChanges, KernelDevice, LinkState, PacketConfig, PacketDevice, PacketError,
    PacketStats, Received, TapDevice, TapSender, Transmitter, XdpDevice, XdpMode, kernel_addresses,
};
use engine::{Core, Operation, RingClient};
use thiserror::Error;

use super::config::{LinkConfig, LinkError};
use super::device::{FrameDevice, Properties, Transmit, Watches};

/// A frame is there.
const ARRIVAL: u64 = 1;
/// An interface of this machine has changed.
const CHANGE: u64 = 2;

/// What is to carry a link's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// The kernel's packet rings, on any interface.
    #[default]
    Packet,
    /// AF_XDP, without a copy where the NIC can do that, else with one; packet rings where neither is to be had.
    Xdp,
    /// AF_XDP without a copy; packet rings where it is not to be had.
    Auto,
    /// The far end of a TAP: the other end of the wire is this machine's kernel.
    Tap,
}

impl DeviceKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Packet, Self::Xdp, Self::Auto, Self::Tap];

    fn word(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Xdp => "xdp",
            Self::Auto => "auto",
            Self::Tap => "tap",
        }
    }

    /// Modes of AF_XDP to try before packet rings.
    fn modes(self) -> &'static [XdpMode] {
        match self {
            Self::Xdp => &[XdpMode::ZeroCopy, XdpMode::Copy],
            Self::Auto => &[XdpMode::ZeroCopy],
            Self::Packet | Self::Tap => &[],
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Not a kind of device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no kind of device: use packet, xdp, auto or tap")]
pub struct UnknownDevice(String);

impl FromStr for DeviceKind {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        Self::ALL.into_iter().find(|kind| kind.word() == text).ok_or_else(|| UnknownDevice(text.to_owned()))
    }
}

/// Whether the ring waits for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    None,
    Armed,
    /// It came.
    Over,
}

/// A device of the kernel's whose reactor can sleep.
struct KernelLink<D> {
    device: D,
    properties: Properties,
    client: RingClient,
    wait: Wait,
    /// `None` where the kernel tells of no changes.
    changes: Option<InterfaceChanges>,
    change_wait: Wait,
    /// As somebody asked last.
    state: LinkState,
}

/// The longest packet that IPv4 can say the length of, with its Ethernet header.
const SEGMENTATION: usize = 65_535 + 14;

/// The device that is asked for, or what is in its place, with the reasons.
pub(super) fn open(config: &LinkConfig, core: &Core) -> Result<Box<dyn FrameDevice>, LinkError> {
    check_addresses(config)?;
    let ring = core.ring().ok_or_else(|| LinkError::System {
        what: "a link",
        source: std::io::Error::new(std::io::ErrorKind::Unsupported, "this core has no io_uring"),
    })?;
    let interface = Interface::find(&config.interface)?;
    let asked = PacketConfig {
        interface: config.interface.clone(),
        mtu: config.mtu,
        address: config.hardware_address.unwrap_or_else(|| derived(interface.address)),
        groups: groups(config.addresses.iter().map(|net| net.address)),
        receive_frames: config.ring_frames,
        transmit_frames: config.ring_frames / 2,
    };
    let mut fallbacks = Vec::new();
    let found = |kind, device: &Interface, segmentation, fallbacks| Properties {
        kind,
        driver: device.driver.clone(),
        address: asked.address,
        mtu: device.mtu,
        segmentation,
        offloads: device.offloads.clone(),
        fallbacks,
    };
    for mode in config.device.modes() {
        match XdpDevice::open(&asked, *mode) {
            Ok(device) => {
                let properties = found(mode.word(), device.interface(), None, fallbacks);
                return Ok(KernelLink::boxed(device, properties, ring.attach()));
            }
            Err(error) => fallbacks.push(format!("{}: {}", mode.word(), told(&error))),
        }
    }
    if config.device == DeviceKind::Tap {
        let device = TapDevice::open(&asked)?;
        let properties = found("tap", device.interface(), Some(TapSender::FRAME_MAX), fallbacks);
        return Ok(KernelLink::boxed(device, properties, ring.attach()));
    }
    let device = PacketDevice::open(&asked)?;
    let segmentation = Some(SEGMENTATION.min(Transmitter::FRAME_MAX));
    let properties = found("packet", device.interface(), segmentation, fallbacks);
    Ok(KernelLink::boxed(device, properties, ring.attach()))
}

/// Why a device cannot be had, for an operator who knows which interface it is about.
fn told(error: &PacketError) -> String {
    match error {
        PacketError::System { what, source, .. } => format!("{what}: {source}"),
        PacketError::NotPermitted => "it needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF".to_owned(),
        other => other.to_string(),
    }
}

/// An address of this link alone, so that the kernel drops at once what is not for it: the interface's, administered here
/// (IEEE 802, section 8.2.2), or another one where that is so already.
fn derived(mut address: [u8; 6]) -> [u8; 6] {
    address[0] = if address[0] & 2 == 0 { address[0] | 2 } else { address[0] ^ 0x40 };
    address[0] &= !1;
    address
}

/// The Ethernet addresses that questions for neighbours come to (RFC 4861, section 7.2.1; RFC 2464, section 7): the kernel asks its NIC
/// for those of its own addresses alone. IPv4's are broadcast.
fn groups(addresses: impl Iterator<Item = IpAddr>) -> Vec<[u8; 6]> {
    let mut groups: Vec<_> = addresses
        .filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(v6.octets()),
        })
        .flat_map(|octets| [[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, octets[13], octets[14], octets[15]]])
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn check_addresses(config: &LinkConfig) -> Result<(), LinkError> {
    let known = kernel_addresses()
        .map_err(|source| LinkError::System { what: "the addresses of this machine", source })?;
    let taken =
        known.into_iter().find(|(_, address)| config.addresses.iter().any(|net| net.address == *address));
    match taken {
        Some((interface, address)) => Err(LinkError::AddressTaken { address, interface }),
        None => Ok(()),
    }
}

impl<D: KernelDevice + 'static> KernelLink<D> {
    fn boxed(device: D, properties: Properties, client: RingClient) -> Box<dyn FrameDevice> {
        Box::new(Self::new(device, properties, client, InterfaceChanges::open().ok()))
    }

    fn new(device: D, properties: Properties, client: RingClient, changes: Option<InterfaceChanges>) -> Self {
        let (wait, change_wait) = (Wait::None, Wait::None);
        Self { device, properties, client, wait, changes, change_wait, state: LinkState::Up }
    }
}

impl<D> KernelLink<D> {
    /// Takes what was waited for.
    fn take_completions(&mut self) {
        while let Some(completion) = self.client.take() {
            match completion.token {
                CHANGE => self.change_wait = Wait::Over,
                _ => self.wait = Wait::None,
            }
        }
    }
}

impl<D: KernelDevice> FrameDevice for KernelLink<D> {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn receive(&mut self) -> Option<(Received<'_>, &mut dyn Transmit)> {
        let (received, transmitter) = self.device.receive()?;
        Some((received, transmitter))
    }

    fn transmitter(&mut self) -> &mut dyn Transmit {
        self.device.transmitter()
    }

    fn flush(&mut self) {
        // The interface is down: the stack sees that in its state.
        let _ = self.device.kick();
    }

    fn is_pending(&self) -> bool {
        self.device.is_pending()
    }

    fn state(&mut self) -> LinkState {
        self.state = self.device.link_state();
        self.state
    }

    fn mtu(&mut self) -> u32 {
        self.device.mtu().unwrap_or(self.properties.mtu)
    }

    fn stats(&mut self) -> PacketStats {
        self.device.stats()
    }

    fn watches(&self) -> Watches {
        if self.changes.is_some() { Watches::Itself } else { Watches::Nothing }
    }

    fn has_changed(&mut self) -> bool {
        self.take_completions();
        let Some(changes) = &self.changes else { return false };
        let changed = self.change_wait == Wait::Over;
        if changed {
            changes.clear();
            self.change_wait = Wait::None;
        }
        let operation = || Operation::Readable { socket: changes.socket().clone() };
        if self.change_wait == Wait::None && self.client.submit(CHANGE, operation()).is_ok() {
            self.change_wait = Wait::Armed;
        }
        changed
    }

    fn prepare_sleep(&mut self) {
        self.take_completions();
        // The descriptor of a TAP that was deleted is ready for ever.
        if self.state == LinkState::Gone {
            return;
        }
        let operation = || Operation::Readable { socket: self.device.socket().clone() };
        if self.wait == Wait::None && self.client.submit(ARRIVAL, operation()).is_ok() {
            self.wait = Wait::Armed;
        }
    }
}

impl<D> Drop for KernelLink<D> {
    fn drop(&mut self) {
        // A wait would keep its socket open.
        [ARRIVAL, CHANGE].into_iter().for_each(|token| self.client.cancel(token));
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use engine::packet::SendRequest;
    use engine::{Pool, RingConfig, RingHandle, Socket, Waker};

    use super::*;

    #[test]
    fn kinds_of_devices_parse_as_they_print() {
        for kind in DeviceKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "dpdk".parse::<DeviceKind>().expect_err("none").to_string();
        assert!(error.contains("packet, xdp, auto or tap"), "{error}");
    }

    /// What a TAP is that may be deleted: its descriptor is ready for ever then. Nothing passes.
    struct Deleted {
        socket: Socket,
        state: LinkState,
        sender: Nobody,
    }

    struct Nobody;

    impl Transmit for Nobody {
        fn has_room(&self) -> bool {
            false
        }

        fn reserve(&mut self, _: usize) -> Option<&mut [u8]> {
            None
        }

        fn commit(&mut self, _: usize, _: SendRequest) {}
    }

    impl KernelDevice for Deleted {
        type Sender = Nobody;

        fn interface(&self) -> &Interface {
            unreachable!("it was asked before")
        }

        fn receive(&mut self) -> Option<(Received<'_>, &mut Nobody)> {
            None
        }

        fn transmitter(&mut self) -> &mut Nobody {
            &mut self.sender
        }

        fn kick(&mut self) -> std::io::Result<()> {
            Ok(())
        }

        fn is_pending(&self) -> bool {
            false
        }

        fn link_state(&self) -> LinkState {
            self.state
        }

        fn mtu(&self) -> Option<u32> {
            None
        }

        fn stats(&mut self) -> PacketStats {
            PacketStats::default()
        }

        fn socket(&self) -> &Socket {
            &self.socket
        }
    }

    #[test]
    fn nobody_waits_for_frames_of_an_interface_that_has_gone() {
        let waker = Waker::new().expect("eventfd");
        let ring = RingHandle::new(RingConfig::default(), &Pool::for_tests(), waker).expect("io_uring");
        let properties = Properties {
            kind: "tap",
            driver: String::new(),
            address: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            segmentation: None,
            offloads: Vec::new(),
            fallbacks: Vec::new(),
        };
        // One that never was connected is hung up.
        let socket = Socket::unconnected("127.0.0.1:0".parse().expect("address")).expect("a socket");
        let device = Deleted { socket, state: LinkState::Up, sender: Nobody };
        let mut link = KernelLink::new(device, properties, ring.attach(), None);
        assert_eq!(link.state(), LinkState::Up);
        link.prepare_sleep();
        assert!(ring.wait(Some(Duration::from_secs(10))).expect("wait") > 0, "it is ready");
        link.prepare_sleep();
        assert!(ring.wait(Some(Duration::from_secs(10))).expect("wait") > 0, "and again");
        link.device.state = LinkState::Gone;
        assert_eq!(link.state(), LinkState::Gone);
        link.prepare_sleep();
        assert_eq!(ring.wait(Some(Duration::from_millis(20))).expect("wait"), 0, "nobody waits for it");
    }

    #[test]
    fn a_link_hears_what_asks_for_its_ipv6_addresses() {
        let addresses = ["10.0.0.1", "fd00::1:2345", "fd01::1:2345", "fd00::ab:cd"];
        let addresses = addresses.map(|text| text.parse().expect("an address"));
        let asked =
            [[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, 1, 0x23, 0x45], [0x33, 0x33, 0xff, 0xab, 0, 0xcd]];
        assert_eq!(groups(addresses.into_iter()), asked);
        assert!(groups(addresses.into_iter().take(1)).is_empty());
    }

    #[test]
    fn a_link_has_a_unicast_address_of_its_own() {
        for first in 0..=255 {
            let address = derived([first & !1, 1, 2, 3, 4, 5]);
            assert!(address[0] & 3 == 2 && address[0] != first & !1, "{address:?}");
        }
    }
}
