//! Asymmetric logical unit access: target port groups (SPC-4 sections 5.15, 6.37 and 6.45).

use alloc::vec;
use alloc::vec::Vec;

use crate::sense::Sense;

/// Who changes the states (TPGS, SPC-4 section 6.4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Management {
    /// The target alone.
    #[default]
    Implicit,
    /// The target, and hosts with SET TARGET PORT GROUPS.
    ImplicitAndExplicit,
}

impl Management {
    /// The TPGS field.
    pub const fn code(self) -> u8 {
        match self {
            Self::Implicit => 1,
            Self::ImplicitAndExplicit => 3,
        }
    }
}

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
/// Who gave a group its state: STATUS CODE (SPC-4 section 6.37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SetBy {
    /// No status: it is not known here.
    Unknown = 0,
    /// A host, with SET TARGET PORT GROUPS.
    Host = 1,
    /// The target itself.
    Target = 2,
}

/// A target port group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// Its number.
    pub id: u16,
    /// Its state for the logical unit.
    pub state: PortState,
    /// Who gave it that.
    pub set_by: SetBy,
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
            group.set_by as u8,
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

/// Bytes of a target port group descriptor, and of what comes before the first.
const SET_DESCRIPTOR: usize = 4;

/// The parameter list of SET TARGET PORT GROUPS: the group that shall be active/optimized, if it is another one than now. One
/// group is, and the others are what the device makes of them (SPC-4 section 6.45).
///
/// # Errors
/// Where the list is wrong: a group that is not there, or is named twice; a state that no host can ask for; two groups at the best,
/// or none.
pub fn set(list: &[u8], groups: &[PortGroup]) -> Result<Option<u16>, Sense> {
    let descriptors = list.get(SET_DESCRIPTOR..).ok_or(Sense::PARAMETER_LENGTH)?;
    if !descriptors.len().is_multiple_of(SET_DESCRIPTOR) {
        return Err(Sense::PARAMETER_LENGTH);
    }
    let (mut best, mut named) = (None, Vec::new());
    let mut position = SET_DESCRIPTOR as u16;
    for descriptor in descriptors.chunks_exact(SET_DESCRIPTOR) {
        let id = u16::from_be_bytes([descriptor[2], descriptor[3]]);
        if named.contains(&id) || !groups.iter().any(|group| group.id == id) {
            return Err(Sense::invalid_parameter_byte(position + 2));
        }
        named.push(id);
        match descriptor[0] & 0x0f {
            0x0 if best.is_none() => best = Some(id),
            0x1 | 0x2 => {}
            _ => return Err(Sense::invalid_parameter_byte(position)),
        }
        position += SET_DESCRIPTOR as u16;
    }
    let now = groups.iter().find(|group| group.state == PortState::Optimized).map(|group| group.id);
    let left = || groups.iter().map(|group| group.id).find(|id| !named.contains(id));
    match (best, now) {
        (Some(best), now) => Ok((now != Some(best)).then_some(best)),
        // The best one shall be less: another one takes its place, of those about which nothing was said.
        (None, Some(now)) if named.contains(&now) => {
            left().map(Some).ok_or(Sense::invalid_parameter_byte(SET_DESCRIPTOR as u16))
        }
        (None, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_chooses_one_group_of_those_that_are_there() {
        let group = |id, state| PortGroup { id, state, set_by: SetBy::Unknown, ports: vec![id] };
        let groups = [group(1, PortState::Optimized), group(2, PortState::NonOptimized)];
        let asked = |descriptors: &[[u8; 4]]| set(&[&[[0; 4]], descriptors].concat().concat(), &groups);
        assert_eq!(asked(&[]), Ok(None));
        assert_eq!(asked(&[[0, 0, 0, 1]]), Ok(None), "it is");
        assert_eq!(asked(&[[0, 0, 0, 2]]), Ok(Some(2)));
        assert_eq!(asked(&[[1, 0, 0, 1], [0, 0, 0, 2]]), Ok(Some(2)));
        assert_eq!(asked(&[[1, 0, 0, 1]]), Ok(Some(2)), "there is one other");
        assert_eq!(asked(&[[2, 0, 0, 2]]), Ok(None));
        let bad = Sense::invalid_parameter_byte;
        assert_eq!(asked(&[[0, 0, 0, 3]]), Err(bad(6)), "no such group");
        assert_eq!(asked(&[[0, 0, 0, 2], [1, 0, 0, 2]]), Err(bad(10)), "twice");
        assert_eq!(asked(&[[0, 0, 0, 1], [0, 0, 0, 2]]), Err(bad(8)), "two at the best");
        assert_eq!(asked(&[[1, 0, 0, 1], [1, 0, 0, 2]]), Err(bad(4)), "none at the best");
        for state in [0x3, 0x4, 0xe, 0xf] {
            assert_eq!(asked(&[[state, 0, 0, 2]]), Err(bad(4)), "{state:x} is not for hosts");
        }
        for len in [1, 3, 5, 11] {
            assert_eq!(set(&vec![0; len], &groups), Err(Sense::PARAMETER_LENGTH), "{len}");
        }
    }

    #[test]
    fn both_headers_are_laid_out_as_the_standard_says() {
        let groups = [
            PortGroup { id: 1, state: PortState::Optimized, set_by: SetBy::Host, ports: vec![1] },
            PortGroup {
                id: 2,
                state: PortState::Transitioning,
                set_by: SetBy::Target,
                ports: vec![0x8001, 0x8002],
            },
        ];
        let group1 = [0x80, 0x8f, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1];
        let group2 = [0x0f, 0x8f, 0, 2, 0, 2, 0, 2, 0, 0, 0x80, 1, 0, 0, 0x80, 2];
        let plain = report(Header::Length, &groups, 9);
        assert_eq!(plain, [&[0, 0, 0, 28][..], &group1, &group2].concat());
        let extended = report(Header::Extended, &groups, 9);
        assert_eq!(extended, [&[0, 0, 0, 32, 0x10, 9, 0, 0][..], &group1, &group2].concat());
    }
}
