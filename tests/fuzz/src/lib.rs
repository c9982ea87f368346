//! Fuzz targets: everything that reads what somebody else wrote. A target takes any bytes and panics where an invariant does not
//! hold.
//!
//! `make test` runs each over its corpus and some thousand mutations of it (`tests/tests/fuzz`); `make fuzz` runs each under
//! libFuzzer with coverage, and `cargo fuzz run NAME` in `tests/` does where cargo-fuzz is installed.

mod chap;
mod disk;
mod protocol;
mod scsi_lists;
mod session;

use rpc::{Frames, Incoming};

/// A target: its name, which is its corpus's too, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 10] = [
    ("deframer", protocol::deframer),
    ("login_keys", protocol::login_keys),
    ("chap", chap::chap),
    ("connection", protocol::connection),
    ("cdb", scsi_lists::cdb),
    ("parameter_lists", scsi_lists::parameter_lists),
    ("superblock", disk::superblock),
    ("intent_log", disk::intent_log),
    ("bitmap", disk::bitmap),
    ("json_rpc", json_rpc),
];

/// Runs the target of this name.
///
/// # Panics
/// When there is none, or when an invariant of it does not hold.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    target(data);
}

/// Requests that come in pieces, the first byte of the input long: found as in one piece, and never beyond what was sent.
fn json_rpc(data: &[u8]) {
    let Some((size, text)) = data.split_first() else { return };
    let texts = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for piece in pieces {
            frames.extend(piece);
            loop {
                match frames.next_text() {
                    Ok(Some(incoming @ (Incoming::Single(Ok(_)) | Incoming::Batch(_)))) => {
                        found.push(incoming);
                    }
                    Ok(Some(Incoming::Single(Err(_)))) => {}
                    Ok(None) => break,
                    Err(_) => return found,
                }
            }
        }
        found
    };
    let whole = texts(&mut std::iter::once(text));
    let pieces = texts(&mut text.chunks(usize::from(*size).max(1)));
    // A bare number has no end: cut in two it is two texts, neither of which is a request.
    assert!(whole.iter().zip(&pieces).all(|(one, other)| one == other), "{whole:?} is not {pieces:?}");
}
