//! What a logical unit keeps beside its data, where its device can: reservations, mode parameters, identifying information.
//!
//! One record, so that a change of one is stored whole. Little-endian: the reservation table's record; then, absent in records
//! of older programs, version u16, current and saved mode parameters u8 each (bit 0 D_SENSE, bit 1 SWP, bit 2: WCE is zero where it could be one, bit 3 TAS), and for each type of
//! identifying information its length u16 and its bytes; then, absent in records of older programs, too, current and saved thresholds
//! of provisioning: u8 (bit 0: they are not the administrator's, and the rest counts; bit 1 LBPERE, bits 2 and 3 ENABLED of used and
//! available blocks), and both counts u32. What follows is not looked at. A record of version 2 has both, and then a sanitize operation that
//! has not ended well (`sanitization`): programs that know nothing of it cannot read that record, and keep everybody out.
//!
//! What cannot be read is an error, never an empty unit: whoever is kept out by a reservation or a write protection stays out.

use alloc::vec::Vec;

use crate::identifying::{Identifying, Kind};
use crate::mode::{Modes, Settings, SoftwareWriteProtect, TaskAborted, WriteBack};
use crate::reservation::{Cursor, RecordError, Table};
use crate::sanitization::Sanitization;
use crate::sense::SenseFormat;
use crate::thresholds::{Notice, Threshold, Thresholds};

const VERSION: u16 = 1;
/// Of a unit that is being sanitized, or was without success.
const VERSION_SANITIZE: u16 = 2;
const D_SENSE: u8 = 1;
const SWP: u8 = 2;
const NO_CACHE: u8 = 4;
const TAS: u8 = 8;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Reservations and registrations.
    pub reservations: Table,
    /// Mode parameters.
    pub modes: Modes,
    /// Identifying information.
    pub identifying: Identifying,
    /// A sanitize operation that has not ended well.
    pub sanitization: Option<Sanitization>,
}

fn flags(settings: Settings) -> u8 {
    let sense = if settings.sense_format == SenseFormat::Descriptor { D_SENSE } else { 0 };
    let protect = if settings.software_write_protect == SoftwareWriteProtect::On { SWP } else { 0 };
    let cache = if settings.write_back == WriteBack::Off { NO_CACHE } else { 0 };
    let aborted = if settings.task_aborted == TaskAborted::Status { TAS } else { 0 };
    sense | protect | cache | aborted
}

fn settings(flags: u8) -> Settings {
    Settings {
        sense_format: if flags & D_SENSE != 0 { SenseFormat::Descriptor } else { SenseFormat::Fixed },
        software_write_protect: if flags & SWP != 0 {
            SoftwareWriteProtect::On
        } else {
            SoftwareWriteProtect::Off
        },
        task_aborted: if flags & TAS != 0 { TaskAborted::Status } else { TaskAborted::Attention },
        write_back: if flags & NO_CACHE != 0 { WriteBack::Off } else { WriteBack::Used },
        thresholds: None,
    }
}

const CHOSEN: u8 = 1;
const REPORTING: u8 = 2;
const USED: u8 = 4;
const AVAILABLE: u8 = 8;
/// Bytes of a unit's thresholds.
const THRESHOLDS_LEN: usize = 9;

fn thresholds_record(thresholds: Option<Thresholds>) -> [u8; THRESHOLDS_LEN] {
    let mut bytes = [0; THRESHOLDS_LEN];
    let Some(Thresholds { reporting, used, available }) = thresholds else { return bytes };
    let bit = |notice: Notice, bit: u8| if notice == Notice::On { bit } else { 0 };
    bytes[0] = CHOSEN | bit(reporting, REPORTING) | bit(used.notice, USED) | bit(available.notice, AVAILABLE);
    bytes[1..5].copy_from_slice(&used.count.to_le_bytes());
    bytes[5..].copy_from_slice(&available.count.to_le_bytes());
    bytes
}

fn thresholds(cursor: &mut Cursor<'_>) -> Result<Option<Thresholds>, RecordError> {
    let [flags] = cursor.array()?;
    let notice = |bit: u8| if flags & bit != 0 { Notice::On } else { Notice::Off };
    let mut threshold = |bit: u8| -> Result<Threshold, RecordError> {
        Ok(Threshold { notice: notice(bit), count: u32::from_le_bytes(cursor.array()?) })
    };
    let (used, available) = (threshold(USED)?, threshold(AVAILABLE)?);
    Ok((flags & CHOSEN != 0).then_some(Thresholds { reporting: notice(REPORTING), used, available }))
}

fn parameters(cursor: &mut Cursor<'_>, reservations: Table) -> Result<Kept, RecordError> {
    let version = cursor.u16()?;
    if version != VERSION && version != VERSION_SANITIZE {
        return Err(RecordError);
    }
    let [current, saved] = cursor.array()?;
    let mut identifying = Identifying::default();
    for kind in [Kind::Device, Kind::Text] {
        let len = usize::from(cursor.u16()?);
        identifying.set(kind, cursor.take(len)?).map_err(|_| RecordError)?;
    }
    let mut modes = Modes { current: settings(current), saved: settings(saved) };
    // A record of an older program ends here.
    if version == VERSION_SANITIZE || !cursor.is_empty() {
        modes.current.thresholds = thresholds(cursor)?;
        modes.saved.thresholds = thresholds(cursor)?;
    }
    let sanitization = match version {
        VERSION_SANITIZE => Some(Sanitization::from_cursor(cursor)?),
        _ => None,
    };
    Ok(Kept { reservations, modes, identifying, sanitization })
}

impl Kept {
    /// Bytes of the largest record.
    pub const RECORD_MAX: usize =
        Table::RECORD_MAX + 4 + 2 * 2 + 64 + 256 + 2 * THRESHOLDS_LEN + Sanitization::RECORD_MAX;

    /// As bytes.
    pub fn to_record(&self) -> Vec<u8> {
        let mut bytes = self.reservations.to_record();
        let version = if self.sanitization.is_some() { VERSION_SANITIZE } else { VERSION };
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&[flags(self.modes.current), flags(self.modes.saved)]);
        for kind in [Kind::Device, Kind::Text] {
            let information = self.identifying.get(kind);
            let len = u16::try_from(information.len()).expect("information is bounded");
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(information);
        }
        for settings in [self.modes.current, self.modes.saved] {
            bytes.extend_from_slice(&thresholds_record(settings.thresholds));
        }
        bytes.extend(self.sanitization.iter().flat_map(Sanitization::to_record));
        bytes
    }

    /// From bytes. No bytes at all are an empty unit; a record that ends with the table has default parameters.
    ///
    /// # Errors
    /// [`RecordError`]: another program wrote it, or it is damaged.
    pub fn from_record(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut cursor = Cursor::new(bytes);
        let reservations = Table::from_cursor(&mut cursor)?;
        match cursor.is_empty() {
            true => Ok(Self { reservations, ..Self::default() }),
            false => parameters(&mut cursor, reservations),
        }
    }

    /// What is left when the unit has lost its power: saved parameters, and reservations that were to outlive it.
    #[must_use]
    pub fn after_power_loss(self) -> Self {
        Self { reservations: self.reservations.after_power_loss(), modes: self.modes.reset(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::command::AllowUnrestrictedExit;
    use crate::parameter::{Inversion, Overwrite};
    use crate::reservation::{Action, InitiatorPort, Nexus, Parameters, ScopeType};
    use crate::sanitization::Order;

    fn registered(key: u64) -> Table {
        let nexus = Nexus { initiator: InitiatorPort::new("iqn.a", [1; 6]).expect("short"), port: 1 };
        let list = [[0; 8], key.to_be_bytes(), [0; 8]].concat();
        let parameters = Parameters::parse(Action::Register, &list).expect("a list");
        let change = Table::default().change(
            &nexus,
            Action::Register,
            ScopeType(0),
            &parameters,
            &alloc::collections::BTreeSet::from([1]),
        );
        change.expect("a registration").next
    }

    fn chosen() -> impl Strategy<Value = Option<Thresholds>> + Clone {
        let notice = |on| if on { Notice::On } else { Notice::Off };
        proptest::option::of(any::<(bool, bool, u32, bool, u32)>()).prop_map(move |chosen| {
            let (reporting, used, used_count, available, available_count) = chosen?;
            Some(Thresholds {
                reporting: notice(reporting),
                used: Threshold { notice: notice(used), count: used_count },
                available: Threshold { notice: notice(available), count: available_count },
            })
        })
    }

    fn sanitization() -> impl Strategy<Value = Option<Sanitization>> {
        let overwrite =
            (1u8..32, any::<bool>(), vec(any::<u8>(), 1..600)).prop_map(|(passes, invert, pattern)| {
                let inversion = if invert { Inversion::EachPass } else { Inversion::None };
                Order::Overwrite(Overwrite { passes, inversion, pattern })
            });
        let order = prop_oneof![overwrite, Just(Order::BlockErase), Just(Order::CryptoErase)];
        let one = (order, any::<bool>(), any::<bool>()).prop_map(|(order, ause, failed)| {
            let exit = if ause { AllowUnrestrictedExit::Yes } else { AllowUnrestrictedExit::No };
            let begun = Sanitization::new(order, exit);
            if failed { begun.failed() } else { begun }
        });
        proptest::option::of(one)
    }

    fn kept() -> impl Strategy<Value = Kept> {
        let flags = (0u8..16, chosen());
        let texts = (vec(any::<u8>(), 0..=64), "[a-z é]{0,100}");
        (1u64.., flags.clone(), flags, texts, sanitization()).prop_map(
            |(key, current, saved, (device, text), sanitization)| {
                let settings = |(flags, thresholds)| Settings { thresholds, ..settings(flags) };
                let mut identifying = Identifying::default();
                identifying.set(Kind::Device, &device).expect("short");
                identifying.set(Kind::Text, (text + "\0").as_bytes()).expect("text");
                let modes = Modes { current: settings(current), saved: settings(saved) };
                Kept { reservations: registered(key), modes, identifying, sanitization }
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(kept in kept(), more in vec(any::<u8>(), 0..20)) {
            let mut record = kept.to_record();
            prop_assert!(record.len() <= Kept::RECORD_MAX);
            record.extend(more);
            prop_assert_eq!(Kept::from_record(&record), Ok(kept));
        }

        #[test]
        fn a_record_that_is_cut_is_not_taken_for_less(kept in kept(), cut in 1usize..1200) {
            let (record, table) = (kept.to_record(), kept.reservations.to_record());
            let cut = 1 + cut % (record.len() - 1);
            let read = Kept::from_record(&record[..cut]);
            let mut older = kept.clone();
            (older.modes.current.thresholds, older.modes.saved.thresholds) = (None, None);
            // Older programs' records end with the table, or in front of the thresholds.
            let expected = match cut {
                cut if cut == table.len() => Ok(Kept { reservations: kept.reservations, ..Kept::default() }),
                cut if kept.sanitization.is_none() && cut == record.len() - 2 * THRESHOLDS_LEN => Ok(older),
                _ => Err(RecordError),
            };
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_record_of_a_table_alone_has_default_parameters() {
        let reservations = registered(7);
        let read = Kept::from_record(&reservations.to_record());
        assert_eq!(read, Ok(Kept { reservations, ..Kept::default() }));
        assert_eq!(Kept::from_record(&[]), Ok(Kept::default()));
        assert_eq!(Kept::from_record(&[1]), Err(RecordError));
    }

    #[test]
    fn a_loss_of_power_leaves_what_was_saved() {
        let mut kept = Kept { reservations: registered(7), ..Kept::default() };
        kept.modes.current = settings(D_SENSE | SWP);
        kept.modes.saved = settings(SWP);
        kept.identifying.set(Kind::Text, b"here\0").expect("text");
        let left = kept.clone().after_power_loss();
        assert_eq!(left.modes, Modes { current: settings(SWP), saved: settings(SWP) });
        assert_eq!(left.identifying, kept.identifying);
        assert!(left.reservations.is_empty(), "APTPL was not asked for");
    }
}
