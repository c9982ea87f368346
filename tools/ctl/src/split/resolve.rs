//! `gemel split resolve`.

use std::time::Duration;

use rpc::{Client, ClientError};
use serde_json::{Value, json};

use super::Resolve;
use crate::role::{status, wait};
use crate::{Failure, Options, show};

/// How often a node that is busy is asked, and how long between.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn run(options: &Options, ask: &Resolve) -> Result<String, Failure> {
    let mut client = Client::connect(&options.socket)?;
    let seen = status(&mut client, &ask.name)?;
    if seen["role"] != "holder" {
        return Err(Failure::Usage(format!(
            "this node does not serve ({}): the data set that stays is the one that is served. Ask the other node, or make \
             this one the holder first: gemel promote {} --force says what that means",
            seen["role"].as_str().unwrap_or("-"),
            ask.name
        )));
    }
    let theirs = &seen["peer"]["diverged"];
    if theirs.is_null() {
        return Err(Failure::Usage(format!(
            "there is nothing to resolve: the leg at the other node has not diverged, or cannot be seen now (peer: {})",
            seen["peer"]["state"].as_str().unwrap_or("-")
        )));
    }
    let params = json!({
        "name": ask.name, "generation": theirs["generation"], "nonce": theirs["nonce"], "full": ask.full,
        "confirm": ask.yes,
    });
    let answer = call(&mut client, &params)?;
    if !ask.yes {
        let consequences = answer["consequences"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let lines: Vec<String> = consequences.map(|one| format!("  - {one}")).collect();
        return Err(Failure::Usage(format!(
            "the split of {}, resolved in favour of this node:\n{}\nNothing has happened. Look at what differs (gemel split \
             diff {} --other SOCKET), then add --yes to do it.",
            ask.name,
            lines.join("\n"),
            ask.name
        )));
    }
    if ask.wait == 0 {
        let done = json!({"resolved": true, "in_sync": false});
        let text = "this node's data set stays; the other leg is on its way: see gemel status".to_owned();
        return Ok(if options.json { show::pretty(&done) } else { text });
    }
    let in_sync = wait(&mut client, ask.wait, |client| {
        let seen = status(client, &ask.name)?;
        let both = seen["legs"].as_array().is_some_and(|legs| legs.iter().all(|leg| leg["in_sync"] == true));
        match seen["role"].as_str() {
            Some("holder") => Ok((both && seen["peer"]["state"] == "joined").then_some(seen)),
            role => Err(Failure::Usage(format!(
                "this node serves no more ({}): see gemel events",
                role.unwrap_or("-")
            ))),
        }
    })?;
    let Some(seen) = in_sync else {
        return Err(Failure::Usage(format!("not in sync within {} s: see gemel status", ask.wait)));
    };
    let copied = seen["last_resync"]["copied_bytes"].as_u64().unwrap_or(0);
    let done = json!({"resolved": true, "in_sync": true, "copied_bytes": copied});
    let text = format!("this node's data set stays; both legs are in sync, {} copied", show::bytes(copied));
    Ok(if options.json { show::pretty(&done) } else { text })
}

/// The node may be about to write down that it has seen the split.
fn call(client: &mut Client, params: &Value) -> Result<Value, Failure> {
    for _ in 0..ATTEMPTS {
        match client.call("mirror_resolve_split", Some(params.clone())) {
            Err(ClientError::Refused(error)) if error.message.ends_with("(busy)") => {
                std::thread::park_timeout(PAUSE);
            }
            done => return Ok(done?),
        }
    }
    Ok(client.call("mirror_resolve_split", Some(params.clone()))?)
}
