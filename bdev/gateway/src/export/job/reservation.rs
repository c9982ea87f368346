//! Reservations as jobs: what a command about them takes. What it makes of the unit's table is the session's to do
//! (`session/reservation.rs`), except at a leg: there the registration of a key is a fence.

use bdev::{Capabilities, FenceKey};
use scsi::Sense;
use scsi::reservation::{Action, LIST_MAX, Parameters, Request};

use super::{Context, Start, Step};

/// Whether the device below can lock old generations out: a leg can, and takes the registration of a key as `Op::Fence`. It
/// knows no other reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fencing {
    Possible,
    Impossible,
}

impl Fencing {
    fn of(context: &Context<'_>) -> Self {
        if context.can(Capabilities::FENCE) { Self::Possible } else { Self::Impossible }
    }
}

/// A PERSISTENT RESERVE OUT with its list.
#[derive(Debug)]
pub(in crate::export) struct ReserveOut {
    pub(in crate::export) action: Action,
    pub(in crate::export) scope_type: scsi::reservation::ScopeType,
    pub(in crate::export) parameters: Parameters,
}

pub(super) fn begin(request: Request, context: &Context<'_>) -> Result<Start, Sense> {
    let fencing = Fencing::of(context);
    match (request, fencing) {
        (Request::Out { action: Action::RegisterAndIgnore, .. }, Fencing::Possible)
        | (Request::Out { .. }, Fencing::Impossible) => {}
        _ => return Err(Sense::INVALID_OPCODE),
    }
    match request {
        Request::Out { length, .. } if (24..=LIST_MAX).contains(&length) => Ok(Start::Collect(length)),
        _ => Err(Sense::PARAMETER_LENGTH),
    }
}

pub(super) fn collected(request: Request, list: &[u8], context: &Context<'_>) -> Result<Step, Sense> {
    let Request::Out { action, scope_type, .. } = request else { return Err(Sense::INTERNAL_FAILURE) };
    let parameters = Parameters::parse(action, list)?;
    match Fencing::of(context) {
        Fencing::Impossible => Ok(Step::Reserve(Box::new(ReserveOut { action, scope_type, parameters }))),
        Fencing::Possible => {
            let key = FenceKey::from_reservation_key(parameters.new_key());
            Ok(Step::Fence(key.ok_or(Sense::invalid_parameter_byte(8))?))
        }
    }
}
