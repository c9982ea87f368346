//! The secrets of a pair: one for each node as an initiator and one for its leg as a target, in a file that the administrator carries from one node to the other.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Random bytes of each secret: 192 bits.
const SECRET_LEN: usize = 24;

/// Makes the file unless it is there.
///
/// # Errors
/// The system's.
pub(crate) fn make(file: &Path, volume: &str, names: &[String]) -> io::Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut created = match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        created => created?,
    };
    let mut random = vec![0; names.len() * SECRET_LEN];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let mut text =
        format!("# CHAP secrets of the pair {volume}. Private: copy it to the other node over a safe way.\n");
    for (name, bytes) in names.iter().zip(random.chunks(SECRET_LEN)) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{name} {digits}\n");
    }
    created.write_all(text.as_bytes())?;
    created.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_file_is_private_has_two_secrets_and_is_kept() {
        let file = std::env::temp_dir().join(format!("gemel-pair-{}", std::process::id()));
        make(&file, "vol0", &["a".to_owned(), "b".to_owned()]).expect("made");
        let text = std::fs::read_to_string(&file).expect("text");
        let secrets: Vec<&str> =
            text.lines().skip(1).filter_map(|line| line.split_once(' ')).map(|(_, secret)| secret).collect();
        assert_eq!((secrets.len(), secrets[0].len()), (2, 2 * SECRET_LEN));
        assert_ne!(secrets[0], secrets[1]);
        assert_eq!(std::fs::metadata(&file).expect("metadata").mode() & 0o777, 0o600);
        make(&file, "vol0", &["a".to_owned(), "b".to_owned()]).expect("kept");
        assert_eq!(std::fs::read_to_string(&file).expect("text"), text);
        std::fs::remove_file(&file).expect("it was there");
    }
}
