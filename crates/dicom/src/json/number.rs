//! Numbers, as JSON has them and as readers of double precision get them back.

use std::io::Write;

use super::text;

/// Whole numbers up to this are exact in double precision.
const EXACT_MAX: u64 = 1 << 53;

/// Digits that any decimal number can have and still come back from double precision.
const EXACT_DIGITS: usize = 15;

static PAIRS: [[u8; 2]; 100] = {
    let mut table = [[b'0'; 2]; 100];
    let mut n = 0;
    while n < 100 {
        table[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    table
};

/// A number, or a string if it is too large to be exact.
#[inline]
pub(super) fn unsigned(out: &mut Vec<u8>, number: u64) {
    if number > EXACT_MAX {
        let _ = write!(out, "\"{number}\"");
    } else {
        digits(out, number);
    }
}

/// As [`unsigned`].
#[inline]
pub(super) fn signed(out: &mut Vec<u8>, number: i64) {
    if number.unsigned_abs() > EXACT_MAX {
        let _ = write!(out, "\"{number}\"");
        return;
    }
    if number < 0 {
        out.push(b'-');
    }
    digits(out, number.unsigned_abs());
}

#[inline]
fn digits(out: &mut Vec<u8>, mut number: u64) {
    let mut buffer = [0; 20];
    let mut at = buffer.len();
    while number >= 100 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
    }
    let [tens, ones] = PAIRS[number as usize];
    at -= 1;
    buffer[at] = ones;
    if number >= 10 {
        at -= 1;
        buffer[at] = tens;
    }
    out.extend_from_slice(&buffer[at..]);
}

/// The shortest decimal form that comes back as this single; a string if it is no finite number.
pub(super) fn single(out: &mut Vec<u8>, number: f32) {
    let size = number.abs();
    let _ = match size {
        _ if !number.is_finite() => return not_finite(out, number.into()),
        1.0..1e6 if number.fract() == 0.0 => return signed(out, number as i64),
        1e-5..1e9 => write!(out, "{number}"),
        0.0 => write!(out, "{number}"),
        _ => write!(out, "{number:e}"),
    };
}

/// As [`single`], for a double.
pub(super) fn double(out: &mut Vec<u8>, number: f64) {
    let size = number.abs();
    let _ = match size {
        _ if !number.is_finite() => return not_finite(out, number),
        1.0..1e15 if number.fract() == 0.0 => return signed(out, number as i64),
        1e-5..1e17 => write!(out, "{number}"),
        0.0 => write!(out, "{number}"),
        _ => write!(out, "{number:e}"),
    };
}

fn not_finite(out: &mut Vec<u8>, number: f64) {
    let text = match number {
        _ if number.is_nan() => "\"NaN\"",
        _ if number > 0.0 => "\"Infinity\"",
        _ => "\"-Infinity\"",
    };
    out.extend_from_slice(text.as_bytes());
}

/// Whether values that backslashes separate are, each of them, a JSON number that is exact: by far the most are.
#[inline]
pub(super) fn are_plain(text: &[u8]) -> bool {
    let digits_from = |from: usize| {
        let mut at = from;
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut at = 0;
    loop {
        at += usize::from(text.get(at) == Some(&b'-'));
        let start = at;
        at = digits_from(start);
        let zeros = at - start > 1 && text.get(start) == Some(&b'0');
        if at == start || zeros {
            return false;
        }
        if text.get(at) == Some(&b'.') {
            let point = at + 1;
            at = digits_from(point);
            if at == point {
                return false;
            }
        }
        // The point counts as a digit here: fewer than can be exact is well enough.
        if at - start > EXACT_DIGITS {
            return false;
        }
        match text.get(at) {
            None => return true,
            Some(b'\\') => at += 1,
            Some(_) => return false,
        }
    }
}

/// A DS or IS without padding behind: a number if that is exact, else a string.
pub(super) fn decimal(out: &mut Vec<u8>, text: &[u8]) {
    let text = super::unindent(text);
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    // Digits, point and exponent: JSON wants a digit on both sides of the point and no leading zeros.
    let whole_len = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (whole, rest) = unsigned.split_at(whole_len);
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count()),
        _ => (&[][..], rest),
    };
    let zeros = whole.iter().take_while(|byte| **byte == b'0').count();
    let whole = whole.get(zeros..).unwrap_or_default();
    if whole_len + fraction.len() == 0 || !(rest.is_empty() || is_exponent(rest)) {
        return text::quoted(out, text);
    }
    if (whole.len() + fraction.len() > EXACT_DIGITS || !rest.is_empty()) && !is_exact(text, whole, fraction) {
        return text::quoted(out, text);
    }
    if negative {
        out.push(b'-');
    }
    out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    out.extend_from_slice(rest);
}

fn is_exponent(text: &[u8]) -> bool {
    let digits = match text {
        [b'e' | b'E', b'+' | b'-', digits @ ..] | [b'e' | b'E', digits @ ..] => digits,
        _ => return false,
    };
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// Whether the shortest form of the nearest double has the same significant digits.
fn is_exact(text: &[u8], whole: &[u8], fraction: &[u8]) -> bool {
    let Some(number) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()) else { return false };
    let bare = |digits: &mut dyn Iterator<Item = u8>| {
        let digits: Vec<u8> = digits.skip_while(|byte| *byte == b'0').collect();
        let end = digits.iter().rposition(|byte| *byte != b'0').map_or(0, |at| at + 1);
        digits.get(..end).unwrap_or_default().to_vec()
    };
    let shortest = format!("{:e}", number.abs());
    let mantissa = shortest.split('e').next().unwrap_or_default();
    number.is_finite()
        && bare(&mut mantissa.bytes().filter(u8::is_ascii_digit)) == bare(&mut whole.iter().chain(fraction).copied())
}
