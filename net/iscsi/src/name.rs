//! iSCSI names (RFC 7143 section 4.2.7, RFC 3722), where they enter.
//!
//! A name that is taken in is kept: in reservations, in unit attentions, in the log. So its length and its characters are
//! checked once, at the login. What initiators are known to send and the RFC's profile of stringprep would not let through (an
//! underscore, a space, a virtual machine's name as it is) is let in; what could be taken for something else where the name is
//! shown or stored is not: control characters, marks that turn the direction of text, the comma of a TransportID.

use thiserror::Error;

/// Bytes of the longest name (RFC 7143 section 4.2.7.1).
pub const NAME_MAX: usize = 223;

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// More than [`NAME_MAX`] bytes.
    #[error("an iSCSI name has at most {NAME_MAX} bytes")]
    TooLong,
    /// Not `iqn.` and something, `eui.` and 16 digits, or `naa.` and 16 or 32.
    #[error("an iSCSI name is iqn. and more, eui. and 16 hexadecimal digits, or naa. and 16 or 32")]
    Form,
    /// A character that no name has.
    #[error("an iSCSI name has no control characters, commas, or blanks other than spaces inside")]
    Character,
}

/// Checks a name, in whichever case.
///
/// # Errors
/// [`NameError`].
pub fn check(name: &str) -> Result<(), NameError> {
    //= rfc7143#section-4.2.7.1(b): names have at most 223 bytes.
    if name.len() > NAME_MAX {
        return Err(NameError::TooLong);
    }
    if !name.chars().all(is_allowed) || name.ends_with(' ') {
        return Err(NameError::Character);
    }
    let (kind, rest) = name.split_at_checked(4).ok_or(NameError::Form)?;
    let digits = |lengths: &[usize]| {
        lengths.contains(&rest.len()) && rest.chars().all(|digit| digit.is_ascii_hexdigit())
    };
    //= rfc7143#section-4.2.7.3: the type says who gives the rest.
    let legal = match kind.to_ascii_lowercase().as_str() {
        //= rfc7143#section-4.2.7.4: a name of a naming authority.
        "iqn." => !rest.is_empty(),
        //= rfc7143#section-4.2.7.5: 16 digits.
        "eui." => digits(&[16]),
        //= rfc7143#section-4.2.7.6: 16 or 32 digits.
        "naa." => digits(&[16, 32]),
        _ => false,
    };
    if legal { Ok(()) } else { Err(NameError::Form) }
}

/// Checks an alias: shown to people, never compared with a name.
pub(crate) fn is_alias(alias: &str) -> bool {
    alias.len() <= crate::text::LOCAL_NAME_MAX && !alias.chars().any(char::is_control)
}

fn is_allowed(character: char) -> bool {
    // RFC 3722 section 6, tables C.2 to C.9 as far as they name what misleads.
    let misleads = matches!(
        character,
        ',' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffd}' | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{e007f}'
    );
    character == ' ' || !(misleads || character.is_control() || character.is_whitespace())
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn what_initiators_send_is_taken() {
        for name in [
            "iqn.2005-03.org.open-iscsi:5a1c9f0d2b3",
            "iqn.1994-05.com.redhat:host_7",
            "iqn.1991-05.com.microsoft:win-1.example.com",
            "iqn.1998-01.com.vmware:esx1.example.com:1234567:64",
            "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test",
            "iqn.2008-11.org.linux-kvm:My VM",
            "iqn.2008-11.org.linux-kvm",
            "IQN.2026-11.example:H1",
            "iqn.2026-11.example:größe",
            "eui.02004567A425678D",
            "naa.52004567BA64678D",
            "naa.62004567BA64678D0123456789ABCDEF",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        assert_eq!(check(&format!("iqn.{}", "x".repeat(NAME_MAX - 4))), Ok(()));
    }

    #[test]
    fn what_is_no_name_is_not() {
        assert_eq!(check(&format!("iqn.{}", "x".repeat(NAME_MAX - 3))), Err(NameError::TooLong));
        assert_eq!(check(&format!("iqn.{}", "é".repeat(110))), Err(NameError::TooLong), "bytes count");
        for name in ["", "iqn", "iqn.", "iqé", "host", "eui.123", "eui.02004567A425678G", "naa.52004567"] {
            assert_eq!(check(name), Err(NameError::Form), "{name}");
        }
        for name in
            ["iqn.a\nb", "iqn.a\0", "iqn.\u{1b}[2J", "iqn.a,b", "iqn.a\u{202e}b", "iqn.a\tb", "iqn.a "]
        {
            assert_eq!(check(name), Err(NameError::Character), "{name:?}");
        }
    }
}
