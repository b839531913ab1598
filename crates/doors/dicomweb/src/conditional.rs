//! Conditional and range requests (RFC 9110 sections 13 and 14).

use axum::http::{HeaderMap, header};
use std::ops::Range;

/// Whether `If-None-Match` names this entity tag.
pub(crate) fn not_modified(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let own = opaque(etag);
    let mut values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.trim() == "*" || value.split(',').any(|tag| opaque(tag) == own))
}

/// What of a representation is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that it does not have.
    Unsatisfiable,
}

/// Reads `Range` for a representation of `length` bytes. What is not one range of bytes is passed over, as is a range
/// of another version (`If-Range`).
pub(crate) fn wanted(headers: &HeaderMap, etag: Option<&str>, length: u64) -> Wanted {
    let field = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let Some(spec) = field(header::RANGE).and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    if field(header::IF_RANGE).is_some_and(|tag| Some(tag.trim()) != etag) {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::Whole;
    };
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten()
    };
    let range = match (first.trim().is_empty(), last.trim().is_empty()) {
        (true, false) => number(last).map(|suffix| length.saturating_sub(suffix)..length),
        (false, true) => number(first).map(|first| first..length),
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Some(first..last.saturating_add(1).min(length)),
            _ => None,
        },
        (true, true) => None,
    };
    match range {
        None => Wanted::Whole,
        Some(range) if range.start >= length || range.is_empty() => Wanted::Unsatisfiable,
        Some(range) => Wanted::Part(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(header::HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header value"))).collect()
    }

    #[test]
    fn ranges() {
        let range = |text| wanted(&headers(&[(header::RANGE, text)]), None, 100);
        for (text, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=10-19", Wanted::Part(10..20)),
            ("bytes=90-", Wanted::Part(90..100)),
            ("bytes=90-500", Wanted::Part(90..100)),
            ("bytes=-10", Wanted::Part(90..100)),
            ("bytes=-500", Wanted::Part(0..100)),
            ("bytes=0-18446744073709551615", Wanted::Part(0..100)),
            ("bytes=100-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=200-300", Wanted::Unsatisfiable),
            ("bytes=9-1", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=99999999999999999999-", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("nonsense", Wanted::Whole),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
        assert_eq!(wanted(&headers(&[(header::RANGE, "bytes=0-")]), None, 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn a_range_of_another_version_is_not_given() {
        let ask = |tag| headers(&[(header::RANGE, "bytes=0-9"), (header::IF_RANGE, tag)]);
        assert_eq!(wanted(&ask("\"a\""), Some("\"a\""), 100), Wanted::Part(0..10));
        assert_eq!(wanted(&ask("\"b\""), Some("\"a\""), 100), Wanted::Whole);
        assert_eq!(wanted(&ask("Wed, 21 Oct 2015 07:28:00 GMT"), Some("\"a\""), 100), Wanted::Whole);
    }

    #[test]
    fn entity_tags() {
        let match_of = |value| not_modified(&headers(&[(header::IF_NONE_MATCH, value)]), "\"a\"");
        assert!(match_of("\"a\"") && match_of("W/\"a\"") && match_of("\"b\", \"a\"") && match_of("*"));
        assert!(!match_of("\"b\"") && !match_of("a b") && !not_modified(&HeaderMap::new(), "\"a\""));
    }
}
