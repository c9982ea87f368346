//! PERSISTENT RESERVE IN data (SPC-4 section 6.15), not cut at an allocation length.

use alloc::vec::Vec;

use super::{Kind, PowerLoss, Report, Table, transport};

/// What the device can do beyond the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it can keep registrations through a loss of power.
    pub power_loss: PowerLoss,
}

/// TYPE MASK: every type.
const TYPE_MASK: [u8; 2] = [0xea, 0x01];

fn headed(generation: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("registrations are bounded");
    let mut data = [generation.to_be_bytes(), len.to_be_bytes()].concat();
    data.extend_from_slice(body);
    data
}

impl Table {
    /// The answer to a report.
    pub fn report(&self, report: Report, capabilities: Capabilities) -> Vec<u8> {
        match report {
            Report::Keys => self.keys(),
            Report::Reservation => self.reservation_data(),
            Report::Capabilities => self.capabilities(capabilities),
            Report::FullStatus => self.full_status(),
        }
    }

    fn keys(&self) -> Vec<u8> {
        let keys: Vec<u8> = self.registrations.values().flat_map(|key| key.to_be_bytes()).collect();
        headed(self.generation, &keys)
    }

    fn reservation_data(&self) -> Vec<u8> {
        let Some((kind, key)) = self.reservation() else { return headed(self.generation, &[]) };
        let mut body = key.to_be_bytes().to_vec();
        // Obsolete, reserved, then scope (the logical unit) and type.
        body.extend_from_slice(&[0, 0, 0, 0, 0, kind as u8, 0, 0]);
        headed(self.generation, &body)
    }

    fn capabilities(&self, capabilities: Capabilities) -> Vec<u8> {
        let persists = u8::from(capabilities.power_loss == PowerLoss::Persists);
        let active = u8::from(self.power_loss == PowerLoss::Persists);
        // SIP_C and ATP_C; TMV, with ALLOW COMMANDS zero: nothing is said of it; PTPL_A.
        alloc::vec![0, 8, 0x0c | persists, 0x80 | active, TYPE_MASK[0], TYPE_MASK[1], 0, 0]
    }

    fn full_status(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (nexus, key) in &self.registrations {
            let holds = self.holds(nexus);
            let kind = self.reservation.as_ref().filter(|_| holds).map_or(0, |held| held.kind as u8);
            let id = transport::encode(&nexus.initiator);
            body.extend_from_slice(&key.to_be_bytes());
            body.extend_from_slice(&[0, 0, 0, 0, u8::from(holds), kind, 0, 0, 0, 0]);
            body.extend_from_slice(&nexus.port.to_be_bytes());
            body.extend_from_slice(&u32::try_from(id.len()).expect("names are short").to_be_bytes());
            body.extend_from_slice(&id);
        }
        headed(self.generation, &body)
    }
}

/// The mask that REPORT CAPABILITIES shows has every type.
const _: () = {
    let mut mask = [0u8; 2];
    let mut at = 0;
    while at < Kind::ALL.len() {
        let code = Kind::ALL[at] as u8;
        mask[(code / 8) as usize] |= 1 << (code % 8);
        at += 1;
    }
    assert!(mask[0] == TYPE_MASK[0] && mask[1] == TYPE_MASK[1]);
};
