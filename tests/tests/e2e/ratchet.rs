//! What a 4 KiB operation costs in instructions and allocations is what `perf/ratchet.txt` says.

use std::path::Path;
use std::process::Command;

use tests::node::{binary, has_tool};

fn counts() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("perf/ratchet.txt")
}

#[test]
fn an_operation_costs_what_the_file_of_counts_says() {
    if !has_tool("valgrind") {
        return;
    }
    let ended =
        Command::new(binary("gemel-ratchet")).arg("check").arg(counts()).output().expect("it is built");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{errors}");
    let told = String::from_utf8(ended.stdout).expect("text");
    let of_path = told.lines().filter(|line| line.contains(" ram-") || line.contains(" mirror-"));
    for line in of_path {
        let instructions = line.split_whitespace().nth(3).and_then(|field| field.parse::<f64>().ok());
        // A RAM disk alone moves 4 KiB twice; less than that was not counted.
        assert!(instructions.is_some_and(|count| count > 500.0), "{line}");
    }
}

/// From the socket into the frame that goes to both legs, and never again; what is read is sent from where the medium put it.
#[test]
fn a_payload_is_copied_once_on_its_way_in_and_never_on_its_way_out() {
    if !has_tool("valgrind") {
        return;
    }
    let node_of = |subject: &str, part: &str| {
        let ended =
            Command::new(binary("gemel-ratchet")).args(["copies", subject]).output().expect("it is built");
        let told = String::from_utf8(ended.stdout).expect("text");
        let line = told.lines().find(|line| line.starts_with(part)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{told}{}", String::from_utf8_lossy(&ended.stderr)))
    };
    for part in ["node", "peer"] {
        let told = node_of("mirror-write-hot-1", part);
        assert!(told.contains("stack 1.00 medium 1.00"), "{told}");
    }
    let told = node_of("ram-read-1", "node");
    assert!(told.contains("stack 0.00 medium 1.00"), "{told}");
}

#[test]
fn a_damaged_file_of_counts_is_said_to_be_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("counts");
    std::fs::write(&file, "dev ram-read-1 node many 0\n").expect("written");
    for task in ["check", "write"] {
        let ended = Command::new(binary("gemel-ratchet")).arg(task).arg(&file).output().expect("it is built");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(1) && errors.contains("is not a row"), "{errors}");
    }
}

#[test]
fn one_subject_is_done_by_its_name() {
    let run =
        |name: &str| Command::new(binary("gemel-ratchet")).args(["run", name]).output().expect("it is built");
    let ended = run("ram-write-32");
    let told = String::from_utf8(ended.stdout).expect("text");
    assert!(ended.status.success() && told.split(' ').count() == 5, "{told}");
    let ended = run("nothing");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(1) && errors.contains("ram-read-1, "), "{errors}");
}
