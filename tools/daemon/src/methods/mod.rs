//! The methods of the control socket: one table, one file for each family. Names and shapes are SPDK's where SPDK has the
//! method.

mod absent;
mod accel;
mod bdev;
mod events;
mod framework;
mod iostat;
mod iscsi;
mod limits;
mod link;
mod log;
mod mirror;
mod negotiation;
mod raid;
mod scsi;
mod sockets;
mod split;
mod threads;
mod tuning;
mod ways;

use std::path::Path;

use rpc::RpcError;
use serde_json::Value;

use crate::errands::{Waiting, Yield};
use crate::keep::Keeper;
use crate::node::{ConfigFile, Node, State};

/// When a method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Startup,
    Runtime,
    Always,
}

/// One method.
struct Method {
    name: &'static str,
    when: When,
    takes: Takes,
    run: Run,
}

/// What reads the parameters of a call and does nothing with them.
type Takes = fn(Option<&Value>) -> Result<(), RpcError>;
/// What does a call.
type Run = fn(&mut Node, Option<&Value>) -> Result<Value, RpcError>;
/// What begins one.
type Begin = fn(&mut Node, Option<&Value>) -> Result<Awaited, RpcError>;

impl Method {
    const fn startup(name: &'static str, takes: Takes, run: Run) -> Self {
        Self { name, when: When::Startup, takes, run }
    }

    const fn runtime(name: &'static str, takes: Takes, run: Run) -> Self {
        Self { name, when: When::Runtime, takes, run }
    }

    const fn always(name: &'static str, takes: Takes, run: Run) -> Self {
        Self { name, when: When::Always, takes, run }
    }
}

/// One that waits for somebody outside this node, without keeping other calls from it.
struct LongMethod {
    name: &'static str,
    when: When,
    takes: Takes,
    begin: Begin,
}

impl LongMethod {
    const fn runtime(name: &'static str, takes: Takes, begin: Begin) -> Self {
        Self { name, when: When::Runtime, takes, begin }
    }
}

/// What a method waits for, and what it makes of it.
pub struct Awaited {
    waiting: Waiting,
    finish: Box<dyn Fn(Yield) -> Result<Value, RpcError> + Send>,
}

impl Awaited {
    /// Looks whether the answer is there.
    pub fn look(&self, node: &Node) -> Option<Result<Value, RpcError>> {
        match self.waiting.look(node) {
            Ok(found) => found.map(|found| (self.finish)(found)),
            Err(error) => Some(Err(error)),
        }
    }
}

/// How a call goes on.
pub enum Begun {
    /// It is over.
    Done(Result<Value, RpcError>),
    /// Somebody else has to answer first.
    Awaits(Awaited),
}

/// All methods that wait for somebody outside.
fn long_table() -> impl Iterator<Item = &'static LongMethod> {
    bdev::LONG_METHODS.iter()
}

/// All methods.
fn table() -> impl Iterator<Item = &'static Method> {
    framework::METHODS
        .iter()
        .chain(accel::METHODS)
        .chain(bdev::methods())
        .chain(iostat::METHODS)
        .chain(mirror::METHODS)
        .chain(split::METHODS)
        .chain(limits::METHODS)
        .chain(link::METHODS)
        .chain(ways::METHODS)
        .chain(events::METHODS)
        .chain(raid::METHODS)
        .chain(threads::METHODS)
        .chain(log::METHODS)
        .chain(scsi::METHODS)
        .chain(sockets::METHODS)
        .chain(tuning::METHODS)
        .chain(iscsi::METHODS)
}

/// The names of all methods.
pub fn names() -> impl Iterator<Item = &'static str> {
    table().map(|method| method.name).chain(long_table().map(|method| method.name))
}

/// Whether a call is one that a method can read, whatever the node has and is; nothing is done. A method that is not known is for the call
/// itself to refuse.
///
/// # Errors
/// A parameter is missing, unknown or of another type.
pub fn check(name: &str, params: Option<&Value>) -> Result<(), RpcError> {
    let long = long_table().find(|method| method.name == name).map(|method| method.takes);
    let takes = long.or_else(|| table().find(|method| method.name == name).map(|method| method.takes));
    takes.map_or(Ok(()), |takes| takes(params))
}

fn allowed(when: When, state: State) -> bool {
    match when {
        When::Always => true,
        When::Startup => state == State::Startup,
        When::Runtime => state == State::Runtime,
    }
}

/// Runs a method, or begins it.
pub fn begin(node: &mut Node, name: &str, params: Option<&Value>) -> Begun {
    if let Some(method) = long_table().find(|method| method.name == name) {
        let begun = may_run(method.when, node.state).and_then(|()| (method.begin)(node, params));
        return begun.map_or_else(|error| Begun::Done(Err(error)), Begun::Awaits);
    }
    Begun::Done(run(node, name, params))
}

fn run(node: &mut Node, name: &str, params: Option<&Value>) -> Result<Value, RpcError> {
    let absent = || match absent::reason(name) {
        Some(reason) => RpcError::method_not_found(&format!("{name}: {reason}")),
        None => RpcError::method_not_found(name),
    };
    let method = table().find(|method| method.name == name).ok_or_else(absent)?;
    may_run(method.when, node.state)?;
    (method.run)(node, params)
}

fn may_run(when: When, state: State) -> Result<(), RpcError> {
    match (when, allowed(when, state)) {
        (_, true) => Ok(()),
        (When::Startup, _) => Err(RpcError::wrong_state(
            "Method may only be called before framework is initialized using framework_start_init RPC.",
        )),
        _ => Err(RpcError::wrong_state(
            "Method may only be called after framework is initialized using framework_start_init RPC.",
        )),
    }
}

/// Writes the configuration to the node's file, if it keeps one there and has changed.
pub fn keep(node: &mut Node) {
    if let ConfigFile::Kept(_) = &node.config_file
        && let Ok(config) = framework::document(node)
        && let ConfigFile::Kept(keeper) = &mut node.config_file
    {
        keeper.keep(config);
    }
}

/// Has the node keep its configuration in a file from now on.
///
/// # Errors
/// The node is about to end.
pub fn keep_in(node: &mut Node, file: &Path) -> Result<(), RpcError> {
    node.config_file = ConfigFile::Kept(Keeper::new(file, framework::document(node)?));
    Ok(())
}

/// An option of SPDK's that tunes something that this node has not, or does otherwise: its default is no wish and is taken;
/// anything else is refused with the reason.
///
/// # Errors
/// Somebody wished for something.
fn neutral<T: Copy + PartialEq>(
    name: &str,
    given: Option<T>,
    default: T,
    reason: &str,
) -> Result<(), RpcError> {
    match given {
        Some(given) if given != default => {
            Err(RpcError::refused(format!("{name} cannot be set: {reason}; leave it out")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use engine::MonotonicClock;
    use serde_json::json;

    use super::*;
    use crate::log::Log;

    /// What a method's row says that it takes is what it reads: both refuse the same, in the same words.
    #[test]
    fn each_method_takes_what_its_row_says() {
        let clock = MonotonicClock::start();
        let mut node = Node::new(Vec::new(), clock, State::Startup, channel().0, Log::start(false));
        for given in [json!({"no-such-parameter": 1}), json!(["by position"]), json!({"name": ["no name"]})] {
            for name in names() {
                let startup = table().any(|method| method.name == name && method.when == When::Startup);
                node.state = if startup { State::Startup } else { State::Runtime };
                let refused = check(name, Some(&given)).expect_err(name);
                let Begun::Done(Err(error)) = begin(&mut node, name, Some(&given)) else {
                    panic!("{name} takes {given}")
                };
                assert_eq!(error, refused, "{name}");
            }
        }
    }
}
