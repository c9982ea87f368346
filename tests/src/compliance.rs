//! RFC 7143 and RFC 7144, requirement by requirement: where the code that meets it cites it, and what tests it.
//!
//! The lists are `tests/compliance/rfc7143.txt`, `rfc7143-initiator.txt` and `rfc7144.txt`. A citation is a comment with `rfc7143#section-N` or `RFC 7143 section N`,
//! or, in a file that has such a one, a comment of nothing but a section's number of RFC 7143. Of a section with several
//! requirements each has a letter, `N(a)`, and is cited with it: a citation of the section alone is of none of them. A test is a
//! case of the suite at PDU level, or a function marked `#[test]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of whom something is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// A target, or either.
    #[default]
    Target,
    /// An initiator: the code of that end has to cite it, and a target's that of the other.
    Initiator,
}

impl End {
    fn owns(self, place: &str) -> bool {
        const INITIATOR: [&str; 2] = ["net/iscsi/src/initiator/", "bdev/gateway/src/remote/"];
        const EITHER: [&str; 2] = ["net/iscsi/src/keys.rs", "net/iscsi/src/chap/"];
        let is_in = |paths: &[&str]| paths.iter().any(|path| place.starts_with(path));
        match self {
            Self::Target => !is_in(&INITIATOR),
            Self::Initiator => is_in(&INITIATOR) || is_in(&EITHER),
        }
    }
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The section's number, or an appendix's letter; of another document than RFC 7143, behind its number and a colon. Behind it,
    /// where the section has several, the requirement's letter in parentheses.
    pub section: String,
    /// Of whom.
    pub end: End,
    /// What is asked for.
    pub text: String,
    /// How it is met.
    pub how: How,
}

/// How a requirement is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// These test it.
    Tested(Vec<String>),
    /// Not at all, for this reason.
    Excepted(String),
}

/// The list and what was found of it.
#[derive(Debug)]
pub struct Report {
    /// The list.
    pub requirements: Vec<Requirement>,
    /// Places in the code that cite each section.
    citations: BTreeMap<String, Vec<String>>,
    /// Names of tests.
    tests: BTreeSet<String>,
}

/// The lists, of whom they ask, and what their sections are told apart by.
const LISTS: [(&str, End, &str); 3] = [
    ("rfc7143", End::Target, ""),
    ("rfc7143-initiator", End::Initiator, ""),
    ("rfc7144", End::Target, "7144:"),
];

/// The documents by their numbers, and what their sections are told apart by.
const DOCUMENTS: [(&str, &str); 2] = [("7143", ""), ("7144", "7144:")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// Reads the list.
///
/// # Errors
/// The line that is not `SECTION | requirement | tests`.
pub fn parse(list: &str) -> Result<Vec<Requirement>, String> {
    let rows = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|row| {
        let parts: Vec<&str> = row.split('|').map(str::trim).collect();
        let [section, text, how] = parts[..] else { return Err(row.to_owned()) };
        let how = match how.strip_prefix("except:") {
            Some(reason) => How::Excepted(reason.trim().to_owned()),
            None => How::Tested(how.split_whitespace().map(str::to_owned).collect()),
        };
        Ok(Requirement { section: section.to_owned(), end: End::default(), text: text.to_owned(), how })
    })
    .collect()
}

/// Looks through the repository.
///
/// # Panics
/// When it cannot be read.
pub fn look() -> Report {
    let mut requirements = Vec::new();
    for (name, end, prefix) in LISTS {
        let list = root().join(format!("tests/compliance/{name}.txt"));
        let list = parse(&std::fs::read_to_string(list).expect("the list"));
        let list = list.unwrap_or_else(|row| panic!("no requirement: {row}"));
        requirements.extend(list.into_iter().map(|requirement| {
            let section = format!("{prefix}{}", requirement.section);
            Requirement { section, end, ..requirement }
        }));
    }
    let output = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output().expect("git");
    let mut report = Report { requirements, citations: BTreeMap::new(), tests: BTreeSet::new() };
    for name in String::from_utf8(output.stdout).expect("names").lines() {
        // A file that is deleted and not yet committed is still listed.
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        report.tests.extend(tests(&text));
        if !name.starts_with("tests/") && !name.contains("/tests/") {
            cite(name, &text, &mut report.citations);
        }
    }
    report.tests.extend(crate::pdu::all_cases().map(|case| case.name.to_owned()));
    report
}

/// Functions marked as tests.
fn tests(text: &str) -> impl Iterator<Item = String> {
    let mut marked = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        let name = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next());
        let found = name.filter(|_| marked).map(str::to_owned);
        marked = line == "#[test]" || (marked && line.starts_with("#["));
        found
    })
}

/// Takes a file's citations.
fn cite(name: &str, text: &str, into: &mut BTreeMap<String, Vec<String>>) {
    let is_of_the_rfc = text.contains("RFC 7143") || text.contains("rfc7143#");
    for (number, line) in (1..).zip(text.lines()) {
        let Some((_, comment)) = line.split_once("//") else { continue };
        let comment = comment.trim_start_matches(['/', '!', '=']).trim();
        let mut sections = sections(comment);
        if is_of_the_rfc && is_section(comment) {
            sections.push(comment.to_owned());
        }
        for section in sections {
            into.entry(section).or_default().push(format!("{name}:{number}"));
        }
    }
}

/// The sections that a comment cites.
fn sections(comment: &str) -> Vec<String> {
    DOCUMENTS.iter().flat_map(|(document, prefix)| sections_of(comment, document, prefix)).collect()
}

/// Those of one document.
fn sections_of(comment: &str, document: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let forms = ["rfc{}#section-", "rfc{}#appendix-", "RFC {} section ", "RFC {} appendix "];
    for form in forms.map(|form| form.replace("{}", document)) {
        let rests = comment.match_indices(&form).map(|(at, _)| &comment[at + form.len()..]);
        found.extend(rests.map(first_word));
    }
    let form = format!("RFC {document} sections ");
    for (at, _) in comment.match_indices(&form) {
        let rest = &comment[at + form.len()..];
        let words = rest.split([' ', ',', ')', ';', ':']).filter(|word| !word.is_empty() && *word != "and");
        found.extend(words.map(first_word).take_while(|word| is_section(word)));
    }
    found.retain(|section| !section.is_empty());
    found.into_iter().map(|section| format!("{prefix}{section}")).collect()
}

fn first_word(text: &str) -> String {
    let end =
        text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.').unwrap_or(text.len());
    let letter = text[end..].get(..3).filter(|letter| is_letter(letter)).unwrap_or_default();
    text[..end].trim_end_matches('.').to_owned() + letter
}

/// True for what tells the requirements of a section apart: `(a)`.
fn is_letter(text: &str) -> bool {
    matches!(text.as_bytes(), [b'(', letter, b')'] if letter.is_ascii_lowercase())
}

/// A section without the letter of one of its requirements.
fn whole(section: &str) -> &str {
    section.split('(').next().unwrap_or(section)
}

fn is_section(text: &str) -> bool {
    text.contains('.')
        && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

impl Report {
    /// Where the code cites a requirement.
    pub fn places(&self, requirement: &Requirement) -> Vec<&str> {
        let all = self.citations.get(&requirement.section).into_iter().flatten();
        all.map(String::as_str).filter(|place| requirement.end.owns(place)).collect()
    }

    /// Requirements that a citation cannot tell apart.
    fn unclear(&self) -> Vec<String> {
        let others = |one: &Requirement, alike: &dyn Fn(&Requirement) -> bool| {
            self.requirements.iter().filter(|other| other.end == one.end && alike(other)).count() > 1
        };
        let of_several = |one: &&Requirement| {
            let section = whole(&one.section);
            let named = section != one.section;
            let several = others(one, &|other| whole(&other.section) == section);
            (several && !named) || others(one, &|other| other.section == one.section)
        };
        let unclear = self.requirements.iter().filter(of_several);
        unclear.map(|one| format!("{}: it needs a letter of its own ({})", one.section, one.text)).collect()
    }

    /// What is wrong with the list or the code: each a line.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.unclear();
        let mut named = BTreeSet::new();
        for requirement in &self.requirements {
            let Requirement { section, text, how, .. } = requirement;
            let How::Tested(tests) = how else { continue };
            if self.places(requirement).is_empty() {
                faults.push(format!("{section}: no code cites it ({text})"));
            }
            if tests.is_empty() {
                faults.push(format!("{section}: nothing tests it ({text})"));
            }
            let missing = tests.iter().filter(|test| !self.tests.contains(*test));
            faults.extend(missing.map(|test| format!("{section}: there is no test {test}")));
            named.extend(tests.iter().map(String::as_str));
        }
        let unnamed = crate::pdu::all_cases().filter(|case| !named.contains(case.name));
        faults.extend(unnamed.map(|case| format!("{}: no requirement names {}", case.section, case.name)));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_are_found_in_each_form() {
        let mut found = BTreeMap::new();
        let text = "//! Login (RFC 7143 sections 6.3, 11.12 and 11.13).\n//= rfc7143#section-11.5.5: it counts.\n\
                    (Key::A, 1), // 13.1\n// See RFC 7143 appendix C.\nlet x = 1; // 7 of them\n\
                    // RFC 7144 section 7.1.1, and rfc7144#section-4.1.\n//= rfc7143#section-11.6.1(b): one of several.\n";
        cite("a.rs", text, &mut found);
        let sections: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(
            sections,
            ["11.12", "11.13", "11.5.5", "11.6.1(b)", "13.1", "6.3", "7144:4.1", "7144:7.1.1", "C"]
        );
        assert_eq!(found["11.5.5"], ["a.rs:2"]);
    }

    #[test]
    fn requirements_of_one_section_are_told_apart() {
        let report = |rows: &str| {
            let requirements = parse(rows).expect("rows");
            Report { requirements, citations: BTreeMap::new(), tests: BTreeSet::new() }
        };
        let unclear = |rows: &str| report(rows).unclear().len();
        assert_eq!(unclear("6.3(a) | x | t\n6.3(b) | y | t\n6.4 | z | t\n"), 0);
        assert_eq!(unclear("6.3 | x | t\n6.3(b) | y | t\n"), 1, "one has none");
        assert_eq!(unclear("6.3(a) | x | t\n6.3(a) | y | t\n"), 2, "both have the same");
    }

    #[test]
    fn tests_are_functions_that_are_marked() {
        let text = "#[test]\n#[ignore]\nfn one() {}\nfn helper() {}\n    #[test]\n    fn two() {}\n";
        assert_eq!(tests(text).collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn a_row_has_three_parts() {
        let rows =
            parse("# x\n\n6.3 | a login | one two\n12.2 | Kerberos | except: optional\n").expect("rows");
        assert_eq!(rows[0].how, How::Tested(vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(rows[1].how, How::Excepted("optional".to_owned()));
        assert_eq!(parse("6.3 | a login"), Err("6.3 | a login".to_owned()));
    }
}
