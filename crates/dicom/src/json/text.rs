//! Strings, names, tags and base64.

use crate::Vr;

/// Two hexadecimal digits for each byte.
pub(super) static HEX: [[u8; 2]; 256] = {
    let digits = *b"0123456789ABCDEF";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

/// What stands behind a backslash for each byte: 0 for those that need none, `u` for those without a short form.
static ESCAPE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x7F] = b'u';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[0x08] = b'b';
    table[0x0C] = b'f';
    table
};

/// The letters of each VR, by its number.
pub(super) static VR: [[u8; 2]; Vr::ALL.len()] = {
    let mut table = [[0; 2]; Vr::ALL.len()];
    let mut at = 0;
    while at < Vr::ALL.len() {
        let letters = Vr::ALL[at].as_str().as_bytes();
        table[Vr::ALL[at] as usize] = [letters[0], letters[1]];
        at += 1;
    }
    table
};

/// What a text needs before it is a JSON string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// Nothing: ASCII from the space on, without quotation mark, backslash and DEL.
    Plain,
    /// As `Plain`, but for backslashes.
    Backslashes,
    /// Something else.
    Other,
}

/// Looks at eight bytes at a time.
#[inline]
pub(super) fn scan(text: &[u8]) -> Scan {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = text.as_chunks::<8>();
    let (mut other, mut backslash) = (0, 0);
    for word in words {
        let word = u64::from_le_bytes(*word);
        other |= odd(word);
        backslash |= equal(word, b'\\');
    }
    if !rest.is_empty() {
        // Spaces are plain: they fill up the last word.
        let mut word = [b' '; 8];
        for (slot, byte) in word.iter_mut().zip(rest) {
            *slot = *byte;
        }
        let word = u64::from_le_bytes(word);
        other |= odd(word);
        backslash |= equal(word, b'\\');
    }
    match (other & HIGH, backslash & HIGH) {
        (0, 0) => Scan::Plain,
        (0, _) => Scan::Backslashes,
        _ => Scan::Other,
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// High bit set if some byte is this one, as long as no byte is above 127.
#[inline]
const fn equal(word: u64, byte: u8) -> u64 {
    (word ^ (ONES * byte as u64)).wrapping_sub(ONES)
}

/// High bit set if some byte is a control character, a quotation mark, DEL or above 127.
#[inline]
const fn odd(word: u64) -> u64 {
    word | word.wrapping_sub(ONES * 0x20) | equal(word, b'"') | equal(word, 0x7F)
}

/// A string from bytes that are UTF-8; should they not be, what is wrong becomes U+FFFD.
#[inline]
pub(super) fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if scan(text) == Scan::Plain {
        out.extend_from_slice(text);
    } else if std::str::from_utf8(text).is_ok() {
        escaped(out, text);
    } else {
        escaped(out, String::from_utf8_lossy(text).as_bytes());
    }
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut from = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape = ESCAPE[usize::from(*byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(text.get(from..at).unwrap_or_default());
        if escape == b'u' {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&HEX[usize::from(*byte)]);
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
        from = at + 1;
    }
    out.extend_from_slice(text.get(from..).unwrap_or_default());
}

/// The object of a person name with the component groups that are there (PS3.18 section F.2.2, edition 2025c).
pub(super) fn name(out: &mut Vec<u8>, name: &[u8]) {
    let keys: [&[u8]; 3] = [b"\"Alphabetic\":", b"\"Ideographic\":", b"\"Phonetic\":"];
    out.push(b'{');
    let mut groups = name.splitn(3, |byte| *byte == b'=');
    for key in keys {
        let group = super::trim(groups.next().unwrap_or_default());
        if group.is_empty() {
            continue;
        }
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        out.extend_from_slice(key);
        quoted(out, group);
    }
    out.push(b'}');
}

/// A tag as a string, from its bytes in the order that it is written in.
#[inline]
pub(super) fn tag(out: &mut Vec<u8>, [a, b, c, d]: [u8; 4]) {
    let mut text = *b"\"00000000\"";
    for (slot, byte) in text[1..9].as_chunks_mut::<2>().0.iter_mut().zip([a, b, c, d]) {
        *slot = HEX[usize::from(byte)];
    }
    out.extend_from_slice(&text);
}

/// Base64 with padding (RFC 4648).
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.reserve(bytes.len().div_ceil(3) * 4);
    let four = |a: u8, b: u8, c: u8| {
        let bits = u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c);
        [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift & 63) as usize])
    };
    let (threes, rest) = bytes.as_chunks::<3>();
    for [a, b, c] in threes {
        out.extend_from_slice(&four(*a, *b, *c));
    }
    match rest {
        [a] => {
            let [w, x, _, _] = four(*a, 0, 0);
            out.extend_from_slice(&[w, x, b'=', b'=']);
        }
        [a, b] => {
            let [w, x, y, _] = four(*a, *b, 0);
            out.extend_from_slice(&[w, x, y, b'=']);
        }
        _ => {}
    }
}
