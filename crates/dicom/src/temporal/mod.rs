//! Dates and times as comparable numbers (DA, TM, DT: PS3.5 Table 6.2-1, edition 2025c).
//!
//! Values may be partial (`1030` is a minute, `195803` a month): they are read as the period that they name. The
//! forms of ACR-NEMA 300 (`1958.03.14`, `10:30:00`) are read too.

#[cfg(test)]
mod tests;

use std::fmt;

/// A day: its digits `YYYYMMDD` as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(u32);

/// A time of day: microseconds since midnight. A leap second counts as the first second of the next minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

/// A point in time: microseconds since 1970-01-01 00:00, in UTC if the offset from UTC is known, else local.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime(i64);

/// Offset from UTC in minutes, -720 to 840 (PS3.3 section C.12.1.1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcOffset(i16);

/// From the first to the last instant that a value of limited precision can mean, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period<T> {
    /// The first; what a stored value is sorted and found by.
    pub first: T,
    /// The last.
    pub last: T,
}

const MICROS_PER_SECOND: u64 = 1_000_000;
const MICROS_PER_MINUTE: i64 = 60_000_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;

impl Date {
    /// The day of a calendar that exists.
    pub fn new(year: u32, month: u32, day: u32) -> Option<Self> {
        (year <= 9999 && (1..=12).contains(&month) && day >= 1 && day <= days_of(year, month))
            .then_some(Self(year * 10_000 + month * 100 + day))
    }

    /// Reads `YYYYMMDD`, its beginnings `YYYY` and `YYYYMM`, and `YYYY.MM.DD`. Spaces around it do not count.
    pub fn parse(text: &str) -> Option<Period<Self>> {
        let text = trim(text);
        let bytes = text.as_bytes();
        if let [y @ .., b'.', m1, m2, b'.', d1, d2] = bytes {
            let date = Self::new(number(y, 4)?, number(&[*m1, *m2], 2)?, number(&[*d1, *d2], 2)?)?;
            return Some(Period { first: date, last: date });
        }
        let year = number(bytes.get(..4)?, 4)?;
        match bytes.len() {
            4 => Some(Period { first: Self::new(year, 1, 1)?, last: Self::new(year, 12, 31)? }),
            6 => {
                let month = number(bytes.get(4..)?, 2)?;
                let last = Self::new(year, month, (1..=12).contains(&month).then(|| days_of(year, month))?)?;
                Some(Period { first: Self::new(year, month, 1)?, last })
            }
            8 => {
                let date = Self::new(year, number(bytes.get(4..6)?, 2)?, number(bytes.get(6..)?, 2)?)?;
                Some(Period { first: date, last: date })
            }
            _ => None,
        }
    }

    /// `YYYYMMDD` as a number.
    pub const fn as_number(self) -> u32 {
        self.0
    }

    /// Year, month and day.
    pub const fn parts(self) -> (u32, u32, u32) {
        (self.0 / 10_000, self.0 / 100 % 100, self.0 % 100)
    }

    /// Days since 1970-01-01 in the Gregorian calendar.
    pub fn days(self) -> i64 {
        let (year, month, day) = self.parts();
        // The year starts in March, so that the leap day is its last.
        let year = i64::from(year) - i64::from(month < 3);
        let month = i64::from((month + 9) % 12);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }

    /// The day that is so many days after 1970-01-01.
    pub fn of_days(days: i64) -> Option<Self> {
        let days = days + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
        let year = year + era * 400 + i64::from(month < 3);
        Self::new(u32::try_from(year).ok()?, u32::try_from(month).ok()?, u32::try_from(day).ok()?)
    }
}

fn days_of(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Time {
    /// Reads `HHMMSS.FFFFFF` and its beginnings from `HH` on, and `HH:MM:SS.FFFFFF` likewise.
    pub fn parse(text: &str) -> Option<Period<Self>> {
        let text = trim(text);
        let bytes = text.as_bytes();
        if let [h1, h2, b':', m1, m2] = bytes {
            return Self::parse_digits(&[*h1, *h2, *m1, *m2], None);
        }
        if let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = bytes {
            let fraction = match rest {
                [] => None,
                [b'.', fraction @ ..] => Some(fraction),
                _ => return None,
            };
            return Self::parse_digits(&[*h1, *h2, *m1, *m2, *s1, *s2], fraction);
        }
        match bytes.iter().position(|b| *b == b'.') {
            Some(at) => Self::parse_digits(bytes.get(..at)?, Some(bytes.get(at + 1..)?)),
            None => Self::parse_digits(bytes, None),
        }
    }

    fn parse_digits(digits: &[u8], fraction: Option<&[u8]>) -> Option<Period<Self>> {
        let two = |at: usize| digits.get(at..at + 2).map_or(Some(0), |pair| number(pair, 2));
        let (hour, minute, second) = (two(0)?, two(2)?, two(4)?);
        if !matches!(digits.len(), 2 | 4 | 6) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (fraction, unit) = match fraction {
            None => (0, [3_600, 60, 1][digits.len() / 2 - 1] * MICROS_PER_SECOND),
            Some(_) if digits.len() < 6 => return None,
            // A point with nothing behind it, as some devices write.
            Some([]) => (0, MICROS_PER_SECOND),
            Some(fraction) => {
                let kept = fraction.get(..fraction.len().min(6))?;
                if !fraction.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                let unit = 10u64.pow(6 - kept.len() as u32);
                (u64::from(number(kept, kept.len())?) * unit, unit)
            }
        };
        let first = u64::from(hour * 3_600 + minute * 60 + second) * MICROS_PER_SECOND + fraction;
        Some(Period { first: Self(first), last: Self(first + unit - 1) })
    }

    /// Microseconds since midnight.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The first instant of a day.
    pub const START_OF_DAY: Self = Self(0);
    /// The last instant of a day without a leap second.
    pub const END_OF_DAY: Self = Self(MICROS_PER_DAY as u64 - 1);
}

impl UtcOffset {
    /// UTC itself.
    pub const ZERO: Self = Self(0);

    /// Reads `+HHMM` or `-HHMM`, as in (0008,0201) and behind a DT.
    pub fn parse(text: &str) -> Option<Self> {
        let text = trim(text);
        let (sign, digits) = match text.as_bytes() {
            [b'+', digits @ ..] => (1, digits),
            [b'-', digits @ ..] => (-1, digits),
            _ => return None,
        };
        let digits = digits.first_chunk::<4>().filter(|_| digits.len() == 4)?;
        let (hours, minutes) = (number(&digits[..2], 2)?, number(&digits[2..], 2)?);
        let offset = sign * i16::try_from(hours * 60 + minutes).ok()?;
        (minutes < 60 && (-720..=840).contains(&offset)).then_some(Self(offset))
    }

    /// Minutes east of UTC.
    pub const fn minutes(self) -> i16 {
        self.0
    }
}

impl DateTime {
    /// The point at which clocks at this offset show this day and time; without an offset, in local time.
    pub fn new(date: Date, time: Time, offset: Option<UtcOffset>) -> Self {
        let offset = offset.map_or(0, |offset| i64::from(offset.0));
        let micros = i64::try_from(time.0).unwrap_or(0);
        Self(date.days() * MICROS_PER_DAY + micros - offset * MICROS_PER_MINUTE)
    }

    /// Reads `YYYYMMDDHHMMSS.FFFFFF&ZZXX` and its beginnings from `YYYY` on. Without an offset of its own the
    /// value has `offset`.
    pub fn parse(text: &str, offset: Option<UtcOffset>) -> Option<Period<Self>> {
        let text = trim(text);
        let (local, offset) = match text.len().checked_sub(5).and_then(|at| text.split_at_checked(at)) {
            Some((local, zone)) if zone.starts_with(['+', '-']) => (local, Some(UtcOffset::parse(zone)?)),
            _ => (text, offset),
        };
        if local.contains([':', ' ', '\0']) {
            return None;
        }
        let date = local.get(..local.len().min(8))?;
        // The forms of ACR-NEMA are those of dates alone.
        let days = Date::parse(date).filter(|_| !date.contains('.'))?;
        let day = |day: Date, time: Time| Self::new(day, time, offset);
        match local.get(8..).filter(|time| !time.is_empty()) {
            None => Some(Period { first: day(days.first, Time::START_OF_DAY), last: day(days.last, Time::END_OF_DAY) }),
            Some(time) => {
                let time = Time::parse(time)?;
                Some(Period { first: day(days.first, time.first), last: day(days.last, time.last) })
            }
        }
    }

    /// Microseconds since 1970-01-01 00:00.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Day and time on clocks at this offset; `None` outside the years 0 to 9999.
    pub fn at(self, offset: UtcOffset) -> Option<(Date, Time)> {
        let local = self.0 + i64::from(offset.0) * MICROS_PER_MINUTE;
        let date = Date::of_days(local.div_euclid(MICROS_PER_DAY))?;
        Some((date, Time(u64::try_from(local.rem_euclid(MICROS_PER_DAY)).ok()?)))
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\0'])
}

/// Exactly `len` digits as a number.
fn number(digits: &[u8], len: usize) -> Option<u32> {
    (digits.len() == len && digits.iter().all(u8::is_ascii_digit))
        .then(|| digits.iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0')))
}

/// `YYYYMMDD`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

/// `HHMMSS.FFFFFF`: text order is the order of times.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / MICROS_PER_SECOND;
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{hour:02}{minute:02}{second:02}.{:06}", self.0 % MICROS_PER_SECOND)
    }
}

/// `YYYYMMDDHHMMSS.FFFFFF` without an offset: text order is the order of times.
impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at(UtcOffset::ZERO) {
            Some((date, time)) => write!(f, "{date}{time}"),
            None => Err(fmt::Error),
        }
    }
}

/// `+HHMM`, as in (0008,0201).
impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, minutes) = (if self.0 < 0 { '-' } else { '+' }, self.0.unsigned_abs());
        write!(f, "{sign}{:02}{:02}", minutes / 60, minutes % 60)
    }
}
