//! Fuzz targets: everything that reads what somebody else wrote. A target takes any bytes and panics where an invariant does not
//! hold.
//!
//! `make test` runs each over its corpus and some thousand mutations of it (`tests/tests/fuzz`); `make fuzz` runs each under
//! libFuzzer with coverage, and `cargo fuzz run NAME` in `tests/` does where cargo-fuzz is installed.

mod disk;
mod protocol;
mod scsi_lists;

use rpc::Frames;

/// A target: its name, which is its corpus's too, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 9] = [
    ("deframer", protocol::deframer),
    ("login_keys", protocol::login_keys),
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
                    Ok(Some(incoming)) => found.push(incoming),
                    Ok(None) => break,
                    Err(_) => return (found, false),
                }
            }
        }
        (found, true)
    };
    let (whole, ended_well) = texts(&mut std::iter::once(text));
    let (pieces, pieces_ended_well) = texts(&mut text.chunks(usize::from(*size).max(1)));
    // A number may go on in the next piece: what comes before the last text is the same.
    let common = whole.len().min(pieces.len()).saturating_sub(1);
    assert!(whole[..common] == pieces[..common], "{whole:?} is not {pieces:?}");
    assert!(ended_well == pieces_ended_well || text.iter().any(u8::is_ascii_digit), "{whole:?} {pieces:?}");
}
