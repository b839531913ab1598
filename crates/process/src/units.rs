//! Durations and sizes as people write them in a configuration: `30s`, `250ms`, `4 MiB`.
//!
//! With serde: `#[serde(with = "cairn_process::units::duration")]` and `units::size`.

use std::{fmt, time::Duration};

/// Why a text is not a duration or a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// No unit, or one that is not known.
    Unit,
    /// No whole number before the unit.
    Number,
    /// Larger than can be held.
    TooLarge,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unit => "unit is missing or unknown",
            Self::Number => "number is missing or not whole",
            Self::TooLarge => "value is too large",
        })
    }
}

impl std::error::Error for UnitError {}

/// Largest first, so that a value is written with the largest unit that divides it.
const DURATIONS_MS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = match number {
        "" => return Err(UnitError::Number),
        number => number.parse().map_err(|_| UnitError::TooLarge)?,
    };
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start()).ok_or(UnitError::Unit)?;
    number.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

fn format(value: u64, units: &[(&str, u64)], space: &str) -> String {
    let fits = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor) && value >= *factor;
    let (name, factor) = units.iter().find(fits).unwrap_or(units.iter().find(|(_, f)| *f == 1).unwrap_or(&units[0]));
    format!("{}{space}{name}", value / factor)
}

/// Reads a duration in `ms`, `s`, `min`, `h` or `d`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &DURATIONS_MS).map(Duration::from_millis)
}

/// Writes a duration, in whole milliseconds.
pub fn format_duration(duration: Duration) -> String {
    match u64::try_from(duration.as_millis()) {
        Ok(0) => "0s".into(),
        Ok(ms) => format(ms, &DURATIONS_MS, ""),
        Err(_) => format(u64::MAX, &DURATIONS_MS, ""),
    }
}

/// Reads a size in `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` or `TB`, as bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZES)
}

/// Writes a number of bytes.
pub fn format_size(bytes: u64) -> String {
    format(bytes, &SIZES[..5], " ")
}

/// `#[serde(with)]` for a [`Duration`].
pub mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    /// Writes it as text with a unit.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*duration))
    }

    /// Reads text with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(|error| D::Error::custom(format!("duration {text:?}: {error}")))
    }
}

/// `#[serde(with)]` for a number of bytes, in any unsigned integer.
pub mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes it as text with a unit.
    pub fn serialize<S: Serializer, N: Copy + TryInto<u64>>(bytes: &N, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_size((*bytes).try_into().unwrap_or(u64::MAX)))
    }

    /// Reads text with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>, N: TryFrom<u64>>(deserializer: D) -> Result<N, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size = super::parse_size(&text).map_err(|error| D::Error::custom(format!("size {text:?}: {error}")))?;
        N::try_from(size).map_err(|_| D::Error::custom(format!("size {text:?}: value is too large")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_back() {
        for (text, duration) in [
            ("250ms", Duration::from_millis(250)),
            ("30s", Duration::from_secs(30)),
            ("90s", Duration::from_secs(90)),
            ("2min", Duration::from_secs(120)),
            ("1d", Duration::from_secs(86_400)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(parse_duration(text), Ok(duration));
            assert_eq!(format_duration(duration), text);
        }
        for (text, bytes) in [("4 MiB", 4 << 20), ("1500 B", 1_500), ("0 B", 0), ("1 TiB", 1 << 40)] {
            assert_eq!(parse_size(text), Ok(bytes));
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(parse_size("2GB"), Ok(2_000_000_000));
    }

    #[test]
    fn a_number_alone_or_an_unknown_unit_is_refused() {
        assert_eq!(parse_duration("30"), Err(UnitError::Unit));
        assert_eq!(parse_duration("s"), Err(UnitError::Number));
        assert_eq!(parse_duration("-1s"), Err(UnitError::Number));
        assert_eq!(parse_size("4 mib"), Err(UnitError::Unit));
        assert_eq!(parse_size("99999999999999999999 B"), Err(UnitError::TooLarge));
        assert_eq!(parse_size("99999999999 TiB"), Err(UnitError::TooLarge));
    }
}
