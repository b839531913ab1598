//! Keys from elements and texts.

use super::{Key, MatchOptions, NameTest, Number, Pattern, Range, Test, UnusableKey, Why};
use crate::{
    Tag, Uid, Vr,
    dataset::{DataSet, Element, Value},
    dictionary,
    temporal::{Date, DateTime, Period, Time, UtcOffset},
};

/// Longest text of a key, in bytes; a list of UIDs may be longer.
const TEXT_MAX: usize = 4096;

/// Without the spaces that carry no meaning in this VR (PS3.5 Table 6.2-1, edition 2025c).
pub(super) fn trim(vr: Vr, text: &str) -> &str {
    let padding = [' ', '\0'];
    match vr {
        Vr::LT | Vr::ST | Vr::UT | Vr::UC | Vr::UR => text.trim_end_matches(padding),
        _ => text.trim_matches(padding),
    }
}

impl Key {
    /// Compiles the key that an element of an identifier is.
    ///
    /// # Errors
    /// [`UnusableKey`], also about a key in an item.
    pub fn of_element(element: &Element, options: &MatchOptions) -> Result<Self, UnusableKey> {
        let Element { tag, vr, value } = element;
        let unusable = |why| UnusableKey { tag: *tag, why };
        let whole = |number: i128| Ok(Test::Number(Number::Whole(number)));
        let test = match value {
            Value::Empty => Test::Universal,
            Value::Sequence(items) => Self::item(*tag, items, options)?,
            Value::Text(texts) => texts_test(*tag, *vr, texts, options, None).map_err(unusable)?,
            Value::Unsigned(n) => {
                several(n.len(), n.iter().map(|n| whole((*n).into())), options, *tag, *vr).map_err(unusable)?
            }
            Value::Signed(n) => {
                several(n.len(), n.iter().map(|n| whole((*n).into())), options, *tag, *vr).map_err(unusable)?
            }
            Value::Float(n) => several(n.len(), n.iter().map(|n| Ok(Test::Number(Number::of(*n)))), options, *tag, *vr)
                .map_err(unusable)?,
            Value::Tags(n) => {
                several(n.len(), n.iter().map(|n| whole(n.0.into())), options, *tag, *vr).map_err(unusable)?
            }
            // Quotation marks where numbers are expected, padded or not.
            Value::Bytes(bytes) if options.empty_value && bytes.trim_ascii_end() == b"\"\"" => Test::Empty,
            Value::Bytes(_) => return Err(unusable(Why::NotMatchable)),
        };
        Ok(Self { tag: *tag, vr: *vr, test })
    }

    /// Compiles a key from the text of a query parameter. Several values are separated by backslashes; UIDs by
    /// commas too (PS3.18 section 8.3.4.1).
    ///
    /// # Errors
    /// [`UnusableKey`].
    pub fn of_text(tag: Tag, vr: Vr, text: &str, options: &MatchOptions) -> Result<Self, UnusableKey> {
        let unusable = |why| UnusableKey { tag, why };
        let test = match Value::text(vr, &if vr == Vr::UI { text.replace(',', "\\") } else { text.to_owned() }) {
            Value::Text(texts) => texts_test(tag, vr, &texts, options, None).map_err(unusable)?,
            _ => Test::Universal,
        };
        Ok(Self { tag, vr, test })
    }

    /// The key under a time zone other than the assumed one.
    pub(super) fn of_element_at(
        element: &Element,
        options: &MatchOptions,
        offset: Option<UtcOffset>,
    ) -> Result<Self, UnusableKey> {
        match &element.value {
            Value::Text(texts) if element.vr == Vr::DT => {
                let test = texts_test(element.tag, element.vr, texts, options, offset)
                    .map_err(|why| UnusableKey { tag: element.tag, why })?;
                Ok(Self { tag: element.tag, vr: element.vr, test })
            }
            _ => Self::of_element(element, options),
        }
    }

    fn item(tag: Tag, items: &[DataSet], options: &MatchOptions) -> Result<Test, UnusableKey> {
        match items {
            [] => Ok(Test::Universal),
            [item] => {
                let keys = item.elements().iter().map(|e| Self::of_element(e, options));
                let keys: Vec<Self> =
                    keys.filter(|key| key.as_ref().map_or(true, |k| !k.is_universal())).collect::<Result<_, _>>()?;
                Ok(if keys.is_empty() { Test::Universal } else { Test::Item(keys) })
            }
            _ => Err(UnusableKey { tag, why: Why::SeveralItems }),
        }
    }
}

/// One value as it is; several by what was negotiated.
fn several(
    len: usize,
    mut tests: impl Iterator<Item = Result<Test, Why>>,
    options: &MatchOptions,
    tag: Tag,
    vr: Vr,
) -> Result<Test, Why> {
    if len <= 1 {
        return tests.next().unwrap_or(Ok(Test::Universal));
    }
    let tests: Vec<Test> = tests.collect::<Result<_, _>>()?;
    let listed = matches!(vr, Vr::AE | Vr::AS | Vr::AT | Vr::CS | Vr::LO | Vr::PN | Vr::SH | Vr::UC);
    let many = dictionary::vm(tag).is_none_or(|vm| vm != "1");
    if options.multiple_values && listed && many {
        let wild = tests.iter().any(|t| match t {
            Test::Wildcard(_) => true,
            Test::Name(NameTest::Groups(groups)) => {
                groups.iter().any(|g| matches!(g, super::GroupTest::Wildcard { .. }))
            }
            _ => false,
        });
        return if wild { Err(Why::WildcardNotAllowed) } else { Ok(Test::All(tests)) };
    }
    Ok(Test::Any(tests))
}

fn texts_test(
    tag: Tag,
    vr: Vr,
    texts: &[String],
    options: &MatchOptions,
    offset: Option<UtcOffset>,
) -> Result<Test, Why> {
    let bare: Vec<&str> = texts.iter().map(|text| trim(vr, text)).filter(|text| !text.is_empty()).collect();
    if bare.iter().any(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
        return Err(Why::NotDecodable);
    }
    match bare.as_slice() {
        [] => return Ok(Test::Universal),
        [only] if only.bytes().all(|b| b == b'*') => return Ok(Test::Universal),
        [only] if options.empty_value && *only == "\"\"" => return Ok(Test::Empty),
        _ => {}
    }
    if vr == Vr::UI {
        if bare.iter().any(|text| text.contains(['*', '?'])) {
            return Err(Why::WildcardNotAllowed);
        }
        let mut uids: Vec<Uid> =
            bare.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|_| Why::BadUid)?;
        uids.sort_unstable();
        uids.dedup();
        return Ok(Test::Uids(uids));
    }
    if bare.iter().any(|text| text.len() > TEXT_MAX) {
        return Err(Why::TooLong);
    }
    let assumed = options.assumed_offset;
    let one = |text: &&str| match single(vr, text, options, offset.or(assumed))? {
        // Beside other values, one that matches all would make the others void.
        Test::Universal if bare.len() > 1 => Err(Why::WildcardNotAllowed),
        test => Ok(test),
    };
    several(bare.len(), bare.iter().map(one), options, tag, vr)
}

/// The test of one value that is neither empty nor `*`.
fn single(vr: Vr, text: &str, options: &MatchOptions, offset: Option<UtcOffset>) -> Result<Test, Why> {
    let wild = text.contains(['*', '?']);
    match vr {
        Vr::PN => {
            let test = NameTest::parse(text, options.fuzzy_person_names)?;
            Ok(if test.is_universal() { Test::Universal } else { Test::Name(test) })
        }
        Vr::AE | Vr::CS | Vr::LO | Vr::LT | Vr::SH | Vr::ST | Vr::UC | Vr::UR | Vr::UT => Ok(match wild {
            false => Test::Exact(text.to_owned()),
            true if text.bytes().all(|b| b == b'*') => Test::Universal,
            true => Test::Wildcard(Pattern::new(text.to_owned())),
        }),
        _ if wild => Err(Why::WildcardNotAllowed),
        Vr::AS => Ok(Test::Exact(text.to_owned())),
        Vr::DA => range(text, Date::parse, Why::BadDate).map(Test::Dates),
        Vr::TM => range(text, Time::parse, Why::BadTime).map(Test::Times),
        Vr::DT => {
            let at = |offset| range(text, |text| DateTime::parse(text, offset), Why::BadDateTime);
            let found = at(offset)?;
            // Without any offset the range is in local time, whatever that is; with its own it is not.
            let local = offset.is_none() && at(UtcOffset::parse("+0100")) != Ok(found);
            Ok(Test::DateTimes { range: found, assumed: options.assumed_offset, local })
        }
        Vr::IS | Vr::DS | Vr::US | Vr::UL | Vr::UV | Vr::SS | Vr::SL | Vr::SV | Vr::FL | Vr::FD => {
            let number = Number::parse(text).ok_or(Why::BadNumber)?;
            let float = matches!(vr, Vr::DS | Vr::FL | Vr::FD);
            if float || matches!(number, Number::Whole(_)) { Ok(Test::Number(number)) } else { Err(Why::BadNumber) }
        }
        Vr::AT => {
            let tag = Tag::parse_hex(text).ok_or(Why::BadNumber)?;
            Ok(Test::Number(Number::Whole(tag.0.into())))
        }
        _ => Err(Why::NotMatchable),
    }
}

/// A value or a range of values; a hyphen also begins the offset of a date-time, which reading it decides.
fn range<T: Ord + Copy>(text: &str, parse: impl Fn(&str) -> Option<Period<T>>, bad: Why) -> Result<Range<T>, Why> {
    if let Some(period) = parse(text) {
        return Ok(Range { from: Some(period.first), to: Some(period.last) });
    }
    let mut why = bad;
    for (at, _) in text.match_indices('-') {
        let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        let (before, after) = (before.trim(), after.trim());
        let from = if before.is_empty() { Some(None) } else { parse(before).map(|period| Some(period.first)) };
        let to = if after.is_empty() { Some(None) } else { parse(after).map(|period| Some(period.last)) };
        match (from, to) {
            (Some(None), Some(None)) => {}
            (Some(Some(from)), Some(Some(to))) if from > to => why = Why::ReversedRange,
            (Some(from), Some(to)) => return Ok(Range { from, to }),
            _ => {}
        }
    }
    Err(why)
}
