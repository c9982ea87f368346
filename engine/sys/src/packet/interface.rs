//! What the system says of a network interface, and which addresses it has.

use core::ffi::CStr;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::PacketError;
use crate::socket::descriptor;

/// A network interface at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// The longest packet in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Its Ethernet address.
    pub address: [u8; 6],
    /// Its driver; empty where the driver does not tell.
    pub driver: String,
    /// Offloads that are on, by ethtool's names.
    pub offloads: Vec<&'static str>,
}

/// Whether an interface carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It does.
    Up,
    /// It has no carrier: a cable, or what is at its other end.
    NoCarrier,
    /// It was set down.
    Down,
    /// It is there no more.
    Gone,
}

/// `ETHTOOL_GDRVINFO` and its length; the driver's name is 32 bytes after the command.
const DRIVER_INFO: u32 = 3;
const DRIVER_INFO_LEN: usize = 196;
/// Commands that ask for one offload (`struct ethtool_value`).
const OFFLOADS: [(u32, &str); 5] = [
    (0x14, "rx-checksumming"),
    (0x16, "tx-checksumming"),
    (0x1e, "tcp-segmentation-offload"),
    (0x23, "generic-segmentation-offload"),
    (0x2b, "generic-receive-offload"),
];

/// A request for one interface.
struct Request {
    raw: libc::ifreq,
}

impl Request {
    /// `None` when no interface can have the name.
    fn new(name: &str) -> Option<Self> {
        // SAFETY: all-zero is a valid `ifreq`.
        let mut raw: libc::ifreq = unsafe { core::mem::zeroed() };
        let fits = !name.is_empty() && name.len() < raw.ifr_name.len() && !name.contains('\0');
        for (to, from) in raw.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        fits.then_some(Self { raw })
    }

    fn ask(&mut self, fd: RawFd, what: libc::c_ulong) -> io::Result<()> {
        // SAFETY: each request that is passed here takes an `ifreq`, and fills at most that; `ask_ethtool` says where its
        // data are.
        let result = unsafe { libc::ioctl(fd, what, &raw mut self.raw) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Asks the driver; `data` begins with the command and is long enough for its answer.
    fn ask_ethtool(&mut self, fd: RawFd, data: &mut [u32]) -> io::Result<()> {
        self.raw.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
        self.ask(fd, libc::SIOCETHTOOL)
    }
}

impl Interface {
    /// What the system says of the interface of that name. It is up, and Ethernet.
    ///
    /// # Errors
    /// It is not, or there is none.
    pub fn find(name: &str) -> Result<Self, PacketError> {
        let none = || PacketError::NoInterface(name.to_owned());
        let fail = |source| PacketError::System { interface: name.to_owned(), what: "asking for it", source };
        let socket = any_socket().map_err(fail)?;
        let fd = socket.as_raw_fd();
        let mut request = Request::new(name).ok_or_else(none)?;
        request.ask(fd, libc::SIOCGIFINDEX).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => none(),
            _ => fail(error),
        })?;
        // SAFETY: the request before filled this field.
        let index = unsafe { request.raw.ifr_ifru.ifru_ifindex };
        request.ask(fd, libc::SIOCGIFFLAGS).map_err(fail)?;
        // SAFETY: as above.
        let flags = i32::from(unsafe { request.raw.ifr_ifru.ifru_flags });
        if flags & libc::IFF_UP == 0 {
            return Err(PacketError::Down(name.to_owned()));
        }
        request.ask(fd, libc::SIOCGIFMTU).map_err(fail)?;
        // SAFETY: as above.
        let mtu = unsafe { request.raw.ifr_ifru.ifru_mtu };
        request.ask(fd, libc::SIOCGIFHWADDR).map_err(fail)?;
        // SAFETY: as above.
        let hardware = unsafe { request.raw.ifr_ifru.ifru_hwaddr };
        if hardware.sa_family != libc::ARPHRD_ETHER {
            return Err(PacketError::NotEthernet(name.to_owned()));
        }
        let mut address = [0; 6];
        for (to, from) in address.iter_mut().zip(hardware.sa_data) {
            *to = from.to_ne_bytes()[0];
        }
        Ok(Self {
            name: name.to_owned(),
            index: u32::try_from(index).unwrap_or(0),
            mtu: u32::try_from(mtu).unwrap_or(0),
            address,
            driver: driver(fd, &mut request),
            offloads: offloads(fd, &mut request),
        })
    }
}

impl Interface {
    /// # Errors
    /// Its MTU is below `wanted`.
    pub(super) fn check_mtu(&self, wanted: u32) -> Result<(), PacketError> {
        if self.mtu >= wanted {
            return Ok(());
        }
        Err(PacketError::Mtu { interface: self.name.clone(), has: self.mtu, wanted })
    }
}

/// Makes an open `/dev/net/tun` the far end of the TAP of this name, with a `virtio_net_hdr` on each frame.
pub(super) fn take_tap(fd: RawFd, name: &str) -> io::Result<()> {
    let mut request = Request::new(name).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.raw.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("flags are short");
    request.ask(fd, libc::TUNSETIFF)
}

/// `ETHTOOL_GCHANNELS`: the counts of receive, transmit, other and combined queues follow four limits.
const CHANNELS: u32 = 0x3c;

/// Queues that frames arrive on; one where the driver does not tell.
pub(super) fn receive_queues(interface: &Interface) -> io::Result<u32> {
    let socket = any_socket()?;
    let Some(mut request) = Request::new(&interface.name) else { return Ok(1) };
    let mut data = [0_u32; 9];
    data[0] = CHANNELS;
    match request.ask_ethtool(socket.as_raw_fd(), &mut data) {
        Ok(()) => Ok((data[5] + data[8]).max(1)),
        Err(_) => Ok(1),
    }
}

fn any_socket() -> io::Result<OwnedFd> {
    descriptor(libc::AF_INET, libc::SOCK_DGRAM)
}

fn driver(fd: RawFd, request: &mut Request) -> String {
    let mut data = [0_u32; DRIVER_INFO_LEN / 4];
    data[0] = DRIVER_INFO;
    if request.ask_ethtool(fd, &mut data).is_err() {
        return String::new();
    }
    let bytes: Vec<u8> = data[1..9].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn offloads(fd: RawFd, request: &mut Request) -> Vec<&'static str> {
    let is_on = |command: u32, request: &mut Request| {
        let mut data = [command, 0];
        request.ask_ethtool(fd, &mut data).is_ok() && data[1] != 0
    };
    OFFLOADS.into_iter().filter(|(command, _)| is_on(*command, request)).map(|(_, name)| name).collect()
}

/// The interface's state now; it is the same one only if its number is.
pub(super) fn state_of(fd: RawFd, interface: &Interface) -> LinkState {
    let Some(mut request) = Request::new(&interface.name) else { return LinkState::Gone };
    if request.ask(fd, libc::SIOCGIFINDEX).is_err() {
        return LinkState::Gone;
    }
    // SAFETY: the request before filled this field.
    let index = unsafe { request.raw.ifr_ifru.ifru_ifindex };
    if u32::try_from(index) != Ok(interface.index) || request.ask(fd, libc::SIOCGIFFLAGS).is_err() {
        return LinkState::Gone;
    }
    // SAFETY: as above.
    let flags = i32::from(unsafe { request.raw.ifr_ifru.ifru_flags });
    match (flags & libc::IFF_UP != 0, flags & libc::IFF_RUNNING != 0) {
        (false, _) => LinkState::Down,
        (true, false) => LinkState::NoCarrier,
        (true, true) => LinkState::Up,
    }
}

/// The interface's MTU now; `None` where it is there no more.
pub(super) fn mtu_of(fd: RawFd, interface: &Interface) -> Option<u32> {
    let mut request = Request::new(&interface.name)?;
    request.ask(fd, libc::SIOCGIFMTU).ok()?;
    // SAFETY: the request before filled this field.
    u32::try_from(unsafe { request.raw.ifr_ifru.ifru_mtu }).ok()
}

/// Every address that the kernel answers for, with its interface's name.
///
/// # Errors
/// The system's.
pub fn kernel_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut first: *mut libc::ifaddrs = core::ptr::null_mut();
    // SAFETY: the call fills the pointer with a list that is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut entry = first;
    // SAFETY: the list's entries, their names and addresses are valid until it is freed; an address's family says what it is.
    while let Some(one) = unsafe { entry.as_ref() } {
        entry = one.ifa_next;
        // SAFETY: as above.
        if let Some(address) = unsafe { address_of(one.ifa_addr) } {
            // SAFETY: as above; a name ends with a zero byte.
            let name = unsafe { CStr::from_ptr(one.ifa_name) };
            found.push((name.to_string_lossy().into_owned(), address));
        }
    }
    // SAFETY: the list came from `getifaddrs`, and nothing of it is used any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// # Safety
/// `raw` is null or points to an address as long as its family says.
unsafe fn address_of(raw: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise.
    match i32::from(unsafe { raw.as_ref() }?.sa_family) {
        libc::AF_INET => {
            // SAFETY: the family says so.
            let v4 = unsafe { raw.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says so.
            let v6 = unsafe { raw.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}
