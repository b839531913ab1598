#![allow(clippy::unwrap_used)]

use super::{
    frame::{Expecting, Fragment, Pdu, PduLimits, PduReader},
    *,
};
use bytes::{BufMut, Bytes, BytesMut};
use cairn_dicom::Uid;

const LIMITS: PduLimits = PduLimits { associate_bytes_max: 1 << 20, data_bytes_max: 1 << 16 };

fn uid(text: &str) -> Uid {
    text.parse().unwrap()
}

fn request() -> AssociateRq {
    AssociateRq {
        protocol_version: 1,
        called_ae_title: AeTitle::new("CAIRN").unwrap(),
        calling_ae_title: AeTitle::new("CT 1").unwrap(),
        application_context: Some(uid(DICOM_APPLICATION_CONTEXT)),
        contexts: vec![
            ProposedContext {
                id: 1,
                abstract_syntax: Some(uid("1.2.840.10008.1.1")),
                transfer_syntaxes: vec![uid("1.2.840.10008.1.2"), uid("1.2.840.10008.1.2.1")],
            },
            ProposedContext { id: 3, abstract_syntax: Some(uid("1.2.3")), transfer_syntaxes: vec![] },
        ],
        user: UserInformation {
            maximum_length: Some(16384),
            implementation_class_uid: Some("1.2.3.4".into()),
            implementation_version_name: Some("PEER 1".into()),
            asynchronous_operations: Some((5, 6)),
            roles: vec![RoleSelection { sop_class_uid: uid("1.2.3"), scu: false, scp: true }],
            extended: vec![SopClassExtended {
                sop_class_uid: uid("1.2.840.10008.5.1.4.1.2.1.1"),
                information: Bytes::from_static(&[1, 0, 1]),
            }],
            common_extended: vec![SopClassCommonExtended {
                sop_class_uid: uid("1.2.3"),
                service_class_uid: uid("1.2.840.10008.4.2"),
                related_general_sop_class_uids: vec![uid("1.2.840.10008.5.1.4.1.1.2"), uid("1.2.9")],
            }],
            identity: Some(UserIdentity {
                identity_type: 2,
                positive_response_requested: true,
                primary_field: Bytes::from_static(b"jane"),
                secondary_field: Bytes::from_static(b"secret"),
            }),
            identity_response: None,
        },
    }
}

fn accept() -> AssociateAc {
    AssociateAc {
        called_ae_title: AeTitle::new("CAIRN").unwrap(),
        calling_ae_title: AeTitle::new("CT 1").unwrap(),
        contexts: vec![ContextAnswer {
            id: 1,
            result: ContextResult::Acceptance,
            transfer_syntax: Some(uid("1.2.840.10008.1.2")),
        }],
        user: UserInformation {
            maximum_length: Some(0),
            identity_response: Some(Bytes::from_static(b"ticket")),
            ..UserInformation::default()
        },
    }
}

/// All PDUs of a byte stream that arrives in pieces of `step` bytes.
fn read(expecting: Expecting, bytes: &[u8], step: usize) -> Result<Vec<Pdu>, PduError> {
    let mut reader = PduReader::new(expecting, LIMITS, 4096);
    let mut pdus = Vec::new();
    for piece in bytes.chunks(step) {
        reader.buffer().extend_from_slice(piece);
        while let Some(pdu) = reader.next_pdu()? {
            pdus.push(pdu);
        }
    }
    Ok(pdus)
}

fn pdv(context_id: u8, control: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(data.len() as u32 + 2);
    out.put_slice(&[context_id, control]);
    out.put_slice(data);
    out
}

fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0];
    out.put_u32(body.len() as u32);
    out.put_slice(body);
    out
}

#[test]
fn an_associate_rq_reads_back_whatever_the_pieces() {
    let bytes = encode_associate_rq(&request());
    for step in 1..=bytes.len() {
        let pdus = read(Expecting::AssociateRq, &bytes, step).unwrap();
        assert_eq!(pdus, [Pdu::AssociateRq(Box::new(request()))], "in steps of {step}");
    }
}

#[test]
fn an_associate_ac_reads_back() {
    let bytes = encode_associate_ac(&accept());
    assert_eq!(read(Expecting::AssociateAnswer, &bytes, 7).unwrap(), [Pdu::AssociateAc(Box::new(accept()))]);
}

#[test]
fn a_cut_associate_rq_never_reads_as_one_with_its_user_information() {
    let whole = encode_associate_rq(&request());
    let body = whole.slice(6..);
    for cut in 0..body.len() {
        match decode_associate_rq(body.slice(..cut)) {
            Ok(read) => assert_ne!(read, request(), "cut at {cut}"),
            Err(error) => assert_eq!(error.abort(), Abort::INVALID_PDU_PARAMETER, "cut at {cut}"),
        }
    }
}

#[test]
fn every_flipped_byte_of_an_associate_rq_reads_or_fails_without_a_panic() {
    let whole = encode_associate_rq(&request());
    for at in 6..whole.len() {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = BytesMut::from(&whole[6..]);
            bytes[at - 6] = value;
            let _ = decode_associate_rq(bytes.clone().freeze());
            let _ = decode_associate_ac(bytes.freeze());
        }
    }
}

#[test]
fn unknown_items_are_skipped_as_the_standard_demands() {
    let whole = encode_associate_rq(&request());
    let mut body = whole[6..].to_vec();
    body.extend_from_slice(&[0x77, 0, 0, 3, 1, 2, 3]);
    let read = decode_associate_rq(body.into()).unwrap();
    assert_eq!(read, request());
}

#[test]
fn uids_padded_with_nul_or_spaces_are_the_same_uids() {
    let mut body = encode_associate_rq(&AssociateRq { contexts: vec![], ..request() })[6..].to_vec();
    let mut context = vec![9, 0, 0, 0];
    context.extend_from_slice(&[0x30, 0, 0, 6]);
    context.extend_from_slice(b"1.2.3\0");
    context.extend_from_slice(&[0x40, 0, 0, 8]);
    context.extend_from_slice(b" 1.2.4 \0");
    context.extend_from_slice(&[0x40, 0, 0, 3]);
    context.extend_from_slice(b"abc");
    body.extend_from_slice(&[0x20, 0, 0, context.len() as u8]);
    body.extend_from_slice(&context);
    let read = decode_associate_rq(body.into()).unwrap();
    let expected =
        ProposedContext { id: 9, abstract_syntax: Some(uid("1.2.3")), transfer_syntaxes: vec![uid("1.2.4")] };
    assert_eq!(read.contexts, [expected]);
}

#[test]
fn a_rejected_context_needs_no_transfer_syntax() {
    let mut body = encode_associate_ac(&AssociateAc { contexts: vec![], ..accept() })[6..].to_vec();
    body.extend_from_slice(&[0x21, 0, 0, 4, 5, 0, 3, 0]);
    body.extend_from_slice(&[0x21, 0, 0, 7, 7, 0, 4, 0, 0xde, 0xad, 0xff]);
    let read = decode_associate_ac(body.into()).unwrap();
    let results: Vec<_> = read.contexts.iter().map(|c| (c.id, c.result, c.transfer_syntax.clone())).collect();
    let expected =
        [(5, ContextResult::AbstractSyntaxNotSupported, None), (7, ContextResult::TransferSyntaxesNotSupported, None)];
    assert_eq!(results, expected);
}

#[test]
fn a_large_request_is_read_up_to_the_limit_and_no_further() {
    // 128 contexts with 20 syntaxes of up to 22 characters: what the Standard allows, beyond any P-DATA maximum.
    let contexts = (0..128).map(|i| ProposedContext {
        id: (2 * i + 1) as u8,
        abstract_syntax: Some(uid("1.2.840.10008.5.1.4.1.1.77.1.5.4")),
        transfer_syntaxes: (0..20).map(|t| uid(&format!("1.2.840.10008.1.2.4.{t}"))).collect(),
    });
    let large = AssociateRq { contexts: contexts.collect(), ..request() };
    let bytes = encode_associate_rq(&large);
    assert!(bytes.len() > 1 << 16);
    assert_eq!(read(Expecting::AssociateRq, &bytes, 1000).unwrap(), [Pdu::AssociateRq(Box::new(large))]);

    let header = pdu(1, &[])[..2].to_vec();
    let too_long = [header, ((1 << 20) + 1_u32).to_be_bytes().to_vec()].concat();
    let error = read(Expecting::AssociateRq, &too_long, 6).unwrap_err();
    assert_eq!(error, PduError::TooLong { pdu_type: 1, length: (1 << 20) + 1, limit: 1 << 20 });
}

#[test]
fn fragments_are_the_same_bytes_however_they_arrive() {
    let data: Vec<u8> = (0..1000).map(|i| i as u8).collect();
    let mut stream = pdu(4, &[pdv(1, 1, &data[..10]), pdv(1, 3, &data[10..20]), pdv(1, 0, &data[20..500])].concat());
    stream.extend(pdu(4, &[pdv(1, 0, &[]), pdv(1, 0, &data[500..999]), pdv(1, 2, &data[999..])].concat()));
    stream.extend(pdu(4, &pdv(3, 2, &[])));
    stream.extend(encode_release(pdu_type::RELEASE_RQ));
    for step in 1..=stream.len() {
        let (mut command, mut set, mut lasts) = (Vec::new(), Vec::new(), 0);
        let pdus = read(Expecting::Established, &stream, step).unwrap();
        assert_eq!(pdus.last(), Some(&Pdu::ReleaseRq));
        for pdu in &pdus[..pdus.len() - 1] {
            let Pdu::Fragment(Fragment { is_command, is_last, data, .. }) = pdu else { panic!("{pdu:?}") };
            assert!(*is_last || !data.is_empty());
            if *is_command { &mut command } else { &mut set }.extend_from_slice(data);
            lasts += usize::from(*is_last);
        }
        assert_eq!((command.as_slice(), set.as_slice(), lasts), (&data[..20], &data[20..], 3), "in steps of {step}");
    }
}

#[test]
fn fragments_share_the_receive_buffer() {
    let mut reader = PduReader::new(Expecting::Established, LIMITS, 1 << 16);
    reader.buffer().extend_from_slice(&pdu(4, &[pdv(1, 0, &[7; 1000]), pdv(1, 2, &[8; 1000])].concat()));
    let range = reader.buffer().as_ptr_range();
    for _ in 0..2 {
        let Ok(Some(Pdu::Fragment(fragment))) = reader.next_pdu() else { panic!() };
        assert!(range.contains(&fragment.data.as_ptr()), "a fragment was copied");
    }
}

#[test]
fn each_kind_of_malformed_pdu_has_its_abort() {
    let established = |bytes: &[u8]| read(Expecting::Established, bytes, 1).unwrap_err();
    let cases = [
        (established(&[0x47]), Abort::UNRECOGNIZED_PDU),
        (established(&[0x00]), Abort::UNRECOGNIZED_PDU),
        (established(&[0x08]), Abort::UNRECOGNIZED_PDU),
        (established(&[0x01]), Abort::UNEXPECTED_PDU),
        (established(&[0x02]), Abort::UNEXPECTED_PDU),
        (established(&[0x03]), Abort::UNEXPECTED_PDU),
        (read(Expecting::AssociateRq, &[0x04], 1).unwrap_err(), Abort::UNEXPECTED_PDU),
        (read(Expecting::AssociateRq, &[0x05], 1).unwrap_err(), Abort::UNEXPECTED_PDU),
        (read(Expecting::AssociateAnswer, &[0x01], 1).unwrap_err(), Abort::UNEXPECTED_PDU),
        (established(&pdu(4, &[])), Abort::INVALID_PDU_PARAMETER),
        (established(&pdu(4, &[0; 65537])), Abort::INVALID_PDU_PARAMETER),
        (established(&pdu(4, &[0, 0, 0, 1, 1, 0])), Abort::INVALID_PDU_PARAMETER),
        (established(&pdu(4, &[0, 0, 0, 3, 1, 0])), Abort::INVALID_PDU_PARAMETER),
        (established(&pdu(4, &[0xff, 0xff, 0xff, 0xff, 1, 0])), Abort::INVALID_PDU_PARAMETER),
        (established(&pdu(4, &[&pdv(1, 0, &[1, 2])[..], &[0, 0, 0]].concat())), Abort::INVALID_PDU_PARAMETER),
        (established(&pdu(5, &[0; 3])), Abort::INVALID_PDU_PARAMETER),
        (established(&pdu(5, &[0; 5])), Abort::INVALID_PDU_PARAMETER),
        (established(&pdu(7, &[])), Abort::INVALID_PDU_PARAMETER),
        (read(Expecting::AssociateRq, &pdu(1, &[0; 67]), 9).unwrap_err(), Abort::INVALID_PDU_PARAMETER),
    ];
    for (error, abort) in cases {
        assert_eq!(error.abort(), abort, "{error}");
    }
}

#[test]
fn rejection_release_and_abort_have_the_standards_bytes() {
    assert_eq!(encode_associate_rj(AssociateRj::LOCAL_LIMIT_EXCEEDED)[..], [3, 0, 0, 0, 0, 4, 0, 2, 3, 2]);
    assert_eq!(encode_release(pdu_type::RELEASE_RP)[..], [6, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    assert_eq!(encode_abort(Abort::UNEXPECTED_PDU)[..], [7, 0, 0, 0, 0, 4, 0, 0, 2, 2]);
    let reject = read(Expecting::AssociateAnswer, &encode_associate_rj(AssociateRj::NO_REASON), 3);
    assert_eq!(reject, Ok(vec![Pdu::AssociateRj(AssociateRj::NO_REASON)]));
}

#[test]
fn ae_titles_are_trimmed_and_never_carry_control_characters() {
    assert_eq!(AeTitle::from_field(b"  A B           ").as_str(), "A B");
    assert_eq!(AeTitle::from_field(b"A\0\0\0").as_str(), "A");
    assert_eq!(AeTitle::from_field(b"A\nB\\C\xe9").as_str(), "A?B?C?");
    assert!(AeTitle::from_field(&[b' '; 16]).is_empty());
    assert_eq!(AeTitle::new("SEVENTEEN_LETTERS"), None);
    assert_eq!(AeTitle::new("A\nB"), None);
}

#[test]
fn a_user_identity_shows_no_secret() {
    let shown = format!("{:?}", request().user.identity);
    assert!(!shown.contains("secret") && !shown.contains("jane"), "{shown}");
}
