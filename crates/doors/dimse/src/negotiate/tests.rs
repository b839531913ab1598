#![allow(clippy::unwrap_used)]

use super::*;
use crate::pdu::{AeTitle, SopClassCommonExtended, SopClassExtended, UserIdentity};

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const FIND: &str = "1.2.840.10008.5.1.4.1.2.1.1";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const BIG: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const BASELINE: &str = "1.2.840.10008.1.2.4.50";
const LOSSLESS: &str = "1.2.840.10008.1.2.4.70";
const JPEG2000: &str = "1.2.840.10008.1.2.4.91";
const PRIVATE: &str = "1.2.3.4.5";

fn uid(text: &str) -> Uid {
    text.parse().unwrap()
}

fn ae(text: &str) -> AeTitle {
    AeTitle::new(text).unwrap()
}

fn context(id: u8, class: &str, syntaxes: &[&str]) -> ProposedContext {
    let transfer_syntaxes = syntaxes.iter().map(|s| uid(s)).collect();
    ProposedContext { id, abstract_syntax: Some(uid(class)), transfer_syntaxes }
}

fn request(contexts: Vec<ProposedContext>) -> AssociateRq {
    AssociateRq {
        protocol_version: 1,
        called_ae_title: ae("CAIRN"),
        calling_ae_title: ae("CT1"),
        application_context: Some(uid("1.2.840.10008.3.1.1.1")),
        contexts,
        user: UserInformation { maximum_length: Some(16384), ..UserInformation::default() },
    }
}

fn agree(request: &AssociateRq, policy: &Policy) -> Result<Agreement, Refusal> {
    negotiate(request, Some([10, 0, 0, 1].into()), policy, &Limits::default(), &Implementation::default())
}

fn chosen(class: &str, syntaxes: &[&str], policy: &Policy) -> Result<String, ContextResult> {
    let agreement = agree(&request(vec![context(1, class, syntaxes)]), policy).unwrap();
    match agreement.contexts.first() {
        Some(context) => {
            let answered = agreement.answer.contexts[0].transfer_syntax.as_ref().unwrap();
            assert_eq!(context.transfer_syntax.uid(), answered.as_str());
            Ok(answered.to_string())
        }
        None => Err(agreement.answer.contexts[0].result),
    }
}

#[test]
fn a_sender_is_never_nudged_into_loss() {
    let policy = Policy::default();
    let choose = |syntaxes: &[&str]| chosen(CT, syntaxes, &policy).unwrap();
    assert_eq!(choose(&[BASELINE, LOSSLESS, IMPLICIT, EXPLICIT]), EXPLICIT);
    assert_eq!(choose(&[BASELINE, LOSSLESS, BIG, IMPLICIT]), IMPLICIT);
    assert_eq!(choose(&[BASELINE, JPEG2000, LOSSLESS]), LOSSLESS);
    assert_eq!(choose(&[BASELINE, PRIVATE, JPEG2000]), JPEG2000);
    assert_eq!(choose(&[BASELINE, PRIVATE]), PRIVATE);
    assert_eq!(choose(&[BASELINE, "1.2.840.10008.1.2.4.51"]), BASELINE, "among equals the requestor's order");
    assert_eq!(choose(&[PRIVATE]), PRIVATE);
    let none = chosen(CT, &["1.2.840.10008.1.2.7.1", "1.2.840.10008.1.2.6.1"], &policy);
    assert_eq!(none, Err(ContextResult::TransferSyntaxesNotSupported), "no data set is encoded so");
    assert_eq!(chosen(CT, &[], &policy), Err(ContextResult::TransferSyntaxesNotSupported));
}

#[test]
fn the_order_can_be_set_for_one_ae() {
    let mut policy = Policy::default();
    let mut profile = PeerProfile { transfer_syntaxes: vec![uid(LOSSLESS)], ..PeerProfile::default() };
    policy.peers.insert(ae("CT1"), Arc::new(profile.clone()));
    assert_eq!(chosen(CT, &[EXPLICIT, LOSSLESS], &policy).unwrap(), LOSSLESS);
    assert_eq!(chosen(CT, &[BASELINE, EXPLICIT], &policy).unwrap(), EXPLICIT);
    assert_eq!(chosen(FIND, &[LOSSLESS, IMPLICIT], &policy).unwrap(), IMPLICIT, "queries are not pixels");
    profile.only_these_transfer_syntaxes = true;
    policy.peers.insert(ae("CT1"), Arc::new(profile));
    assert_eq!(chosen(CT, &[EXPLICIT], &policy), Err(ContextResult::TransferSyntaxesNotSupported));
}

#[test]
fn queries_take_plain_native_syntaxes_alone() {
    let policy = Policy::default();
    assert_eq!(chosen(FIND, &[DEFLATED, BASELINE, BIG], &policy).unwrap(), BIG);
    assert_eq!(chosen(FIND, &[DEFLATED], &policy), Err(ContextResult::TransferSyntaxesNotSupported));
}

#[test]
fn classes_are_offered_by_what_they_are() {
    let policy = Policy::default();
    let ok = |class: &str| chosen(class, &[IMPLICIT], &policy).is_ok();
    let commitment = "1.2.840.10008.1.20.1";
    for class in ["1.2.840.10008.1.1", commitment, CT, FIND, "1.2.840.10008.5.1.4.1.2.2.3", "1.3.46.670589.2.3"] {
        assert!(ok(class), "{class}");
    }
    assert!(ok("1.2.840.10008.5.1.4.1.1.9999"), "a class of a later edition");
    let others = [
        ("1.2.840.10008.5.1.4.31", "Modality Worklist"),
        ("1.2.840.10008.1.20.2", "Storage Commitment Pull Model"),
        ("1.2.840.10008.5.1.1.9", "Basic Grayscale Print"),
        ("1.2.840.10008.5.1.4.39.1", "Color Palette Storage, which has no patient"),
        ("1.2.840.10008.5.1.4.1.2.3.1", "Patient/Study Only"),
        ("1.2.840.10008.9.9.9", "nothing that is known"),
    ];
    for (class, name) in others {
        assert_eq!(chosen(class, &[IMPLICIT], &policy), Err(ContextResult::AbstractSyntaxNotSupported), "{name}");
    }
    let policy = Policy { unknown_storage_classes: false, patient_study_only: true, ..Policy::default() };
    assert_eq!(chosen("1.2.3.4", &[IMPLICIT], &policy), Err(ContextResult::AbstractSyntaxNotSupported));
    assert!(chosen("1.2.840.10008.5.1.4.1.2.3.1", &[IMPLICIT], &policy).is_ok());
}

#[test]
fn common_extended_negotiation_says_what_an_unknown_class_is() {
    let judged = |service: &str| {
        let mut request = request(vec![context(1, "1.2.3.4", &[IMPLICIT])]);
        request.user.common_extended = vec![SopClassCommonExtended {
            sop_class_uid: uid("1.2.3.4"),
            service_class_uid: uid(service),
            related_general_sop_class_uids: vec![],
        }];
        agree(&request, &Policy::default()).unwrap().answer.contexts[0].result
    };
    assert_eq!(judged("1.2.840.10008.4.2"), ContextResult::Acceptance);
    assert_eq!(judged("1.2.840.10008.4.1"), ContextResult::AbstractSyntaxNotSupported);
}

#[test]
fn services_can_be_withheld_from_one_ae() {
    let mut policy = Policy::default();
    let services = Services { find: false, storage: false, get: false, ..Services::ALL };
    policy.peers.insert(ae("CT1"), Arc::new(PeerProfile { services, ..PeerProfile::default() }));
    assert_eq!(chosen(FIND, &[IMPLICIT], &policy), Err(ContextResult::UserRejection));
    assert_eq!(chosen(CT, &[IMPLICIT], &policy), Err(ContextResult::UserRejection));
}

#[test]
fn roles_are_turned_round_for_storage_alone() {
    let mut request = request(vec![context(1, CT, &[IMPLICIT]), context(3, FIND, &[IMPLICIT])]);
    let role = |class: &str, scu, scp| RoleSelection { sop_class_uid: uid(class), scu, scp };
    request.user.roles = vec![role(CT, false, true), role(FIND, true, true), role("1.2.9", true, true)];
    let agreement = agree(&request, &Policy::default()).unwrap();
    assert_eq!(agreement.answer.user.roles, [role(CT, false, true), role(FIND, true, false)]);
    let roles: Vec<_> = agreement.contexts.iter().map(|c| (c.requestor_is_scu, c.requestor_is_scp)).collect();
    assert_eq!(roles, [(false, true), (true, false)]);
}

#[test]
fn extended_negotiation_answers_what_was_asked_and_can_be_done() {
    let mut request = request(vec![
        context(1, FIND, &[IMPLICIT]),
        context(3, "1.2.840.10008.5.1.4.1.2.1.2", &[IMPLICIT]),
        context(5, CT, &[IMPLICIT]),
    ]);
    let asked = |class: &str, bytes: &[u8]| SopClassExtended {
        sop_class_uid: uid(class),
        information: Bytes::copy_from_slice(bytes),
    };
    request.user.extended = vec![
        asked(FIND, &[1, 1, 0, 1, 1, 1, 1, 1]),
        asked("1.2.840.10008.5.1.4.1.2.1.2", &[1]),
        asked(CT, &[2, 0, 1, 0, 1, 0]),
        asked("1.2.9", &[1]),
    ];
    let offered = QueryOptions { timezone: false, ..QueryOptions::ALL };
    let agreement = agree(&request, &Policy { query_options: offered, ..Policy::default() }).unwrap();
    let expected = [
        asked(FIND, &[1, 1, 0, 0, 0, 1, 1]),
        asked("1.2.840.10008.5.1.4.1.2.1.2", &[1]),
        asked(CT, &[2, 0, 3, 0, 0, 0]),
    ];
    assert_eq!(agreement.answer.user.extended, expected);
    let options = agreement.contexts[0].options;
    assert_eq!(options, QueryOptions { fuzzy: false, ..offered });
    assert!(agreement.contexts[1].options.relational);
}

#[test]
fn each_option_has_its_byte_and_an_answer_is_no_longer_than_its_question() {
    let answered = |class: &str, bytes: &[u8]| {
        let mut request = request(vec![context(1, class, &[IMPLICIT])]);
        let information = Bytes::copy_from_slice(bytes);
        request.user.extended = vec![SopClassExtended { sop_class_uid: uid(class), information }];
        let agreement = agree(&request, &Policy::default()).unwrap();
        (agreement.answer.user.extended[0].information.to_vec(), agreement.contexts[0].options)
    };
    let none = QueryOptions::default();
    let options = [
        QueryOptions { relational: true, ..none },
        QueryOptions { combined_date_time: true, ..none },
        QueryOptions { fuzzy: true, ..none },
        QueryOptions { timezone: true, ..none },
        none,
        QueryOptions { empty_value: true, ..none },
        QueryOptions { multiple_value: true, ..none },
    ];
    for (at, expected) in options.into_iter().enumerate() {
        let mut asked = vec![0; at + 1];
        asked[at] = 1;
        let (answer, agreed) = answered(FIND, &asked);
        assert_eq!((answer.len(), agreed), (at + 1, expected), "byte {}", at + 1);
        // Enhanced Multi-Frame Image Conversion is turned down; all else is accepted by the same value.
        asked[at] = u8::from(at != 4);
        assert_eq!(answer, asked);
    }
    for class in ["1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.2.3"] {
        assert_eq!(answered(class, &[1]).0, [1]);
        assert_eq!(answered(class, &[1, 1]).0, [1, 0]);
    }
    assert_eq!(answered(CT, &[3]).0, [2]);
    assert_eq!(answered(CT, &[3, 0, 0, 0, 2, 0]).0, [2, 0, 3, 0, 0, 0]);
}

#[test]
fn asynchronous_operations_are_answered_one_by_one_and_identity_when_asked() {
    let mut request = request(vec![context(1, CT, &[IMPLICIT])]);
    assert_eq!(agree(&request, &Policy::default()).unwrap().answer.user.asynchronous_operations, None);
    request.user.asynchronous_operations = Some((0, 0));
    request.user.identity = Some(UserIdentity {
        identity_type: 1,
        positive_response_requested: true,
        primary_field: Bytes::from_static(b"u"),
        secondary_field: Bytes::new(),
    });
    let user = agree(&request, &Policy::default()).unwrap().answer.user;
    assert_eq!(user.asynchronous_operations, Some((1, 1)));
    assert_eq!(user.identity_response, Some(Bytes::new()));
    assert_eq!(user.maximum_length, Some(128 * 1024));
}

#[test]
fn rejections_carry_the_standards_reasons() {
    let base = || request(vec![context(1, CT, &[IMPLICIT])]);
    let refused = |request: &AssociateRq, policy: &Policy| agree(request, policy).unwrap_err();
    let mut policy = Policy::default();
    let version = AssociateRq { protocol_version: 2, ..base() };
    assert_eq!(refused(&version, &policy), AssociateRj::PROTOCOL_VERSION_NOT_SUPPORTED.into());
    let two_versions = AssociateRq { protocol_version: 3, ..base() };
    assert!(agree(&two_versions, &policy).is_ok(), "only bit 0 is tested");
    let other = AssociateRq { application_context: Some(uid("1.2.3")), ..base() };
    assert_eq!(refused(&other, &policy), AssociateRj::APPLICATION_CONTEXT_NOT_SUPPORTED.into());
    let other = AssociateRq { application_context: None, ..base() };
    assert_eq!(refused(&other, &policy), AssociateRj::APPLICATION_CONTEXT_NOT_SUPPORTED.into());
    assert_eq!(refused(&request(vec![]), &policy), AssociateRj::NO_REASON.into());
    let twice = request(vec![context(1, CT, &[IMPLICIT]), context(1, CT, &[EXPLICIT])]);
    assert_eq!(refused(&twice, &policy), Refusal::Abort(Abort::INVALID_PDU_PARAMETER));
    policy.called_ae_titles.insert(ae("OTHER"));
    assert_eq!(refused(&base(), &policy), AssociateRj::CALLED_AE_TITLE_NOT_RECOGNIZED.into());
    policy.called_ae_titles.insert(ae("CAIRN"));
    policy.calling = CallingAes::Known;
    assert_eq!(refused(&base(), &policy), AssociateRj::CALLING_AE_TITLE_NOT_RECOGNIZED.into());
    let elsewhere = PeerProfile { addresses: vec![[10, 0, 0, 2].into()], ..PeerProfile::default() };
    policy.peers.insert(ae("CT1"), Arc::new(elsewhere));
    assert_eq!(refused(&base(), &policy), AssociateRj::CALLING_AE_TITLE_NOT_RECOGNIZED.into());
    let there = PeerProfile { addresses: vec![[10, 0, 0, 1].into()], ..PeerProfile::default() };
    policy.peers.insert(ae("CT1"), Arc::new(there));
    assert!(agree(&base(), &policy).is_ok());
}

#[test]
fn an_even_context_id_is_refused_alone() {
    let request = request(vec![context(2, CT, &[IMPLICIT]), context(3, CT, &[IMPLICIT])]);
    let agreement = agree(&request, &Policy::default()).unwrap();
    let results: Vec<_> = agreement.answer.contexts.iter().map(|c| (c.id, c.result)).collect();
    assert_eq!(results, [(2, ContextResult::NoReason), (3, ContextResult::Acceptance)]);
}
