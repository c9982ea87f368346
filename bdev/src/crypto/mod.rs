//! A device that encrypts what lies on another one: AES-256-XTS, a data unit for each block, its LBA as the tweak.
//!
//! The data are encrypted with a media key that nobody knows; the header before the data holds it, wrapped by the user's key. So an
//! erase ([`Op::CryptoErase`](crate::Op::CryptoErase)) is a new media key: once both copies of the header hold the new one, the old one exists nowhere,
//! and what it encrypted is noise. The device below must not keep what is overwritten (snapshots, copies of the file): that is beyond
//! this device's reach.
//!
//! Blocks that were never written, or were given back, lie as zeroes below and read as zeroes; who sees the device below sees which ones
//! these are. There is no authentication: who writes to the device below can turn a block into noise or zeroes, or bring an old one back.
//!
//! All channels of the device look the key up for each I/O. When it changes, writes that are encrypted but not on the medium yet become
//! noise, and reads under way are decrypted with the new key: whoever erases holds off all others, as SANITIZE does.

mod channel;
mod header;
mod key;
mod opening;
mod rewrite;
mod writer;
mod xts;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use engine::Core;
use uuid::Uuid;

use crate::access::Access;
use crate::channel::{Bdev, Channel, OpenError};
use crate::error::IoError;
use crate::geometry::{Capabilities, Geometry};
use channel::CryptoChannel;
pub use header::NoHeader;
use header::{Header, RESERVED, Slot};
use key::{Cipher, MediaKey};
pub use key::{UserKey, UserKeyError};
pub use opening::{CryptoError, Opening, Over, Request, Wish};
use rewrite::Rewrite;

/// What the device below may have beyond read and write that this one has, too. A compare-and-write would say where the encrypted
/// bytes differ, and state and fences are of devices with a session or a mirror behind them.
const PASSED: Capabilities = Capabilities::FLUSH
    .union(Capabilities::FUA)
    .union(Capabilities::DISCARD)
    .union(Capabilities::WRITE_ZEROES)
    .union(Capabilities::DISCARD_ZEROES)
    .union(Capabilities::VOLATILE_CACHE)
    .union(Capabilities::READ_ONLY)
    .union(Capabilities::BLOCK_STATUS)
    .union(Capabilities::ATOMIC_WRITE);

/// Control half.
pub struct CryptoBdev {
    name: String,
    base: Arc<dyn Bdev>,
    user: Arc<UserKey>,
    media: RwLock<Media>,
    control: Mutex<Control>,
}

/// What the data are encrypted with.
enum Media {
    /// With this.
    Known(Arc<Cipher>),
    /// With an old key or a new one: the write of a header failed, and nobody knows what lies there. An erase that succeeds ends
    /// it, and so does opening the device again.
    Undecided,
}

/// What lies on the medium, as far as is known.
struct Control {
    header: Header,
    /// The slot that the next header goes to first: where it is not known what lies there.
    first: Slot,
    erasing: Erasing,
}

/// Whether an erase is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Erasing {
    No,
    Yes,
}

/// An erase from its beginning to its end, or to its being dropped.
struct Erasure {
    bdev: Arc<CryptoBdev>,
    cipher: Option<Arc<Cipher>>,
}

impl CryptoBdev {
    fn new(
        name: String,
        base: Arc<dyn Bdev>,
        user: Arc<UserKey>,
        header: Header,
        media: &MediaKey,
    ) -> Arc<Self> {
        let cipher = Arc::new(media.cipher(header.block_size));
        Arc::new(Self {
            name,
            base,
            user,
            media: RwLock::new(Media::Known(cipher)),
            control: Mutex::new(Control { header, first: Slot::Second, erasing: Erasing::No }),
        })
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to encrypt and decrypt with now; `None` where nobody knows.
    fn cipher(&self) -> Option<Arc<Cipher>> {
        match &*self.media.read().unwrap_or_else(PoisonError::into_inner) {
            Media::Known(cipher) => Some(cipher.clone()),
            Media::Undecided => None,
        }
    }

    fn set_media(&self, media: Media) {
        *self.media.write().unwrap_or_else(PoisonError::into_inner) = media;
    }

    /// Blocks below before the first of this device.
    fn reserved(&self) -> u64 {
        RESERVED / u64::from(self.base.geometry().block_size)
    }

    /// Begins an erase.
    ///
    /// # Errors
    /// One is at work, or there are no random bytes.
    fn erase(self: &Arc<Self>) -> Result<(Erasure, Rewrite), IoError> {
        let mut control = self.control();
        if control.erasing == Erasing::Yes {
            return Err(IoError::Busy);
        }
        let media = MediaKey::random()?;
        let Header { uuid, block_size, .. } = control.header;
        // A sequence that a failed erase may have left on the medium is not used twice.
        let sequence = control.header.sequence + 1;
        let header = Header::new(uuid, sequence, block_size, &media, &self.user);
        control.header.sequence = sequence;
        control.erasing = Erasing::Yes;
        let cipher = Some(Arc::new(media.cipher(block_size)));
        Ok((Erasure { bdev: self.clone(), cipher }, Rewrite::both(header, control.first)))
    }
}

impl Erasure {
    /// The new header counts: its key is the device's from now on. More calls change nothing.
    fn settle(&mut self, rewrite: &Rewrite) {
        if let Some(cipher) = self.cipher.take() {
            let mut control = self.bdev.control();
            control.header = rewrite.header().clone();
            // The other slot is what may not be known.
            control.first = rewrite.first().other();
            self.bdev.set_media(Media::Known(cipher));
        }
    }
}

impl Drop for Erasure {
    fn drop(&mut self) {
        let mut control = self.bdev.control();
        control.erasing = Erasing::No;
        if self.cipher.is_some() {
            self.bdev.set_media(Media::Undecided);
        }
    }
}

impl Bdev for CryptoBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn product(&self) -> &'static str {
        "crypto"
    }

    fn uuid(&self) -> Uuid {
        self.control().header.uuid
    }

    fn geometry(&self) -> Geometry {
        let below = self.base.geometry();
        Geometry { blocks: below.blocks.saturating_sub(self.reserved()), ..below }
    }

    fn capabilities(&self) -> Capabilities {
        let passed = self.base.capabilities() & PASSED;
        match passed.contains(Capabilities::READ_ONLY) {
            true => passed,
            false => passed | Capabilities::CRYPTO_ERASE,
        }
    }

    fn space(&self) -> Option<crate::Space> {
        self.base.space()
    }

    fn access(&self) -> Access {
        self.base.access()
    }

    fn open(self: Arc<Self>, core: &Core) -> Result<Box<dyn Channel>, OpenError> {
        let base = self.base.clone().open(core)?;
        Ok(Box::new(CryptoChannel::new(self, core.pool().clone(), base)))
    }
}
