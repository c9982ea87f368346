//! Commands about the unit itself: what it senses, its medium, its settings, sanitizing.

use std::collections::VecDeque;

use scsi::command::SanitizeMethod;
use scsi::mode::Save;
use scsi::{Immediate, Medium, Removal, Sanitize, Sense, SenseFormat, StartStop, parameter};

use super::super::state::Order;
use super::{Context, LunMode, Start, Step, Wish, steps};

/// What REQUEST SENSE shows: a unit attention that waits, or why the unit is not ready (SPC-4 section 6.39).
pub(super) fn request_sense(descriptor: bool, allocation: u32, context: &Context<'_>) -> Vec<u8> {
    let state = &context.lun.state;
    let waiting = state.nexuses.borrow_mut().take(context.nexus);
    let sanitizing = || state.sanitizing.borrow().refusal(context.unit.blocks);
    let sense = waiting.or_else(sanitizing).or_else(|| state.medium.get().refusal()).unwrap_or(Sense::NONE);
    let format = if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed };
    let mut data = sense.encode(format);
    data.truncate(allocation as usize);
    data
}

/// START STOP UNIT. A unit with a fixed medium is always ready: it serves hosts that know nothing of each other. Stopping it
/// makes its writes stable.
pub(super) fn start_stop(action: StartStop, context: &Context<'_>) -> Result<Start, Sense> {
    let flush = (context.mode() == LunMode::SyncCached && action != StartStop::Start).then_some(Step::Flush);
    let moves = matches!(action, StartStop::Load | StartStop::Eject);
    match (context.unit.medium, action) {
        (Medium::Fixed, _) if moves => return Err(Sense::invalid_cdb_byte(4)),
        (Medium::Fixed, _) => return steps(flush),
        _ => {}
    }
    let state = &context.lun.state;
    if moves && state.nexuses.borrow().removal() == Removal::Prevented {
        return Err(Sense::REMOVAL_PREVENTED);
    }
    let before = state.medium.get();
    let after = before.after(action)?;
    state.medium.set(after);
    if before != after && action == StartStop::Load {
        state.nexuses.borrow_mut().tell_others(context.nexus, Sense::MEDIUM_CHANGED);
    }
    steps(flush)
}

pub(super) fn prevent_allow(removal: Removal, context: &Context<'_>) -> Result<Start, Sense> {
    context.lun.state.nexuses.borrow_mut().set_removal(context.nexus, removal);
    steps([])
}

/// MODE SELECT: the settings are the same for every nexus, so the others are told.
pub(super) fn mode_select(
    long: bool,
    save: Save,
    list: &[u8],
    context: &Context<'_>,
) -> Result<VecDeque<Step>, Sense> {
    let settings = scsi::mode::select(long, list, context.unit)?;
    Ok([Step::Alter(Box::new(Wish::Modes(settings, save)))].into())
}

pub(super) fn sanitize(command: &Sanitize, context: &Context<'_>) -> Result<Start, Sense> {
    match command.method {
        SanitizeMethod::Overwrite => Ok(Start::Collect(command.length)),
        SanitizeMethod::BlockErase => at_once(command, Order::BlockErase, context),
        SanitizeMethod::CryptoErase => at_once(command, Order::CryptoErase, context),
        SanitizeMethod::ExitFailureMode => {
            context.lun.state.sanitizing.borrow_mut().exit_failure()?;
            steps([])
        }
    }
}

pub(super) fn overwrite(
    command: &Sanitize,
    list: &[u8],
    context: &Context<'_>,
) -> Result<VecDeque<Step>, Sense> {
    let order = Order::Overwrite(parameter::overwrite(list, context.unit.block_size)?);
    begin(command, order, context).map(|step| step.into_iter().collect())
}

/// Begins what needs no parameter list.
fn at_once(command: &Sanitize, order: Order, context: &Context<'_>) -> Result<Start, Sense> {
    begin(command, order, context).map(|step| Start::Steps(step.into_iter().collect()))
}

fn begin(command: &Sanitize, order: Order, context: &Context<'_>) -> Result<Option<Step>, Sense> {
    let mut sanitizing = context.lun.state.sanitizing.borrow_mut();
    if sanitizing.is_running() {
        return Err(sanitizing.refusal(context.unit.blocks).unwrap_or(Sense::SANITIZE_IN_PROGRESS));
    }
    sanitizing.begin(context.lun, order, command.exit);
    Ok((command.immediate == Immediate::No).then_some(Step::Sanitized))
}
