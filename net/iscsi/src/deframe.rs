//! Bytes to PDUs: an explicit machine that asks for what it needs next.
//!
//! ```text
//! Header(48) -> Ahs -> HeaderDigest -> [the owner picks a sink] -> Data -> Padding -> DataDigest -> PDU complete
//! ```

use alloc::vec::Vec;

use crate::digest::{self, Digest};
use crate::pdu::{BHS_LEN, Header};
use crate::protocol::{TaskId, Want};

/// Where a data segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Into the deframer, for text and other short control data.
    Internal,
    /// Into a task's buffer at an offset.
    Task(TaskId, u32),
    /// Nowhere.
    Discard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Header,
    Ahs,
    HeaderDigest,
    /// The header is complete and the connection has not yet said where the data goes.
    Decision,
    Data(Sink),
    Padding,
    DataDigest,
}

/// What a call achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// A header is complete and its digest is right: look at it and call [`Deframer::accept`].
    Header,
    /// The header digest was wrong.
    HeaderDigestError,
    /// The PDU is complete.
    Pdu,
    /// The PDU is complete, and its data digest was wrong.
    DataDigestError,
}

/// See the module.
#[derive(Debug)]
pub struct Deframer {
    phase: Phase,
    header_digest: Digest,
    data_digest: Digest,
    header: [u8; BHS_LEN],
    /// Additional header segments, as received.
    ahs: Vec<u8>,
    /// Data of a PDU whose sink is internal.
    data: Vec<u8>,
    small: [u8; 4],
    filled: usize,
    crc: u32,
}

impl Deframer {
    /// A deframer without digests, as before login.
    pub fn new() -> Self {
        Self {
            phase: Phase::Header,
            header_digest: Digest::None,
            data_digest: Digest::None,
            header: [0; BHS_LEN],
            ahs: Vec::new(),
            data: Vec::new(),
            small: [0; 4],
            filled: 0,
            crc: 0,
        }
    }

    /// Digests of the PDUs from the next one on.
    pub fn set_digests(&mut self, header: Digest, data: Digest) {
        self.header_digest = header;
        self.data_digest = data;
    }

    /// True before the first byte of a PDU.
    pub fn is_between_pdus(&self) -> bool {
        self.phase == Phase::Header && self.filled == 0
    }

    /// The header at hand.
    pub fn header(&self) -> Header {
        Header(self.header)
    }

    /// The additional header segments of the PDU at hand.
    pub fn ahs(&self) -> &[u8] {
        &self.ahs
    }

    /// Takes them.
    pub fn take_ahs(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.ahs)
    }

    /// The header at hand promises additional segments, which are still to come.
    pub fn awaits_ahs(&self) -> bool {
        self.phase == Phase::Ahs
    }

    /// Takes the internal data of the PDU that just completed.
    pub fn take_data(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.data)
    }

    /// What to give next.
    pub fn want(&self) -> Want {
        let len = self.needed();
        match self.phase {
            Phase::Decision => Want::Nothing,
            Phase::Data(Sink::Task(task, start)) => Want::Payload {
                task,
                offset: start.saturating_add(u32::try_from(self.filled).unwrap_or(u32::MAX)),
                len,
            },
            _ => Want::Bytes(len),
        }
    }

    fn needed(&self) -> usize {
        let total = match self.phase {
            Phase::Header => BHS_LEN,
            Phase::Ahs => self.header().ahs_len(),
            Phase::HeaderDigest | Phase::DataDigest => 4,
            Phase::Decision => 0,
            Phase::Data(_) => self.header().data_len(),
            Phase::Padding => digest::padding(self.header().data_len()),
        };
        total.saturating_sub(self.filled)
    }

    /// Takes bytes, at most as many as wanted; more are ignored.
    pub fn handle(&mut self, bytes: &[u8]) -> Step {
        let bytes = &bytes[..bytes.len().min(self.needed())];
        let end = self.filled + bytes.len();
        match self.phase {
            Phase::Header => self.header[self.filled..end].copy_from_slice(bytes),
            Phase::Ahs => self.ahs.extend_from_slice(bytes),
            Phase::HeaderDigest | Phase::DataDigest => self.small[self.filled..end].copy_from_slice(bytes),
            Phase::Decision => return Step::More,
            Phase::Data(sink) => {
                if sink == Sink::Internal {
                    self.data.extend_from_slice(bytes);
                }
                self.digest_data(bytes);
            }
            Phase::Padding => self.digest_data(bytes),
        }
        self.filled = end;
        if self.needed() > 0 { Step::More } else { self.advance() }
    }

    fn digest_data(&mut self, bytes: &[u8]) {
        if self.data_digest == Digest::Crc32c {
            self.crc = digest::append(self.crc, bytes);
        }
    }

    /// Says where the data of the header at hand goes.
    pub fn accept(&mut self, sink: Sink) -> Step {
        if self.phase != Phase::Decision {
            return Step::More;
        }
        self.crc = 0;
        self.data.clear();
        self.enter(Phase::Data(sink))
    }

    /// Enters a phase, passing through those that want nothing.
    fn enter(&mut self, phase: Phase) -> Step {
        self.phase = phase;
        self.filled = 0;
        if phase == Phase::Decision {
            return Step::Header;
        }
        if self.needed() > 0 { Step::More } else { self.advance() }
    }

    /// The phase at hand is complete.
    fn advance(&mut self) -> Step {
        match self.phase {
            Phase::Header => {
                self.ahs.clear();
                self.enter(Phase::Ahs)
            }
            Phase::Ahs if self.header_digest == Digest::Crc32c => self.enter(Phase::HeaderDigest),
            Phase::Ahs | Phase::Decision => self.enter(Phase::Decision),
            Phase::HeaderDigest => {
                let crc = digest::append(digest::append(0, &self.header), &self.ahs);
                if self.small == crc.to_le_bytes() {
                    self.enter(Phase::Decision)
                } else {
                    Step::HeaderDigestError
                }
            }
            Phase::Data(_) => self.enter(Phase::Padding),
            Phase::Padding if self.data_digest == Digest::Crc32c && self.header().data_len() > 0 => {
                self.enter(Phase::DataDigest)
            }
            Phase::Padding => self.complete(Step::Pdu),
            Phase::DataDigest => {
                let right = self.small == self.crc.to_le_bytes();
                self.complete(if right { Step::Pdu } else { Step::DataDigestError })
            }
        }
    }

    fn complete(&mut self, step: Step) -> Step {
        self.phase = Phase::Header;
        self.filled = 0;
        step
    }
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new()
    }
}
