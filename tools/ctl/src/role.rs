//! Who holds the array: promote, demote, switch over, and whether that may be. Each command waits for what comes of it.

use std::time::Duration;

use clap::Args;
use rpc::Client;
use serde_json::{Value, json};

use crate::{Failure, Options, show};

/// How often the node is looked at.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS_A_SECOND: u64 = 100;

/// `promote`.
#[derive(Args)]
pub(crate) struct Promote {
    /// The mirror.
    name: String,
    /// Even if acknowledged writes are missing here. Prints what that means; does it only with --yes.
    #[arg(long)]
    force: bool,
    /// The consequences of --force are understood.
    #[arg(long, requires = "force")]
    yes: bool,
    /// Confirm that the other node is down though its session looks alive.
    #[arg(long)]
    peer_is_down: bool,
    /// Seconds to wait until this node serves; 0: do not wait.
    #[arg(long, default_value_t = 30)]
    timeout: u64,
}

/// `may-promote`.
#[derive(Args)]
pub(crate) struct MayPromote {
    /// The mirror.
    name: String,
    /// By force.
    #[arg(long)]
    force: bool,
    /// As if that were confirmed.
    #[arg(long)]
    peer_is_down: bool,
}

/// `demote`.
#[derive(Args)]
pub(crate) struct Demote {
    /// The mirror.
    name: String,
    /// Do not wait for what hosts have under way.
    #[arg(long)]
    at_once: bool,
    /// Seconds for an end in order; after that the node stops acknowledging at once.
    #[arg(long, default_value_t = 10)]
    timeout: u64,
}

/// What came of a command.
pub(crate) struct Done {
    /// For programs.
    outcome: &'static str,
    text: String,
}

impl Done {
    fn new(outcome: &'static str, text: impl Into<String>) -> Self {
        Self { outcome, text: text.into() }
    }

    /// As it is printed.
    pub(crate) fn show(self, options: &Options) -> String {
        if options.json {
            show::pretty(&json!({"outcome": self.outcome, "text": self.text}))
        } else {
            self.text
        }
    }
}

/// A question to `mirror_may_promote`; the exit status says no as well.
pub(crate) fn may_promote(
    client: &mut Client,
    options: &Options,
    ask: &MayPromote,
) -> Result<String, Failure> {
    let params = json!({"name": ask.name, "force": ask.force, "peer_is_down": ask.peer_is_down});
    let answer = client.call("mirror_may_promote", Some(params))?;
    if answer["may_promote"] != true {
        return Err(Failure::No(outlook(&answer), answer));
    }
    Ok(if options.json { show::pretty(&answer) } else { outlook(&answer) })
}

fn outlook(answer: &Value) -> String {
    let word = |key: &str| answer[key].as_str().unwrap_or("-").to_owned();
    let mut lines = vec![format!("{}: {}", word("code"), word("reason"))];
    let consequences = answer["consequences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.extend(consequences.map(|one| format!("  - {one}")));
    lines.join("\n")
}

pub(crate) fn status(client: &mut Client, name: &str) -> Result<Value, Failure> {
    Ok(client.call("mirror_get_status", Some(json!({"name": name})))?[0].take())
}

/// The first event that is still to come.
fn next_event(client: &mut Client) -> Result<u64, Failure> {
    let all = client.call("mirror_get_events", Some(json!({})))?;
    let last = all.as_array().and_then(|all| all.last()).and_then(|event| event["id"].as_u64());
    Ok(last.map_or(0, |last| last + 1))
}

/// Looks at the node until something has come of a command; `None` when the time is over.
pub(crate) fn wait<T>(
    client: &mut Client,
    seconds: u64,
    mut look: impl FnMut(&mut Client) -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    for _ in 0..seconds.saturating_mul(LOOKS_A_SECOND) {
        if let Some(done) = look(client)? {
            return Ok(Some(done));
        }
        std::thread::park_timeout(LOOK);
    }
    look(client)
}

/// Makes this node the holder.
pub(crate) fn promote(client: &mut Client, ask: &Promote) -> Result<Done, Failure> {
    let mut params = json!({"name": ask.name, "force": ask.force, "peer_is_down": ask.peer_is_down});
    if ask.force && !ask.yes {
        let answer = client.call("mirror_may_promote", Some(params))?;
        return Err(Failure::Usage(format!(
            "a forced promotion of {}:\n{}\nNothing has happened. Add --yes to do it.",
            ask.name,
            outlook(&answer)
        )));
    }
    params["confirm"] = json!(ask.yes);
    let from = next_event(client)?;
    client.call("mirror_promote", Some(params))?;
    if ask.timeout == 0 {
        return Ok(Done::new("begun", "on its way"));
    }
    let told = wait(client, ask.timeout, |client| {
        if status(client, &ask.name)?["role"] == "holder" {
            return Ok(Some(Ok(Done::new("promoted", "promoted"))));
        }
        Ok(refused_since(client, &ask.name, from)?.map(Err))
    })?;
    match told {
        Some(Ok(done)) => Ok(done),
        Some(Err(why)) => Err(Failure::Usage(why)),
        None => {
            let status = status(client, &ask.name)?;
            let why = status["reason"].as_str().unwrap_or("see gemel events");
            let role = status["role"].as_str().unwrap_or("-");
            Err(Failure::Usage(format!("not promoted within {} s: {role}: {why}", ask.timeout)))
        }
    }
}

/// What was noted against a promotion since an event.
fn refused_since(client: &mut Client, name: &str, from: u64) -> Result<Option<String>, Failure> {
    const AGAINST: [&str; 6] = [
        "promotion-refused",
        "promotion-failed",
        "arbiter-silent",
        "arbiter-older",
        "arbiter-vacant",
        "arbiter-decided",
    ];
    let events = client.call("mirror_get_events", Some(json!({"name": name, "id": from})))?;
    let mut events = events.as_array().into_iter().flatten();
    let against = events.find(|event| AGAINST.iter().any(|one| event["event"] == *one));
    Ok(against.and_then(|event| event["text"].as_str()).map(str::to_owned))
}

/// Takes the array from this node.
pub(crate) fn demote(client: &mut Client, ask: &Demote) -> Result<Done, Failure> {
    let order = |client: &mut Client, at_once: bool| {
        client.call("mirror_demote", Some(json!({"name": ask.name, "at_once": at_once})))
    };
    let stands_by = |client: &mut Client| Ok((status(client, &ask.name)?["role"] == "standby").then_some(()));
    let mut why = "as asked".to_owned();
    if !ask.at_once {
        match order(client, false) {
            Ok(_) => {
                if wait(client, ask.timeout, stands_by)?.is_some() {
                    return Ok(Done::new("demoted", "demoted in order"));
                }
                why = format!("not done in order within {} s", ask.timeout);
            }
            Err(error) => why = error.to_string(),
        }
    }
    order(client, true)?;
    match wait(client, ask.timeout.max(1), stands_by)? {
        Some(()) => Ok(Done::new(
            "demoted-at-once",
            format!("demoted at once ({why}): what hosts had under way came back with an error"),
        )),
        None => Err(Failure::Usage(format!(
            "the node does not let go of its I/O ({why}): end the process or the machine before another node is promoted"
        ))),
    }
}

/// Gives the array to the peer.
pub(crate) fn switchover(client: &mut Client, name: &str) -> Result<Done, Failure> {
    /// More than the node itself gives it.
    const PATIENCE: u64 = 5;
    client.call("mirror_switchover", Some(json!({"name": name})))?;
    let role = wait(client, PATIENCE, |client| {
        let role = status(client, name)?["role"].as_str().unwrap_or("-").to_owned();
        Ok((role != "switching-over").then_some(role))
    })?;
    match role.as_deref() {
        Some("standby") => Ok(Done::new("switched-over", "the peer has the array")),
        other => Err(Failure::Usage(format!(
            "the switchover was abandoned: this node is {}; see gemel events",
            other.unwrap_or("still at it")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlook_spells_out_the_consequences() {
        let answer = json!({"may_promote": true, "code": "ok", "reason": "fine", "consequences": ["a", "b"]});
        assert_eq!(outlook(&answer), "ok: fine\n  - a\n  - b");
        let answer = json!({"may_promote": false, "code": "not-in-sync", "reason": "stale"});
        assert_eq!(outlook(&answer), "not-in-sync: stale");
    }
}
