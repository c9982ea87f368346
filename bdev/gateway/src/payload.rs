//! The data of one command: in one frame, or in several where they are longer than a frame.
//!
//! Invariant: every frame but the last is full, that is of [`FRAME`] bytes.

use engine::{BUF_LEN_MAX, Buf, BufMut};

/// Bytes of a frame that others follow.
pub(crate) const FRAME: usize = BUF_LEN_MAX;

/// Data that come in: only their owner has them.
#[derive(Debug)]
pub(crate) struct PayloadMut {
    first: BufMut,
    rest: Vec<BufMut>,
}

/// Data that go out: shared, and nobody changes them.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    first: Buf,
    rest: Vec<Buf>,
}

/// Data that follow each other in one frame, or in two.
pub(crate) type Parts = (Buf, Option<Buf>);

impl PayloadMut {
    /// Frames in order; `None` of none.
    pub(crate) fn of(frames: Vec<BufMut>) -> Option<Self> {
        let mut frames = frames.into_iter();
        let first = frames.next()?;
        Some(Self { first, rest: frames.collect() })
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(|frame| frame.len()).sum::<usize>()
    }

    /// The first frame: all of it, where the data are a parameter list.
    pub(crate) fn list(&self) -> &[u8] {
        &self.first
    }

    /// Copies bytes to where they belong; those past the end are dropped.
    pub(crate) fn store(&mut self, mut offset: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let frame = match offset / FRAME {
                0 => &mut self.first,
                later => match self.rest.get_mut(later - 1) {
                    Some(frame) => frame,
                    None => return,
                },
            };
            let at = offset % FRAME;
            let room = frame.len().saturating_sub(at).min(bytes.len());
            if room == 0 {
                return;
            }
            frame[at..at + room].copy_from_slice(&bytes[..room]);
            (offset, bytes) = (offset + room, &bytes[room..]);
        }
    }

    /// Zeroes, all of it.
    pub(crate) fn clear(&mut self) {
        self.first.fill(0);
        self.rest.iter_mut().for_each(|frame| frame.fill(0));
    }

    /// The frames, in order.
    pub(crate) fn into_frames(self) -> impl DoubleEndedIterator<Item = BufMut> {
        std::iter::once(self.first).chain(self.rest)
    }

    /// From here on nobody changes them.
    pub(crate) fn freeze(self) -> Payload {
        Payload { first: self.first.freeze(), rest: self.rest.into_iter().map(BufMut::freeze).collect() }
    }
}

impl From<BufMut> for PayloadMut {
    fn from(first: BufMut) -> Self {
        Self { first, rest: Vec::new() }
    }
}

impl From<Buf> for Payload {
    fn from(first: Buf) -> Self {
        Self { first, rest: Vec::new() }
    }
}

impl Payload {
    /// Frames in order; `None` of none.
    pub(crate) fn of(frames: Vec<Buf>) -> Option<Self> {
        let mut frames = frames.into_iter();
        let first = frames.next()?;
        Some(Self { first, rest: frames.collect() })
    }

    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.frames().map(|frame| frame.len()).sum()
    }

    /// The first frame: all of it, where the data are a parameter list.
    pub(crate) fn list(&self) -> &[u8] {
        &self.first
    }

    /// The frames, in order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &Buf> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// A part that is not longer than a frame; `None` when it is not inside.
    pub(crate) fn part(&self, offset: usize, len: usize) -> Option<Parts> {
        let (index, at) = (offset / FRAME, offset % FRAME);
        let frame = self.frames().nth(index)?;
        let here = len.min(frame.len().checked_sub(at)?);
        let first = frame.slice(at..at + here);
        if here == len {
            return Some((first, None));
        }
        let next = self.frames().nth(index + 1).filter(|next| len - here <= next.len())?;
        Some((first, Some(next.slice(0..len - here))))
    }

    /// True while anybody else has a part of them.
    pub(crate) fn is_shared(&self) -> bool {
        self.frames().any(Buf::is_shared)
    }

    /// The right to change them, when nobody else has them; `None` otherwise.
    pub(crate) fn try_unique(self) -> Option<PayloadMut> {
        let first = self.first.try_unique().ok()?;
        let rest = self.rest.into_iter().map(|frame| frame.try_unique().ok()).collect::<Option<_>>()?;
        Some(PayloadMut { first, rest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Pool;

    fn filled(pool: &Pool, lens: &[usize]) -> PayloadMut {
        let frames = lens.iter().map(|len| pool.alloc_zeroed(*len).expect("a frame")).collect();
        PayloadMut::of(frames).expect("frames")
    }

    #[test]
    fn bytes_land_and_are_found_across_frames() {
        let pool = Pool::for_tests();
        let mut data = filled(&pool, &[FRAME, FRAME, 512]);
        assert_eq!(data.len(), 2 * FRAME + 512);
        let bytes: Vec<u8> = (1..=200).collect();
        data.store(FRAME - 100, &bytes);
        data.store(2 * FRAME + 400, &bytes);
        data.store(3 * FRAME, &bytes);
        let data = data.freeze();
        let (first, second) = data.part(FRAME - 100, 200).expect("a part");
        let second = second.expect("it goes on in the next frame");
        assert_eq!([&first[..], &second[..]].concat(), bytes);
        let (last, none) = data.part(2 * FRAME + 400, 112).expect("a part");
        assert!(none.is_none() && last[..] == bytes[..112], "what is past the end is dropped");
        assert!(data.part(2 * FRAME + 400, 113).is_none() && data.part(3 * FRAME, 1).is_none());
    }

    #[test]
    fn what_others_have_too_cannot_be_changed() {
        let pool = Pool::for_tests();
        let data = filled(&pool, &[FRAME, 512]).freeze();
        let other = data.clone();
        assert!(data.try_unique().is_none());
        assert_eq!(other.try_unique().map(|data| data.len()), Some(FRAME + 512));
    }
}
