//! What a logical unit keeps beside its data, where its device can: reservations, mode parameters, identifying information.
//!
//! One record, so that a change of one is stored whole. Little-endian: the reservation table's record; then, absent in records
//! of older programs, version u16, current and saved mode parameters u8 each (bit 0 D_SENSE, bit 1 SWP), and for each type of
//! identifying information its length u16 and its bytes. What follows is not looked at.
//!
//! What cannot be read is an error, never an empty unit: whoever is kept out by a reservation or a write protection stays out.

use alloc::vec::Vec;

use crate::identifying::{Identifying, Kind};
use crate::mode::{Modes, Settings, SoftwareWriteProtect};
use crate::reservation::{Cursor, RecordError, Table};
use crate::sense::SenseFormat;

const VERSION: u16 = 1;
const D_SENSE: u8 = 1;
const SWP: u8 = 2;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Reservations and registrations.
    pub reservations: Table,
    /// Mode parameters.
    pub modes: Modes,
    /// Identifying information.
    pub identifying: Identifying,
}

fn flags(settings: Settings) -> u8 {
    let sense = if settings.sense_format == SenseFormat::Descriptor { D_SENSE } else { 0 };
    let protect = if settings.software_write_protect == SoftwareWriteProtect::On { SWP } else { 0 };
    sense | protect
}

fn settings(flags: u8) -> Settings {
    Settings {
        sense_format: if flags & D_SENSE != 0 { SenseFormat::Descriptor } else { SenseFormat::Fixed },
        software_write_protect: if flags & SWP != 0 {
            SoftwareWriteProtect::On
        } else {
            SoftwareWriteProtect::Off
        },
    }
}

fn parameters(cursor: &mut Cursor<'_>) -> Result<(Modes, Identifying), RecordError> {
    if cursor.u16()? != VERSION {
        return Err(RecordError);
    }
    let [current, saved] = cursor.array()?;
    let mut identifying = Identifying::default();
    for kind in [Kind::Device, Kind::Text] {
        let len = usize::from(cursor.u16()?);
        identifying.set(kind, cursor.take(len)?).map_err(|_| RecordError)?;
    }
    Ok((Modes { current: settings(current), saved: settings(saved) }, identifying))
}

impl Kept {
    /// Bytes of the largest record.
    pub const RECORD_MAX: usize = Table::RECORD_MAX + 4 + 2 * 2 + 64 + 256;

    /// As bytes.
    pub fn to_record(&self) -> Vec<u8> {
        let mut bytes = self.reservations.to_record();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[flags(self.modes.current), flags(self.modes.saved)]);
        for kind in [Kind::Device, Kind::Text] {
            let information = self.identifying.get(kind);
            let len = u16::try_from(information.len()).expect("information is bounded");
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(information);
        }
        bytes
    }

    /// From bytes. No bytes at all are an empty unit; a record that ends with the table has default parameters.
    ///
    /// # Errors
    /// [`RecordError`]: another program wrote it, or it is damaged.
    pub fn from_record(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut cursor = Cursor::new(bytes);
        let reservations = Table::from_cursor(&mut cursor)?;
        let (modes, identifying) = if cursor.is_empty() {
            (Modes::default(), Identifying::default())
        } else {
            parameters(&mut cursor)?
        };
        Ok(Self { reservations, modes, identifying })
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
    use crate::reservation::{Action, InitiatorPort, Nexus, Parameters, ScopeType};

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

    fn kept() -> impl Strategy<Value = Kept> {
        (1u64.., 0u8..4, 0u8..4, vec(any::<u8>(), 0..=64), "[a-z é]{0,100}").prop_map(
            |(key, current, saved, device, text)| {
                let mut identifying = Identifying::default();
                identifying.set(Kind::Device, &device).expect("short");
                identifying.set(Kind::Text, (text + "\0").as_bytes()).expect("text");
                let modes = Modes { current: settings(current), saved: settings(saved) };
                Kept { reservations: registered(key), modes, identifying }
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
        fn a_record_that_is_cut_is_not_taken_for_less(kept in kept(), cut in 1usize..500) {
            let (record, table) = (kept.to_record(), kept.reservations.to_record());
            let cut = 1 + cut % (record.len() - 1);
            let read = Kept::from_record(&record[..cut]);
            match cut == table.len() {
                true => prop_assert_eq!(read, Ok(Kept { reservations: kept.reservations, ..Kept::default() })),
                false => prop_assert_eq!(read, Err(RecordError)),
            }
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
