//! Login, and a session of one connection that holds the target to the rules of numbering with every PDU that comes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use super::wire::{Digests, Link, NO_TAG, Pdu, Received, back, out};
use super::{Outcome, Subject};

/// The initiator's name.
pub const INITIATOR: &str = "iqn.2026-11.example:pdu-suite";
/// T, then CSG and NSG: from operational negotiation to full feature phase.
pub const TO_FULL_FEATURE: u8 = 0x80 | 1 << 2 | 3;

/// Key and value pairs in order.
pub type Pairs = Vec<(String, String)>;

/// An ISID of the "random" kind that this process uses once.
fn new_isid() -> [u8; 6] {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = std::process::id().to_be_bytes();
    [0x80, process[2], process[3], 0, number[2], number[3]]
}

/// Text of pairs.
pub fn text(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs.iter().flat_map(|(key, value)| format!("{key}={value}\0").into_bytes()).collect()
}

/// Pairs of text.
pub fn pairs(bytes: &[u8]) -> Result<Pairs, String> {
    let mut found = Vec::new();
    ensure!(bytes.is_empty() || bytes.ends_with(&[0]), "text that does not end with a NUL");
    for part in bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty()) {
        let part = std::str::from_utf8(part).map_err(|_| "text that is not UTF-8".to_owned())?;
        let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} without a value"))?;
        found.push((key.to_owned(), value.to_owned()));
    }
    Ok(found)
}

/// An answer to a login request.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub pdu: Pdu,
    /// Its text.
    pub pairs: Pairs,
}

impl Answer {
    /// Status class and detail as one number.
    pub fn status(&self) -> u16 {
        self.pdu.u16(36)
    }

    /// A key's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// A login under way.
#[derive(Debug)]
pub struct Login {
    /// The connection.
    pub link: Link,
    /// Initiator's part of the session's name.
    pub isid: [u8; 6],
    /// Target's part: zero for a new session.
    pub tsih: u16,
    /// Connection identifier.
    pub cid: u16,
    /// The requests' tag.
    pub itt: u32,
    /// The first command's number.
    pub cmd_sn: u32,
    exp_stat_sn: Option<u32>,
}

impl Login {
    /// Connects.
    pub fn connect(subject: &Subject) -> Result<Self, String> {
        let link = Link::connect(subject.portal, subject.patience)?;
        Ok(Self { link, isid: new_isid(), tsih: 0, cid: 0, itt: 1, cmd_sn: 1, exp_stat_sn: None })
    }

    /// A login request with byte 1.
    pub fn request(&self, flags: u8, data: &[u8]) -> Pdu {
        Pdu::new(out::LOGIN | out::IMMEDIATE, flags)
            .put(8, &self.isid)
            .put(14, &self.tsih.to_be_bytes())
            .put32(16, self.itt)
            .put(20, &self.cid.to_be_bytes())
            .put32(24, self.cmd_sn)
            .put32(28, self.exp_stat_sn.unwrap_or(0))
            .with_data(data)
    }

    /// Sends pairs with byte 1 and waits for the answer, which is held to the rules that hold for each.
    pub fn exchange(&mut self, flags: u8, pairs: &[(&str, &str)]) -> Result<Answer, String> {
        let request = self.request(flags, &text(pairs));
        self.exchange_pdu(&request)
    }

    /// As [`Login::exchange`], for a request as it is.
    pub fn exchange_pdu(&mut self, request: &Pdu) -> Result<Answer, String> {
        self.link.send(request);
        let Received::Pdu(pdu) = self.link.receive()? else {
            return Err("no login response: closed, or silence".to_owned());
        };
        ensure!(pdu.opcode() == back::LOGIN, "opcode {:#x} in place of a login response", pdu.opcode());
        ensure!(pdu.itt() == request.itt(), "the login response has another tag");
        let answer = Answer { pairs: self::pairs(&pdu.data)?, pdu };
        if answer.status() == 0 {
            self.check(request, &answer.pdu)?;
        }
        Ok(answer)
    }

    fn check(&mut self, request: &Pdu, pdu: &Pdu) -> Outcome {
        ensure!(pdu.bhs[8..14] == request.bhs[8..14], "the ISID is not the request's");
        ensure!(pdu.bhs[2] == 0 && pdu.bhs[3] == 0, "version {} {}", pdu.bhs[2], pdu.bhs[3]);
        ensure!(pdu.flags() >> 2 & 3 == request.flags() >> 2 & 3, "CSG is not the request's");
        if pdu.flags() & 0x80 != 0 {
            ensure!(request.flags() & 0x80 != 0, "T is set and was not asked for");
            ensure!(pdu.flags() & 3 == request.flags() & 3, "NSG is not what was asked for");
        }
        ensure!(pdu.u32(28) == request.u32(24), "ExpCmdSN is not the request's CmdSN");
        if let Some(expected) = self.exp_stat_sn {
            ensure!(pdu.u32(24) == expected, "StatSN {} after {}", pdu.u32(24), expected.wrapping_sub(1));
        }
        self.exp_stat_sn = Some(pdu.u32(24).wrapping_add(1));
        Ok(())
    }

    /// Becomes the session, after the last answer.
    pub fn into_session(self, subject: &Subject, last: &Answer, agreed: BTreeMap<String, String>) -> Session {
        let on = |key: &str| agreed.get(key).is_some_and(|value| value == "CRC32C");
        let digests = Digests { header: on("HeaderDigest"), data: on("DataDigest") };
        let mut link = self.link;
        link.digests = digests;
        Session {
            link,
            isid: self.isid,
            tsih: last.pdu.u16(14),
            cid: self.cid,
            lun: subject.lun,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: self.exp_stat_sn.expect("an answer came"),
            exp_cmd_sn: last.pdu.u32(28),
            max_cmd_sn: last.pdu.u32(32),
            next_itt: 0x100,
            agreed,
        }
    }
}

/// A session in full feature phase.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub link: Link,
    /// Initiator's part of its name.
    pub isid: [u8; 6],
    /// Target's part.
    pub tsih: u16,
    /// Connection identifier.
    pub cid: u16,
    lun: u8,
    /// The next numbered request's number.
    pub cmd_sn: u32,
    exp_stat_sn: u32,
    /// ExpCmdSN as last seen.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN as last seen.
    pub max_cmd_sn: u32,
    next_itt: u32,
    agreed: BTreeMap<String, String>,
}

/// What a normal session offers; a case's own keys replace these.
const OFFERS: [(&str, &str); 13] = [
    ("HeaderDigest", "None"),
    ("DataDigest", "None"),
    ("MaxConnections", "1"),
    ("InitialR2T", "No"),
    ("ImmediateData", "Yes"),
    ("MaxRecvDataSegmentLength", "65536"),
    ("MaxBurstLength", "262144"),
    ("FirstBurstLength", "65536"),
    ("DefaultTime2Wait", "2"),
    ("DefaultTime2Retain", "0"),
    ("MaxOutstandingR2T", "1"),
    ("DataPDUInOrder", "Yes"),
    ("ErrorRecoveryLevel", "0"),
];

impl Session {
    /// Logs in with these keys in place of the usual ones.
    pub fn open(subject: &Subject, keys: &[(&str, &str)]) -> Result<Self, String> {
        Self::begin(subject, Login::connect(subject)?, keys)
    }

    /// As [`Session::open`], by a login that is prepared.
    pub fn begin(subject: &Subject, mut login: Login, keys: &[(&str, &str)]) -> Result<Self, String> {
        let mut offers =
            vec![("InitiatorName", INITIATOR), ("TargetName", &subject.target), ("SessionType", "Normal")];
        offers.extend(OFFERS.into_iter().filter(|(key, _)| keys.iter().all(|(own, _)| own != key)));
        offers.extend(keys);
        let answer = login.exchange(TO_FULL_FEATURE, &offers)?;
        ensure!(answer.status() == 0, "login refused with {:#06x}", answer.status());
        let mut agreed: BTreeMap<String, String> = answer.pairs.iter().cloned().collect();
        let mut last = answer;
        // A target may want to say something of its own before the phase begins.
        while last.pdu.flags() & 0x80 == 0 {
            last = login.exchange(TO_FULL_FEATURE, &[])?;
            ensure!(last.status() == 0, "login refused with {:#06x}", last.status());
            agreed.extend(last.pairs.iter().cloned());
            ensure!(agreed.len() < 100, "a login without an end");
        }
        let mut session = login.into_session(subject, &last, agreed);
        session.settle()?;
        Ok(session)
    }

    /// Logs in to this session again, whose connection is gone, with the same identifier or another one.
    pub fn again(&self, subject: &Subject, cid: u16, segment: &str) -> Result<Self, String> {
        let login = Login::connect(subject)?;
        let mut login = Login { isid: self.isid, tsih: self.tsih, cid, cmd_sn: self.cmd_sn, ..login };
        let offers = [
            ("InitiatorName", INITIATOR),
            ("TargetName", &subject.target),
            ("SessionType", "Normal"),
            ("HeaderDigest", "None"),
            ("DataDigest", "None"),
            ("MaxRecvDataSegmentLength", segment),
        ];
        let answer = login.exchange(TO_FULL_FEATURE, &offers)?;
        ensure!(answer.status() == 0, "login refused with {:#06x}", answer.status());
        ensure!(answer.pdu.flags() & 0x80 != 0, "a login of one exchange takes more");
        ensure!(answer.pdu.u16(14) == self.tsih, "the session has another handle");
        let mut session = login.into_session(subject, &answer, self.agreed.clone());
        session.next_itt = self.next_itt + 0x100;
        Ok(session)
    }

    /// Takes the unit attentions that a new nexus may find.
    fn settle(&mut self) -> Outcome {
        for _ in 0..4 {
            let reply = self.plain(&[0; 6])?;
            if reply.status == 0 {
                return Ok(());
            }
            ensure!(reply.sense_code().0 == 6, "TEST UNIT READY: {reply:?}");
        }
        Err("unit attentions without an end".to_owned())
    }

    /// What the target answered to a key, as a number.
    pub fn number(&self, key: &str) -> Result<u32, String> {
        let value = self.agreed.get(key).ok_or_else(|| format!("{key} was not answered"))?;
        let parsed = value.strip_prefix("0x").map_or_else(
            || value.parse(),
            |hex| u32::from_str_radix(hex, 16), // RFC 7143 section 6.1 allows both
        );
        parsed.map_err(|_| format!("{key}={value}"))
    }

    /// What the target answered to a key.
    pub fn answered(&self, key: &str) -> Option<&str> {
        self.agreed.get(key).map(String::as_str)
    }

    /// The LUN field's eight bytes.
    pub fn lun_field(&self) -> [u8; 8] {
        [0, self.lun, 0, 0, 0, 0, 0, 0]
    }

    /// ExpStatSN: the next StatSN.
    pub fn exp_stat_sn(&self) -> u32 {
        self.exp_stat_sn
    }

    /// A tag that is not in use.
    pub fn new_itt(&mut self) -> u32 {
        self.next_itt += 1;
        self.next_itt
    }

    /// Gives a request its tag, its number and ExpStatSN. A numbered one takes its number.
    pub fn number_pdu(&mut self, pdu: Pdu, itt: u32) -> Pdu {
        let pdu = pdu.put32(16, itt).put32(24, self.cmd_sn).put32(28, self.exp_stat_sn);
        if pdu.bhs[0] & out::IMMEDIATE == 0 {
            self.cmd_sn = self.cmd_sn.wrapping_add(1);
        }
        pdu
    }

    /// Sends a request with a new tag, which is returned.
    pub fn request(&mut self, pdu: Pdu) -> u32 {
        let itt = self.new_itt();
        let pdu = self.number_pdu(pdu, itt);
        self.link.send(&pdu);
        itt
    }

    /// A SCSI command with byte 1 for 512-byte blocks.
    pub fn command(&self, flags: u8, cdb: &[u8], expected: u32) -> Pdu {
        Pdu::new(out::COMMAND, flags).put(8, &self.lun_field()).put32(20, expected).put(32, cdb)
    }

    /// Waits for the next PDU, answers pings, takes what tells of the window alone, and holds it all to the numbering.
    pub fn receive(&mut self) -> Result<Received, String> {
        loop {
            let received = self.link.receive()?;
            let Received::Pdu(pdu) = &received else { return Ok(received) };
            let known = self.max_cmd_sn;
            self.check_numbers(pdu)?;
            match (pdu.opcode(), pdu.itt(), pdu.u32(20)) {
                (back::NOP, NO_TAG, NO_TAG) => {
                    ensure!(self.max_cmd_sn != known, "a NOP-In that asks nothing says nothing");
                    continue;
                }
                (back::NOP, NO_TAG, _) => {}
                _ => return Ok(received),
            }
            let pong = Pdu::new(out::NOP | out::IMMEDIATE, 0x80)
                .put(8, &pdu.bhs[8..16])
                .put32(16, NO_TAG)
                .put32(20, pdu.u32(20))
                .put32(24, self.cmd_sn)
                .put32(28, self.exp_stat_sn);
            self.link.send(&pong);
        }
    }

    /// The next PDU, which must come.
    pub fn must(&mut self) -> Result<Pdu, String> {
        match self.receive()? {
            Received::Pdu(pdu) => Ok(pdu),
            Received::Closed => Err("the connection was closed".to_owned()),
            Received::Silence => Err("nothing came".to_owned()),
        }
    }

    /// The next PDU, which must be of this kind and name this tag.
    pub fn must_be(&mut self, opcode: u8, itt: u32) -> Result<Pdu, String> {
        let pdu = self.must()?;
        ensure!(
            pdu.opcode() == opcode && pdu.itt() == itt,
            "opcode {:#x} tag {:#x} in place of {opcode:#x} {itt:#x}",
            pdu.opcode(),
            pdu.itt()
        );
        Ok(pdu)
    }

    fn check_numbers(&mut self, pdu: &Pdu) -> Outcome {
        let opcode = pdu.opcode();
        let stat_sn = pdu.u32(24);
        let rises = |new: u32, old: u32| new.wrapping_sub(old) < 1 << 31;
        let (mut takes, shows) = match opcode {
            back::DATA => (pdu.flags() & 1 != 0, false),
            back::R2T => (false, true),
            back::NOP => (pdu.itt() != NO_TAG, pdu.itt() == NO_TAG),
            _ => (true, false),
        };
        // Where a status may be asked for again, one of before may come.
        let recovers = self.answered("ErrorRecoveryLevel").is_some_and(|level| level != "0");
        takes &= !(recovers && stat_sn != self.exp_stat_sn && rises(self.exp_stat_sn, stat_sn));
        if takes || shows {
            ensure!(
                stat_sn == self.exp_stat_sn,
                "StatSN {stat_sn:#x} of opcode {opcode:#x}, {:#x} was expected",
                self.exp_stat_sn
            );
        }
        self.exp_stat_sn = self.exp_stat_sn.wrapping_add(u32::from(takes));
        let (exp, max) = (pdu.u32(28), pdu.u32(32));
        ensure!(rises(exp, self.exp_cmd_sn), "ExpCmdSN goes back from {:#x} to {exp:#x}", self.exp_cmd_sn);
        ensure!(rises(max, self.max_cmd_sn), "MaxCmdSN goes back from {:#x} to {max:#x}", self.max_cmd_sn);
        ensure!(rises(max.wrapping_add(1), exp), "MaxCmdSN {max:#x} below ExpCmdSN {exp:#x} less one");
        ensure!(rises(self.cmd_sn, exp), "ExpCmdSN {exp:#x} is ahead of what was sent");
        (self.exp_cmd_sn, self.max_cmd_sn) = (exp, max);
        Ok(())
    }

    /// An immediate NOP-Out and its answer: all that was sent before has been looked at. Gives what came before the answer.
    pub fn barrier(&mut self) -> Result<Vec<Pdu>, String> {
        let itt = self.request(Pdu::new(out::NOP | out::IMMEDIATE, 0x80).put32(20, NO_TAG));
        let mut before = Vec::new();
        loop {
            let pdu = self.must()?;
            if pdu.opcode() == back::NOP && pdu.itt() == itt {
                return Ok(before);
            }
            before.push(pdu);
        }
    }

    /// Waits until the far end closes; what it says before is given.
    pub fn until_closed(&mut self) -> Result<Vec<Pdu>, String> {
        let mut said = Vec::new();
        loop {
            match self.receive()? {
                Received::Pdu(pdu) => said.push(pdu),
                Received::Closed => return Ok(said),
                Received::Silence => return Err("the connection stays open".to_owned()),
            }
        }
    }
}
