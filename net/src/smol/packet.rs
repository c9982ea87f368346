//! The packet rings of the kernel as a device.

use engine::packet::{
    Interface, LinkState, PacketConfig, PacketDevice, PacketStats, Received, SendRequest, Transmitter,
    kernel_addresses,
};
use engine::{Core, Operation, RingClient};

use super::config::{LinkConfig, LinkError};
use super::device::{FrameDevice, Properties, Transmit};

const ARRIVAL: u64 = 1;

/// Whether the ring waits for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    None,
    Armed,
}

/// See the module.
pub(super) struct PacketLink {
    device: PacketDevice,
    properties: Properties,
    client: RingClient,
    wait: Wait,
}

/// The longest packet that IPv4 can say the length of, with its Ethernet header.
const SEGMENTATION: usize = 65_535 + 14;

pub(super) fn open(config: &LinkConfig, core: &Core) -> Result<PacketLink, LinkError> {
    check_addresses(config)?;
    let ring = core.ring().ok_or_else(|| LinkError::System {
        what: "a link",
        source: std::io::Error::new(std::io::ErrorKind::Unsupported, "this core has no io_uring"),
    })?;
    let address = match config.hardware_address {
        Some(address) => address,
        None => derived(Interface::find(&config.interface)?.address),
    };
    let device = PacketDevice::open(&PacketConfig {
        interface: config.interface.clone(),
        mtu: config.mtu,
        address,
        receive_frames: config.ring_frames,
        transmit_frames: config.ring_frames / 2,
    })?;
    let interface = device.interface();
    let properties = Properties {
        kind: "packet",
        driver: interface.driver.clone(),
        address,
        mtu: interface.mtu,
        segmentation: Some(SEGMENTATION.min(Transmitter::FRAME_MAX)),
        offloads: interface.offloads.clone(),
    };
    Ok(PacketLink { device, properties, client: ring.attach(), wait: Wait::None })
}

/// An address of this link alone, so that the kernel drops at once what is not for it: the interface's, administered here
/// (IEEE 802, section 8.2.2), or another one where that is so already.
fn derived(mut address: [u8; 6]) -> [u8; 6] {
    address[0] = if address[0] & 2 == 0 { address[0] | 2 } else { address[0] ^ 0x40 };
    address[0] &= !1;
    address
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

impl Transmit for Transmitter {
    fn has_room(&self) -> bool {
        self.has_room()
    }

    fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        self.reserve(len)
    }

    fn commit(&mut self, len: usize, request: SendRequest) {
        self.commit(len, request);
    }
}

impl FrameDevice for PacketLink {
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
        self.device.link_state()
    }

    fn stats(&mut self) -> PacketStats {
        self.device.stats()
    }

    fn prepare_sleep(&mut self) {
        while self.client.take().is_some() {
            self.wait = Wait::None;
        }
        let operation = || Operation::Readable { socket: self.device.socket().clone() };
        if self.wait == Wait::None && self.client.submit(ARRIVAL, operation()).is_ok() {
            self.wait = Wait::Armed;
        }
    }
}

impl Drop for PacketLink {
    fn drop(&mut self) {
        // A wait would keep the socket open.
        self.client.cancel(ARRIVAL);
    }
}
