use proptest::prelude::*;

use super::*;

fn set(value: &str) -> CharacterSet {
    let (set, findings) = CharacterSet::parse(value.as_bytes(), CharacterSet::DEFAULT);
    assert_eq!(findings, [], "{value}");
    set
}

/// Decodes and encodes: the text and bytes of the Standard's own examples and of real files.
fn known(charset: &str, vr: Vr, bytes: &[u8], text: &str) {
    let set = set(charset);
    let decoded = set.decode(vr, bytes);
    assert_eq!(decoded.text, text, "{charset}");
    assert!(!decoded.lossy, "{charset}");
    assert_eq!(set.encode(vr, text).as_deref(), Ok(bytes), "{charset}");
}

#[test]
fn japanese_examples_of_ps3_5_annex_h() {
    known(
        r"\ISO 2022 IR 87",
        Vr::PN,
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
    );
    known(
        r"ISO 2022 IR 13\ISO 2022 IR 87",
        Vr::PN,
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    );
}

#[test]
fn korean_examples_of_ps3_5_annex_i() {
    known(
        r"\ISO 2022 IR 149",
        Vr::PN,
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    );
    known(
        r"\ISO 2022 IR 149",
        Vr::LT,
        b"The first line includes \x1b$)C\xb1\xe8\xc8\xf1\xc1\xdf.\r\nThe second line includes \x1b$)C\xb1\xe8\xc8\xf1\xc1\xdf, too.\r\nThe third line.\r\n",
        "The first line includes 김희중.\r\nThe second line includes 김희중, too.\r\nThe third line.\r\n",
    );
}

#[test]
fn chinese_examples_of_ps3_5_annexes_j_and_k() {
    known("ISO_IR 192", Vr::PN, "Wang^XiaoDong=王^小東=".as_bytes(), "Wang^XiaoDong=王^小東=");
    known("GB18030", Vr::PN, b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东=");
    known(
        r"\ISO 2022 IR 58",
        Vr::PN,
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东=",
    );
    known(
        r"\ISO 2022 IR 58",
        Vr::LT,
        b"1. \x1b$)A\xb5\xda\xd2\xbb\xd0\xd0\xce\xc4\xd7\xd6\xa1\xa3\r\n2. \x1b$)A\xb5\xda\xb6\xfe\xd0\xd0\xce\xc4\xd7\xd6\xa1\xa3\r\n3. \x1b$)A\xb5\xda\xc8\xfd\xd0\xd0\xce\xc4\xd7\xd6\xa1\xa3\r\n",
        "1. 第一行文字。\r\n2. 第二行文字。\r\n3. 第三行文字。\r\n",
    );
    known("GBK", Vr::PN, b"Zhang^Wei=\xd5\xc5^\xce\xb0", "Zhang^Wei=张^伟");
}

#[test]
fn single_byte_repertoires() {
    known("ISO_IR 100", Vr::PN, b"Buc^J\xe9r\xf4me", "Buc^Jérôme");
    known("ISO_IR 100", Vr::PN, b"\xc4neas^R\xfcdiger", "Äneas^Rüdiger");
    known("ISO_IR 101", Vr::PN, b"\xa3ukasz^\xaf\xf3\xb3\xe6", "Łukasz^Żółć");
    known("ISO_IR 109", Vr::LO, b"\xc6\xf8 \xa1", "Ĉĝ Ħ");
    known("ISO_IR 110", Vr::PN, b"\xd3\xbani\xf1\xb9^\xabirts", "Ķēniņš^Ģirts");
    known("ISO_IR 126", Vr::PN, b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος");
    known("ISO_IR 127", Vr::PN, b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار");
    known("ISO_IR 138", Vr::PN, b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה");
    known("ISO_IR 144", Vr::PN, b"\xbb\xee\xdace\xdc\xd1yp\xd3", "Люкceмбypг");
    known("ISO_IR 148", Vr::PN, b"\xdeahin^\xdd\xf0de", "Şahin^İğde");
    known("ISO_IR 166", Vr::PN, b"\xca\xc1\xaa\xd2\xc2^\xe3\xa8\xb4\xd5", "สมชาย^ใจดี");
    known("ISO_IR 203", Vr::LO, b"\xa4 \xbd\xe9", "€ œé");
    known("ISO_IR 13", Vr::PN, b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ");
}

#[test]
fn code_extensions_between_single_byte_sets() {
    known(r"\ISO 2022 IR 144", Vr::PN, b"Ivanov^\x1b-L\xb8\xd2\xd0\xdd", "Ivanov^Иван");
    // The first set is active again before each delimiter.
    known(
        r"ISO 2022 IR 100\ISO 2022 IR 144\ISO 2022 IR 126",
        Vr::LO,
        b"\xe9\x1b-L\xb8\x1b-F\xc4\x1b-A\\\xe9\x1b-L\xb8\x1b-A",
        "éИΔ\\éИ",
    );
    let all = set(r"\ISO 2022 IR 87\ISO 2022 IR 159");
    let decoded = all.decode(Vr::LO, b"\x1b$B;3\x1b$(D\x30\x21\x1b(B!");
    assert_eq!((decoded.text.as_ref(), decoded.lossy), ("山丂!", false));
    assert_eq!(all.encode(Vr::LO, "山丂!").as_deref(), Ok(&b"\x1b$B;3\x1b$(D\x30\x21\x1b(B!"[..]));
}

#[test]
fn delimiters_inside_multi_byte_characters_are_none() {
    // 0x815C, 0xC45C: the second byte has the code of a backslash.
    let text = "\u{4e57}";
    let bytes = encoding_rs::GB18030.encode(text).0;
    assert_eq!(bytes[1], b'\\', "the example must have a backslash as second byte");
    for charset in ["GB18030", "GBK"] {
        let value = [b"a\\", &bytes[..], b"\\b"].concat();
        let decoded = set(charset).decode(Vr::LO, &value);
        assert_eq!(decoded.text.split('\\').collect::<Vec<_>>(), ["a", text, "b"]);
    }
    // In G0 with two bytes a character: 0x3B5C and 0x3D5E.
    let decoded = set(r"\ISO 2022 IR 87").decode(Vr::PN, b"\x1b$B;\\=^\x1b(B^b\\c");
    assert_eq!(decoded.text.matches(['\\', '^']).count(), 2);
    assert!(!decoded.lossy);
}

#[test]
fn delimiters_and_controls_reset_what_escapes_switched() {
    let korean = set(r"ISO 2022 IR 100\ISO 2022 IR 149");
    for delimiter in ["\\", "\r\n", "\x0c", "\t"] {
        let bytes = [b"\x1b$)C\xb1\xe8", delimiter.as_bytes(), b"\xe9"].concat();
        assert_eq!(korean.decode(Vr::LO, &bytes).text, format!("김{delimiter}é"));
    }
    // ^ and = delimit in person names alone, the backslash where there are many values alone.
    assert_eq!(korean.decode(Vr::PN, b"\x1b$)C\xb1\xe8^\xe9=\x1b$)C\xb1\xe8").text, "김^é=김");
    assert_eq!(korean.decode(Vr::LO, b"\x1b$)C\xb1\xe8^\xb1\xe8").text, "김^김");
    assert_eq!(korean.decode(Vr::LT, b"\x1b$)C\xb1\xe8\\\xb1\xe8").text, "김\\김");
    // A writer that forgot to switch G0 back before the delimiter is understood where that is unambiguous.
    assert_eq!(set(r"\ISO 2022 IR 87").decode(Vr::PN, b"\x1b$B;3ED^\x1b$BB@O:").text, "山田^太郎");
}

#[test]
fn romaji_differs_from_ascii_in_two_codes() {
    let japanese = set("ISO_IR 13");
    assert_eq!(japanese.decode(Vr::LT, b"\\100~").text, "¥100‾");
    assert_eq!(japanese.decode(Vr::LO, b"a\\b").text, "a\\b");
    assert_eq!(japanese.encode(Vr::LT, "~"), Err(NotEncodable));
    assert_eq!(japanese.encode(Vr::LT, "\\"), Err(NotEncodable));
    assert_eq!(japanese.encode(Vr::LO, "a\\b").as_deref(), Ok(&b"a\\b"[..]));
}

#[test]
fn spellings_of_real_files_are_understood() {
    for (value, expected) in [
        ("ISO-IR 100", "ISO_IR 100"),
        ("ISO_IR_100", "ISO_IR 100"),
        ("ISO IR 100", "ISO_IR 100"),
        ("iso_ir 100", "ISO_IR 100"),
        ("ISO 2022_IR 100", "ISO_IR 100"),
        ("ISO_IR 149", r"\ISO 2022 IR 149"),
        ("ISO 2022 GBK", "GBK"),
        ("ISO 2022 58", r"\ISO 2022 IR 58"),
        ("ISO_IR 6\\ISO-2022-IR-87", r"\ISO 2022 IR 87"),
        ("ascii", ""),
        ("ISO-2022-JP", r"\ISO 2022 IR 87\ISO 2022 IR 159"),
    ] {
        let (found, findings) = CharacterSet::parse(value.as_bytes(), CharacterSet::UTF_8);
        assert_eq!(found.to_value(), expected, "{value}");
        assert_eq!(findings, [CharsetFinding::Misspelled], "{value}");
    }
    for (value, expected) in [
        ("utf-8", "ISO_IR 192"),
        ("ISO 8859-1", "ISO_IR 100"),
        ("iso8859-2", "ISO_IR 101"),
        ("windows-1252", "ISO_IR 100"),
        ("nonsense", "ISO_IR 192"),
        ("ISO_IR 999", "ISO_IR 192"),
        ("utf-16", "ISO_IR 192"),
    ] {
        let (found, findings) = CharacterSet::parse(value.as_bytes(), CharacterSet::UTF_8);
        assert_eq!(found.to_value(), expected, "{value}");
        assert_eq!(findings, [CharsetFinding::Unknown], "{value}");
    }
    let (sjis, _) = CharacterSet::parse(b"Shift_JIS", CharacterSet::DEFAULT);
    assert_eq!(sjis.decode(Vr::LO, b"\x8eR\x93c").text, "山田");
    assert!(!sjis.is_standard());
}

#[test]
fn terms_alone_combined_padded_and_absent() {
    assert_eq!(set("").to_value(), "");
    assert_eq!(CharacterSet::parse(b" \0", CharacterSet::UTF_8), (CharacterSet::UTF_8, vec![]));
    assert_eq!(set("ISO_IR 100 ").to_value(), "ISO_IR 100");
    assert_eq!(set("ISO 2022 IR 6").to_value(), "");
    assert_eq!(set("ISO 2022 IR 100").to_value(), "ISO_IR 100");
    assert_eq!(set("ISO 2022 IR 87").to_value(), r"\ISO 2022 IR 87");
    for (value, expected) in
        [(r"\ISO_IR 192", "ISO_IR 192"), (r"ISO_IR 192\ISO_IR 100", "ISO_IR 192"), (r"ISO_IR 100\GBK", "ISO_IR 100")]
    {
        let (found, findings) = CharacterSet::parse(value.as_bytes(), CharacterSet::DEFAULT);
        assert_eq!(found.to_value(), expected, "{value}");
        assert_eq!(findings, [CharsetFinding::NotCombinable], "{value}");
    }
    let many: Vec<&str> = Term::all().filter_map(Term::code_extension_value).collect();
    let (found, findings) = CharacterSet::parse(many.join("\\").as_bytes(), CharacterSet::DEFAULT);
    assert_eq!((found.terms().len(), findings), (TERMS_MAX, vec![CharsetFinding::TooMany]));
}

#[test]
fn what_has_no_meaning_is_replaced_or_guessed_and_said() {
    let lossy = |charset: &str, bytes: &[u8], text: &str| {
        let decoded = set(charset).decode(Vr::LO, bytes);
        assert_eq!((decoded.text.as_ref(), decoded.lossy), (text, true), "{charset}");
    };
    lossy("", "Grün".as_bytes(), "Grün");
    lossy("", b"Gr\xfcn", "Grün");
    lossy("ISO_IR 100", b"\x93quoted\x94", "“quoted”");
    lossy("ISO_IR 101", b"\x93", "\u{FFFD}");
    lossy("ISO_IR 192", b"a\xffb", "a\u{FFFD}b");
    lossy(r"\ISO 2022 IR 149", b"\xb1\xe8", "김");
    lossy(r"\ISO 2022 IR 149", b"\x1b$)C\xb1", "\u{FFFD}");
    lossy(r"\ISO 2022 IR 87", b"\x1b$B;\x1b(Bx", "\u{FFFD}x");
    lossy(r"\ISO 2022 IR 87", b"\x1b%Gx", "\u{FFFD}%Gx");
    assert!(set("ISO_IR 100").decode(Vr::CS, b"\xdcBER").lossy, "code strings have the default repertoire alone");
}

#[test]
fn ascii_is_borrowed() {
    for charset in ["", "ISO_IR 100", "ISO_IR 192", "GB18030", r"\ISO 2022 IR 87", r"ISO 2022 IR 13\ISO 2022 IR 87"] {
        assert!(matches!(set(charset).decode(Vr::PN, b"Doe^John ").text, Cow::Borrowed("Doe^John ")), "{charset}");
    }
}

#[test]
fn what_a_set_cannot_carry_is_refused() {
    for (charset, text) in [
        ("", "é"),
        ("ISO_IR 100", "Ł"),
        ("ISO_IR 100", "€"),
        ("ISO_IR 126", "€"),
        (r"\ISO 2022 IR 87", "é"),
        (r"\ISO 2022 IR 87", "ﾔ"),
        (r"\ISO 2022 IR 87", "①"),
        (r"\ISO 2022 IR 58", "東"),
        ("GBK", "€"),
        ("GBK", "😀"),
        ("ISO_IR 100", "\u{1b}(B"),
    ] {
        assert_eq!(set(charset).encode(Vr::LO, text), Err(NotEncodable), "{charset} {text}");
    }
    assert!(set("GB18030").encode(Vr::LO, "😀€").is_ok());
}

#[test]
fn every_standard_value_reads_back() {
    for term in Term::all() {
        let single = CharacterSet::single(term);
        if let Some(value) = term.single_value() {
            assert_eq!(set(value), single);
            assert_eq!(single.to_value(), value);
        }
        if let Some(value) = term.code_extension_value() {
            let value = format!("\\{value}");
            assert_eq!(set(&value).to_value(), value);
        }
    }
}

/// Sizes of the national standards' repertoires: JIS X 0208-1990, JIS X 0212-1990, KS X 1001:2002, GB 2312-80.
#[test]
fn multi_byte_sets_have_the_size_of_their_standards() {
    for (term, size) in [(Term::Ir87, 6879), (Term::Ir159, 6067), (Term::Ir149, 8226), (Term::Ir58, 7445)] {
        let (set, _) = CharacterSet::parse(
            format!("\\{}", term.code_extension_value().expect("has one")).as_bytes(),
            CharacterSet::DEFAULT,
        );
        let mut codes = std::collections::BTreeSet::new();
        for character in ('\u{80}'..='\u{FFFF}').filter(|c| !c.is_control()) {
            if let Ok(bytes) = set.encode(Vr::LT, character.encode_utf8(&mut [0; 4])) {
                codes.insert(bytes.into_owned());
            }
        }
        assert_eq!(codes.len(), size, "{term:?}");
    }
}

fn any_charset() -> impl Strategy<Value = CharacterSet> {
    prop::sample::select(vec![
        "",
        "ISO_IR 13",
        "ISO_IR 100",
        "ISO_IR 126",
        "ISO_IR 148",
        "ISO_IR 166",
        "ISO_IR 192",
        "GB18030",
        "GBK",
        r"\ISO 2022 IR 87\ISO 2022 IR 159",
        r"ISO 2022 IR 13\ISO 2022 IR 87",
        r"\ISO 2022 IR 149",
        r"\ISO 2022 IR 58",
        r"ISO 2022 IR 100\ISO 2022 IR 144\ISO 2022 IR 87\ISO 2022 IR 149",
    ])
    .prop_map(set)
}

fn any_vr() -> impl Strategy<Value = Vr> {
    prop::sample::select(vec![Vr::PN, Vr::LO, Vr::LT])
}

proptest! {
    #[test]
    fn decoding_never_fails_and_ends(set in any_charset(), vr in any_vr(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let decoded = set.decode(vr, &bytes);
        prop_assert!(decoded.text.len() <= bytes.len() * 4);
    }

    #[test]
    fn what_is_encoded_reads_back(
        set in any_charset(),
        vr in any_vr(),
        text in "([ -~\\\\^=\r\n]|[À-ÿ]|[Α-ώ]|[А-я]|[ｱ-ﾝ]|[ぁ-ん]|[一-龥]|[가-힣]|[ก-ฮ]|\\PC){0,12}",
    ) {
        if let Ok(bytes) = set.encode(vr, &text) {
            let decoded = set.decode(vr, &bytes);
            // Two readings of one code, which implementations differ in, are both written as that code.
            let unified = |text: &str| text.replace('～', "〜").replace('∥', "‖").replace('－', "−")
                .replace('￠', "¢").replace('￡', "£").replace('￢', "¬");
            prop_assert_eq!(unified(&decoded.text), unified(&text));
            prop_assert!(!decoded.lossy);
        }
    }

    #[test]
    fn any_value_of_the_attribute_gives_a_set(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let (set, _) = CharacterSet::parse(&bytes, CharacterSet::DEFAULT);
        prop_assert!(!set.terms().is_empty());
    }
}
