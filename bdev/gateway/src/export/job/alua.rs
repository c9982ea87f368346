//! SET TARGET PORT GROUPS at the node that serves (SPC-4 section 6.45). Its status says that the way to the other node has begun;
//! REPORT TARGET PORT GROUPS says how far it is, from either node.

use scsi::Sense;

use super::super::groups::groups;
use super::super::node::port_group;
use super::{Context, Step, Steps};

/// What the parameter list asks for: nothing, or that the other node serves.
pub(super) fn set(list: &[u8], context: &Context<'_>) -> Result<Steps, Sense> {
    let own = port_group(context.lun.config.bdev.access().side());
    let best = scsi::alua::set(list, &groups(context.node, context.lun))?;
    Ok(best.filter(|best| *best != own).map(|_| Step::HandOver).into_iter().collect())
}
