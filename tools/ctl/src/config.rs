//! `gemel config`: the node's configuration to a file and from one.

use std::io::Read;
use std::path::Path;

use rpc::Client;
use rpc::config::{self, Call};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::show;

/// Where secrets that were given in calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// To a file alone, which is its owner's.
    ToFile,
    /// To standard output, too.
    Shown,
}

/// Asks each subsystem for the calls that make its objects again; the configuration itself where it goes to standard output.
pub(crate) fn save(client: &mut Client, file: &Path, secrets: Secrets) -> Result<Value, Failure> {
    let mut subsystems = Vec::new();
    let with_secrets = secrets == Secrets::Shown || file.as_os_str() != "-";
    for subsystem in client.call("framework_get_subsystems", None)?.as_array().into_iter().flatten() {
        let name = &subsystem["subsystem"];
        let config =
            client.call("framework_get_config", Some(json!({"name": name, "with_secrets": with_secrets})))?;
        subsystems.push(json!({"subsystem": name, "config": config}));
    }
    let saved = json!({"subsystems": subsystems});
    if file.as_os_str() == "-" {
        return Ok(saved);
    }
    write_private(file, &(show::pretty(&saved) + "\n"))
        .map_err(|error| Failure::Write(file.to_owned(), error))?;
    Ok(json!({"saved_to": file}))
}

/// Replaces a file by one that is the owner's alone: a configuration may hold secrets.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    if file.exists() && !file.is_file() {
        return std::fs::write(file, text);
    }
    rpc::private::replace(file, text)
}

/// What `save` did.
pub(crate) fn saved(answer: &Value) -> String {
    answer["saved_to"].as_str().map_or_else(|| show::pretty(answer), |file| format!("saved to {file}"))
}

/// Makes the calls of a configuration.
pub(crate) fn load(client: &mut Client, file: &Path) -> Result<Value, Failure> {
    let read = |error| Failure::Read(file.to_owned(), error);
    let mut text = String::new();
    match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop).map_err(read)?,
        false => text = std::fs::read_to_string(file).map_err(read)?,
    }
    let failed = |error| Failure::Load(file.to_owned(), error);
    let make = |call: &Call| client.call(&call.method, call.params.clone());
    let loaded = config::load(config::parse(&text).map_err(failed)?, |_| Ok(()), make).map_err(failed)?;
    let left_out = loaded.left_out.iter().map(|left| json!({"what": left.what, "why": left.why}));
    Ok(json!({"calls": loaded.calls, "left_out": left_out.collect::<Value>()}))
}

/// What `load` did.
pub(crate) fn loaded(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![format!("{} calls made", answer["calls"])];
    for left in answer["left_out"].as_array().into_iter().flatten() {
        lines.push(format!("left out: {}: {}", text(&left["what"]), text(&left["why"])));
    }
    lines.join("\n")
}
