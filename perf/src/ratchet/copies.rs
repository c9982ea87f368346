//! Bytes that are copied in user space for each operation, by whom: valgrind's DHAT sees every copy and from where it was called.
//!
//! What the stack itself copies is told from what stands for the kernel here (the transport) and for the medium (the RAM disk). Counted are
//! copies of a block or more; a value that moves from place to place is none.

use std::path::Path;

use serde_json::Value;

use super::callgrind::{self, CallgrindError};
use super::{Part, Subject};

/// Bytes of a copy that counts, at the least.
const LEAST: u64 = 512;
/// Bytes of an operation.
const PAYLOAD: f64 = 4096.0;

/// Who copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copier {
    /// This project's code on the way.
    Stack,
    /// The RAM disk, in place of a medium.
    Medium,
    /// The transport, in place of the kernel.
    Transport,
}

impl Copier {
    const ALL: [Self; 3] = [Self::Stack, Self::Medium, Self::Transport];

    /// By the innermost function of ours: the transport calls the stack to have what it holds read.
    fn of(stack: &[&str]) -> Self {
        let who = |function: &&str| {
            let is = |name: &str| function.contains(name);
            if is("perf::ratchet::wire::") {
                Some(Self::Transport)
            } else if is("bdev::malloc::") {
                Some(Self::Medium)
            } else {
                let ours = ["gateway::", "iscsi::", "mirror::", "bdev::", "scsi::", "engine"];
                ours.iter().any(|name| is(name)).then_some(Self::Stack)
            }
        };
        stack.iter().find_map(who).unwrap_or(Self::Stack)
    }
}

/// What is copied in one part for each operation, in payloads.
#[derive(Clone, Debug, PartialEq)]
pub struct Copies {
    /// Where.
    pub part: Part,
    /// By each of [`Copier`], in the order of its variants.
    pub payloads: [f64; Copier::ALL.len()],
}

impl core::fmt::Display for Copies {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [stack, medium, transport] = self.payloads;
        write!(f, "{:<6} stack {stack:.2} medium {medium:.2} transport {transport:.2}", self.part.name())
    }
}

/// Does a subject with `program run SUBJECT` under DHAT.
///
/// # Errors
/// See [`CallgrindError`].
pub fn count(program: &Path, subject: Subject, folder: &Path) -> Result<Vec<Copies>, CallgrindError> {
    let out = folder.join(format!("{subject}.json"));
    let options = ["--tool=dhat", "--mode=copy", "--num-callers=48"];
    let counted =
        callgrind::valgrind(program, subject, &options, &format!("--dhat-out-file={}", out.display()))?;
    let text = std::fs::read_to_string(&out).map_err(|error| CallgrindError::Io(out.clone(), error))?;
    let profile: Value = serde_json::from_str(&text)
        .map_err(|error| CallgrindError::Format(out.clone(), error.to_string()))?;
    let parts = subject.parts().iter();
    Ok(parts.map(|part| sum(&profile, *part, counted.operations)).collect())
}

/// Adds up what was copied below a part's function.
fn sum(profile: &Value, part: Part, operations: u64) -> Copies {
    let none = Vec::new();
    let list = |value: &'_ Value, key: &str| value[key].as_array().unwrap_or(&none).clone();
    let frames = list(profile, "ftbl");
    let mut payloads = [0.0; Copier::ALL.len()];
    for point in list(profile, "pps") {
        let (bytes, blocks) = (point["tb"].as_u64().unwrap_or(0), point["tbk"].as_u64().unwrap_or(0));
        let names = list(&point, "fs");
        let names = names.iter().filter_map(|at| frames.get(usize::try_from(at.as_u64()?).ok()?)?.as_str());
        let stack: Vec<&str> = names.collect();
        let below = stack.iter().any(|name| name.contains(part.function()));
        if blocks > 0 && bytes / blocks >= LEAST && below {
            payloads[Copier::of(&stack) as usize] += bytes as f64 / (operations as f64 * PAYLOAD);
        }
    }
    Copies { part, payloads }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn copies_belong_to_the_innermost_function_of_ours() {
        let profile = json!({
            "ftbl": ["[root]", "a: perf::ratchet::World::node_turn (x)", "b: gateway::store", "c: bdev::malloc::MallocBdev::put",
                     "d: perf::ratchet::wire::Pipe::push", "e: perf::ratchet::World::peer_turn (x)"],
            "pps": [
                {"tb": 8192, "tbk": 2, "fs": [2, 1]}, {"tb": 8192, "tbk": 2, "fs": [3, 2, 1]},
                {"tb": 4096, "tbk": 1, "fs": [4, 2, 1]}, {"tb": 960, "tbk": 20, "fs": [2, 1]}, {"tb": 4096, "tbk": 1, "fs": [2, 4, 5]},
            ],
        });
        let node = sum(&profile, Part::Node, 2);
        assert_eq!(node.payloads, [1.0, 1.0, 0.5]);
        assert_eq!(node.to_string(), "node   stack 1.00 medium 1.00 transport 0.50");
        assert_eq!(sum(&profile, Part::Peer, 1).payloads, [1.0, 0.0, 0.0]);
        assert_eq!(sum(&json!({}), Part::Host, 1).payloads, [0.0; 3]);
    }
}
