//! libiscsi's conformance suite (version 1.20.0), one process for each test.
//!
//! The suite counts a skipped test as passed; here it is told apart by what the test prints.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use crate::node::skipped_without;

/// Seconds after which a test counts as hung. The longest sends hundreds of commands that each reach the disk, and takes some tens of
/// seconds; on a machine that is busy with other tests it took more than two minutes.
const LIMIT: u32 = 400;

/// Whether blocks of a LUN can be without storage (LBPME of READ CAPACITY(16)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provisioning {
    /// They can.
    Thin,
    /// They have it always.
    Thick,
}

/// What of a LUN decides whether the suite is wrong about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Logical blocks in a physical one, as a power of two (READ CAPACITY(16)).
    pub physical_exponent: u32,
    /// WSNZ of the block limits page: one where a WRITE SAME of zero blocks is refused.
    pub wsnz: u32,
    /// Where it is thick, the suite asks nothing of storage.
    pub provisioning: Provisioning,
}

/// A test that asks for what the standard does not, of some LUNs: a target that fails it there is right.
#[derive(Clone, Copy, Debug)]
struct Fault {
    test: &'static str,
    /// How it is wrong.
    because: &'static str,
    /// At which LUNs it is, of those that are thin.
    is_one_at: fn(&Properties) -> bool,
}

/// All of them.
const FAULTS: [Fault; 2] = [
    Fault {
        test: "WriteSame10.UnmapUntilEnd",
        because: "the suite sends a block of FFh with UNMAP and wants zeroes; blocks read as what was sent (SBC-3 section 5.43). It \
                  passes where WSNZ is one",
        is_one_at: |lun| lun.wsnz == 0,
    },
    Fault {
        test: "GetLBAStatus.UnmapSingle",
        because: "with several logical blocks in a physical one, the suite asks for a block and wants the answer to begin at another",
        is_one_at: |lun| lun.physical_exponent > 0,
    },
];

/// Why a failure of a test at a LUN is the suite's.
pub fn excuse(test: &str, lun: &Properties) -> Option<&'static str> {
    let is_it = |fault: &&Fault| fault.test == test && (fault.is_one_at)(lun);
    let fault = FAULTS.iter().filter(|_| lun.provisioning == Provisioning::Thin).find(is_it);
    fault.map(|fault| fault.because)
}

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

/// What a test's end means, of the target and of the suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The target does what is asked.
    Passed,
    /// It does not.
    Failed(String),
    /// It was not asked to the end.
    Skipped(String),
    /// It does not, and is right.
    Disputed(&'static str),
    /// It does, where the suite was thought to be wrong: the excuse is out of date.
    Unexcused(&'static str),
}

impl Ending {
    /// Of a test with this verdict, at a LUN where there is perhaps an excuse for it.
    pub fn new(verdict: Verdict, excuse: Option<&'static str>) -> Self {
        match (verdict, excuse) {
            (Verdict::Passed, None) => Self::Passed,
            (Verdict::Passed, Some(why)) => Self::Unexcused(why),
            (Verdict::Failed(why), None) => Self::Failed(why),
            (Verdict::Failed(_), Some(why)) => Self::Disputed(why),
            (Verdict::Skipped(why), _) => Self::Skipped(why),
        }
    }

    /// What is told of the test.
    pub fn line(&self, test: &str) -> String {
        match self {
            Self::Passed => format!("passed  {test}"),
            Self::Failed(why) => format!("FAILED  {test}: {why}"),
            Self::Skipped(why) => format!("skipped {test}: {why}"),
            Self::Disputed(why) => format!("disputed {test}: {why}"),
            Self::Unexcused(why) => format!("passed  {test}, which was thought to be wrong here: {why}"),
        }
    }
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that the target passes.
    pub passed: u32,
    /// Those that it fails.
    pub failed: u32,
    /// Those that did not run to their end.
    pub skipped: u32,
    /// Those that it fails where the suite is wrong.
    pub disputed: u32,
}

impl Tally {
    /// One more.
    pub fn count(&mut self, ending: &Ending) {
        let count = match ending {
            Ending::Passed | Ending::Unexcused(_) => &mut self.passed,
            Ending::Failed(_) => &mut self.failed,
            Ending::Skipped(_) => &mut self.skipped,
            Ending::Disputed(_) => &mut self.disputed,
        };
        *count += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped, disputed } = self;
        write!(to, "{passed} passed, {failed} failed, {skipped} skipped")?;
        if *disputed > 0 { write!(to, ", {disputed} that the suite is wrong about") } else { Ok(()) }
    }
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

    /// What a LUN says of itself; `None` where it does not say it.
    ///
    /// # Panics
    /// When libiscsi's tools do not start.
    pub fn properties(&self, url: &str) -> Option<Properties> {
        let say = |mut tool: Command| {
            let run = tool.arg(url).output().expect("a tool of libiscsi's");
            String::from_utf8_lossy(&run.stdout).into_owned()
        };
        let mut limits = self.program("iscsi-inq");
        limits.args(["-e", "1", "-c", "176"]);
        let capacity = say(self.program("iscsi-readcapacity16"));
        let provisioning = match figure(&capacity, "LBPME:")? {
            0 => Provisioning::Thick,
            _ => Provisioning::Thin,
        };
        Some(Properties {
            physical_exponent: figure(&capacity, "LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT:")?,
            wsnz: figure(&say(limits), "wsnz:")?,
            provisioning,
        })
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

/// The number behind a name in what a tool says.
fn figure(text: &str, name: &str) -> Option<u32> {
    let (_, behind) = text.split_once(name)?;
    behind.split(|byte: char| !byte.is_ascii_digit()).next()?.parse().ok()
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

    #[test]
    fn the_suite_is_wrong_about_some_luns_and_right_about_the_others() {
        let thin = Provisioning::Thin;
        let at = |physical_exponent, wsnz| Properties { physical_exponent, wsnz, provisioning: thin };
        assert!(excuse("WriteSame10.UnmapUntilEnd", &at(0, 0)).is_some());
        assert_eq!(excuse("WriteSame10.UnmapUntilEnd", &at(3, 1)), None);
        assert!(excuse("GetLBAStatus.UnmapSingle", &at(3, 1)).is_some());
        assert_eq!(excuse("GetLBAStatus.UnmapSingle", &at(0, 0)), None);
        assert_eq!(excuse("GetLBAStatus.Simple", &at(3, 0)), None);
        let thick = Properties { provisioning: Provisioning::Thick, ..at(3, 0) };
        assert_eq!(excuse("WriteSame10.UnmapUntilEnd", &thick), None);
    }

    #[test]
    fn an_excuse_is_for_a_failure_alone_and_is_out_of_date_when_the_test_passes() {
        let failed = Verdict::Failed("it differs".to_owned());
        assert_eq!(Ending::new(failed.clone(), Some("wrong")), Ending::Disputed("wrong"));
        assert_eq!(Ending::new(failed, None), Ending::Failed("it differs".to_owned()));
        assert_eq!(Ending::new(Verdict::Passed, Some("wrong")), Ending::Unexcused("wrong"));
        let skipped = Ending::new(Verdict::Skipped("no UNMAP".to_owned()), Some("wrong"));
        let mut tally = Tally::default();
        for ending in [skipped, Ending::Passed, Ending::Unexcused("wrong")] {
            tally.count(&ending);
        }
        assert_eq!(tally.to_string(), "2 passed, 0 failed, 1 skipped");
        tally.count(&Ending::Disputed("wrong"));
        assert_eq!(tally.to_string(), "2 passed, 0 failed, 1 skipped, 1 that the suite is wrong about");
    }

    #[test]
    fn figures_are_found_behind_their_names() {
        let said = "RETURNED\nP_I_EXPONENT:0 LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT:3\nwsnz:1\n";
        assert_eq!(figure(said, "PHYSICAL BLOCK EXPONENT:"), Some(3));
        assert_eq!((figure(said, "wsnz:"), figure(said, "ugavalid:")), (Some(1), None));
    }

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
