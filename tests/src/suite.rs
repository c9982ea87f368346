//! libiscsi's conformance suite (version 1.20.0), one process for each test.
//!
//! The suite counts a skipped test as passed; here it is told apart by what the test prints.

use std::path::PathBuf;
use std::process::Command;

use crate::node::skipped_without;

/// Seconds after which a test counts as hung. The longest sends hundreds of commands that each reach the disk, and takes some tens of
/// seconds; on a machine that is busy with other tests it took more than two minutes.
const LIMIT: u32 = 400;

/// Tests that ask for what the standard does not, where a LUN is as such LUNs may be, and how: a target that fails them may be right.
pub const FAULTS: [(&str, &str); 2] = [UNMAP_UNTIL_END, UNMAP_SINGLE];
/// One of them.
pub const UNMAP_UNTIL_END: (&str, &str) = (
    "WriteSame10.UnmapUntilEnd",
    "the suite sends a block of FFh with UNMAP and wants zeroes; blocks read as what was sent (SBC-3 section 5.43). It passes \
     where WSNZ is one",
);
/// Another one.
pub const UNMAP_SINGLE: (&str, &str) = (
    "GetLBAStatus.UnmapSingle",
    "with several logical blocks in a physical one, the suite asks for a block and wants the answer to begin at another",
);

/// The suite as `make setup` unpacks it: the program, and the loader and libraries that it was built for.
#[derive(Debug)]
pub struct Suite {
    root: PathBuf,
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ran, and every assertion held.
    Passed,
    /// It ran, and this did not hold.
    Failed(String),
    /// It did not run to its end, for this reason.
    Skipped(String),
}

impl Suite {
    /// The suite; says that the test is skipped when it is not there.
    pub fn find() -> Option<Self> {
        // target/PROFILE/BINARY or target/PROFILE/deps/TEST
        let own = std::env::current_exe().ok()?;
        let roots = own.ancestors().skip(2).take(2).map(|folder| folder.join("libiscsi/root"));
        let root = roots.into_iter().find(|root| root.exists()).unwrap_or_default();
        let suite = Self { root };
        let found = suite.root.join("usr/bin/iscsi-test-cu").exists();
        if !found {
            skipped_without("libiscsi's suite");
        }
        found.then_some(suite)
    }

    fn command(&self) -> Command {
        self.program("iscsi-test-cu")
    }

    /// A tool of libiscsi's, without arguments. It is ended after a while.
    pub fn program(&self, name: &str) -> Command {
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new("timeout");
        command.arg(LIMIT.to_string()).arg(libraries.join("ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries).arg(self.root.join("usr/bin").join(name));
        command
    }

    /// The names of all tests, without their family's prefix: `Suite.Test`.
    ///
    /// # Panics
    /// When the suite does not list them.
    pub fn tests(&self) -> Vec<String> {
        let listed = self.command().arg("-l").output().expect("the suite");
        let listed = String::from_utf8(listed.stdout).expect("names");
        let names = listed.lines().filter_map(|line| line.trim().strip_prefix("ALL."));
        names.filter(|name| name.contains('.')).map(str::to_owned).collect()
    }

    /// True when there is a tool of this name: not all are Debian's.
    pub fn has(&self, name: &str) -> bool {
        self.root.join("usr/bin").join(name).exists()
    }

    /// What a tool that has to succeed prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let (printed, well) = self.attempt(name, arguments);
        assert!(well, "{name} {arguments:?}: {printed}");
        printed
    }

    /// What a tool prints, and whether it succeeds.
    ///
    /// # Panics
    /// When it does not start.
    pub fn attempt(&self, name: &str, arguments: &[&str]) -> (String, bool) {
        let run = self.program(name).args(arguments).output().expect(name);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&run.stdout) + &text(&run.stderr), run.status.success())
    }

    /// Runs one test against a LUN, or against two paths to one.
    ///
    /// # Panics
    /// When the suite does not start.
    pub fn run(&self, test: &str, urls: &[&str]) -> Verdict {
        let mut command = self.command();
        command.args(["-n", "--dataloss", "--allow-sanitize", "-V", "-t", &format!("ALL.{test}")]).args(urls);
        let run = command.output().expect("the suite");
        judge(&(String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr)))
    }
}

/// What a run's output says of its one test.
fn judge(text: &str) -> Verdict {
    let summary = text.lines().find(|line| line.trim_start().starts_with("tests "));
    let counts: Vec<&str> = summary.unwrap_or_default().split_whitespace().skip(1).collect();
    // Before and after each test the suite looks for reservations, and says that it skips that where a target has none.
    let skip = |line: &&str| {
        line.contains("[SKIPPED]") && !line.contains("PERSISTENT RESERVE IN is not implemented")
    };
    let said =
        |wanted: &str| text.lines().find(|line| line.contains(wanted)).map(|line| line.trim().to_owned());
    match (counts.as_slice(), text.lines().find(skip)) {
        (["1", "1", "1", "0", ..], None) => Verdict::Passed,
        (["1", "1", "1", "0", ..], Some(why)) => Verdict::Skipped(why.trim().to_owned()),
        ([], _) => {
            Verdict::Failed(format!("no result: {}", text.lines().last().unwrap_or("it says nothing")))
        }
        _ => Verdict::Failed(
            said("[FAILED]").or_else(|| said("CU_")).unwrap_or_else(|| "an assertion".to_owned()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "Run Summary: Type Total Ran Passed Failed Inactive\n tests 1 1 1 0 0\n";

    #[test]
    fn a_skip_is_no_pass_and_a_run_without_a_summary_is_a_failure() {
        assert_eq!(judge(SUMMARY), Verdict::Passed);
        assert_eq!(
            judge(&format!("    [SKIPPED] ORWRITE is not implemented.\n{SUMMARY}")),
            Verdict::Skipped("[SKIPPED] ORWRITE is not implemented.".to_owned())
        );
        assert!(matches!(judge(" tests 1 1 0 1 0\n"), Verdict::Failed(_)));
        assert!(matches!(judge("Failed to connect"), Verdict::Failed(_)));
        assert!(matches!(judge(""), Verdict::Failed(_)));
    }
}
