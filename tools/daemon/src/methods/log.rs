//! The log: levels, flags, timestamps.

use rpc::RpcError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Method;
use crate::log::{Flag, Level};
use crate::node::Node;
use crate::params;
use crate::params::{check, none};

pub(super) const METHODS: &[Method] = &[
    Method::always("log_set_level", check::<Levelled>, set_level),
    Method::always("log_get_level", none, level),
    Method::always("log_set_print_level", check::<Levelled>, set_print_level),
    Method::always("log_get_print_level", none, print_level),
    Method::always("log_set_flag", check::<Flagged>, set_flag),
    Method::always("log_clear_flag", check::<Flagged>, clear_flag),
    Method::always("log_get_flags", none, flags),
    Method::always("log_enable_timestamps", check::<Enable>, timestamps),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Levelled {
    level: String,
}

fn parsed(given: Option<&Value>) -> Result<Level, RpcError> {
    let given: Levelled = params::parse(given)?;
    let unknown = || {
        RpcError::invalid_params(format!(
            "level {:?} is none of ERROR, WARNING, NOTICE, INFO, DEBUG",
            given.level
        ))
    };
    Level::of(&given.level).ok_or_else(unknown)
}

fn done(result: Result<(), String>) -> Result<Value, RpcError> {
    result.map(|()| json!(true)).map_err(RpcError::internal)
}

fn set_level(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    done(node.log.set_level(parsed(given)?))
}

fn set_print_level(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    done(node.log.set_print_level(parsed(given)?))
}

fn level(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(json!(node.log.levels().0.name()))
}

fn print_level(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(json!(node.log.levels().1.name()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flagged {
    flag: String,
}

fn checked(given: Option<&Value>) -> Result<(), RpcError> {
    let given: Flagged = params::parse(given)?;
    match given.flag == Flag::Control.name() || given.flag == "all" {
        true => Ok(()),
        false => Err(RpcError::refused(format!(
            "there is no log flag {:?}: control logs each call; all is the same",
            given.flag
        ))),
    }
}

fn set_flag(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    checked(given)?;
    done(node.log.set_flags(&[Flag::Control]))
}

fn clear_flag(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    checked(given)?;
    done(node.log.set_flags(&[]))
}

fn flags(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    Ok(json!({Flag::Control.name(): node.log.has(Flag::Control)}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enable {
    enabled: bool,
}

fn timestamps(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    let given: Enable = params::parse(given)?;
    node.log.set_timestamps(given.enabled);
    Ok(json!(true))
}
