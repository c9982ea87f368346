//! Commands with data: reads and writes of 512-byte blocks, each PDU of them held to RFC 7143 sections 11.4, 11.7 and 11.8.

use std::fmt;

use super::Outcome;
use super::session::Session;
use super::wire::{NO_TAG, Pdu, back, out};

/// Bytes of a block.
pub const BLOCK: u32 = 512;
/// F and R.
pub const READ: u8 = 0xc0;
/// F and W.
pub const WRITE: u8 = 0xa0;
/// Simple task attribute.
pub const SIMPLE: u8 = 1;
/// Check condition.
pub const CHECK: u8 = 2;

/// A command's end.
#[derive(Clone, Default)]
pub struct Reply {
    /// SCSI status.
    pub status: u8,
    /// Byte 1 of the PDU that brought it.
    pub flags: u8,
    /// Residual count.
    pub residual: u32,
    /// What was read.
    pub data: Vec<u8>,
    /// Sense data without its length.
    pub sense: Vec<u8>,
    /// The Data-In PDUs.
    pub data_in: Vec<Pdu>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, code, qualifier) = self.sense_code();
        write!(f, "status {:#x}, flags {:#x}, ", self.status, self.flags)?;
        write!(f, "residual {}, {} bytes in {} PDUs", self.residual, self.data.len(), self.data_in.len())?;
        if self.sense.is_empty() { Ok(()) } else { write!(f, ", sense {key:x}/{code:02x}{qualifier:02x}") }
    }
}

impl Reply {
    /// Underflow by that many bytes, nothing else.
    pub fn is_under(&self, bytes: u32) -> bool {
        self.flags & 6 == 2 && self.residual == bytes
    }

    /// Overflow by that many bytes, nothing else.
    pub fn is_over(&self, bytes: u32) -> bool {
        self.flags & 6 == 4 && self.residual == bytes
    }

    /// Neither.
    pub fn is_exact(&self) -> bool {
        self.flags & 6 == 0 && self.residual == 0
    }

    /// Sense key and additional code of fixed or descriptor sense.
    pub fn sense_code(&self) -> (u8, u8, u8) {
        let at = |index: usize| self.sense.get(index).copied().unwrap_or(0xff);
        if at(0) & 0x7f >= 0x72 { (at(1) & 15, at(2), at(3)) } else { (at(2) & 15, at(12), at(13)) }
    }
}

/// READ(10) or WRITE(10).
pub fn cdb10(opcode: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let (lba, blocks) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [opcode, 0, lba[0], lba[1], lba[2], lba[3], 0, blocks[0], blocks[1], 0]
}

/// Bytes that differ from block to block and from seed to seed.
pub fn pattern(blocks: u32, seed: u8) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (at / BLOCK) as u8 ^ (at % 251) as u8 ^ seed).collect()
}

impl Session {
    /// Reads.
    pub fn read(&mut self, lba: u32, blocks: u16, expected: u32) -> Result<Reply, String> {
        let itt = self.request(self.command(READ | SIMPLE, &cdb10(0x28, lba, blocks), expected));
        self.reply(itt, expected)
    }

    /// Reads what must be there whole.
    pub fn must_read(&mut self, lba: u32, blocks: u16) -> Result<Vec<u8>, String> {
        let reply = self.read(lba, blocks, u32::from(blocks) * BLOCK)?;
        ensure!(reply.status == 0 && reply.is_exact(), "read: status {:#x} {reply:?}", reply.status);
        Ok(reply.data)
    }

    /// Writes by whatever way was agreed on; `blocks` in the CDB, the data's length expected.
    pub fn write(&mut self, lba: u32, blocks: u16, data: &[u8]) -> Result<Reply, String> {
        self.send_out(&cdb10(0x2a, lba, blocks), data)
    }

    /// A command with data to the target, by whatever way was agreed on.
    pub fn send_out(&mut self, cdb: &[u8], data: &[u8]) -> Result<Reply, String> {
        let expected = u32::try_from(data.len()).expect("short");
        let immediate = match self.answered("ImmediateData") {
            Some("No") => 0,
            _ => data.len().min(self.number("FirstBurstLength").unwrap_or(0) as usize).min(4096),
        };
        let command = self.command(WRITE | SIMPLE, cdb, expected);
        let itt = self.request(command.with_data(&data[..immediate]));
        self.feed(itt, data)
    }

    /// Writes what must be accepted.
    pub fn must_write(&mut self, lba: u32, data: &[u8]) -> Outcome {
        let blocks = u16::try_from(data.len() / BLOCK as usize).expect("short");
        let reply = self.write(lba, blocks, data)?;
        ensure!(reply.status == 0 && reply.is_exact(), "write: {reply:?}");
        Ok(())
    }

    /// Answers R2Ts from the data until the status comes.
    pub fn feed(&mut self, itt: u32, data: &[u8]) -> Result<Reply, String> {
        let burst = self.number("MaxBurstLength").unwrap_or(262_144);
        let mut r2ts = 0;
        loop {
            let pdu = self.must()?;
            ensure!(pdu.itt() == itt, "a PDU of another task: {:#x} {:#x}", pdu.opcode(), pdu.itt());
            if pdu.opcode() != back::R2T {
                return ended(&pdu, 0, Reply::default());
            }
            ensure!(pdu.u32(36) == r2ts, "R2TSN {} after {r2ts} R2Ts", pdu.u32(36));
            r2ts += 1;
            let (offset, len) = (pdu.u32(40), pdu.u32(44));
            ensure!(pdu.u32(20) != NO_TAG && pdu.flags() == 0x80, "an R2T without a tag or F");
            ensure!(pdu.bhs[8..16] == self.lun_field(), "an R2T of another LUN");
            ensure!(0 < len && len <= burst, "an R2T for {len} bytes, MaxBurstLength is {burst}");
            let end = (offset + len) as usize;
            ensure!(end <= data.len(), "an R2T for bytes up to {end} of {}", data.len());
            self.send_burst(itt, pdu.u32(20), &data[offset as usize..end], offset);
        }
    }

    /// Sends a burst in segments of at most 8192 bytes, numbered from zero.
    pub fn send_burst(&mut self, itt: u32, ttt: u32, data: &[u8], offset: u32) {
        let chunks = data.chunks(8192).count();
        for (number, chunk) in (0..).zip(data.chunks(8192)) {
            let at = offset + number * 8192;
            let pdu = self.data_out(itt, ttt, number, at, chunk);
            let last = number as usize + 1 == chunks;
            self.link.send(&if last { pdu.put(1, &[0x80]) } else { pdu });
        }
    }

    /// A Data-Out without F.
    pub fn data_out(&self, itt: u32, ttt: u32, data_sn: u32, offset: u32, data: &[u8]) -> Pdu {
        Pdu::new(out::DATA, 0)
            .put(8, &self.lun_field())
            .put32(16, itt)
            .put32(20, ttt)
            .put32(28, self.exp_stat_sn())
            .put32(36, data_sn)
            .put32(40, offset)
            .with_data(data)
    }

    /// Collects Data-In and the status of a command.
    pub fn reply(&mut self, itt: u32, expected: u32) -> Result<Reply, String> {
        let segment = 65_536;
        let mut reply = Reply::default();
        loop {
            let pdu = self.must()?;
            ensure!(pdu.itt() == itt, "a PDU of another task: {:#x} {:#x}", pdu.opcode(), pdu.itt());
            if pdu.opcode() != back::DATA {
                let count = u32::try_from(reply.data_in.len()).expect("few");
                return ended(&pdu, count, reply);
            }
            let (number, offset) = (reply.data_in.len(), reply.data.len());
            ensure!(pdu.u32(36) as usize == number, "DataSN {} of the Data-In {number}", pdu.u32(36));
            ensure!(pdu.u32(40) as usize == offset, "offset {} after {offset} bytes", pdu.u32(40));
            ensure!(pdu.data.len() <= segment, "a segment of {} bytes", pdu.data.len());
            reply.data.extend_from_slice(&pdu.data);
            ensure!(reply.data.len() <= expected as usize, "{} bytes, {expected} expected", reply.data.len());
            let flags = pdu.flags();
            reply.data_in.push(pdu);
            if flags & 1 != 0 {
                ensure!(flags & 0x80 != 0, "S without F");
                let last = reply.data_in.last().expect("one");
                (reply.status, reply.flags, reply.residual) = (last.bhs[3], flags, last.u32(44));
                return Ok(reply);
            }
        }
    }

    /// A command without data and its end.
    pub fn plain(&mut self, cdb: &[u8]) -> Result<Reply, String> {
        let itt = self.request(self.command(0x80 | SIMPLE, cdb, 0));
        self.reply(itt, 0)
    }
}

/// A SCSI response as the end of a command that brought so many Data-In PDUs, which is what ExpDataSN has to be.
fn ended(pdu: &Pdu, data_ins: u32, mut reply: Reply) -> Result<Reply, String> {
    ensure!(pdu.opcode() == back::RESPONSE, "opcode {:#x} in place of a response", pdu.opcode());
    ensure!(pdu.flags() & 0x80 != 0, "a response without F");
    ensure!(pdu.bhs[2] == 0, "iSCSI response {:#x}", pdu.bhs[2]);
    ensure!(pdu.u32(36) == data_ins, "ExpDataSN {} after {data_ins} Data-In PDUs", pdu.u32(36));
    (reply.status, reply.flags, reply.residual) = (pdu.bhs[3], pdu.flags(), pdu.u32(44));
    if !pdu.data.is_empty() {
        let len = usize::from(u16::from_be_bytes([pdu.data[0], *pdu.data.get(1).unwrap_or(&0)]));
        ensure!(2 + len <= pdu.data.len(), "SenseLength {len} in {} bytes", pdu.data.len());
        reply.sense = pdu.data[2..2 + len].to_vec();
    }
    Ok(reply)
}
