//! Fuzz targets: everything that reads what somebody else wrote. A target takes any bytes and panics where an invariant does not
//! hold.
//!
//! `make test` runs each over its corpus and some thousand mutations of it (`tests/tests/fuzz`); `make fuzz` runs each under
//! libFuzzer with coverage, and `cargo fuzz run NAME` in `tests/` does where cargo-fuzz is installed.

mod chap;
mod disk;
mod protocol;
mod requests;
mod scsi_lists;
mod session;

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
    ("json_rpc", requests::json_rpc),
];

/// Runs the target of this name.
///
/// # Panics
/// When there is none, or when an invariant of it does not hold.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    target(data);
}
