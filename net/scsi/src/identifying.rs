//! Identifying information: what hosts write on a logical unit to know it again (SPC-4 sections 5.7, 6.32 and 6.43).

use alloc::vec;
use alloc::vec::Vec;

use crate::sense::Sense;

/// INFORMATION TYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Peripheral device identifying information: any bytes.
    Device,
    /// Peripheral device text identifying information: UTF-8 that ends with a NUL.
    Text,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Device, Self::Text];

    /// The type of a code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    fn code(self) -> u8 {
        match self {
            Self::Device => 0,
            Self::Text => 2,
        }
    }

    /// Bytes that are kept at the most.
    pub fn len_max(self) -> u32 {
        match self {
            Self::Device => 64,
            Self::Text => 256,
        }
    }
}

/// What is written on a unit; empty where nobody wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identifying {
    device: Vec<u8>,
    text: Vec<u8>,
}

impl Identifying {
    /// The information of a type.
    pub fn get(&self, kind: Kind) -> &[u8] {
        match kind {
            Kind::Device => &self.device,
            Kind::Text => &self.text,
        }
    }

    /// Replaces the information of a type; an empty list takes it away.
    ///
    /// # Errors
    /// It is too long, or no text.
    pub fn set(&mut self, kind: Kind, list: &[u8]) -> Result<(), Sense> {
        if list.len() > kind.len_max() as usize {
            return Err(Sense::PARAMETER_LENGTH);
        }
        if kind == Kind::Text && !list.is_empty() {
            let end = list.iter().position(|byte| *byte == 0).ok_or(Sense::INVALID_FIELD_IN_PARAMETERS)?;
            if let Err(error) = core::str::from_utf8(&list[..end]) {
                let at = u16::try_from(error.valid_up_to()).unwrap_or(u16::MAX);
                return Err(Sense::invalid_parameter_byte(at));
            }
        }
        let bytes = match kind {
            Kind::Device => &mut self.device,
            Kind::Text => &mut self.text,
        };
        *bytes = list.to_vec();
        Ok(())
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0, 0, len[0], len[1]], payload].concat()
}

/// Data of REPORT IDENTIFYING INFORMATION; `None` asks which types there are.
pub fn report(kind: Option<Kind>, identifying: &Identifying) -> Vec<u8> {
    match kind {
        Some(kind) => framed(identifying.get(kind)),
        None => {
            let one = |kind: Kind| {
                let max = u16::try_from(kind.len_max()).unwrap_or(u16::MAX).to_be_bytes();
                vec![kind.code() << 1, 0, max[0], max[1]]
            };
            framed(&Kind::ALL.into_iter().flat_map(one).collect::<Vec<u8>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_reported() {
        let mut identifying = Identifying::default();
        assert_eq!(report(Some(Kind::Device), &identifying), [0, 0, 0, 0]);
        identifying.set(Kind::Device, &[1, 2, 3]).expect("short");
        identifying.set(Kind::Text, b"rack 7\0").expect("text");
        assert_eq!(report(Some(Kind::Device), &identifying), [0, 0, 0, 3, 1, 2, 3]);
        assert_eq!(report(Some(Kind::Text), &identifying)[4..], b"rack 7\0"[..]);
        assert_eq!(report(None, &identifying), [0, 0, 0, 8, 0, 0, 0, 64, 4, 0, 1, 0]);
        identifying.set(Kind::Device, &[]).expect("nothing");
        assert_eq!(report(Some(Kind::Device), &identifying), [0, 0, 0, 0]);
    }

    #[test]
    fn what_is_too_long_or_no_text_is_refused() {
        let mut identifying = Identifying::default();
        assert_eq!(identifying.set(Kind::Device, &[0; 65]), Err(Sense::PARAMETER_LENGTH));
        assert_eq!(identifying.set(Kind::Text, b"no end"), Err(Sense::INVALID_FIELD_IN_PARAMETERS));
        assert_eq!(identifying.set(Kind::Text, b"a\xff\0"), Err(Sense::invalid_parameter_byte(1)));
        assert_eq!(identifying, Identifying::default());
    }
}
