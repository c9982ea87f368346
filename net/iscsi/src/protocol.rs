//! What both ends have in common towards their owner.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::digest::{self, Digest};
use crate::pdu::{BHS_LEN, Header};

/// A task of one connection: its Initiator Task Tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u32);

/// PDUs that wait to be sent; with more of them nothing is read. A peer that asks and does not take the answers stops itself, and
/// makes nothing grow.
pub const OUTGOING_MAX: usize = 256;

/// Bytes of data that wait to be sent and lie in no task's buffer (echoes, texts); with more of them nothing is read.
pub(crate) const OUTGOING_BYTES_MAX: usize = 256 << 10;

/// The longest [`Body::Inline`] in bytes.
pub const INLINE_MAX: usize = 64 << 10;

/// What a connection wants from its stream next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Up to this many bytes for [`Protocol::handle_bytes`].
    Bytes(usize),
    /// Up to this many bytes for the task's buffer at this offset, then [`Protocol::handle_payload`]. Bytes past the end of
    /// the buffer, or of a task without one, are shown and dropped.
    Payload {
        /// The task.
        task: TaskId,
        /// Offset in its buffer in bytes.
        offset: u32,
        /// How many bytes at the most, at least one.
        len: usize,
    },
    /// Nothing now: the owner's answer to an event is awaited (a login decision), or the connection is over.
    Nothing,
}

/// What follows a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// These bytes, [`INLINE_MAX`] at the most.
    Inline(Vec<u8>),
    /// A part of the task's buffer.
    Task {
        /// The task.
        task: TaskId,
        /// Offset in its buffer in bytes.
        offset: u32,
        /// How many bytes.
        len: u32,
    },
}

impl Body {
    /// Bytes that it holds itself.
    pub(crate) fn held_len(&self) -> usize {
        if let Self::Inline(bytes) = self { bytes.len() } else { 0 }
    }
}

/// One PDU to send: header, body, then [`digest::Trailer`] of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    head: [u8; BHS_LEN + 4],
    head_len: usize,
    /// The data segment.
    pub body: Body,
    /// Whether the data segment carries a digest.
    pub data_digest: Digest,
    /// The task that is over with this PDU: its buffer is not needed after.
    pub ends: Option<TaskId>,
}

impl Transmit {
    pub(crate) fn new(header: &Header, body: Body, header_digest: Digest, data_digest: Digest) -> Self {
        let len = match &body {
            Body::None => 0,
            Body::Inline(bytes) => bytes.len(),
            Body::Task { len, .. } => *len as usize,
        };
        let header = header.with_data_len(len);
        let mut head = [0; BHS_LEN + 4];
        head[..BHS_LEN].copy_from_slice(&header.0);
        if header_digest == Digest::Crc32c {
            head[BHS_LEN..].copy_from_slice(&digest::append(0, &header.0).to_le_bytes());
        }
        Self { head, head_len: BHS_LEN + header_digest.len(), body, data_digest, ends: None }
    }

    pub(crate) fn ending(mut self, task: TaskId) -> Self {
        self.ends = Some(task);
        self
    }

    /// Header segment and its digest.
    pub fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }
}

/// For how long a target has moved (RFC 7143 section 11.13.5(b)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// 0101: ask here again the next time.
    Temporarily,
    /// 0102: remember the new address.
    Permanently,
}

impl Moved {
    /// Class and detail.
    pub fn code(self) -> (u8, u8) {
        match self {
            Self::Temporarily => (1, 1),
            Self::Permanently => (1, 2),
        }
    }

    pub(crate) fn from_code(class: u8, detail: u8) -> Option<Self> {
        [Self::Temporarily, Self::Permanently].into_iter().find(|how| how.code() == (class, detail))
    }
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Logged out in order.
    LoggedOut,
    /// The login was refused, with status class and detail (RFC 7143 section 11.13.5).
    LoginRefused {
        /// Status-Class.
        class: u8,
        /// Status-Detail.
        detail: u8,
    },
    /// The target is somewhere else (login status class 1).
    Moved {
        /// TargetAddress: `ADDRESS[:PORT][,TAG]`.
        address: String,
        /// Whether the new address is to be remembered.
        how: Moved,
    },
    /// The peer could not be authenticated, or offers no way to do so.
    NotAuthenticated(&'static str),
    /// The peer broke the protocol.
    PeerMisbehaved(&'static str),
    /// A header digest was wrong: at error recovery level 0 the connection cannot go on.
    HeaderDigest,
    /// The owner dropped it.
    Local(&'static str),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoggedOut => f.write_str("logged out"),
            Self::LoginRefused { class, detail } => {
                write!(
                    f,
                    "login refused: {} (status 0x{class:02x}{detail:02x})",
                    login_status_text(*class, *detail)
                )
            }
            Self::Moved { address, how } => {
                let (class, detail) = how.code();
                write!(f, "the target has moved to {address} (status 0x{class:02x}{detail:02x})")
            }
            Self::NotAuthenticated(why) => write!(f, "authentication failed: {why}"),
            Self::PeerMisbehaved(what) => write!(f, "the peer broke the protocol: {what}"),
            Self::HeaderDigest => f.write_str("header digest error"),
            Self::Local(why) => f.write_str(why),
        }
    }
}

/// A login status in words (RFC 7143 section 11.13.5).
pub fn login_status_text(class: u8, detail: u8) -> &'static str {
    match (class, detail) {
        (0, _) => "success",
        (1, _) => "the target has moved",
        (2, 1) => "authentication failed",
        (2, 2) => "this initiator may not use the target",
        (2, 3) => "no such target at this portal",
        (2, 4) => "the target was removed",
        (2, 5) => "unsupported version",
        (2, 6) => "too many connections",
        (2, 7) => "a required key is missing",
        (2, 8) => "cannot include the connection in a session",
        (2, 9) => "session type not supported",
        (2, 0x0a) => "the session does not exist",
        (2, 0x0b) => "invalid request during login",
        (2, _) => "initiator error",
        (3, 1) => "the service is unavailable",
        (3, 2) => "the target is out of resources",
        (3, _) => "target error",
        _ => "unknown status",
    }
}

/// What an owner needs of either end to move bytes.
pub trait Protocol {
    /// What to give next.
    fn want(&self) -> Want;

    /// Takes control bytes, as [`Want::Bytes`] asked; no more than that.
    fn handle_bytes(&mut self, bytes: &[u8]);

    /// Sees payload bytes that the owner has copied, as [`Want::Payload`] asked; no more than that.
    fn handle_payload(&mut self, bytes: &[u8]);

    /// The next PDU to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// Why the connection is over, once it is. Send what [`Protocol::poll_transmit`] still has, then close the stream.
    fn closed(&self) -> Option<&CloseReason>;
}
