//! Who may use the control socket, as the command line says it.

use std::path::Path;

/// The group that a name or a number means, as the system's file of groups (`/etc/group`) has it.
///
/// # Errors
/// There is no such group, in words.
pub fn group(text: &str) -> Result<u32, String> {
    group_in(Path::new("/etc/group"), text)
}

fn group_in(file: &Path, text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let line = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    groups
        .lines()
        .find_map(line)
        .ok_or_else(|| format!("{} has no group {text:?}: give its number", file.display()))
}

/// The mode of a file, in octal digits.
///
/// # Errors
/// It is none, in words.
pub fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "use octal digits, as in 0660".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_a_name_or_a_number() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "root:x:0:\nstorage:x:107:a,b\nbad:x\n").expect("written");
        let group = |text| group_in(file.path(), text);
        assert_eq!((group("storage"), group("root"), group("12")), (Ok(107), Ok(0), Ok(12)));
        for none in ["bad", "stor", "-1", ""] {
            assert!(group(none).is_err(), "{none}");
        }
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!((mode("0660"), mode("600")), (Ok(0o660), Ok(0o600)));
        assert!(mode("0880").is_err() && mode("4660").is_err() && mode("rw").is_err());
    }
}
