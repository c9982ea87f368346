//! `gemel events`: what happened to mirrors, one line for each event.

use std::time::Duration;

use rpc::Client;
use serde_json::{Value, json};

use crate::Failure;
use crate::print::{self, Reader};

/// How often a follower looks.
const LOOK: Duration = Duration::from_millis(200);

/// In which form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line of words.
    Words,
    /// A line of JSON.
    Json,
}

/// Parameters of `mirror_get_events`.
pub(crate) fn since(name: Option<&str>, id: u64) -> Value {
    let mut params = json!({"id": id});
    if let Some(name) = name {
        params["name"] = json!(name);
    }
    params
}

/// All events of an answer.
pub(crate) fn show(answer: &Value) -> String {
    lines(answer, Form::Words).join("\n")
}

fn lines(answer: &Value, form: Form) -> Vec<String> {
    let line = |event: &Value| match form {
        Form::Json => event.to_string(),
        Form::Words => words(event),
    };
    answer.as_array().into_iter().flatten().map(line).collect()
}

fn words(event: &Value) -> String {
    let text = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
    format!(
        "{} {:7} {} {} ({}): {}",
        text("time"),
        text("severity"),
        text("mirror"),
        text("event"),
        text("reason"),
        text("text")
    )
}

/// Prints events as they come, until the node or the reader is gone.
pub(crate) fn follow(
    client: &mut Client,
    name: Option<&str>,
    from: u64,
    form: Form,
) -> Result<String, Failure> {
    let mut next = from;
    loop {
        let answer = client.call("mirror_get_events", Some(since(name, next)))?;
        for line in lines(&answer, form) {
            if print::line(&line)? == Reader::Gone {
                return Ok(String::new());
            }
        }
        let last = answer.as_array().and_then(|all| all.last()).and_then(|last| last["id"].as_u64());
        next = last.map_or(next, |last| last + 1);
        #[expect(clippy::disallowed_methods, reason = "an administrator watches: nothing else runs here")]
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let answer = json!([{
            "id": 3, "time": "2026-11-26T09:00:00.000Z", "mirror": "vol0", "event": "config-changed",
            "reason": "link-lost", "severity": "warning", "text": "generation 7", "data": null,
        }]);
        let line = "2026-11-26T09:00:00.000Z warning vol0 config-changed (link-lost): generation 7";
        assert_eq!(show(&answer), line);
        assert!(lines(&answer, Form::Json)[0].starts_with("{\"id\":3,"));
    }
}
