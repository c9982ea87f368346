//! Standard output. Whoever closed the other end of a pipe has seen what he wanted: nothing more is printed, and that is no error.

use std::io::{self, ErrorKind, Write};

use crate::failure::Failure;

/// Whether somebody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// As far as is known.
    There,
    /// The other end is closed.
    Gone,
}

/// Writes a text at once.
///
/// # Errors
/// It cannot be written, for another reason than that nobody reads.
pub(crate) fn text(text: &str) -> Result<Reader, Failure> {
    to(&mut io::stdout().lock(), text)
}

/// The same, and a newline.
///
/// # Errors
/// As [`text`].
pub(crate) fn line(line: &str) -> Result<Reader, Failure> {
    text(&format!("{line}\n"))
}

fn to(output: &mut dyn Write, text: &str) -> Result<Reader, Failure> {
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::Write("standard output".into(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe whose other end is closed, or a disk that is full.
    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is() {
        let mut there = Vec::new();
        assert!(matches!(to(&mut there, "text"), Ok(Reader::There)));
        assert_eq!(there, b"text");
        assert!(matches!(to(&mut Fails(ErrorKind::BrokenPipe), "text"), Ok(Reader::Gone)));
        assert!(matches!(to(&mut Fails(ErrorKind::StorageFull), "text"), Err(Failure::Write(..))));
    }
}
