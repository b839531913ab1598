//! Unique Identifiers (PS3.5 chapter 9, edition 2025c).

use std::{fmt, str::FromStr, sync::Arc};

/// A UID that the archive can hold: 1 to 64 digits and dots that begin with a digit.
///
/// That is wider than PS3.5 section 9.1 (components may carry leading zeros or be empty here), because real
/// files break those rules and must be kept; [`Uid::is_strict`] tells whether a UID follows the Standard.
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

/// Why a text is not a [`Uid`]. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UidError {
    /// No characters are left once padding is taken away.
    #[error("UID is empty")]
    Empty,
    /// More than 64 characters.
    #[error("UID is longer than 64 characters")]
    TooLong,
    /// A character other than a digit or a dot, or a first character other than a digit.
    #[error("UID has a character that is not allowed")]
    BadCharacter,
}

impl Uid {
    /// Reads a UID from the bytes of a UI value: trailing NULs and spaces around it are padding.
    pub fn from_value(value: &[u8]) -> Result<Self, UidError> {
        let start = value.iter().position(|b| *b != b' ').unwrap_or(value.len());
        let end = value.iter().rposition(|b| !matches!(b, 0 | b' ')).map_or(start, |i| i + 1);
        Self::check(value.get(start..end).unwrap_or_default())
    }

    fn check(bytes: &[u8]) -> Result<Self, UidError> {
        if bytes.is_empty() {
            return Err(UidError::Empty);
        }
        if bytes.len() > 64 {
            return Err(UidError::TooLong);
        }
        if !bytes[0].is_ascii_digit() || !bytes.iter().all(|b| b.is_ascii_digit() || *b == b'.') {
            return Err(UidError::BadCharacter);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| UidError::BadCharacter)?;
        Ok(Self(text.into()))
    }

    /// The text, without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the UID keeps every rule of PS3.5 section 9.1: no empty component, no leading zeros.
    pub fn is_strict(&self) -> bool {
        self.0.split('.').all(|part| !part.is_empty() && (part.len() == 1 || !part.starts_with('0')))
    }
}

impl FromStr for Uid {
    type Err = UidError;
    fn from_str(text: &str) -> Result<Self, UidError> {
        Self::check(text.as_bytes())
    }
}

impl AsRef<str> for Uid {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Uid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Uid {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_part_of_a_uid() {
        assert_eq!(Uid::from_value(b"1.2.3\0").map(|u| u.to_string()), Ok("1.2.3".into()));
        assert_eq!(Uid::from_value(b" 1.2.3 \0").map(|u| u.to_string()), Ok("1.2.3".into()));
        assert_eq!(Uid::from_value(b"\0\0"), Err(UidError::Empty));
        assert_eq!(Uid::from_value(b""), Err(UidError::Empty));
    }

    #[test]
    fn a_path_or_a_long_text_is_no_uid() {
        assert_eq!("../etc".parse::<Uid>(), Err(UidError::BadCharacter));
        assert_eq!(".1".parse::<Uid>(), Err(UidError::BadCharacter));
        assert_eq!("1".repeat(65).parse::<Uid>(), Err(UidError::TooLong));
        assert!("1".repeat(64).parse::<Uid>().is_ok());
    }

    #[test]
    fn lenient_uids_are_told_from_strict_ones() {
        assert!("1.2.840.10008.1.1".parse::<Uid>().is_ok_and(|u| u.is_strict()));
        assert!("1.02.3".parse::<Uid>().is_ok_and(|u| !u.is_strict()));
        assert!("1..3".parse::<Uid>().is_ok_and(|u| !u.is_strict()));
    }
}
