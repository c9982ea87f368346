//! The program that hands received frames to a socket, and how it is put on an interface: bpf(2) alone.

use core::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::super::interface::Interface;

/// Commands of bpf(2).
mod command {
    pub(super) const MAP_CREATE: libc::c_long = 0;
    pub(super) const MAP_UPDATE: libc::c_long = 2;
    pub(super) const PROG_LOAD: libc::c_long = 5;
    pub(super) const LINK_CREATE: libc::c_long = 28;
}

/// `BPF_MAP_TYPE_XSKMAP`.
const XSKMAP: u32 = 17;
/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `BPF_F_XDP_HAS_FRAGS`: frames of more than a page pass.
const HAS_FRAGS: u32 = 1 << 5;
/// The program is refused to nobody for this license; it calls no function that asks for another.
const LICENSE: &CStr = c"Dual MIT/GPL";

/// Where in the receive path it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the driver, before the kernel has made anything of a frame.
    Driver,
    /// After that, on any interface.
    Generic,
}

impl Place {
    /// `XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE`.
    fn flags(self) -> u32 {
        match self {
            Self::Driver => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

impl Instruction {
    const fn new(code: u8, (to, from): (u8, u8), offset: i16, value: i32) -> Self {
        let registers = if cfg!(target_endian = "little") { to | from << 4 } else { to << 4 | from };
        Self { code, registers, offset, value }
    }
}

/// `return bpf_redirect_map(&map, frame->rx_queue_index, XDP_PASS)`.
fn instructions(map: RawFd) -> [Instruction; 6] {
    [
        // r2 = *(u32 *)(r1 + offsetof(struct xdp_md, rx_queue_index))
        Instruction::new(0x61, (2, 1), 16, 0),
        // r1 = map, in two instructions
        Instruction::new(0x18, (1, 1), 0, map),
        Instruction::new(0, (0, 0), 0, 0),
        // r3 = XDP_PASS: what no socket takes is the kernel's
        Instruction::new(0xb7, (3, 0), 0, 2),
        // call bpf_redirect_map
        Instruction::new(0x85, (0, 0), 0, 51),
        // exit
        Instruction::new(0x95, (0, 0), 0, 0),
    ]
}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach: u32,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach: u32,
    flags: u32,
}

/// # Safety
/// Addresses in `attributes` are of what the command reads, and that is there.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the pointer and length are of one value, which is only read during the call; the caller's promise for the rest.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, core::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// # Safety
/// As [`bpf`], of a command that makes a descriptor.
unsafe fn bpf_fd<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: RawFd) -> u32 {
    u32::try_from(fd).expect("descriptors are not negative")
}

fn address<T>(value: &T) -> u64 {
    core::ptr::from_ref(value) as u64
}

/// The program on its interface. Dropping it takes it away.
#[derive(Debug)]
pub(super) struct Attached {
    _map: OwnedFd,
    _link: OwnedFd,
}

impl Attached {
    /// Frames that arrive on `queue` go to the bound socket `fd`.
    ///
    /// # Errors
    /// What was tried, and the system's.
    pub(super) fn new(
        interface: &Interface,
        queue: u32,
        fd: RawFd,
    ) -> Result<Self, (&'static str, io::Error)> {
        let create = MapCreate { kind: XSKMAP, key_size: 4, value_size: 4, entries: queue + 1 };
        // SAFETY: no address is in it.
        let map = unsafe { bpf_fd(command::MAP_CREATE, &create) }.map_err(|error| ("an XSK map", error))?;
        let socket = number(fd);
        let raw = map.as_raw_fd();
        let update =
            MapUpdate { map: number(raw), pad: 0, key: address(&queue), value: address(&socket), flags: 0 };
        // SAFETY: the key and the value are as long as the map was told, and live longer than the call.
        unsafe { bpf(command::MAP_UPDATE, &update) }.map_err(|error| ("the XSK map's entry", error))?;
        let program = load(raw).map_err(|error| ("the XDP program", error))?;
        let attach = |place: Place| {
            let create = LinkCreate {
                program: number(program.as_raw_fd()),
                interface: interface.index,
                attach: ATTACH_XDP,
                flags: place.flags(),
            };
            // SAFETY: no address is in it.
            unsafe { bpf_fd(command::LINK_CREATE, &create) }
        };
        let link = attach(Place::Driver).or_else(|_| attach(Place::Generic));
        Ok(Self { _map: map, _link: link.map_err(|error| ("attaching the XDP program", error))? })
    }
}

fn load(map: RawFd) -> io::Result<OwnedFd> {
    let instructions = instructions(map);
    let load = ProgLoad {
        kind: XDP,
        count: u32::try_from(instructions.len()).expect("a short program"),
        instructions: address(&instructions),
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: HAS_FRAGS,
        name: *b"gemel_link\0\0\0\0\0\0",
        interface: 0,
        attach: ATTACH_XDP,
    };
    // SAFETY: the instructions are as many as it says, the license ends with a zero byte, and both live longer than the call.
    unsafe { bpf_fd(command::PROG_LOAD, &load) }
}
