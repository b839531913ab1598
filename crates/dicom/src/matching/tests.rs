use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{DataSet, dataset::Element, tags};

const PLAIN: MatchOptions = MatchOptions {
    fuzzy_person_names: false,
    combined_date_time: false,
    time_zone_adjustment: false,
    empty_value: false,
    multiple_values: false,
    assumed_offset: None,
};
const FUZZY: MatchOptions = MatchOptions { fuzzy_person_names: true, ..PLAIN };
const MULTIPLE: MatchOptions = MatchOptions { multiple_values: true, ..PLAIN };
const EMPTY: MatchOptions = MatchOptions { empty_value: true, ..PLAIN };

/// A key by text, checked against stored texts; backslashes separate values on both sides.
fn hit_with(options: &MatchOptions, tag: Tag, vr: Vr, key: &str, stored: &str) -> bool {
    let key = Key::of_text(tag, vr, key, options).expect("usable");
    let value = Value::text(vr, stored);
    let found = key.matches(Some(&value));
    assert_eq!(found, key.matches_texts(value.texts()), "both forms of stored values give one answer");
    found
}

fn check(options: &MatchOptions, vr: Vr, table: &[(&str, &str, bool)]) {
    // Attributes with VM 1-n, so that lists mean what they are negotiated to.
    let tag = match vr {
        Vr::PN => tags::OTHER_PATIENT_NAMES,
        Vr::CS => tags::MODALITIES_IN_STUDY,
        _ => tags::OTHER_PATIENT_IDS,
    };
    for (key, stored, expected) in table {
        assert_eq!(hit_with(options, tag, vr, key, stored), *expected, "{vr} key {key:?} stored {stored:?}");
    }
}

fn unusable(options: &MatchOptions, vr: Vr, table: &[(&str, Why)]) {
    for (key, why) in table {
        let tag = tags::OTHER_PATIENT_IDS;
        assert_eq!(Key::of_text(tag, vr, key, options), Err(UnusableKey { tag, why: *why }), "{vr} key {key:?}");
    }
}

#[test]
fn single_values_are_compared_without_padding_and_with_case() {
    check(
        &PLAIN,
        Vr::LO,
        &[
            ("A12", "A12", true),
            ("A12 ", " A12", true),
            ("a12", "A12", false),
            ("A1", "A12", false),
            ("A12", "", false),
            ("A 12", "A12", false),
            ("A12", r"B7\A12", true),
            ("Grün", "Grün", true),
        ],
    );
    check(&PLAIN, Vr::CS, &[("CT", "CT ", true), ("ct", "CT", false), ("CT", r"MR\CT", true)]);
    check(&PLAIN, Vr::LT, &[(r"a\b", r"a\b", true), ("b", r"a\b", false), (" a", " a ", true), ("a", " a", false)]);
    check(&PLAIN, Vr::AE, &[(" STORE", "STORE  ", true)]);
    check(&PLAIN, Vr::AS, &[("045Y", "045Y", true), ("045Y", "540M", false)]);
}

#[test]
fn an_empty_value_and_a_star_match_everything() {
    for vr in [Vr::LO, Vr::PN, Vr::DA, Vr::TM, Vr::DT, Vr::UI, Vr::IS, Vr::US, Vr::AS] {
        for key in ["", " ", "*", "**", "* "] {
            let key = Key::of_text(tags::PATIENT_ID, vr, key, &PLAIN).expect("usable");
            assert!(key.is_universal(), "{vr}");
            assert!(key.matches(None) && key.matches(Some(&Value::Empty)));
        }
    }
    assert!(Key::of_text(tags::PATIENT_NAME, Vr::PN, "*=*", &PLAIN).is_ok_and(|key| key.is_universal()));
}

#[test]
fn wildcards() {
    check(
        &PLAIN,
        Vr::LO,
        &[
            ("CH*", "CHEST", true),
            ("ch*", "CHEST", false),
            ("*ST", "CHEST", true),
            ("*HES*", "CHEST", true),
            ("C?EST", "CHEST", true),
            ("C?ST", "CHEST", false),
            ("?HEST", "CHEST", true),
            ("CHEST?", "CHEST", false),
            ("CHEST*", "CHEST", true),
            ("*A*B*C*", "xAyBzC", true),
            ("*A*B*C*", "xAyCzB", false),
            ("*ab", "aaab", true),
            ("*a?c*", "xxabxabc", true),
            ("?", "ü", true),
            ("??", "ü", false),
            ("*漢?", "山漢字", true),
            ("*", "", true),
            ("?*", "", false),
            ("CH*", r"PA\CHEST", true),
        ],
    );
    check(&PLAIN, Vr::UT, &[(r"*\b*", r"a\bc", true)]);
    for vr in [Vr::DA, Vr::TM, Vr::DT, Vr::IS, Vr::DS, Vr::AS, Vr::US, Vr::FD, Vr::AT] {
        unusable(&PLAIN, vr, &[("2*", Why::WildcardNotAllowed), ("2?", Why::WildcardNotAllowed)]);
    }
}

#[test]
fn lists_of_uids() {
    check(
        &PLAIN,
        Vr::UI,
        &[
            ("1.2.3", "1.2.3\0", true),
            ("1.2.3", "1.2.30", false),
            (r"1.2.4\1.2.3", "1.2.3", true),
            ("1.2.4,1.2.3", "1.2.3", true),
            (r"1.2.4\1.2.5", "1.2.3", false),
            (r"1.2.4\", "1.2.3", false),
            ("1.2.3", r"9.9\1.2.3", true),
        ],
    );
    unusable(
        &PLAIN,
        Vr::UI,
        &[
            ("1.2.*", Why::WildcardNotAllowed),
            ("abc", Why::BadUid),
            (r"1.2\x", Why::BadUid),
            (r"1.2\*", Why::WildcardNotAllowed),
            ("1.2'; DROP", Why::BadUid),
            ("\"\"", Why::BadUid),
        ],
    );
    let key = Key::of_text(tags::STUDY_INSTANCE_UID, Vr::UI, r"1.3\1.2\1.3", &PLAIN).expect("usable");
    assert!(matches!(key.test, Test::Uids(uids) if uids.len() == 2));
}

#[test]
fn ranges_of_dates() {
    check(
        &PLAIN,
        Vr::DA,
        &[
            ("20240115", "20240115", true),
            ("20240115", "2024.01.15", true),
            ("2024.01.15", "20240115", true),
            ("20240115", "20240116", false),
            ("20240101-20240131", "20240101", true),
            ("20240101-20240131", "20240131", true),
            ("20240101-20240131", "20240201", false),
            ("20240101 - 20240131", "20240115", true),
            ("2024.01.01-2024.01.31", "20240115", true),
            ("-20240131", "19000101", true),
            ("-20240131", "20240201", false),
            ("20240101-", "20991231", true),
            ("20240101-", "20231231", false),
            ("202401", "20240131", true),
            ("202401-202402", "20240229", true),
            ("202401-202402", "20240301", false),
            ("20240101-", "", false),
            ("20240101-", "unknown", false),
            ("-20240131", "00000000", false),
            (r"20240101\20240103", "20240103", true),
        ],
    );
    unusable(
        &PLAIN,
        Vr::DA,
        &[
            ("20240230", Why::BadDate),
            ("20240131-20240101", Why::ReversedRange),
            ("-", Why::BadDate),
            ("today", Why::BadDate),
            ("20240101-x", Why::BadDate),
            ("2024-01-01-", Why::BadDate),
            ("20240101-20240102-20240103", Why::BadDate),
            ("\"\"", Why::BadDate),
        ],
    );
}

#[test]
fn ranges_of_times() {
    check(
        &PLAIN,
        Vr::TM,
        &[
            ("101530", "101530", true),
            ("101530", "101530.25", true),
            ("101530.25", "101530", false),
            ("1015", "10:15:59", true),
            ("10", "105959.999", true),
            ("10", "110000", false),
            ("1000-1059", "105930", true),
            ("1000-1059", "110000", false),
            ("-1000", "000000", true),
            ("1000-", "235959.9", true),
            ("1000-", "0959", false),
            ("10:00:00-11:00:00", "103000", true),
        ],
    );
    unusable(
        &PLAIN,
        Vr::TM,
        &[
            ("2200-0400", Why::ReversedRange),
            ("25", Why::BadTime),
            ("noon", Why::BadTime),
            ("1000-1100-1200", Why::BadTime),
        ],
    );
}

#[test]
fn ranges_of_date_times() {
    let berlin = MatchOptions { assumed_offset: UtcOffset::parse("+0100"), ..PLAIN };
    let both = [
        ("20240115103000", "20240115103000.5", true),
        ("20240115", "20240115235959", true),
        ("20240115-20240116", "20240116120000", true),
        ("20240115-", "20240114235959", false),
        ("-20240115", "20240115235959", true),
        ("20240115120000+0100-20240115130000+0100", "20240115113000+0000", true),
        ("20240115120000+0100-20240115130000+0100", "20240115123000+0000", false),
        ("20240101-0500", "20240101050000+0000", true),
        ("20240101-0500", "20240101045959+0000", false),
        ("20240101-0500-", "20250101", true),
        ("20240101-0500-20240102-0500", "20240102+0000", true),
        ("-20240101-0500", "20240102045959+0000", true),
        ("2024-2025", "20250601", true),
    ];
    check(&PLAIN, Vr::DT, &both);
    check(&berlin, Vr::DT, &both);
    check(
        &berlin,
        Vr::DT,
        &[
            ("20240115120000", "20240115110000+0000", true),
            ("20240115120000+0000", "20240115130000", true),
            ("20240115120000+0000", "20240115120000", false),
        ],
    );
    unusable(
        &PLAIN,
        Vr::DT,
        &[
            ("20240116-20240115", Why::ReversedRange),
            ("-", Why::BadDateTime),
            ("2024011", Why::BadDateTime),
            ("20240115+2500", Why::BadDateTime),
        ],
    );
}

#[test]
fn numbers_are_compared_as_numbers() {
    check(
        &PLAIN,
        Vr::IS,
        &[("7", "007", true), ("+7", " 7 ", true), ("7", "8", false), ("7", r"1\7", true), ("7", "x", false)],
    );
    check(&PLAIN, Vr::DS, &[("1.5", "1.50", true), ("1e3", "1000", true), ("1.5", "1.6", false), ("2", "2.0", true)]);
    unusable(&PLAIN, Vr::IS, &[("1.5", Why::BadNumber), ("x", Why::BadNumber)]);
    unusable(
        &PLAIN,
        Vr::DS,
        &[("nan", Why::BadNumber), ("inf", Why::BadNumber), ("1,5", Why::BadNumber), ("1-2", Why::BadNumber)],
    );
    let key = |vr, text| Key::of_text(tags::ROWS, vr, text, &PLAIN).expect("usable");
    assert!(key(Vr::US, "512").matches(Some(&Value::Unsigned(vec![1, 512]))));
    assert!(!key(Vr::US, "512").matches(Some(&Value::Unsigned(vec![511]))));
    assert!(key(Vr::SL, "-5").matches(Some(&Value::Signed(vec![-5]))));
    assert!(key(Vr::UV, "18446744073709551615").matches(Some(&Value::Unsigned(vec![u64::MAX]))));
    assert!(key(Vr::FL, "0.1").matches(Some(&Value::Float(vec![f64::from(0.1f32)]))));
    assert!(!key(Vr::FD, "0.1").matches(Some(&Value::Float(vec![f64::from(0.1f32)]))));
    assert!(key(Vr::AT, "00181063").matches(Some(&Value::Tags(vec![tags::FRAME_TIME]))));
    assert!(key(Vr::US, "512").matches_texts(&["512"]));
    assert!(key(Vr::AT, "00181063").matches_texts(&["00181063"]));
    assert_eq!(Key::of_text(tags::PIXEL_DATA, Vr::OW, "x", &PLAIN).map_err(|e| e.why), Err(Why::NotMatchable));
    assert_eq!(Key::of_text(tags::ROWS, Vr::UN, "x", &PLAIN).map_err(|e| e.why), Err(Why::NotMatchable));
}

#[test]
fn names_without_case_and_by_component_group() {
    check(
        &PLAIN,
        Vr::PN,
        &[
            ("doe^john", "Doe^John", true),
            ("DOE^JOHN", "Doe^John^^^", true),
            ("Doe^John^^", "Doe^John", true),
            ("Doe^John", "Doe ^ John", true),
            ("Doe", "Doe^John", false),
            ("Doe*", "DOE^JOHN", true),
            ("*john*", "Doe^John", true),
            ("doe^*", "DOE", true),
            ("doe^?*", "DOE", false),
            ("doe^j?hn", "Doe^John", true),
            ("müller", "MÜLLER", true),
            ("mu\u{308}ller", "Müller", true),
            ("muller", "Müller", false),
            ("ΣΊΣΥΦΟΣ", "Σίσυφος", true),
            ("山田^太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう", true),
            ("やま*", "Yamada^Tarou=山田^太郎=やまだ^たろう", true),
            ("yamada^tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう", true),
            ("=山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", true),
            ("=yamada*", "Yamada^Tarou=山田^太郎=やまだ^たろう", false),
            ("yamada*=*=やま*", "Yamada^Tarou=山田^太郎=やまだ^たろう", true),
            ("yamada*=*=わ*", "Yamada^Tarou=山田^太郎=やまだ^たろう", false),
            ("yamada^tarou=", "Yamada^Tarou=山田^太郎", true),
            ("Doe^John", r"Smith^A\Doe^John", true),
            ("*", "", true),
            ("?*", "", false),
            ("?*", "=山田", true),
        ],
    );
    unusable(&PLAIN, Vr::PN, &[("^^", Why::Blank), ("=", Why::Blank), ("a\u{FFFD}", Why::NotDecodable)]);
    unusable(&FUZZY, Vr::PN, &[("^ ,", Why::Blank), ("--", Why::Blank)]);
}

#[test]
fn fuzzy_names_by_words_in_any_order() {
    check(
        &FUZZY,
        Vr::PN,
        &[
            ("john doe", "Doe^John", true),
            ("doe, jo", "DOE^JOHN^Q", true),
            ("Doe^John", "Doe^John", true),
            ("hn", "Doe^John", false),
            ("john smith", "Doe^John", false),
            ("muller", "Müller^Jürgen", true),
            ("MÜLL jurg", "Muller^Jürgen", true),
            ("strasse", "Straße^A", true),
            ("lukasz", "Łukasz^Żółć", true),
            ("zolc", "Łukasz^Żółć", true),
            ("obrien", "O'Brien^Pat", true),
            ("schmidt meyer", "Meyer-Schmidt^Eva", true),
            ("山田", "Yamada^Tarou=山田^太郎", true),
            ("ﾔﾏﾀﾞ", "ヤマダ^タロウ", true),
            ("김", "Hong^Gildong=김^길동", true),
            ("doe", r"Smith^A\Doe^John", true),
            ("doe", "", false),
            // Wild cards keep their meaning.
            ("*doe*", "Doe^John", true),
            ("*OE jo*", "Doe^John", true),
            ("mull?r*", "Müller^Jürgen", true),
            ("doe*", "Aadoe^John", false),
            ("*müller*", "MULLER^A", true),
            ("jo*", "Doe^John", false),
        ],
    );
}

#[test]
fn several_values() {
    check(&PLAIN, Vr::CS, &[(r"CT\MR", "MR", true), (r"CT\MR", r"US\CT", true), (r"CT\MR", "US", false)]);
    check(
        &MULTIPLE,
        Vr::CS,
        &[(r"CT\PT", r"CT\PT\SR", true), (r"PT\CT", r"CT\PT", true), (r"CT\PT", "CT", false), ("CT", r"CT\PT", true)],
    );
    unusable(&MULTIPLE, Vr::LO, &[(r"CT\P*", Why::WildcardNotAllowed), (r"CT\*", Why::WildcardNotAllowed)]);
    unusable(&PLAIN, Vr::LO, &[(r"CT\*", Why::WildcardNotAllowed)]);
    unusable(&PLAIN, Vr::PN, &[(r"A\*", Why::WildcardNotAllowed), (r"A\^", Why::Blank)]);
    // An attribute that has one value can match one of them alone.
    assert!(hit_with(&MULTIPLE, tags::MODALITY, Vr::CS, r"CT\MR", "MR"));
    assert!(hit_with(&PLAIN, tags::PATIENT_ID, Vr::LO, r"A\", "A"));
    assert!(!hit_with(&PLAIN, tags::PATIENT_ID, Vr::LO, r"A\", "B"));
}

#[test]
fn empty_values() {
    for vr in [Vr::LO, Vr::PN, Vr::DA, Vr::TM, Vr::UI, Vr::IS, Vr::US, Vr::LT] {
        let key = Key::of_text(tags::PATIENT_ID, vr, "\"\" ", &EMPTY).expect("usable");
        assert_eq!(key.test, Test::Empty, "{vr}");
        assert!(key.matches(None) && key.matches(Some(&Value::Empty)) && key.matches_texts::<&str>(&[]));
        assert!(!key.matches(Some(&Value::Text(vec!["x".into()]))));
    }
    check(&PLAIN, Vr::LO, &[("\"\"", "", false), ("\"\"", "\"\"", true)]);
    let binary = Element { tag: tags::ROWS, vr: Vr::US, value: Value::Bytes(Bytes::from_static(b"\"\"")) };
    assert_eq!(Key::of_element(&binary, &EMPTY).map(|k| k.test), Ok(Test::Empty));
}

fn set(pairs: &[(Tag, &str)]) -> DataSet {
    let mut set = DataSet::new();
    pairs.iter().for_each(|(tag, text)| set.put_text(*tag, text));
    set
}

fn sequence(tag: Tag, items: Vec<DataSet>) -> DataSet {
    let mut set = DataSet::new();
    set.put(tag, Vr::SQ, Value::Sequence(items));
    set
}

#[test]
fn sequences_match_by_one_item_that_passes_all_keys() {
    let tag = tags::REQUEST_ATTRIBUTES_SEQUENCE;
    let (step, code) = (tags::SCHEDULED_PROCEDURE_STEP_ID, tags::REQUESTED_PROCEDURE_ID);
    let stored = sequence(tag, vec![set(&[(step, "S1"), (code, "P1")]), set(&[(step, "S2"), (code, "P2")])]);
    let hit = |key: DataSet| Keys::parse(&key, &PLAIN).map(|keys| keys.matches(&stored));
    assert_eq!(hit(sequence(tag, vec![set(&[(step, "S2"), (code, "P?")])])), Ok(true));
    assert_eq!(hit(sequence(tag, vec![set(&[(step, "S1"), (code, "P2")])])), Ok(false));
    assert_eq!(hit(sequence(tag, vec![set(&[(step, "")])])), Ok(true));
    assert_eq!(hit(sequence(tag, vec![])), Ok(true));
    assert_eq!(hit(sequence(tag, vec![DataSet::new()])), Ok(true));
    let absent = Keys::parse(&sequence(tag, vec![set(&[(step, "S1")])]), &PLAIN).map(|k| k.matches(&DataSet::new()));
    assert_eq!(absent, Ok(false));
    let two = sequence(tag, vec![DataSet::new(), DataSet::new()]);
    assert_eq!(hit(two), Err(UnusableKey { tag, why: Why::SeveralItems }));
    let bad = sequence(tag, vec![set(&[(tags::STUDY_DATE, "x")])]);
    assert_eq!(hit(bad), Err(UnusableKey { tag: tags::STUDY_DATE, why: Why::BadDate }));
}

#[test]
fn date_and_time_ranges_are_one_range_only_when_negotiated() {
    let combined = MatchOptions { combined_date_time: true, ..PLAIN };
    let hit = |options: &MatchOptions, key: (&str, &str), stored: (&str, &str)| {
        let pair = |(date, time): (&str, &str)| set(&[(tags::STUDY_DATE, date), (tags::STUDY_TIME, time)]);
        Keys::parse(&pair(key), options).map(|keys| keys.matches(&pair(stored))).expect("usable")
    };
    let days = ("20060705-20060707", "1000-1800");
    assert!(!hit(&PLAIN, days, ("20060706", "0900")));
    assert!(hit(&combined, days, ("20060706", "0900")));
    assert!(hit(&combined, days, ("20060705", "1000")));
    assert!(!hit(&combined, days, ("20060705", "0959")));
    assert!(!hit(&combined, days, ("20060707", "1801")));
    assert!(hit(&combined, days, ("20060705", "")));
    assert!(!hit(&PLAIN, days, ("20060705", "")));
    assert!(hit(&combined, ("20060705-", "1000-"), ("20060706", "0100")));
    assert!(hit(&combined, ("-20060705", "-1000"), ("20060704", "2300")));
    // Only two ranges of one form are combined, and a single date stays a day.
    assert!(!hit(&combined, ("20060705-", "-1000"), ("20060706", "1100")));
    assert!(!hit(&combined, ("20060705", "1000-1800"), ("20060705", "0900")));
    assert!(hit(&combined, ("20060705", "1000-1800"), ("20060705", "1100")));
    let keys = Keys::parse(&set(&[(tags::STUDY_DATE, days.0), (tags::STUDY_TIME, days.1)]), &combined).expect("usable");
    assert_eq!(keys.combined[0].dates.from, Date::new(2006, 7, 5));
}

#[test]
fn times_are_adjusted_to_the_time_zone_of_the_query_when_negotiated() {
    let adjust = MatchOptions { time_zone_adjustment: true, assumed_offset: UtcOffset::parse("+0100"), ..PLAIN };
    let key = set(&[(tags::STUDY_DATE, "20240102"), (tags::TIMEZONE_OFFSET_FROM_UTC, "+0900")]);
    let late = [(tags::STUDY_DATE, "20240101"), (tags::STUDY_TIME, "1730")];
    let hit = |options: &MatchOptions, stored: &[(Tag, &str)]| {
        Keys::parse(&key, options).map(|keys| keys.matches(&set(stored))).expect("usable")
    };
    assert!(hit(&adjust, &late));
    assert!(!hit(&PLAIN, &late));
    assert!(!hit(&adjust, &[late[0], late[1], (tags::TIMEZONE_OFFSET_FROM_UTC, "+0900")]));
    let bad = set(&[(tags::TIMEZONE_OFFSET_FROM_UTC, "CET")]);
    let tag = tags::TIMEZONE_OFFSET_FROM_UTC;
    assert_eq!(Keys::parse(&bad, &adjust), Err(UnusableKey { tag, why: Why::BadTime }));

    let (tokyo, berlin) = (UtcOffset::parse("+0900").expect("valid"), UtcOffset::parse("+0100"));
    let mut answer =
        set(&[late[0], late[1], (tags::PATIENT_BIRTH_DATE, "19700101"), (tags::ACQUISITION_DATE_TIME, "2024")]);
    to_time_zone(&mut answer, berlin, tokyo);
    let expected = [
        (tags::STUDY_DATE, "20240102"),
        (tags::STUDY_TIME, "0130"),
        (tags::PATIENT_BIRTH_DATE, "19700101"),
        (tags::ACQUISITION_DATE_TIME, "2024+0100"),
        (tag, "+0900"),
    ];
    assert_eq!(answer, set(&expected));
    to_time_zone(&mut answer, None, tokyo);
    assert_eq!(answer, set(&expected));
}

#[test]
fn date_times_are_compared_in_the_zone_that_their_data_set_states() {
    let hit = |options: &MatchOptions, key: &str, stored: &[(Tag, &str)]| {
        let key = set(&[(tags::ACQUISITION_DATE_TIME, key)]);
        Keys::parse(&key, options).map(|keys| keys.matches(&set(stored))).expect("usable")
    };
    let stored = [(tags::ACQUISITION_DATE_TIME, "20240101120000"), (tags::TIMEZONE_OFFSET_FROM_UTC, "+0900")];
    let berlin = MatchOptions { assumed_offset: UtcOffset::parse("+0100"), ..PLAIN };
    assert!(hit(&PLAIN, "20240101120000", &stored));
    assert!(hit(&PLAIN, "20240101030000+0000", &stored));
    assert!(hit(&berlin, "20240101040000", &stored));
    assert!(!hit(&berlin, "20240101120000", &stored));
}

#[test]
fn what_says_how_to_ask_is_no_key() {
    let key = set(&[
        (tags::SPECIFIC_CHARACTER_SET, "ISO_IR 100"),
        (tags::QUERY_RETRIEVE_LEVEL, "STUDY"),
        (tags::PATIENT_ID, ""),
        (tags::ACCESSION_NUMBER, "7"),
    ]);
    let keys = Keys::parse(&key, &PLAIN).expect("usable");
    assert_eq!(keys.keys.iter().map(|k| k.tag).collect::<Vec<_>>(), [tags::ACCESSION_NUMBER]);
}

#[test]
fn folding_makes_alike_what_people_take_for_the_same() {
    for (a, b) in [
        ("Müller^Jürgen", "MULLER  jurgen"),
        ("Straße", "STRASSE"),
        ("ＡＢＣ", "abc"),
        ("ﾔﾏﾀﾞ", "ヤマダ"),
        ("İğde", "IGDE"),
        ("Œuvre", "oeuvre"),
        ("Διονύσιος", "ΔΙΟΝΥΣΙΟΣ"),
        (" a ^ b^^", "a b"),
        ("e\u{301}", "é"),
        ("مُحَمَّد", "محمد"),
    ] {
        assert_eq!(fold_name(a), fold_name(b), "{a} {b}");
    }
    assert_ne!(fold_name("かわ"), fold_name("がわ"));
    assert_eq!(fold_name("김"), "김");
    assert_eq!(name_words("O'Brien-Smith^Mary Ann=山田^太郎"), ["obrien", "smith", "mary", "ann", "山田", "太郎"]);
    assert_eq!(trigrams("abcd"), ["abc", "bcd"]);
    assert_eq!(trigrams("山田太郎"), ["山田太", "田太郎"]);
    assert_eq!(trigrams("ab"), Vec::<String>::new());
}

#[test]
fn an_index_can_be_asked_for_what_every_match_has() {
    let key = |vr, text, options| Key::of_text(tags::PATIENT_NAME, vr, text, options).expect("usable");
    assert_eq!(key(Vr::PN, "Müller^J*", &PLAIN).folded_prefix().as_deref(), Some("muller j"));
    assert_eq!(key(Vr::PN, "*oe*", &PLAIN).folded_prefix(), None);
    assert_eq!(key(Vr::LO, "*CHEST*", &PLAIN).required_trigrams(), ["che", "est", "hes"]);
    assert_eq!(key(Vr::PN, "*ohn d*", &FUZZY).required_trigrams(), ["hn ", "n d", "ohn"].map(str::to_owned));
    assert_eq!(key(Vr::DA, "20240101", &PLAIN).folded_prefix(), None);
}

#[test]
fn a_pattern_can_not_be_made_to_take_for_ever() {
    let pattern = Pattern::new("*a".repeat(200) + "b");
    assert!(!pattern.matches(&"a".repeat(20_000)));
    unusable(&PLAIN, Vr::UT, &[(&"a*".repeat(4000), Why::TooLong)]);
}

/// Wild cards by trying everything.
fn slow(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => slow(rest, text) || !text.is_empty() && slow(pattern, &text[1..]),
        (['?', rest @ ..], [_, tail @ ..]) => slow(rest, tail),
        ([p, rest @ ..], [t, tail @ ..]) => p == t && slow(rest, tail),
        _ => false,
    }
}

proptest! {
    #[test]
    fn wildcards_as_by_trying_everything(pattern in "[ab山*?]{0,8}", text in "[ab山]{0,8}") {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        prop_assert_eq!(Pattern::new(pattern.clone()).matches(&text), slow(&chars(&pattern), &chars(&text)));
    }

    #[test]
    fn any_key_is_compiled_or_refused(text in "\\PC{0,40}", stored in "\\PC{0,40}", fuzzy: bool, more: bool) {
        let options = MatchOptions { fuzzy_person_names: fuzzy, multiple_values: more, empty_value: more, ..PLAIN };
        for vr in Vr::ALL {
            match Key::of_text(tags::PATIENT_NAME, *vr, &text, &options) {
                Ok(key) => { key.matches_texts(&[stored.as_str()]); }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }

    /// Never "match all": a key with something in it, other than stars, refuses what has no value.
    #[test]
    fn no_value_is_matched_by_universal_keys_alone(text in "[a-z0-9*?^= \\\\.-]{1,12}") {
        for vr in [Vr::LO, Vr::PN, Vr::DA, Vr::TM, Vr::DT, Vr::UI, Vr::IS, Vr::DS, Vr::CS] {
            if let Ok(key) = Key::of_text(tags::OTHER_PATIENT_IDS, vr, &text, &PLAIN)
                && key.matches(None)
            {
                prop_assert!(text.chars().all(|c| matches!(c, '*' | ' ' | '\\' | '=' | '^')), "{} {:?}", vr, text);
            }
        }
    }

    /// What an index is asked for is there in every match.
    #[test]
    fn index_hints_lose_no_match(
        key in "[Aaéß^ b山がﾀﾞ]{0,4}[*?]?[Aaéß^ b山がﾀﾞ]{0,4}[*?]?",
        stored in "[Aaéß^ b山がﾀﾞ]{0,8}",
        fuzzy: bool,
    ) {
        let options = if fuzzy { FUZZY } else { PLAIN };
        for vr in [Vr::LO, Vr::PN] {
            let Ok(key) = Key::of_text(tags::PATIENT_NAME, vr, &key, &options) else { continue };
            if key.is_universal() || !key.matches_texts(&[stored.as_str()]) {
                continue;
            }
            let folded = fold_name(&stored);
            if let Some(prefix) = key.folded_prefix() {
                prop_assert!(folded.starts_with(&prefix), "{folded:?} {prefix:?}");
            }
            let found = trigrams(&folded);
            for trigram in key.required_trigrams() {
                prop_assert!(found.contains(&trigram), "{found:?} {trigram:?}");
            }
            if let Test::Name(NameTest::Words(words)) = &key.test {
                let found = name_words(&stored);
                prop_assert!(words.iter().all(|w| found.iter().any(|f| f.starts_with(w))));
            }
        }
    }

    #[test]
    fn a_name_matches_itself_however_written(name in "[A-Za-zäéø山]{1,6}(\\^[A-Za-zäéø山]{1,6}){0,2}") {
        for options in [PLAIN, FUZZY] {
            for key in [name.clone(), name.to_uppercase(), format!("{name}^^"), format!("{name}*")] {
                prop_assert!(hit_with(&options, tags::PATIENT_NAME, Vr::PN, &key, &name), "{}", key);
            }
        }
    }
}
