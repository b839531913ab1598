//! Inputs to begin from, made in code.

use bytes::Bytes;
use cairn_archive::events::EVENT_TYPES;
use cairn_dicom::{
    Tag, TransferSyntax, Vr,
    convert::convert,
    dataset::{DataSet, Value},
    part10::Part10Reader,
};
use cairn_dimse::{Command, CommandField};

fn prefixed(choices: &[&[u8]], inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    choices.iter().flat_map(|choice| inputs.iter().map(|input| [choice, &input[..]].concat())).collect()
}

fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(body.len() as u32).to_be_bytes(), body].concat()
}

fn associate(kind: u8) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(format!("{:<16}{:<16}", "CAIRN", "FUZZ").into_bytes());
    body.extend([0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    let mut context = vec![1, 0, 0, 0];
    if kind == 1 {
        context.extend(item(0x30, b"1.2.840.10008.5.1.4.1.1.7"));
    }
    context.extend(item(0x40, b"1.2.840.10008.1.2.1"));
    body.extend(item(if kind == 1 { 0x20 } else { 0x21 }, &context));
    let mut user = item(0x51, &16_384_u32.to_be_bytes());
    user.extend(item(0x52, b"1.2.3.4"));
    user.extend(item(0x53, &[0, 1, 0, 1]));
    user.extend(item(0x54, b"\x00\x0c1.2.840.1000\x01\x01"));
    user.extend(item(0x55, b"FUZZ"));
    user.extend(item(0x56, b"\x00\x0c1.2.840.1000\x01\x01\x01"));
    user.extend(item(0x58, b"\x01\x01\x00\x04user\x00\x00"));
    body.extend(item(0x50, &user));
    pdu(kind, &body)
}

pub(crate) fn pdus() -> Vec<Vec<u8>> {
    let data = [pdu(4, b"\0\0\0\x06\x01\x03abcd\0\0\0\x03\x01\x00e"), pdu(5, &[0; 4])].concat();
    let all = [associate(1), associate(2), data, pdu(3, &[0, 1, 1, 7]), pdu(7, &[0, 0, 2, 0])];
    prefixed(&[&[0, 0], &[1, 3], &[2, 0]], &all)
}

pub(crate) fn commands() -> Vec<Vec<u8>> {
    let fields = [0x0001, 0x8001, 0x0020, 0x8020, 0x0021, 0x0010, 0x8021, 0x0fff];
    let made = |field| Command::request(CommandField(field), 7, "1.2.840.10008.1.1").with_comment("why").encode();
    fields.into_iter().map(|field| made(field).to_vec()).collect()
}

pub(crate) fn multiparts() -> Vec<Vec<u8>> {
    let bodies = [
        "--b\r\nContent-Type: application/dicom\r\n\r\nabc\r\n--b\r\n\r\n\r\n--b--\r\n",
        "preamble\r\n--b \t\r\nContent-Length: 3\r\nContent-Type: a/b; c=\"d\"\r\n\r\na\r\n-\r\n--\r\n--b--epilogue",
        "--b--",
    ];
    prefixed(&[&[0], &[3]], &bodies.map(|body| body.as_bytes().to_vec()))
}

pub(crate) fn requests() -> Vec<Vec<u8>> {
    let heads = [
        "/dicom-web/studies?PatientName=*DOE*&limit=10&offset=2&includefield=all&fuzzymatching=true\n*/*\nbytes=0-9",
        "/dicom-web/studies/1.2.3/series/1.2.4/instances/1.2.5/frames/1,2,3\nmultipart/related; type=\"application/octet-stream\"; transfer-syntax=*\nbytes=-5",
        "/dicom-web/series?00100020=A%5CB&StudyDate=20200101-&00400275.00400009=x\napplication/dicom+json;q=0.5, */*;q=0\nbytes=999-",
        "/dicom-web/studies/1.2/series/1.3/instances/1.4/bulkdata/00091001/0/7FE00010?accept=application/dicom\n\nbytes=5-4",
        "/dicom-web/instances?includefield=00080005,PatientID&StudyTime=10-11\nmultipart/related;type=image/jls;q=.3\nbytes=1-2,4-5",
    ];
    heads.map(|head| head.as_bytes().to_vec()).to_vec()
}

pub(crate) fn files() -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = cairn_synthetic::studies(3, 3).map(|made| made.file).take(3).collect();
    files.iter_mut().for_each(|file| file.truncate(2048));
    files.push(files[0][132..].to_vec());
    files.push(little()[0].clone());
    prefixed(&[&[0], &[7]], &files)
}

/// Small data sets in Explicit VR Little Endian.
fn little() -> Vec<Vec<u8>> {
    let mut sets = Vec::new();
    for made in cairn_synthetic::studies(5, 2).take(2) {
        let mut reader = Part10Reader::default();
        let Ok(Some(start)) = reader.push(&made.file) else { continue };
        sets.push(start.data_set[..start.data_set.len().min(1500)].to_vec());
    }
    let mut inner = DataSet::new();
    inner.put_text(Tag::new(0x0008, 0x0100), "CODE");
    inner.put(Tag::new(0x0040, 0xa730), Vr::SQ, Value::Sequence(vec![DataSet::new()]));
    let mut set = DataSet::new();
    set.put_text(Tag::new(0x0008, 0x0005), "ISO_IR 100");
    set.put_text(Tag::new(0x0010, 0x0010), "M\u{fc}ller^A*");
    set.put_text(Tag::new(0x0008, 0x0020), "20200101-20201231");
    set.put(Tag::new(0x0040, 0xa730), Vr::SQ, Value::Sequence(vec![inner.clone(), inner]));
    set.put(Tag::new(0x0028, 0x0010), Vr::US, Value::Unsigned(vec![2]));
    set.put(Tag::new(0x7fe0, 0x0010), Vr::OW, Value::Bytes(Bytes::from_static(&[1, 2, 3, 4])));
    let charset = cairn_dicom::CharacterSet::parse(b"ISO_IR 100", cairn_dicom::CharacterSet::DEFAULT).0;
    sets.extend(set.encode(TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN.encoding, charset).ok());
    // Fragments: an offset table, two frames.
    sets.push(
        b"\x28\0\x08\0IS\x02\x002 \xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\x08\0\0\0\0\0\0\0\x0c\0\0\0\
          \xfe\xff\0\xe0\x04\0\0\0abcd\xfe\xff\0\xe0\x02\0\0\0ef\xfe\xff\xdd\xe0\0\0\0\0"
            .to_vec(),
    );
    // Undefined lengths, and an unknown sequence.
    sets.push(
        b"\x40\0\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff\x08\0\0\x01SH\x02\0AB\xfe\xff\x0d\xe0\0\0\0\0\
          \xfe\xff\xdd\xe0\0\0\0\0\x09\0\x01\x10UN\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\x0a\0\0\0\x08\0\0\x01\x02\0\0\0AB\
          \xfe\xff\xdd\xe0\0\0\0\0"
            .to_vec(),
    );
    sets
}

/// In every encoding.
pub(crate) fn data_sets() -> Vec<Vec<u8>> {
    let from = TransferSyntax::EXPLICIT_VR_LITTLE_ENDIAN;
    let mut seeds = prefixed(&[&[0, 0, 0], &[0, 1, 2], &[4, 0, 5]], &little());
    for (choice, to) in [
        (1, TransferSyntax::IMPLICIT_VR_LITTLE_ENDIAN),
        (2, TransferSyntax::EXPLICIT_VR_BIG_ENDIAN),
        (3, TransferSyntax::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
    ] {
        let converted: Vec<Vec<u8>> = little().iter().filter_map(|set| convert(set, &from, &to).ok()).collect();
        seeds.extend(prefixed(&[&[choice, 0, 0], &[choice, 1, 1]], &converted));
    }
    seeds
}

pub(crate) fn texts() -> Vec<Vec<u8>> {
    let texts: [(&[u8], &[u8]); 8] = [
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me"),
        (b"ISO_IR 192", "Wang^小东=王^小东".as_bytes()),
        (b"GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab="),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        (b"ISO 2022 IR 13\\ISO 2022 IR 87", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J"),
        (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
        (b"\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
        (b"ISO_IR 203\\ISO 2022 IR 100", b"a\x1b-Ab\\c"),
    ];
    let one = |(name, text): (&[u8], &[u8])| [&[name.len() as u8, 0][..], name, text].concat();
    texts.into_iter().map(one).collect()
}

pub(crate) fn keys() -> Vec<Vec<u8>> {
    let values = [
        "20200101-20201231",
        "-2020",
        "1030-",
        "*",
        "",
        "DOE^J*",
        "*a?b*",
        "1.2.3\\1.2.4",
        "\"\"",
        "12.5",
        "M",
        "20200101120000+0100-",
    ];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (number, value) in values.iter().enumerate() {
        for vr in 0..Vr::ALL.len() as u8 {
            seeds.push([&[vr, (number * 5) as u8 % 32], value.as_bytes()].concat());
        }
    }
    seeds.extend(prefixed(&[&[0, 0], &[0, 31]], &little()));
    seeds
}

pub(crate) fn events() -> Vec<Vec<u8>> {
    // Field 1 as text, a message within a message, numbers: what libFuzzer goes on from.
    let payloads: [&[u8]; 3] = [b"", b"\x0a\x07default\x12\x031.2\x1a\x031.3", b"\x22\x06\x0a\x04abcd\x28\x80\x02"];
    let kinds: Vec<[u8; 1]> = (0..EVENT_TYPES.len() as u8).map(|kind| [kind]).collect();
    let choices: Vec<&[u8]> = kinds.iter().map(|kind| &kind[..]).collect();
    prefixed(&choices, &payloads.map(<[u8]>::to_vec))
}
