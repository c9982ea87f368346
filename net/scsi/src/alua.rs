//! Asymmetric logical unit access: target port groups (SPC-4 sections 5.15 and 6.37). Implicit only: the target decides.

use alloc::vec;
use alloc::vec::Vec;

/// Asymmetric access states (SPC-4 table 289).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortState {
    /// Active/optimized.
    Optimized = 0x0,
    /// Active/non-optimized.
    NonOptimized = 0x1,
    /// Standby.
    Standby = 0x2,
    /// Unavailable.
    Unavailable = 0x3,
    /// Transitioning.
    Transitioning = 0xf,
}

/// Every state but the logical-block dependent and the offline one can occur.
const SUPPORTED: u8 = 0x8f;
/// STATUS CODE: the state was changed by the target itself.
const IMPLICIT: u8 = 2;

/// A target port group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// Its number.
    pub id: u16,
    /// Its state for the logical unit.
    pub state: PortState,
    /// Relative target port identifiers.
    pub ports: Vec<u16>,
}

/// Format of the answer's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The length alone.
    Length,
    /// With the implicit transition time.
    Extended,
}

/// Data of REPORT TARGET PORT GROUPS, not cut. `transition_seconds`: how long a transition may take.
pub fn report(header: Header, groups: &[PortGroup], transition_seconds: u8) -> Vec<u8> {
    let mut body = match header {
        Header::Length => Vec::new(),
        Header::Extended => vec![0x10, transition_seconds, 0, 0],
    };
    for group in groups {
        let id = group.id.to_be_bytes();
        let count = u8::try_from(group.ports.len()).unwrap_or(u8::MAX);
        // PREF for the one that serves.
        let preferred = if group.state == PortState::Optimized { 0x80 } else { 0 };
        body.extend_from_slice(&[
            preferred | group.state as u8,
            SUPPORTED,
            id[0],
            id[1],
            0,
            IMPLICIT,
            0,
            count,
        ]);
        for port in group.ports.iter().take(usize::from(count)) {
            let port = port.to_be_bytes();
            body.extend_from_slice(&[0, 0, port[0], port[1]]);
        }
    }
    let len = u32::try_from(body.len()).expect("a few groups");
    let mut data = len.to_be_bytes().to_vec();
    data.append(&mut body);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_headers_are_laid_out_as_the_standard_says() {
        let groups = [
            PortGroup { id: 1, state: PortState::Optimized, ports: vec![1] },
            PortGroup { id: 2, state: PortState::Transitioning, ports: vec![0x8001, 0x8002] },
        ];
        let group1 = [0x80, 0x8f, 0, 1, 0, 2, 0, 1, 0, 0, 0, 1];
        let group2 = [0x0f, 0x8f, 0, 2, 0, 2, 0, 2, 0, 0, 0x80, 1, 0, 0, 0x80, 2];
        let plain = report(Header::Length, &groups, 9);
        assert_eq!(plain, [&[0, 0, 0, 28][..], &group1, &group2].concat());
        let extended = report(Header::Extended, &groups, 9);
        assert_eq!(extended, [&[0, 0, 0, 32, 0x10, 9, 0, 0][..], &group1, &group2].concat());
    }
}
