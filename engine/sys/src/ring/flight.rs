//! One operation in the kernel's hands, with everything that the kernel may touch.

use core::net::SocketAddr;
use std::io;

use io_uring::{opcode, squeue, types};

use super::WOKEN;
use super::files::{Files, Target, on_target};
use super::operation::{Completion, Operation, RangeMode, WriteMode};
use crate::pool::Pool;
use crate::socket::Socket;

/// A socket address as the kernel reads it.
enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

/// Structures that the kernel reads while the operation is in flight; boxed, so that they do not move.
enum Attachment {
    None,
    Address(Box<RawAddress>),
    Message { header: Box<libc::msghdr>, vectors: Box<[libc::iovec]> },
}

pub(super) struct Flight {
    client: Option<usize>,
    token: u64,
    operation: Operation,
    attachment: Attachment,
}

impl Flight {
    pub(super) fn new(client: usize, token: u64, operation: Operation) -> Self {
        Self { client: Some(client), token, operation, attachment: Attachment::None }
    }

    /// One that nobody waits for.
    pub(super) fn unwatched(operation: Operation) -> Self {
        Self { client: None, token: 0, operation, attachment: Attachment::None }
    }

    pub(super) fn is(&self, client: usize, token: u64) -> bool {
        self.client == Some(client) && self.token == token
    }

    pub(super) fn orphan_if(&mut self, client: usize) {
        if self.client == Some(client) {
            self.client = None;
        }
    }

    /// The submission entry. Its pointers are into frames and into `attachment`'s boxes: the flight may move, they do not.
    pub(super) fn entry(&mut self, arena: Option<&Pool>, files: Option<&Files>) -> squeue::Entry {
        let place = |raw| files.map_or(Target::Plain(raw), |files| files.target(raw));
        match &mut self.operation {
            Operation::Read { file, offset, into } => {
                let at = place(file.raw());
                let len = u32::try_from(into.len()).expect("a frame is short");
                let fixed = arena.is_some_and(|arena| arena.is_same(into.pool()));
                let target = into.as_mut_ptr();
                if fixed {
                    on_target!(at, fd => opcode::ReadFixed::new(fd, target, len, 0).offset(*offset).build())
                } else {
                    on_target!(at, fd => opcode::Read::new(fd, target, len).offset(*offset).build())
                }
            }
            Operation::Write { file, offset, from, mode } => {
                let at = place(file.raw());
                let len = u32::try_from(from.len()).expect("a frame is short");
                let flags = match mode {
                    WriteMode::Accepted => 0,
                    WriteMode::Durable => libc::RWF_DSYNC,
                };
                let (source, offset) = (from.as_ptr(), *offset);
                if arena.is_some_and(|arena| arena.is_same(from.pool())) {
                    on_target!(at, fd => {
                        opcode::WriteFixed::new(fd, source, len, 0).offset(offset).rw_flags(flags).build()
                    })
                } else {
                    on_target!(at, fd => {
                        opcode::Write::new(fd, source, len).offset(offset).rw_flags(flags).build()
                    })
                }
            }
            Operation::Sync { file } => {
                let flags = types::FsyncFlags::DATASYNC;
                on_target!(place(file.raw()), fd => opcode::Fsync::new(fd).flags(flags).build())
            }
            Operation::Range { file, offset, len, mode } => {
                let mode = match mode {
                    RangeMode::PunchHole => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
                    RangeMode::Zero => libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
                };
                on_target!(place(file.raw()), fd => {
                    opcode::Fallocate::new(fd, *len).offset(*offset).mode(mode).build()
                })
            }
            Operation::Accept { socket } => {
                opcode::Accept::new(types::Fd(socket.raw()), core::ptr::null_mut(), core::ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            }
            Operation::Connect { socket, address } => {
                let raw = Box::new(raw_address(*address));
                let (pointer, len) = match &*raw {
                    RawAddress::V4(v4) => (core::ptr::from_ref(v4).cast(), size_of::<libc::sockaddr_in>()),
                    RawAddress::V6(v6) => (core::ptr::from_ref(v6).cast(), size_of::<libc::sockaddr_in6>()),
                };
                let len = libc::socklen_t::try_from(len).expect("an address is short");
                let entry = opcode::Connect::new(types::Fd(socket.raw()), pointer, len).build();
                self.attachment = Attachment::Address(raw);
                entry
            }
            Operation::Receive { socket, into } => {
                let len = u32::try_from(into.len()).expect("a frame is short");
                let target = into.as_mut_ptr();
                on_target!(place(socket.raw()), fd => opcode::Recv::new(fd, target, len).build())
            }
            Operation::Wake { sleeper } => {
                // Without a ring the kernel refuses the message, and the sleeper is rung another way.
                let ring = types::Fd(sleeper.ring().unwrap_or(-1));
                opcode::MsgRingData::new(ring, 0, WOKEN, None).build()
            }
            Operation::Readable { socket } => {
                let events = u32::try_from(libc::POLLIN).expect("a small constant");
                opcode::PollAdd::new(types::Fd(socket.raw()), events).build()
            }
            Operation::Send { socket, segments, skip } => {
                assert!(segments.len() <= Operation::SEND_SEGMENTS_MAX, "too many segments in one send");
                let mut skip = *skip;
                let mut vectors: Box<[libc::iovec]> = segments
                    .iter()
                    .map(|segment| {
                        let bytes = &segment.as_bytes()[core::mem::take(&mut skip)..];
                        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
                    })
                    .collect();
                // SAFETY: all-zero is a valid `msghdr`: no name, no vectors, no control data.
                let mut header: Box<libc::msghdr> = Box::new(unsafe { core::mem::zeroed() });
                header.msg_iov = vectors.as_mut_ptr();
                header.msg_iovlen = vectors.len();
                let message = &raw const *header;
                let flags = u32::try_from(libc::MSG_NOSIGNAL).expect("a small constant");
                let entry = on_target!(place(socket.raw()), fd => {
                    opcode::SendMsg::new(fd, message).flags(flags).build()
                });
                self.attachment = Attachment::Message { header, vectors };
                entry
            }
        }
    }

    /// What to tell the client.
    pub(super) fn land(self, result: i32) -> (Option<usize>, Completion) {
        // Only now may the kernel's structures go.
        match self.attachment {
            Attachment::None => {}
            Attachment::Address(address) => drop(address),
            Attachment::Message { header, vectors } => drop((header, vectors)),
        }
        let result = match u32::try_from(result) {
            Ok(value) => Ok(value),
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
        };
        if let (Operation::Wake { sleeper }, Err(_)) = (&self.operation, &result) {
            sleeper.ring_by_event();
        }
        let is_accept = matches!(self.operation, Operation::Accept { .. });
        let (result, accepted) = match result {
            Ok(fd) if is_accept => {
                let fd = i32::try_from(fd).expect("a descriptor");
                // SAFETY: an accept that succeeded gives a new descriptor to us alone.
                (Ok(0), Some(unsafe { Socket::from_raw(fd) }))
            }
            other => (other, None),
        };
        (self.client, Completion { token: self.token, operation: self.operation, result, accepted })
    }
}

fn raw_address(address: SocketAddr) -> RawAddress {
    match address {
        SocketAddr::V4(v4) => RawAddress::V4(libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("a small constant"),
            sin_port: v4.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
            sin_zero: [0; 8],
        }),
        SocketAddr::V6(v6) => RawAddress::V6(libc::sockaddr_in6 {
            sin6_family: libc::sa_family_t::try_from(libc::AF_INET6).expect("a small constant"),
            sin6_port: v6.port().to_be(),
            sin6_flowinfo: v6.flowinfo(),
            sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
            sin6_scope_id: v6.scope_id(),
        }),
    }
}
