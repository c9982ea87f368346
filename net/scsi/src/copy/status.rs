//! How far copies are, and how they ended: data of RECEIVE COPY STATUS and RECEIVE ROD TOKEN INFORMATION (SPC-4 sections 6.24 to 6.26).

use alloc::vec;
use alloc::vec::Vec;

use super::token::Token;
use crate::sense::{Sense, SenseFormat};
use crate::status;

/// What made a copy: the service action of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// EXTENDED COPY(LID1).
    Lid1 = 0x00,
    /// EXTENDED COPY(LID4).
    Lid4 = 0x01,
    /// POPULATE TOKEN.
    PopulateToken = 0x10,
    /// WRITE USING TOKEN.
    WriteUsingToken = 0x11,
}

/// How far a copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// What made it.
    pub origin: Origin,
    /// Whether it goes on.
    pub state: CopyState,
    /// Segments that are done.
    pub segments: u16,
    /// Bytes that are done.
    pub bytes: u64,
    /// I/Os that are done, wrapping.
    pub operations: u16,
    /// Bytes of a block of the destination.
    pub block_size: u32,
    /// The token that it made.
    pub token: Option<Token>,
}

/// COPY OPERATION STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// In progress, and its command waits for it.
    Foreground,
    /// In progress, and its command has ended.
    Background,
    /// Completed without errors.
    Done,
    /// The same, and the token had less than was asked for.
    Partial,
    /// Ended by an error.
    Failed(Sense),
    /// Ended by somebody.
    Terminated,
}

impl CopyState {
    /// True while it goes on.
    pub fn is_in_progress(self) -> bool {
        matches!(self, Self::Foreground | Self::Background)
    }

    fn code(self) -> u8 {
        match self {
            Self::Done => 0x01,
            Self::Failed(_) => 0x02,
            Self::Partial => 0x03,
            Self::Foreground => 0x11,
            Self::Background => 0x12,
            Self::Terminated => 0x60,
        }
    }

    /// COPY COMMAND STATUS of LID1.
    fn lid1_code(self) -> u8 {
        match self {
            Self::Foreground | Self::Background => 0,
            Self::Done | Self::Partial => 1,
            Self::Failed(_) | Self::Terminated => 2,
        }
    }

    fn completion(self) -> u8 {
        match self {
            Self::Failed(_) => status::CHECK_CONDITION,
            Self::Terminated => status::TASK_ABORTED,
            _ => status::GOOD,
        }
    }
}

/// Milliseconds after which an operation in progress is worth another look.
const LOOK_AGAIN_MS: u32 = 100;
/// ESTIMATED STATUS UPDATE DELAY of an operation that has ended.
const ENDED: u32 = 0xffff_fffe;
const KIBIBYTES: u8 = 0x01;
const BYTES: u8 = 0x00;
const BLOCKS: u8 = 0xf1;

impl CopyStatus {
    /// A copy that begins.
    pub fn new(origin: Origin, state: CopyState, block_size: u32) -> Self {
        Self { origin, state, segments: 0, bytes: 0, operations: 0, block_size, token: None }
    }

    /// Data of RECEIVE COPY STATUS(LID1).
    pub fn lid1(&self) -> Vec<u8> {
        let mut data = vec![0, 0, 0, 8, self.state.lid1_code()];
        data.extend_from_slice(&self.segments.to_be_bytes());
        data.push(KIBIBYTES);
        data.extend_from_slice(&u32::try_from(self.bytes >> 10).unwrap_or(u32::MAX).to_be_bytes());
        data
    }

    /// Data of RECEIVE COPY STATUS(LID4), with sense data as the unit has them.
    pub fn lid4(&self, format: SenseFormat) -> Vec<u8> {
        framed(self.body(format))
    }

    /// The same of RECEIVE ROD TOKEN INFORMATION.
    pub fn token_information(&self, format: SenseFormat) -> Vec<u8> {
        let mut data = self.body(format);
        let made = self.token.as_ref().filter(|_| matches!(self.state, CopyState::Done | CopyState::Partial));
        let descriptor = made.map(|token| [&[0, 0], token.as_bytes()].concat()).unwrap_or_default();
        data.extend_from_slice(&u32::try_from(descriptor.len()).unwrap_or(u32::MAX).to_be_bytes());
        data.extend_from_slice(&descriptor);
        framed(data)
    }

    /// What both have in common, with room for AVAILABLE DATA.
    fn body(&self, format: SenseFormat) -> Vec<u8> {
        let sense = match self.state {
            CopyState::Failed(sense) => sense.encode(format),
            _ => Vec::new(),
        };
        let delay = if self.state.is_in_progress() { LOOK_AGAIN_MS } else { ENDED };
        let (units, count) = match self.origin {
            Origin::Lid1 | Origin::Lid4 => (BYTES, self.bytes),
            Origin::PopulateToken | Origin::WriteUsingToken => {
                (BLOCKS, self.bytes / u64::from(self.block_size.max(1)))
            }
        };
        let field = sense.len().next_multiple_of(4);
        let mut data = vec![0, 0, 0, 0, self.origin as u8, self.state.code()];
        data.extend_from_slice(&self.operations.to_be_bytes());
        data.extend_from_slice(&delay.to_be_bytes());
        let completion = if self.state.is_in_progress() { 0 } else { self.state.completion() };
        let len = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
        data.extend_from_slice(&[completion, len(field), len(sense.len()), units]);
        data.extend_from_slice(&count.to_be_bytes());
        data.extend_from_slice(&self.segments.to_be_bytes());
        data.extend_from_slice(&[0; 6]);
        data.extend_from_slice(&sense);
        data.resize(32 + field, 0);
        data
    }
}

fn framed(mut data: Vec<u8>) -> Vec<u8> {
    let len = u32::try_from(data.len() - 4).unwrap_or(u32::MAX);
    data[..4].copy_from_slice(&len.to_be_bytes());
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::unit;

    #[test]
    fn statuses_are_laid_out_as_the_standard_says() {
        let mut status = CopyStatus::new(Origin::Lid4, CopyState::Background, 512);
        (status.bytes, status.segments, status.operations) = (4096, 1, 2);
        let data = status.lid4(SenseFormat::Fixed);
        assert_eq!(data.len(), 32);
        assert_eq!(data[..16], [0, 0, 0, 28, 1, 0x12, 0, 2, 0, 0, 0, 100, 0, 0, 0, 0]);
        assert_eq!(data[16..26], [0, 0, 0, 0, 0, 0, 0x10, 0, 0, 1]);
        status.state = CopyState::Failed(Sense::TOKEN_REVOKED);
        let data = status.lid4(SenseFormat::Fixed);
        assert_eq!((data.len(), &data[8..16]), (52, &[0xff, 0xff, 0xff, 0xfe, 2, 20, 18, 0][..]));
        assert_eq!(crate::sense::decode(&data[32..]), Some((5, 0x2306)));
        let data = status.lid4(SenseFormat::Descriptor);
        assert_eq!((data[32], crate::sense::decode(&data[32..])), (0x72, Some((5, 0x2306))));
        assert_eq!(status.lid1()[4..], [2, 0, 1, 1, 0, 0, 0, 4]);
    }

    #[test]
    fn a_token_is_told_when_it_is_made_and_not_before() {
        let mut status = CopyStatus::new(Origin::PopulateToken, CopyState::Foreground, 512);
        status.token = Some(Token::new(1, &[3; 32], 4096, &unit(), "iqn.a"));
        status.bytes = 4096;
        assert_eq!(status.token_information(SenseFormat::Fixed).len(), 36);
        status.state = CopyState::Done;
        let data = status.token_information(SenseFormat::Fixed);
        assert_eq!((data.len(), data[4], data[5], data[15], data[23]), (36 + 514, 0x10, 1, 0xf1, 8));
        assert_eq!(data[32..38], [0, 0, 2, 2, 0, 0]);
        assert_eq!(data[38..42], [0, 0x80, 0, 1]);
    }
}
