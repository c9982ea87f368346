//! The file of counts, and how what was counted is held against it.
//!
//! One line for each build profile, subject and part: instructions, and allocations, of one operation. A count of more than 3 % above the
//! file's is refused; so is one of more than 3 % below, because the file is to be lowered with it: what was gained stays gained.
//! Allocations may not rise at all.

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;

use thiserror::Error;

use super::{Counted, Part, Subject};

/// What a count may differ by, in a hundred.
const TOLERANCE: f64 = 3.0;

/// Which row: profile, subject, part.
type Key = (String, String, String);

/// Costs of one operation in one part.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    profile: String,
    subject: String,
    part: String,
    /// Instructions.
    pub instructions: f64,
    /// Times that memory was asked for.
    pub allocations: f64,
}

/// The profile that this program was built with.
pub fn profile() -> &'static str {
    if cfg!(debug_assertions) { "dev" } else { "release" }
}

impl Row {
    pub(super) fn new(subject: Subject, part: Part, instructions: u64, counted: &Counted) -> Self {
        let each = |sum: u64| sum as f64 / counted.operations as f64;
        Self {
            profile: profile().to_owned(),
            subject: subject.to_string(),
            part: part.name().to_owned(),
            instructions: each(instructions),
            allocations: each(counted.allocations[part as usize]),
        }
    }

    fn key(&self) -> Key {
        (self.profile.clone(), self.subject.clone(), self.part.clone())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile, subject, part, instructions, allocations } = self;
        write!(f, "{profile:<8} {subject:<20} {part:<6} {instructions:>8.0} {allocations:>6.2}")
    }
}

impl FromStr for Row {
    type Err = CountsError;

    fn from_str(line: &str) -> Result<Self, CountsError> {
        let bad = || CountsError::Line(line.to_owned());
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [profile, subject, part, instructions, allocations] = fields[..] else { return Err(bad()) };
        let number =
            |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(bad);
        Ok(Self {
            profile: profile.to_owned(),
            subject: subject.to_owned(),
            part: part.to_owned(),
            instructions: number(instructions)?,
            allocations: number(allocations)?,
        })
    }
}

/// What is wrong with the file.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum CountsError {
    /// Not a row.
    #[error("{0:?} is not a row of PROFILE SUBJECT PART INSTRUCTIONS ALLOCATIONS")]
    Line(String),
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    rows: Vec<Row>,
}

impl FromStr for Counts {
    type Err = CountsError;

    fn from_str(text: &str) -> Result<Self, CountsError> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(Self { rows: lines.map(Row::from_str).collect::<Result<_, _>>()? })
    }
}

const HEAD: &str = "\
# Instructions and allocations of one 4 KiB operation, counted by `make ratchet`, which also writes this file.
# The place is ram (one node with a RAM disk) or mirror (a pair, CRC32C on the link between); the number is the queue depth.
# profile subject             part   instructions allocations
";

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

impl Counts {
    /// The same with these rows in place of those of their profile.
    #[must_use]
    pub fn with(self, new: Vec<Row>) -> Self {
        let replaced = |row: &Row| new.first().is_some_and(|first| first.profile == row.profile);
        let mut rows: Vec<Row> = self.rows.into_iter().filter(|row| !replaced(row)).collect();
        rows.extend(new);
        rows.sort_by_key(|row| row.profile.clone());
        Self { rows }
    }

    /// What differs by too much from what was counted, in words; nothing, where all is well.
    pub fn judge(&self, counted: &[Row]) -> Vec<String> {
        let mut held: BTreeMap<Key, &Row> = self.rows.iter().map(|row| (row.key(), row)).collect();
        let mut wrong: Vec<String> = counted
            .iter()
            .filter_map(|row| match held.remove(&row.key()) {
                Some(held) => compare(held, row),
                None => {
                    Some(format!("{} {}: the file does not have it: make ratchet", row.subject, row.part))
                }
            })
            .collect();
        let gone = held.into_values().filter(|row| row.profile == profile());
        wrong.extend(
            gone.map(|row| format!("{} {}: it is not counted any more: make ratchet", row.subject, row.part)),
        );
        wrong
    }
}

fn compare(held: &Row, row: &Row) -> Option<String> {
    let name = format!("{} {}", row.subject, row.part);
    let percent = (row.instructions / held.instructions - 1.0) * 100.0;
    // Written with two digits.
    if row.allocations > held.allocations + 0.006 {
        return Some(format!(
            "{name}: {:.2} allocations, {:.2} were enough",
            row.allocations, held.allocations
        ));
    }
    let (now, before) = (row.instructions, held.instructions);
    if percent > TOLERANCE {
        Some(format!("{name}: {now:.0} instructions, {percent:.1} % more than {before:.0}"))
    } else if percent < -TOLERANCE {
        Some(format!(
            "{name}: {now:.0} instructions, {:.1} % fewer than {before:.0}: lower the file with make ratchet",
            -percent
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(instructions: f64, allocations: f64) -> Row {
        let text = format!("{} ram-read-1 node {instructions} {allocations}", profile());
        text.parse().expect("a row")
    }

    fn verdict(held: &Row, counted: &Row) -> String {
        let counts = Counts::default().with(vec![held.clone()]);
        counts.judge(std::slice::from_ref(counted)).join("; ")
    }

    #[test]
    fn what_is_dearer_or_cheaper_by_more_than_three_percent_is_told() {
        let held = row(1000.0, 2.0);
        for same in [row(1029.0, 2.0), row(971.0, 2.0), row(1000.0, 0.0)] {
            assert_eq!(verdict(&held, &same), "");
        }
        assert!(verdict(&held, &row(1031.0, 2.0)).contains("3.1 % more"));
        assert!(verdict(&held, &row(969.0, 2.0)).contains("lower the file"));
        assert!(verdict(&held, &row(1000.0, 2.1)).contains("allocations"));
    }

    #[test]
    fn rows_that_only_one_side_has_are_told() {
        let other: Row = format!("{} ram-write-1 node 1 0", profile()).parse().expect("a row");
        assert_eq!(verdict(&row(1.0, 0.0), &other).matches("make ratchet").count(), 2);
        let elsewhere: Row = "another ram-read-1 node 1 0".parse().expect("a row");
        let counts = Counts::default().with(vec![elsewhere]).with(vec![row(1.0, 0.0)]);
        assert_eq!(counts.judge(&[row(1.0, 0.0)]), [""; 0], "another profile's rows are not this one's");
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let counts = Counts::default().with(vec![row(1234.0, 0.25)]);
        assert_eq!(counts.to_string().parse(), Ok(counts.clone()));
        assert_eq!(counts.with(vec![row(1.0, 0.0)]).judge(&[row(1.0, 0.0)]), [""; 0]);
        for bad in ["dev a b 1", "dev a b x 0", "dev a b 1 0 0", "dev a b inf 0"] {
            bad.parse::<Counts>().expect_err(bad);
        }
    }
}
