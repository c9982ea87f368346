//! The medium of a removable unit.
//!
//! ```text
//! Loaded --Eject--> Ejected --Load--> Loaded
//! ```
//!
//! A unit has no power conditions: one that is stopped still serves.

use scsi::{Sense, StartStop};

/// Where the medium is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::export) enum Medium {
    /// In the unit.
    #[default]
    Loaded,
    /// Not in the unit.
    Ejected,
}

impl Medium {
    /// Why a command that needs the medium cannot be served.
    pub(in crate::export) fn refusal(self) -> Option<Sense> {
        match self {
            Self::Loaded => None,
            Self::Ejected => Some(Sense::MEDIUM_NOT_PRESENT),
        }
    }

    /// What becomes of it by START STOP UNIT.
    ///
    /// # Errors
    /// There is nothing to start.
    pub(in crate::export) fn after(self, action: StartStop) -> Result<Self, Sense> {
        match (self, action) {
            (_, StartStop::Eject) => Ok(Self::Ejected),
            (_, StartStop::Load) => Ok(Self::Loaded),
            (Self::Ejected, StartStop::Start) => Err(Sense::MEDIUM_NOT_PRESENT),
            (medium, StartStop::Start | StartStop::Stop | StartStop::Power) => Ok(medium),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_medium_follows_the_picture() {
        use Medium::{Ejected, Loaded};
        let actions =
            [StartStop::Start, StartStop::Stop, StartStop::Load, StartStop::Eject, StartStop::Power];
        let table = [
            (Loaded, [Ok(Loaded), Ok(Loaded), Ok(Loaded), Ok(Ejected), Ok(Loaded)]),
            (Ejected, [Err(Sense::MEDIUM_NOT_PRESENT), Ok(Ejected), Ok(Loaded), Ok(Ejected), Ok(Ejected)]),
        ];
        for (from, to) in table {
            assert_eq!(actions.map(|action| from.after(action)), to, "{from:?}");
        }
    }
}
