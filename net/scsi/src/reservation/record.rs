//! The table as bytes, to be kept beside the data that it protects.
//!
//! Little-endian. Version u16, flags u16 (bit 0: outlives a loss of power), PRGENERATION u32, type of the reservation u8
//! (0: none), zero u8, number of registrations u16, index of the holder among them u16 (0 where all hold it); then for each registration: key u64,
//! relative target port u16, ISID, length of the name u8, name. RESERVE and RELEASE are not kept: they go with their nexus.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{InitiatorPort, Kind, NAME_MAX, Nexus, PowerLoss, REGISTRATIONS_MAX, Reservation, Table};

const VERSION: u16 = 1;
const HEADER_LEN: usize = 14;
/// Bytes of a registration before its name.
const FIXED_LEN: usize = 17;

/// Bytes of the largest record.
pub(super) const RECORD_MAX: usize = HEADER_LEN + REGISTRATIONS_MAX * (FIXED_LEN + NAME_MAX);

/// The bytes are no record of a table that could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError;

/// Takes fields off the front.
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(RecordError)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        Ok(self.take(N)?.try_into().expect("as long as was taken"))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_le_bytes)
    }
}

impl Table {
    /// Bytes of the largest record.
    pub const RECORD_MAX: usize = RECORD_MAX;

    /// As bytes.
    pub fn to_record(&self) -> Vec<u8> {
        let flags = u16::from(self.power_loss == PowerLoss::Persists);
        let count = u16::try_from(self.registrations.len()).expect("registrations are bounded");
        let held = self.reservation.as_ref();
        let holder = held.and_then(|held| held.holder.as_ref());
        let position = holder.and_then(|holder| self.registrations.keys().position(|nexus| nexus == holder));
        let holder = u16::try_from(position.unwrap_or(0)).expect("registrations are bounded");
        let mut bytes = [VERSION.to_le_bytes(), flags.to_le_bytes()].concat();
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&[held.map_or(0, |held| held.kind as u8), 0]);
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&holder.to_le_bytes());
        for (nexus, key) in &self.registrations {
            let name = nexus.initiator.name.as_bytes();
            bytes.extend_from_slice(&key.to_le_bytes());
            bytes.extend_from_slice(&nexus.port.to_le_bytes());
            bytes.extend_from_slice(&nexus.initiator.isid);
            // No name is longer than NAME_MAX.
            bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(name);
        }
        bytes
    }

    /// From bytes; what follows the record is not looked at. No bytes at all are an empty table.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn from_record(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::from_cursor(&mut Cursor::new(bytes))
    }

    /// From the front of bytes.
    pub(crate) fn from_cursor(cursor: &mut Cursor<'_>) -> Result<Self, RecordError> {
        if cursor.is_empty() {
            return Ok(Self::default());
        }
        let (version, flags) = (cursor.u16()?, cursor.u16()?);
        let generation = u32::from_le_bytes(cursor.array()?);
        let [kind, _] = cursor.array()?;
        let (count, holder) = (usize::from(cursor.u16()?), usize::from(cursor.u16()?));
        if version != VERSION || count > REGISTRATIONS_MAX {
            return Err(RecordError);
        }
        let mut registrations = BTreeMap::new();
        for _ in 0..count {
            let (nexus, key) = registration(cursor)?;
            registrations.insert(nexus, key);
        }
        let reservation = match (kind, Kind::from_code(kind)) {
            (0, _) => None,
            (_, None) => return Err(RecordError),
            (_, Some(kind)) => {
                let holder = registrations.keys().nth(holder).ok_or(RecordError)?;
                Some(Reservation::new(kind, holder))
            }
        };
        let power_loss = if flags & 1 == 0 { PowerLoss::Forgets } else { PowerLoss::Persists };
        if registrations.len() != count {
            return Err(RecordError);
        }
        Ok(Self { generation, power_loss, registrations, reservation, older: None })
    }
}

fn registration(cursor: &mut Cursor<'_>) -> Result<(Nexus, u64), RecordError> {
    let key = u64::from_le_bytes(cursor.array()?);
    let port = cursor.u16()?;
    let isid = cursor.array()?;
    let [len] = cursor.array()?;
    let name = core::str::from_utf8(cursor.take(usize::from(len))?).map_err(|_| RecordError)?;
    if key == 0 {
        return Err(RecordError);
    }
    let initiator = InitiatorPort::new(name, isid).ok_or(RecordError)?;
    Ok((Nexus { initiator, port }, key))
}
