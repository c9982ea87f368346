//! PDU streams by the dice: requests that are in order, requests with fields of fancy, and requests that nobody would send.
//!
//! Whatever comes, a target says nothing but PDUs that keep their numbers, it answers a ping or closes, and other sessions go on.
//! Lengths are right except where a stream says otherwise with its last PDU: behind that the bytes have no meaning.

use std::time::Duration;

use engine::Prng;

use super::io::{BLOCK, READ, SIMPLE, WRITE};
use super::wire::{NO_TAG, Pdu, Received, back, out};
use super::{Outcome, Session, Subject};

/// PDUs of a stream.
const LENGTH: u64 = 48;
/// Blocks that commands name: the suite may overwrite them.
const BLOCKS: u64 = 4096;
/// How long a look for answers takes, between two requests.
const LOOK: Duration = Duration::from_millis(1);
/// What fields are set to.
const EDGES: [u32; 10] = [0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, NO_TAG - 1, NO_TAG];
/// Operation codes that leave the unit as ready as it was.
const CDBS: [u8; 20] = [
    0x00, 0x03, 0x08, 0x0a, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x2f, 0x35, 0x41, 0x42, 0x4d, 0x88, 0x89, 0x8a,
    0x93, 0xa0, 0xc7,
];

/// How much of a stream is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temper {
    /// Nothing before its end.
    Orderly,
    /// A field now and then.
    Careless,
    /// Most of it.
    Wild,
}

/// A stream and who may look at it.
struct Stream {
    session: Session,
    dice: Prng,
    temper: Temper,
    /// Tags in use, or used once.
    tags: Vec<u32>,
    /// R2Ts that came.
    asked: Vec<Pdu>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The target answered a ping at the end.
    Answered,
    /// It closed the connection.
    Closed,
    /// The last PDU's length was a lie, and the target waits for the rest.
    Open,
}

/// Plays the stream of a seed.
///
/// # Errors
/// What the target did wrong.
pub fn play(subject: &Subject, seed: u64) -> Result<End, String> {
    let mut dice = Prng::from_seed(seed);
    let pick = |dice: &mut Prng, values: &[&'static str]| values[dice.below(values.len() as u64) as usize];
    let yes_or_no = ["Yes", "No"];
    let digests = ["None", "CRC32C"];
    let keys = [
        ("InitialR2T", pick(&mut dice, &yes_or_no)),
        ("ImmediateData", pick(&mut dice, &yes_or_no)),
        ("HeaderDigest", pick(&mut dice, &digests)),
        ("DataDigest", pick(&mut dice, &digests)),
        ("MaxOutstandingR2T", pick(&mut dice, &["1", "4"])),
        ("MaxBurstLength", pick(&mut dice, &["512", "8192", "262144"])),
        ("FirstBurstLength", "512"),
        ("DataPDUInOrder", pick(&mut dice, &yes_or_no)),
        ("DataSequenceInOrder", pick(&mut dice, &yes_or_no)),
        ("ErrorRecoveryLevel", pick(&mut dice, &["0", "1", "2"])),
        ("MaxConnections", pick(&mut dice, &["1", "4"])),
        ("DefaultTime2Wait", "0"),
        ("DefaultTime2Retain", pick(&mut dice, &["0", "1"])),
        ("iSCSIProtocolLevel", pick(&mut dice, &["1", "2"])),
    ];
    let session = Session::open(subject, &keys)?;
    let temper = [Temper::Orderly, Temper::Careless, Temper::Wild][dice.below(3) as usize];
    let mut stream = Stream { session, dice, temper, tags: vec![NO_TAG], asked: Vec::new() };
    stream.run()
}

impl Stream {
    fn run(&mut self) -> Result<End, String> {
        for _ in 0..LENGTH {
            let pdu = self.next();
            self.session.link.send(&pdu);
            if self.look()? {
                return Ok(End::Closed);
            }
        }
        if self.dice.percent(30) {
            return self.lie();
        }
        self.ping()
    }

    /// Reads what has come; true when the connection is closed.
    fn look(&mut self) -> Result<bool, String> {
        while self.session.link.has_news(LOOK) {
            match self.session.receive()? {
                Received::Pdu(pdu) => self.on_pdu(pdu)?,
                Received::Closed => return Ok(true),
                Received::Silence => return Err("a PDU that does not end".to_owned()),
            }
        }
        Ok(false)
    }

    fn on_pdu(&mut self, pdu: Pdu) -> Outcome {
        ensure!(pdu.opcode() & 0x20 != 0, "opcode {:#x} from a target", pdu.opcode());
        ensure!(pdu.data.len() <= 65536, "{} bytes in a segment", pdu.data.len());
        if pdu.opcode() == back::R2T {
            ensure!(pdu.u32(44) > 0, "an R2T for nothing");
            self.asked.push(pdu);
        } else if pdu.opcode() != back::ASYNC && pdu.opcode() != back::REJECT {
            ensure!(self.tags.contains(&pdu.itt()), "an answer to {:#x}, which was not asked", pdu.itt());
        }
        Ok(())
    }

    /// The connection is closed, or a ping is answered.
    fn ping(&mut self) -> Result<End, String> {
        let itt = self.session.request(Pdu::new(out::NOP | out::IMMEDIATE, 0x80).put32(20, NO_TAG));
        self.tags.push(itt);
        loop {
            match self.session.receive()? {
                Received::Pdu(pdu) if pdu.opcode() == back::NOP && pdu.itt() == itt => {
                    return Ok(End::Answered);
                }
                Received::Pdu(pdu) => self.on_pdu(pdu)?,
                Received::Closed => return Ok(End::Closed),
                Received::Silence => {
                    return Err("a ping is not answered, and the connection is open".to_owned());
                }
            }
        }
    }

    /// Ends with a header whose lengths are not those of what follows.
    fn lie(&mut self) -> Result<End, String> {
        let pdu = self.next();
        let mut bytes = pdu.bytes(self.session.link.digests);
        let at = 4 + self.dice.below(4) as usize;
        bytes[at] = self.dice.next_u64() as u8;
        self.session.link.send_raw(&bytes);
        Ok(if self.look()? { End::Closed } else { End::Open })
    }

    fn next(&mut self) -> Pdu {
        let kinds = if self.temper == Temper::Wild { 16 } else { 11 };
        let pdu = match self.dice.below(kinds) {
            0..=3 => self.read(),
            4..=5 => self.write(),
            6..=8 => self.data_out(),
            9 => Pdu::new(out::NOP, 0x80).put32(20, NO_TAG).with_data(&[7; 100]),
            10 => Pdu::new(out::TEXT, 0x80).put32(20, NO_TAG).with_data(b"SendTargets=\0"),
            11..=12 => self.task(),
            13 => self.snack(),
            14 => self.command_of_fancy(),
            _ => self.fancy(),
        };
        let immediate = pdu.opcode() != out::DATA && self.dice.percent(25);
        let pdu = if immediate { pdu.with_first(out::IMMEDIATE) } else { pdu };
        let pdu = self.numbered(pdu);
        let mutated = match self.temper {
            Temper::Orderly => 0,
            Temper::Careless => 4,
            Temper::Wild => 30,
        };
        if self.dice.percent(mutated) { self.mutated(pdu) } else { pdu }
    }

    /// With a tag and numbers, unless it answers an R2T.
    fn numbered(&mut self, pdu: Pdu) -> Pdu {
        if matches!(pdu.opcode(), out::DATA | out::SNACK) {
            return pdu.put32(28, self.session.exp_stat_sn());
        }
        let itt = self.session.new_itt();
        self.tags.push(itt);
        self.session.number_pdu(pdu, itt)
    }

    fn cdb(&mut self, opcode: u8, blocks: u8) -> [u8; 16] {
        let lba = (self.dice.below(BLOCKS) as u16).to_be_bytes();
        let mut cdb = [0; 16];
        cdb[..10].copy_from_slice(&[opcode, 0, 0, 0, lba[0], lba[1], 0, 0, blocks, 0]);
        cdb
    }

    fn read(&mut self) -> Pdu {
        let blocks = 1 + self.dice.below(64) as u8;
        let cdb = self.cdb(0x28, blocks);
        self.session.command(READ | SIMPLE, &cdb, u32::from(blocks) * BLOCK)
    }

    fn write(&mut self) -> Pdu {
        let blocks = 1 + self.dice.below(32) as u8;
        let cdb = self.cdb(0x2a, blocks);
        let wild = self.temper == Temper::Wild;
        let may = wild || self.session.answered("ImmediateData") == Some("Yes");
        let immediate = if may { self.dice.below(2) * u64::from(BLOCK) } else { 0 };
        let last = if wild && self.dice.percent(20) { WRITE & 0x7f } else { WRITE };
        self.session.command(last | SIMPLE, &cdb, u32::from(blocks) * BLOCK).with_data(&vec![
            blocks;
            immediate
                as usize
        ])
    }

    /// Data for an R2T that came; for none, where there is none.
    fn data_out(&mut self) -> Pdu {
        if self.asked.is_empty() {
            return if self.temper == Temper::Wild { self.data_for_nobody() } else { self.write() };
        }
        let index = self.dice.below(self.asked.len() as u64) as usize;
        let r2t = self.asked.remove(if self.temper == Temper::Wild { index } else { 0 });
        let len = r2t.u32(44).min(65536) as usize;
        Pdu::new(out::DATA, 0x80).put(8, &r2t.bhs[8..24]).put32(40, r2t.u32(40)).with_data(&vec![
            self.dice.next_u64()
                as u8;
            len
        ])
    }

    fn data_for_nobody(&mut self) -> Pdu {
        let tag = self.tag();
        Pdu::new(out::DATA, 0x80).put32(16, tag).put32(20, NO_TAG).with_data(&[1; 512])
    }

    fn task(&mut self) -> Pdu {
        // Not the functions that end or disturb other sessions: warm and cold reset of the target.
        let function = [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 77][self.dice.below(11) as usize];
        let (tag, lun) = (self.tag(), self.session.lun_field());
        Pdu::new(out::TASK, 0x80 | function).put(8, &lun).put32(20, tag).put32(32, self.session.cmd_sn)
    }

    fn snack(&mut self) -> Pdu {
        let (kind, tag) = (self.dice.below(5) as u8, self.tag());
        let (from, run) = (self.edge(), self.edge());
        Pdu::new(out::SNACK, 0x80 | kind).put32(16, tag).put32(20, NO_TAG).put32(40, from).put32(44, run)
    }

    /// A command whose bytes behind the operation code are anything.
    fn command_of_fancy(&mut self) -> Pdu {
        let mut cdb: [u8; 16] = core::array::from_fn(|_| self.dice.next_u64() as u8);
        cdb[0] = CDBS[self.dice.below(CDBS.len() as u64) as usize];
        let flags = self.dice.next_u64() as u8;
        let (expected, len) = (self.dice.below(70_000) as u32, self.dice.below(600) as usize);
        self.session.command(flags, &cdb, expected).with_data(&vec![0; len])
    }

    /// Anything at all, in a frame that is right.
    fn fancy(&mut self) -> Pdu {
        let mut pdu = Pdu::new(self.dice.next_u64() as u8, self.dice.next_u64() as u8);
        for byte in &mut pdu.bhs[8..] {
            *byte = self.dice.next_u64() as u8;
        }
        // What would end the session, or the unit's readiness, has cases of its own.
        if matches!(pdu.opcode(), out::COMMAND | out::TASK | out::LOGOUT) {
            pdu.bhs[0] = 0x1c;
        }
        pdu.ahs = vec![self.dice.next_u64() as u8; 4 * self.dice.below(12) as usize];
        let len = self.dice.below(300) as usize;
        pdu.with_data(&vec![self.dice.next_u64() as u8; len])
    }

    /// One to three fields are something else.
    fn mutated(&mut self, mut pdu: Pdu) -> Pdu {
        for _ in 0..=self.dice.below(3) {
            let edge = self.edge();
            pdu = match self.dice.below(8) {
                0 => pdu.put32(16, self.tag()),
                1 => pdu.put32(20, edge),
                2 => pdu.put32(28, edge),
                3 => pdu.put32(36, edge),
                4 => pdu.put32(40, edge),
                5 => pdu.put(1, &[self.dice.next_u64() as u8]),
                // A number that was, or one that no window holds.
                6 if !matches!(pdu.opcode(), out::DATA | out::SNACK) => {
                    let back = self.session.cmd_sn.wrapping_sub(1 + self.dice.below(100) as u32);
                    let far = self.session.max_cmd_sn.wrapping_add(1 + self.dice.below(1 << 30) as u32);
                    pdu.put32(24, if self.dice.percent(50) { back } else { far })
                }
                _ => {
                    let len = self.dice.below(9000) as usize;
                    pdu.with_data(&vec![3; len])
                }
            };
        }
        // A mutated flag makes no reset of the whole target.
        if pdu.opcode() == out::TASK && matches!(pdu.flags() & 0x7f, 6 | 7) {
            pdu.bhs[1] = 0x81;
        }
        self.tags.push(pdu.itt());
        pdu
    }

    fn edge(&mut self) -> u32 {
        EDGES[self.dice.below(EDGES.len() as u64) as usize]
    }

    /// A tag that was used, most often of late.
    fn tag(&mut self) -> u32 {
        let recent = self.tags.len().min(12) as u64;
        self.tags[self.tags.len() - 1 - self.dice.below(recent) as usize]
    }
}
