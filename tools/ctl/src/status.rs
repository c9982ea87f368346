//! `gemel status`: mirrors as /proc/mdstat shows them, and why.

use std::time::Duration;

use rpc::Client;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::print::{self, Reader};
use crate::show::bytes;

/// Cells of the progress bar.
const BAR: u64 = 20;

/// Parameters of `mirror_get_status`.
pub(crate) fn which(name: Option<&str>) -> Value {
    name.map_or_else(|| json!({}), |name| json!({"name": name}))
}

/// What a look is printed as.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// A screen for people.
    Words,
    /// One line of JSON.
    Json,
}

/// Looks again every second, until the node or the reader is gone.
pub(crate) fn watch(client: &mut Client, name: Option<&str>, form: Form) -> Result<String, Failure> {
    loop {
        let answer = client.call("mirror_get_status", Some(which(name)))?;
        let text = match form {
            Form::Json => format!("{answer}\n"),
            Form::Words => {
                // Home, then each line over the old one, then what is left of the old ones.
                let lines: String = show(&answer).lines().map(|line| format!("{line}\x1b[K\n")).collect();
                format!("\x1b[H{lines}\x1b[J")
            }
        };
        if print::text(&text)? == Reader::Gone {
            return Ok(String::new());
        }
        #[expect(clippy::disallowed_methods, reason = "an administrator watches: nothing else runs here")]
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// All mirrors.
pub(crate) fn show(answer: &Value) -> String {
    let mirrors: Vec<String> = answer.as_array().into_iter().flatten().map(one).collect();
    if mirrors.is_empty() { "there is no mirror on this node".to_owned() } else { mirrors.join("\n") }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn one(mirror: &Value) -> String {
    let legs: Vec<&Value> = mirror["legs"].as_array().into_iter().flatten().collect();
    let up = legs.iter().filter(|leg| leg["in_sync"] == true).count();
    let letters: String = legs.iter().map(|leg| if leg["in_sync"] == true { 'U' } else { '_' }).collect();
    let mut lines = vec![format!(
        "{} : {} raid1 {} [2/{up}] [{letters}] generation {}",
        text(&mirror["name"]),
        text(&mirror["role"]),
        bytes(number(&mirror["data_size"])),
        number(&mirror["generation"]),
    )];
    if let Some(reason) = mirror["reason"].as_str() {
        lines.push(format!("      {reason}"));
    }
    lines.extend(legs.iter().map(|leg| leg_line(leg, mirror)));
    let log = &mirror["intent_log"];
    if log.is_object() {
        lines.push(format!(
            "      intent log {}/{} slots, at most {} to copy after a crash; {} out of sync",
            number(&log["used"]),
            number(&log["slots"]),
            bytes(number(&log["exposed_bytes"])),
            bytes(number(&mirror["dirty_bytes"])),
        ));
    }
    lines.extend(resync_line(mirror));
    if let Some(last) = mirror["transitions"].as_array().and_then(|all| all.last()) {
        let ago = last["seconds_ago"].as_f64().unwrap_or(0.0);
        lines.push(format!("      {ago:.1} s ago: {}", text(&last["what"])));
    }
    lines.join("\n") + "\n"
}

fn leg_line(leg: &Value, mirror: &Value) -> String {
    let own = leg["own"] == true;
    let whose = if own { "this node's" } else { "the peer's" };
    let mut line = format!("      leg {} ({whose}): {}", number(&leg["index"]), text(&leg["state"]));
    if let (false, Some(sight)) = (own, mirror["peer"]["state"].as_str()) {
        line += &format!(", {sight}");
        if let Some(cause) = mirror["peer"]["cause"].as_str() {
            line += &format!(": {cause}");
        }
    }
    line
}

fn resync_line(mirror: &Value) -> Option<String> {
    let (resync, last) = (&mirror["resync"], &mirror["last_resync"]);
    if resync.is_object() {
        let (total, left) = (number(&resync["total_bytes"]).max(1), number(&resync["left_bytes"]));
        let done = total.saturating_sub(left);
        let cells = usize::try_from(done * BAR / total).unwrap_or(0);
        let bar: String = "=".repeat(cells) + ">" + &".".repeat(usize::try_from(BAR).unwrap_or(0) - cells);
        let eta = resync["seconds_left"].as_u64().map_or("?".to_owned(), |seconds| seconds.to_string());
        let paused = if mirror["resync_paused"] == true { ", paused" } else { "" };
        return Some(format!(
            "      [{bar}] resync = {:.1} % ({} of {}), {}/s, {eta} s left{paused}",
            done as f64 * 100.0 / total as f64,
            bytes(done),
            bytes(total),
            bytes(number(&resync["bytes_per_second"])),
        ));
    }
    last.is_object().then(|| {
        format!(
            "      last resync: {} copied in {:.1} s",
            bytes(number(&last["copied_bytes"])),
            last["seconds"].as_f64().unwrap_or(0.0)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_reads_like_mdstat() {
        let answer = json!([{
            "name": "vol0", "role": "holder", "generation": 7, "data_size": 1_u64 << 30, "reason": null,
            "legs": [
                {"index": 0, "state": "in-sync", "in_sync": true, "own": true},
                {"index": 1, "state": "syncing", "in_sync": false, "own": false},
            ],
            "peer": {"state": "resync", "cause": null},
            "intent_log": {"used": 3, "slots": 128, "exposed_bytes": 196_608},
            "dirty_bytes": 1_048_576,
            "resync": {"total_bytes": 4_194_304, "left_bytes": 1_048_576, "bytes_per_second": 1_048_576, "seconds_left": 1},
            "transitions": [{"seconds_ago": 2.04, "what": "resync begins"}],
        }]);
        let shown = show(&answer);
        assert!(shown.starts_with("vol0 : holder raid1 1 GiB [2/1] [U_] generation 7\n"), "{shown}");
        assert!(shown.contains("leg 1 (the peer's): syncing, resync"), "{shown}");
        assert!(
            shown.contains("[===============>.....] resync = 75.0 % (3 MiB of 4 MiB), 1 MiB/s, 1 s left"),
            "{shown}"
        );
        assert!(shown.contains("2.0 s ago: resync begins"), "{shown}");
    }
}
