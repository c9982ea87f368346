//! Registered descriptors: the kernel looks a file or socket up once, not for each operation.
//!
//! A registration lasts as long as its [`Registered`]; without room or support, operations name the descriptor itself. An entry names
//! a place, and the kernel looks there when it takes the entry: a place is given to another descriptor only when every entry that
//! was queued before has been taken.

use std::io;
use std::os::fd::RawFd;

use io_uring::IoUring;

use super::RingHandle;
use crate::file::File;
use crate::socket::Socket;

/// Descriptors that a ring registers at the most.
const FILES_MAX: u32 = 1024;

/// How an operation names its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// By its place in the ring's table.
    Fixed(u32),
    /// By its number.
    Plain(RawFd),
}

/// Builds an entry for a target, whichever kind it is.
macro_rules! on_target {
    ($target:expr, $fd:ident => $entry:expr) => {
        match $target {
            $crate::ring::files::Target::Fixed(slot) => {
                let $fd = io_uring::types::Fixed(slot);
                $entry
            }
            $crate::ring::files::Target::Plain(raw) => {
                let $fd = io_uring::types::Fd(raw);
                $entry
            }
        }
    };
}
pub(super) use on_target;

/// The ring's table.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// By descriptor: its place and how many registrations there are.
    places: Vec<Option<(u32, u32)>>,
    free: Vec<u32>,
    /// Places that nobody has any more, and entries name perhaps.
    leaving: Vec<u32>,
}

impl Files {
    /// Registers an empty table.
    pub(super) fn new(uring: &IoUring) -> io::Result<Self> {
        uring.submitter().register_files_sparse(FILES_MAX)?;
        Ok(Self { places: Vec::new(), free: (0..FILES_MAX).rev().collect(), leaving: Vec::new() })
    }

    /// How to name a descriptor.
    pub(super) fn target(&self, raw: RawFd) -> Target {
        let place = usize::try_from(raw).ok().and_then(|raw| *self.places.get(raw)?);
        place.map_or(Target::Plain(raw), |(slot, _)| Target::Fixed(slot))
    }

    fn add(&mut self, uring: &IoUring, raw: RawFd) -> bool {
        let Ok(index) = usize::try_from(raw) else { return false };
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        if let Some((_, count)) = &mut self.places[index] {
            *count += 1;
            return true;
        }
        let Some(slot) = self.free.pop() else { return false };
        if uring.submitter().register_files_update(slot, &[raw]).is_err() {
            self.free.push(slot);
            return false;
        }
        self.places[index] = Some((slot, 1));
        true
    }

    /// Takes a registration back. A place that nobody has any more is named by entries perhaps, which the kernel has not taken: it
    /// stays what it is until [`Files::clear`].
    fn remove(&mut self, raw: RawFd) {
        let Some(place) = usize::try_from(raw).ok().and_then(|raw| self.places.get_mut(raw)) else { return };
        match place {
            Some((_, count)) if *count > 1 => *count -= 1,
            Some((slot, _)) => {
                self.leaving.push(*slot);
                *place = None;
            }
            None => {}
        }
    }

    /// Empties the places that were left: every entry that names one has been taken.
    pub(super) fn clear(&mut self, uring: &IoUring) {
        for slot in self.leaving.drain(..) {
            // A slot that cannot be emptied keeps its file open and is not used again.
            if uring.submitter().register_files_update(slot, &[-1]).is_ok() {
                self.free.push(slot);
            }
        }
    }

    /// True while there are such places.
    pub(super) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }
}

/// What is registered; it stays open as long.
#[derive(Clone, Debug)]
enum Owner {
    File(File),
    Socket(Socket),
}

impl Owner {
    fn raw(&self) -> RawFd {
        match self {
            Self::File(file) => file.raw(),
            Self::Socket(socket) => socket.raw(),
        }
    }
}

/// A registration; dropping it ends it.
#[derive(Debug)]
pub struct Registered {
    handle: RingHandle,
    owner: Owner,
}

impl RingHandle {
    /// Registers a file for the operations on it that follow; `None` where the kernel or the table has no room: they work
    /// without.
    pub fn register_file(&self, file: &File) -> Option<Registered> {
        self.register(Owner::File(file.clone()))
    }

    /// As [`RingHandle::register_file`], for a socket.
    pub fn register_socket(&self, socket: &Socket) -> Option<Registered> {
        self.register(Owner::Socket(socket.clone()))
    }

    fn register(&self, owner: Owner) -> Option<Registered> {
        let ring = &mut *self.ring.borrow_mut();
        let added = ring.files.as_mut()?.add(&ring.uring, owner.raw());
        added.then(|| Registered { handle: self.clone(), owner })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let ring = &mut *self.handle.ring.borrow_mut();
        if let Some(files) = &mut ring.files {
            files.remove(self.owner.raw());
        }
        // What was queued is for what is here now: the descriptor may close behind this, and its place go to another.
        ring.clear_places();
    }
}
