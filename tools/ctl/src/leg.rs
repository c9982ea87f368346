//! A leg as the command line names it: a path, with a size where the file may be made.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Whether the leg is known to be zeroes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// A file that was just made.
    Zeroed,
    /// Anything else.
    Unknown,
}

impl Content {
    /// As the node's methods write it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Zeroed => "zeroed",
            Self::Unknown => "unknown",
        }
    }
}

/// The leg's path, made if a size is given and nothing is there.
pub(crate) fn leg_file(leg: &str) -> Result<(PathBuf, Content), Failure> {
    let (path, size) = match leg.rsplit_once(':') {
        Some((path, size)) => (Path::new(path), Some(parse_size(size)?)),
        None => (Path::new(leg), None),
    };
    let mut content = Content::Unknown;
    if let Some(size) = size.filter(|_| !path.exists()) {
        let create = || OpenOptions::new().write(true).create_new(true).open(path)?.set_len(size);
        create().map_err(|error| Failure::Write(path.to_owned(), error))?;
        content = Content::Zeroed;
    }
    let path = fs::canonicalize(path).map_err(|error| {
        Failure::Usage(format!(
            "leg {}: {error}; give a size to make it: {}:10G",
            path.display(),
            path.display()
        ))
    })?;
    Ok((path, content))
}

fn parse_size(text: &str) -> Result<u64, Failure> {
    let bad = || Failure::Usage(format!("{text:?} is no size: write a number and K, M, G or T"));
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        Some((at, 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("64M").expect("a size"), 64 << 20);
        assert_eq!(parse_size("4096").expect("a size"), 4096);
        assert!(parse_size("1X").is_err() && parse_size("").is_err() && parse_size("99999999T").is_err());
    }

    #[test]
    fn a_leg_that_is_not_there_needs_a_size() {
        let missing = leg_file("/nonexistent/leg.img").expect_err("nothing there");
        assert!(missing.to_string().contains("give a size"), "{missing}");
    }
}
