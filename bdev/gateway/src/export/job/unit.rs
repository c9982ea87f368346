//! Commands about the unit itself: what it senses, its medium, its settings, sanitizing.

use scsi::command::SanitizeMethod;
use scsi::mode::{Save, WriteBack};
use scsi::sanitization::{Order, Sanitization};
use scsi::{Immediate, Medium, Removal, Sanitize, Sense, SenseFormat, StartStop, parameter};

use super::{Context, Start, Step, Steps, Wish, steps};

/// What REQUEST SENSE shows: a unit attention that waits, or why the unit is not ready (SPC-4 section 6.39).
pub(super) fn request_sense(descriptor: bool, allocation: u32, context: &Context<'_>) -> Vec<u8> {
    let unit = &context.lun.unit;
    let waiting = context.lun.state.nexuses.borrow_mut().take(context.nexus);
    let lasting = || unit.sanitize_refusal().or_else(|| unit.medium.get().refusal());
    let sense = waiting.or_else(lasting).unwrap_or(Sense::NONE);
    let format = if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed };
    let mut data = sense.encode(format);
    data.truncate(allocation as usize);
    data
}

/// START STOP UNIT. A unit with a fixed medium is always ready: it serves hosts that know nothing of each other. Stopping it
/// makes its writes stable.
pub(super) fn start_stop(action: StartStop, context: &Context<'_>) -> Result<Start, Sense> {
    let flush = context.flush().filter(|_| action != StartStop::Start);
    let moves = matches!(action, StartStop::Load | StartStop::Eject);
    match (context.unit.medium, action) {
        (Medium::Fixed, _) if moves => return Err(Sense::invalid_cdb_byte(4)),
        (Medium::Fixed, _) => return steps(flush),
        _ => {}
    }
    let unit = &context.lun.unit;
    if moves && unit.removal() == Removal::Prevented {
        return Err(Sense::REMOVAL_PREVENTED);
    }
    let before = unit.medium.get();
    let after = before.after(action)?;
    unit.medium.set(after);
    if before != after && action == StartStop::Load {
        unit.tell_others(context.nexus, Sense::MEDIUM_CHANGED);
    }
    steps(flush)
}

pub(super) fn prevent_allow(removal: Removal, context: &Context<'_>) -> Result<Start, Sense> {
    context.lun.unit.set_removal(context.nexus, removal);
    steps([])
}

/// MODE SELECT: the settings are the same for every nexus, so the others are told.
pub(super) fn mode_select(
    long: bool,
    save: Save,
    list: &[u8],
    context: &Context<'_>,
) -> Result<Steps, Sense> {
    let settings = scsi::mode::select(long, list, context.unit)?;
    // What was answered before is stable when the host hears that there is no cache any more.
    let flush = context.flush().filter(|_| settings.write_back == WriteBack::Off);
    Ok([Step::Alter(Box::new(Wish::Modes(settings, save)))].into_iter().chain(flush).collect())
}

pub(super) fn sanitize(command: &Sanitize) -> Result<Start, Sense> {
    match command.method {
        SanitizeMethod::Overwrite => Ok(Start::Collect(command.length)),
        SanitizeMethod::BlockErase => Ok(Start::Steps(begin(command, Order::BlockErase))),
        SanitizeMethod::CryptoErase => Ok(Start::Steps(begin(command, Order::CryptoErase))),
        SanitizeMethod::ExitFailureMode => steps([Step::Alter(Box::new(Wish::ExitFailureMode))]),
    }
}

pub(super) fn overwrite(command: &Sanitize, list: &[u8], context: &Context<'_>) -> Result<Steps, Sense> {
    Ok(begin(command, Order::Overwrite(parameter::overwrite(list, context.unit.block_size)?)))
}

/// It is kept first, and begun by the unit then.
fn begin(command: &Sanitize, order: Order) -> Steps {
    let kept = Step::Alter(Box::new(Wish::Sanitize(Sanitization::new(order, command.exit))));
    let waits = (command.immediate == Immediate::No).then_some(Step::Sanitized);
    [kept].into_iter().chain(waits).collect()
}
