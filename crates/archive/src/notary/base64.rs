//! Base 64 (RFC 4648 section 4), with padding and without line breaks.

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes bytes as text.
pub fn encode(bytes: &[u8]) -> String {
    let letter = |bits: u32| char::from(LETTERS[(bits & 63) as usize]);
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for index in 0..4 {
            text.push(if index <= three.len() { letter(bits >> (18 - 6 * index)) } else { '=' });
        }
    }
    text
}

/// Reads text; `None` if it is not what [`encode`] writes of some bytes.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let padding = text.bytes().rev().take_while(|letter| *letter == b'=').count();
    let letters = text.as_bytes().get(..text.len().checked_sub(padding)?)?;
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in letters.chunks(4) {
        let bits = four.iter().try_fold(0, |bits, letter| Some(bits << 6 | value(*letter)?))?;
        let bits: u32 = bits << (6 * (4 - four.len()));
        bytes.extend(bits.to_be_bytes().get(1..four.len())?);
    }
    // No second text of the same bytes.
    (encode(&bytes) == text).then_some(bytes)
}

fn value(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_as_in_its_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        for text in
            ["Z", "Zg", "Zg=", "Zh==", "Zm8", "Zm9v=", "Zm9v====", "=", "Z===", "Zm 9", "Zg==Zg==", "Zm9v\n", "Zé=="]
        {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_byte_reads_back(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn no_text_has_two_readings(text in "[A-Za-z0-9+/=]{0,12}") {
            prop_assert!(decode(&text).is_none_or(|bytes| encode(&bytes) == text));
        }
    }
}
