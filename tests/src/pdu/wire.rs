//! PDUs byte by byte (RFC 7143 section 11), written for this suite alone: the product's encoder judges nothing here.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Operation codes of what an initiator sends.
pub mod out {
    /// NOP-Out.
    pub const NOP: u8 = 0x00;
    /// SCSI Command.
    pub const COMMAND: u8 = 0x01;
    /// Task Management Function Request.
    pub const TASK: u8 = 0x02;
    /// Login Request.
    pub const LOGIN: u8 = 0x03;
    /// Text Request.
    pub const TEXT: u8 = 0x04;
    /// SCSI Data-Out.
    pub const DATA: u8 = 0x05;
    /// Logout Request.
    pub const LOGOUT: u8 = 0x06;
    /// SNACK Request.
    pub const SNACK: u8 = 0x10;
    /// In byte 0: immediate delivery.
    pub const IMMEDIATE: u8 = 0x40;
}

/// Operation codes of what a target sends.
pub mod back {
    /// NOP-In.
    pub const NOP: u8 = 0x20;
    /// SCSI Response.
    pub const RESPONSE: u8 = 0x21;
    /// Task Management Function Response.
    pub const TASK: u8 = 0x22;
    /// Login Response.
    pub const LOGIN: u8 = 0x23;
    /// Text Response.
    pub const TEXT: u8 = 0x24;
    /// SCSI Data-In.
    pub const DATA: u8 = 0x25;
    /// Logout Response.
    pub const LOGOUT: u8 = 0x26;
    /// Ready To Transfer.
    pub const R2T: u8 = 0x31;
    /// Asynchronous Message.
    pub const ASYNC: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3f;
}

/// The tag that names nothing.
pub const NO_TAG: u32 = 0xffff_ffff;
/// Longest data segment that is believed, in bytes.
const SEGMENT_MAX: usize = 1 << 20;

/// One PDU without its digests.
#[derive(Clone, PartialEq, Eq)]
pub struct Pdu {
    /// Basic header segment; the lengths are put in when it is sent.
    pub bhs: [u8; 48],
    /// Additional header segments, padded.
    pub ahs: Vec<u8>,
    /// Data segment without padding.
    pub data: Vec<u8>,
}

impl fmt::Debug for Pdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "opcode {:#x}, flags {:#x}, ", self.opcode(), self.flags())?;
        write!(f, "tag {:#x}, bytes 36 to 48 {:02x?}, ", self.itt(), &self.bhs[36..])?;
        write!(f, "{} bytes of data", self.data.len())
    }
}

impl Pdu {
    /// A PDU with bytes 0 and 1.
    pub fn new(first: u8, flags: u8) -> Self {
        let mut bhs = [0; 48];
        (bhs[0], bhs[1]) = (first, flags);
        Self { bhs, ahs: Vec::new(), data: Vec::new() }
    }

    /// Sets bytes from `at` on.
    #[must_use]
    pub fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bhs[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// With these bits in byte 0, too.
    #[must_use]
    pub fn with_first(mut self, bits: u8) -> Self {
        self.bhs[0] |= bits;
        self
    }

    /// Sets a big-endian word.
    #[must_use]
    pub fn put32(self, at: usize, value: u32) -> Self {
        self.put(at, &value.to_be_bytes())
    }

    /// Sets the data segment.
    #[must_use]
    pub fn with_data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    /// The operation code.
    pub fn opcode(&self) -> u8 {
        self.bhs[0] & 0x3f
    }

    /// Byte 1.
    pub fn flags(&self) -> u8 {
        self.bhs[1]
    }

    /// A big-endian word.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.bhs[at], self.bhs[at + 1], self.bhs[at + 2], self.bhs[at + 3]])
    }

    /// A big-endian half word.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.bhs[at], self.bhs[at + 1]])
    }

    /// Initiator Task Tag.
    pub fn itt(&self) -> u32 {
        self.u32(16)
    }

    /// The bytes on the wire, lengths and digests put in.
    pub fn bytes(&self, digests: Digests) -> Vec<u8> {
        let mut bytes = self.bhs.to_vec();
        bytes[4] = u8::try_from(self.ahs.len() / 4).expect("a short header");
        let len = u32::try_from(self.data.len()).expect("a short segment").to_be_bytes();
        bytes[5..8].copy_from_slice(&len[1..]);
        bytes.extend_from_slice(&self.ahs);
        if digests.header {
            bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        }
        if self.data.is_empty() {
            return bytes;
        }
        let mut segment = self.data.clone();
        segment.resize(segment.len().next_multiple_of(4), 0);
        let crc = crc32c(&segment);
        bytes.extend_from_slice(&segment);
        if digests.data {
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
        bytes
    }
}

/// Which digests a connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Of headers.
    pub header: bool,
    /// Of data segments.
    pub data: bool,
}

/// CRC32C bit by bit (RFC 7143 section 13.1): reflected polynomial 0x1EDC6F41.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// What came, or did not.
#[derive(Debug)]
pub enum Received {
    /// A PDU.
    Pdu(Pdu),
    /// The far end closed or reset the connection.
    Closed,
    /// Nothing came in time.
    Silence,
}

/// A TCP connection that carries PDUs.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    /// Digests of either direction.
    pub digests: Digests,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(portal: SocketAddr, patience: Duration) -> Result<Self, String> {
        let stream =
            TcpStream::connect_timeout(&portal, patience).map_err(|error| format!("connect: {error}"))?;
        let set = stream.set_read_timeout(Some(patience)).and_then(|()| stream.set_nodelay(true));
        set.map_err(|error| error.to_string())?;
        Ok(Self { stream, digests: Digests::default() })
    }

    /// Sends a PDU. A connection that is closed says so when it is read.
    pub fn send(&mut self, pdu: &Pdu) {
        let bytes = pdu.bytes(self.digests);
        self.send_raw(&bytes);
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        // The far end may have closed already: that is for the reader to find.
        let _ = self.stream.write_all(bytes);
    }

    /// How long to wait for a PDU.
    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a time above zero");
    }

    /// Whether something comes, or the end, within this time.
    pub fn has_news(&self, within: Duration) -> bool {
        let patience = self.stream.read_timeout().expect("an option");
        self.set_patience(within);
        let silent = self.stream.peek(&mut [0]).is_err_and(|error| {
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
        });
        self.stream.set_read_timeout(patience).expect("as it was");
        !silent
    }

    /// Waits for the next PDU.
    ///
    /// # Errors
    /// What comes is no PDU: a wrong digest, padding that is not zero, a length beyond reason.
    pub fn receive(&mut self) -> Result<Received, String> {
        let mut bhs = [0; 48];
        match self.fill(&mut bhs, true)? {
            Filled::Whole => {}
            Filled::Closed => return Ok(Received::Closed),
            Filled::Silence => return Ok(Received::Silence),
        }
        let mut pdu = Pdu { bhs, ahs: vec![0; usize::from(bhs[4]) * 4], data: Vec::new() };
        self.fill(&mut pdu.ahs, false)?;
        let mut crc = [0; 4];
        if self.digests.header {
            self.fill(&mut crc, false)?;
            let header = [&bhs[..], &pdu.ahs].concat();
            ensure!(crc == crc32c(&header).to_le_bytes(), "header digest of opcode {:#x}", pdu.opcode());
        }
        let len = (pdu.u32(4) & 0xff_ffff) as usize;
        ensure!(len <= SEGMENT_MAX, "a data segment of {len} bytes");
        let mut segment = vec![0; len.next_multiple_of(4)];
        self.fill(&mut segment, false)?;
        if self.digests.data && len > 0 {
            self.fill(&mut crc, false)?;
            ensure!(crc == crc32c(&segment).to_le_bytes(), "data digest of opcode {:#x}", pdu.opcode());
        }
        ensure!(segment[len..].iter().all(|byte| *byte == 0), "padding that is not zero");
        segment.truncate(len);
        pdu.data = segment;
        Ok(Received::Pdu(pdu))
    }

    fn fill(&mut self, into: &mut [u8], is_start: bool) -> Result<Filled, String> {
        let mut filled = 0;
        while filled < into.len() {
            match self.stream.read(&mut into[filled..]) {
                Ok(0) if is_start => return Ok(Filled::Closed),
                Ok(0) => return Err(format!("closed in the middle of a PDU, after {filled} bytes")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    ensure!(is_start && filled == 0, "a PDU that never ends");
                    return Ok(Filled::Silence);
                }
                Err(_) if is_start => return Ok(Filled::Closed),
                Err(error) => return Err(format!("in the middle of a PDU: {error}")),
            }
        }
        Ok(Filled::Whole)
    }
}

enum Filled {
    Whole,
    Closed,
    Silence,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_rfcs_examples() {
        // RFC 7143 appendix A.4: 32 zeroes, 32 ones, rising, falling.
        assert_eq!(crc32c(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(crc32c(&[0xff; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising).to_le_bytes(), [0x4e, 0x79, 0xdd, 0x46]);
        let falling: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&falling).to_le_bytes(), [0x5c, 0xdb, 0x3f, 0x11]);
    }

    #[test]
    fn lengths_padding_and_digests_are_put_in() {
        let pdu = Pdu::new(out::NOP, 0x80).put32(16, 7).with_data(b"abcde");
        let bytes = pdu.bytes(Digests { header: true, data: true });
        assert_eq!(bytes.len(), 48 + 4 + 8 + 4);
        assert_eq!(&bytes[4..8], &[0, 0, 0, 5]);
        assert_eq!(&bytes[52..60], b"abcde\0\0\0");
        assert_eq!(bytes[60..], crc32c(b"abcde\0\0\0").to_le_bytes());
        assert_eq!(Pdu::new(out::NOP, 0).bytes(Digests { header: false, data: true }).len(), 48);
    }
}
