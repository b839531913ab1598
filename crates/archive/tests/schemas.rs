//! What is written down for years stays readable: released messages are never edited, and golden bytes of every event
//! version ever released still read as they did.
//!
//! After adding a message (never after editing one), `CAIRN_FREEZE=1 cargo test -p cairn-archive --test schemas`
//! writes its released description and golden files.

use cairn_archive::{
    Envelope, Hlc,
    events::{self, EVENT_TYPES, Event},
};
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use std::{collections::BTreeMap, fs, path::PathBuf};

fn schemas() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schemas/events")
}

fn freezing() -> bool {
    std::env::var_os("CAIRN_FREEZE").is_some()
}

/// One line per field or value, grouped by message or enum: everything that decides how bytes are read.
fn describe(set: &FileDescriptorSet) -> BTreeMap<String, Vec<String>> {
    let mut described = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            described.insert(format!("message {}.{}", file.package(), message.name()), fields(message));
        }
        for values in &file.enum_type {
            described.insert(format!("enum {}.{}", file.package(), values.name()), enum_values(values));
        }
    }
    described
}

fn fields(message: &DescriptorProto) -> Vec<String> {
    let line = |field: &prost_types::FieldDescriptorProto| {
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            other => other.as_str_name().to_owned(),
        };
        let oneof = field.oneof_index.map(|index| format!(" in {}", message.oneof_decl[index as usize].name()));
        format!(
            "{} {} {kind} {}{}",
            field.number(),
            field.label().as_str_name(),
            field.name(),
            oneof.unwrap_or_default()
        )
    };
    let mut lines: Vec<String> = message.field.iter().map(line).collect();
    lines.sort();
    lines
}

fn enum_values(values: &EnumDescriptorProto) -> Vec<String> {
    values.value.iter().map(|value| format!("{} {}", value.number(), value.name())).collect()
}

fn render(described: &BTreeMap<String, Vec<String>>) -> String {
    described.iter().map(|(name, lines)| format!("{name}\n  {}\n", lines.join("\n  "))).collect()
}

fn parse(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut described: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        match line.strip_prefix("  ") {
            None => name = line.to_owned(),
            Some(field) => described.entry(name.clone()).or_default().push(field.to_owned()),
        }
    }
    described
}

/// What of `released` is gone or edited in `current`.
fn edits(released: &BTreeMap<String, Vec<String>>, current: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, lines) in released {
        match current.get(name) {
            None => found.push(format!("{name} is gone")),
            Some(now) if now != lines => found.push(format!("{name} is edited: {lines:?} became {now:?}")),
            Some(_) => {}
        }
    }
    found
}

fn compiled() -> FileDescriptorSet {
    FileDescriptorSet::decode(cairn_archive::events::DESCRIPTORS).expect("descriptors decode")
}

#[test]
fn a_released_message_is_never_edited() {
    let current = describe(&compiled());
    let path = schemas().join("released/v1.txt");
    if freezing() {
        fs::write(&path, render(&current)).expect("written");
    }
    let released = parse(&fs::read_to_string(&path).expect("schemas/events/released/v1.txt"));
    assert!(!released.is_empty());
    let found = edits(&released, &current);
    assert!(found.is_empty(), "a released message was edited; put a new version beside it:\n{}", found.join("\n"));
    let unreleased: Vec<_> = current.keys().filter(|name| !released.contains_key(*name)).collect();
    assert!(unreleased.is_empty(), "freeze what is new (see the head of this file): {unreleased:?}");
}

#[test]
fn the_guard_sees_every_kind_of_edit() {
    let released = describe(&compiled());
    let edit = |change: &dyn Fn(&mut FileDescriptorSet)| {
        let mut set = compiled();
        change(&mut set);
        edits(&released, &describe(&set)).len()
    };
    let stored = |set: &mut FileDescriptorSet, change: &dyn Fn(&mut DescriptorProto)| {
        let messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
        messages.filter(|message| message.name() == "InstanceStored").for_each(change);
    };
    assert_eq!(edit(&|_| {}), 0);
    assert_eq!(edit(&|set| stored(set, &|message| drop(message.field.pop()))), 1, "a field removed");
    assert_eq!(edit(&|set| stored(set, &|message| message.field[0].number = Some(99))), 1, "a number changed");
    assert_eq!(edit(&|set| stored(set, &|message| message.field[0].name = Some("x".into()))), 1, "a name changed");
    assert_eq!(edit(&|set| stored(set, &|message| message.field[0].set_type(Type::Bytes))), 1, "a type changed");
    assert_eq!(edit(&|set| set.file.clear()), released.len(), "messages removed");
}

fn object(n: u8) -> events::Object {
    events::Object { key: vec![n; 16].into(), length_bytes: 526_336, blake3: vec![n; 32].into() }
}

fn receipt() -> events::Receipt {
    events::Receipt {
        receipt_id: vec![7; 16].into(),
        door: events::Door::Dimse.into(),
        calling_ae_title: "CT1".into(),
        called_ae_title: "CAIRN".into(),
        peer_address: "192.0.2.7:51234".into(),
        implementation_class_uid: "1.2.276.0.7230010.3.0.3.6.7".into(),
        implementation_version_name: "OFFIS_DCMTK_367".into(),
    }
}

fn profile() -> events::SenderProfile {
    events::SenderProfile {
        issuer_of_patient_id: "EAST".into(),
        issuer_rule: "ae:CT1".into(),
        default_character_set: "ISO_IR 100".into(),
        time_zone: "+0100".into(),
        resend_policy: events::ResendPolicy::Keep.into(),
    }
}

fn stored() -> events::InstanceStored {
    let protected =
        events::InstanceProtected { header: b"\x10\x00\x20\x00LO\x04\x00ID01".as_slice().into(), extractor_version: 1 };
    let layout = events::frame_table::Layout::Fragmented(events::FragmentedFrames {
        range_ends: vec![1, 3],
        range_start_gaps: vec![1_000, 8, 8],
        range_lengths: vec![500, 400, 300],
    });
    let finding = events::Finding { code: "odd-length".into(), tag: 0x0010_0010 };
    events::InstanceStored {
        tenant: "default".into(),
        study_instance_uid: "1.2.3".into(),
        series_instance_uid: "1.2.3.4".into(),
        sop_instance_uid: "1.2.3.4.5".into(),
        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax_uid: "1.2.840.10008.1.2.4.90".into(),
        object: Some(object(1)),
        data_set_offset: 332,
        pixel_data_offset: 2_048,
        frame_table: Some(events::FrameTable { layout: Some(layout) }),
        bulk_data: vec![events::BulkDataEntry {
            path: vec![0x7FE0_0010],
            vr: u32::from(u16::from_be_bytes(*b"OB")),
            offset: 1_716,
            length_bytes: 1_248,
            encapsulated: true,
        }],
        side_object: Some(object(2)),
        received_file_meta: b"\x02\x00\x10\x00UI".as_slice().into(),
        receipt: Some(receipt()),
        sender_profile: Some(profile()),
        findings: vec![finding],
        key_id: String::new(),
        protected: protected.encode_to_vec().into(),
    }
}

fn rejected() -> Event {
    Event::InstancesRejected(Box::new(events::InstancesRejected {
        tenant: "default".into(),
        study_instance_uid: "1.2.3".into(),
        note: Some(events::RejectionNote {
            study_instance_uid: "1.2.3".into(),
            series_instance_uid: "1.2.3.9".into(),
            sop_instance_uid: "1.2.3.9.1".into(),
            store_event_id: vec![11; 16].into(),
            title_code: "113001".into(),
        }),
        series: vec![events::RejectedSeries {
            series_instance_uid: "1.2.3.4".into(),
            instances: vec![events::RejectedInstance {
                sop_instance_uid: "1.2.3.4.5".into(),
                sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
                store_event_ids: vec![vec![9; 16].into(), vec![10; 16].into()],
            }],
        }],
        parts: 2,
        part: 1,
    }))
}

fn revoked() -> Event {
    Event::RejectionRevoked(Box::new(events::RejectionRevoked {
        tenant: "default".into(),
        study_instance_uid: "1.2.3".into(),
        rejection_event_id: vec![12; 16].into(),
        series: vec![events::RevokedSeries {
            series_instance_uid: "1.2.3.4".into(),
            sop_instance_uids: vec!["1.2.3.4.5".into()],
        }],
        revoked_by: "operator".into(),
        reason: b"the wrong study was rejected".as_slice().into(),
        key_id: String::new(),
    }))
}

fn corrected() -> Event {
    let mut elements = cairn_dicom::dataset::DataSet::new();
    elements.put_text(cairn_dicom::tags::PATIENT_NAME, "Müller^Jürgen");
    let protected = events::CorrectionProtected {
        elements: cairn_archive::correction::encode(&elements),
        reason: "the name was typed wrongly".into(),
    };
    Event::AttributesCorrected(Box::new(events::AttributesCorrected {
        tenant: "default".into(),
        study_instance_uid: "1.2.3".into(),
        series_instance_uid: "1.2.3.4".into(),
        sop_instance_uid: "1.2.3.4.5".into(),
        protected: protected.encode_to_vec().into(),
        key_id: String::new(),
        corrected_by: "operator".into(),
    }))
}

fn correction_revoked() -> Event {
    Event::CorrectionRevoked(Box::new(events::CorrectionRevoked {
        tenant: "default".into(),
        study_instance_uid: "1.2.3".into(),
        correction_event_ids: vec![vec![13; 16].into()],
        revoked_by: "operator".into(),
        reason: b"it was right".as_slice().into(),
        key_id: String::new(),
    }))
}

fn patient_protected(patients: &[(&str, &str)]) -> bytes::Bytes {
    let mut elements = cairn_dicom::dataset::DataSet::new();
    elements.put_text(cairn_dicom::tags::PATIENT_NAME, "Müller^Jürgen");
    let named = |(issuer, id): &(&str, &str)| events::NamedPatient {
        patient_id: (*id).into(),
        issuer_of_patient_id: (*issuer).into(),
    };
    let protected = events::PatientProtected {
        patients: patients.iter().map(named).collect(),
        elements: if patients.len() == 1 { cairn_archive::correction::encode(&elements) } else { Default::default() },
        reason: "registered twice".into(),
    };
    protected.encode_to_vec().into()
}

/// Facts about patients.
fn of_patients() -> [(&'static str, Event); 4] {
    let (tenant, key_id, by) = ("default".to_owned(), String::new(), "operator".to_owned());
    let both = patient_protected(&[("HOSPITAL", "P-1"), ("HOSPITAL", "P-2")]);
    let merged = events::PatientsMerged {
        tenant: tenant.clone(),
        protected: both.clone(),
        key_id: key_id.clone(),
        merged_by: by.clone(),
    };
    let linked = events::PatientsLinked {
        tenant: tenant.clone(),
        protected: both.clone(),
        key_id: key_id.clone(),
        linked_by: by.clone(),
    };
    let updated = events::PatientUpdated {
        tenant: tenant.clone(),
        protected: patient_protected(&[("HOSPITAL", "P-2")]),
        key_id: key_id.clone(),
        updated_by: by.clone(),
    };
    let revoked = events::PatientFactRevoked {
        tenant,
        fact_event_id: vec![14; 16].into(),
        protected: both,
        key_id,
        revoked_by: by,
    };
    [
        ("patients_merged", Event::PatientsMerged(merged)),
        ("patients_linked", Event::PatientsLinked(linked)),
        ("patient_updated", Event::PatientUpdated(updated)),
        ("patient_fact_revoked", Event::PatientFactRevoked(revoked)),
    ]
}

/// One of each event with every field filled.
fn samples() -> Vec<(&'static str, Event)> {
    let stored = stored();
    let uids = ("default".to_owned(), "1.2.3".to_owned(), "1.2.3.4".to_owned(), "1.2.3.4.5".to_owned());
    let (tenant, study_instance_uid, series_instance_uid, sop_instance_uid) = uids;
    let mut samples = vec![
        (
            "instance_received_again",
            Event::InstanceReceivedAgain(Box::new(events::InstanceReceivedAgain {
                tenant: tenant.clone(),
                study_instance_uid: study_instance_uid.clone(),
                series_instance_uid: series_instance_uid.clone(),
                sop_instance_uid: sop_instance_uid.clone(),
                store_event_id: vec![9; 16].into(),
                blake3: vec![1; 32].into(),
                receipt: Some(receipt()),
                sender_profile: Some(profile()),
                findings: stored.findings.clone(),
            })),
        ),
        (
            "receipt_closed",
            Event::ReceiptClosed(events::ReceiptClosed {
                tenant: tenant.clone(),
                receipt: Some(receipt()),
                study_instance_uid: study_instance_uid.clone(),
                stored: 300,
                repeated: 2,
                refused: 1,
                opened_at_ms: 1_767_225_600_123,
                end: events::ReceiptEnd::Completed.into(),
            }),
        ),
        (
            "versions_compared",
            Event::VersionsCompared(events::VersionsCompared {
                tenant: tenant.clone(),
                study_instance_uid: study_instance_uid.clone(),
                series_instance_uid: series_instance_uid.clone(),
                sop_instance_uid: sop_instance_uid.clone(),
                first_store_event_id: vec![9; 16].into(),
                second_store_event_id: vec![10; 16].into(),
                comparison: events::Comparison::AnotherEncoding.into(),
            }),
        ),
        (
            "version_chosen",
            Event::VersionChosen(events::VersionChosen {
                tenant,
                study_instance_uid,
                series_instance_uid,
                sop_instance_uid,
                store_event_id: vec![10; 16].into(),
                chosen_by: "operator".into(),
                reason: b"wrong side marker in the first".as_slice().into(),
                key_id: String::new(),
            }),
        ),
        (
            "event_repaired",
            Event::EventRepaired(Box::new(events::EventRepaired {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                event_id: vec![9; 16].into(),
                event_site: "main".into(),
                event_wall_ms: 1_767_225_600_123,
                event_counter: 4,
                remedy: Some(events::event_repaired::Remedy::Replacement(events::Replacement {
                    event_type: "cairn.instance.stored.v1".into(),
                    payload: stored.encode_to_vec().into(),
                })),
                repaired_by: "operator".into(),
                reason: b"cut short by a full disk".as_slice().into(),
                key_id: String::new(),
            })),
        ),
        ("instance_stored", Event::InstanceStored(Box::new(stored))),
        ("instances_rejected", rejected()),
        ("rejection_revoked", revoked()),
        ("attributes_corrected", corrected()),
        ("correction_revoked", correction_revoked()),
        (
            "site_promoted",
            Event::SitePromoted(events::SitePromoted {
                site: "west".into(),
                epoch: 2,
                holds: vec![events::OriginEnd { site: "east".into(), incarnation: 1, partition: 7, end: 42 }],
                decided_by: "operator".into(),
                reason: "the computer room of east is flooded".into(),
                drill: String::new(),
            }),
        ),
        (
            "site_demoted",
            Event::SiteDemoted(events::SiteDemoted {
                site: "west".into(),
                promotion_event_id: vec![9; 16].into(),
                successor: "east".into(),
                decided_by: "operator".into(),
                reason: "east is dry again".into(),
                drill: "2026-06-01T10:00:00.000Z".into(),
            }),
        ),
        (
            "site_read_only_set",
            Event::SiteReadOnlySet(events::SiteReadOnlySet {
                site: "east".into(),
                read_only: true,
                promotion_event_id: vec![9; 16].into(),
                decided_by: "operator".into(),
                reason: "disks are replaced".into(),
            }),
        ),
        (
            "site_declared_dead",
            Event::SiteDeclaredDead(events::SiteDeclaredDead {
                site: "east".into(),
                dead: true,
                promotion_event_id: vec![9; 16].into(),
                decided_by: "operator".into(),
                reason: "the building burned down".into(),
            }),
        ),
        (
            "checkpoint_signed",
            Event::CheckpointSigned(events::CheckpointSigned {
                site: "west".into(),
                number: 17,
                document: "cairn checkpoint 1\nsite west\n\n\u{2014} west AAAA\n".into(),
                previous_offset: Some(41),
            }),
        ),
        (
            "range_sealed",
            Event::RangeSealed(events::RangeSealed {
                site: "west".into(),
                incarnation: 2,
                partition: 7,
                ordinal: 3,
                first_offset: 1_000,
                end_offset: 1_417,
                object: Some(events::Object {
                    key: vec![6; 16].into(),
                    length_bytes: 67_108_864,
                    blake3: vec![5; 32].into(),
                }),
            }),
        ),
        (
            "senders_configured",
            Event::SendersConfigured(events::SendersConfigured {
                site: "east".into(),
                ae_titles: vec!["CAIRN".into(), "OLDPACS".into()],
                unknown_callers_accepted: true,
                application_entities: vec![events::ApplicationEntity {
                    title: "CT1".into(),
                    addresses: vec!["192.0.2.7".into()],
                    services_limited: true,
                    services: vec!["store".into()],
                    transfer_syntaxes: vec!["1.2.840.10008.1.2.1".into()],
                    only_these_transfer_syntaxes: true,
                    destination: "192.0.2.7:104".into(),
                    issuer_of_patient_id: Some("HOSPITAL-A".into()),
                    default_character_set: Some("ISO_IR 100".into()),
                    time_zone: Some("+0100".into()),
                    resend_policy: events::ResendPolicy::SupersedeSameSource.into(),
                    confirmed_sites: Some(1),
                    object_bytes_max: Some(1 << 30),
                }],
                defaults: Some(events::ApplicationEntity::default()),
            }),
        ),
        (
            "object_damaged",
            Event::ObjectDamaged(events::ObjectDamaged {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                series_instance_uid: "1.2.3.4".into(),
                sop_instance_uid: "1.2.3.4.5".into(),
                site: "east".into(),
                object: Some(events::Object {
                    key: vec![1; 16].into(),
                    length_bytes: 526_000,
                    blake3: vec![2; 32].into(),
                }),
                named_by_event_id: vec![3; 16].into(),
                damage: events::Damage::Bytes.into(),
                found_by: events::DamageFoundBy::Scrub.into(),
            }),
        ),
        (
            "object_repaired",
            Event::ObjectRepaired(events::ObjectRepaired {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                series_instance_uid: "1.2.3.4".into(),
                sop_instance_uid: "1.2.3.4.5".into(),
                site: "east".into(),
                object: Some(events::Object {
                    key: vec![1; 16].into(),
                    length_bytes: 526_000,
                    blake3: vec![2; 32].into(),
                }),
                named_by_event_id: vec![3; 16].into(),
                damage_event_id: vec![4; 16].into(),
                source: Some(events::object_repaired::Source::OtherSite("west".into())),
            }),
        ),
        (
            "commitment_requested",
            Event::CommitmentRequested(Box::new(events::CommitmentRequested {
                tenant: "default".into(),
                transaction_uid: "1.2.3.9".into(),
                requester: "PACS1".into(),
                called_ae_title: "CAIRN".into(),
                door: events::Door::Dimse.into(),
                peer_address: "192.0.2.7:51234".into(),
                reference_count: 2,
                references_blake3: vec![3; 32].into(),
                references: Some(events::CommitmentReferences {
                    groups: vec![events::CommitmentGroup {
                        sop_class_uid: "1.2.840.10008.5.1.4.1.1.2".into(),
                        study_instance_uid: "1.2.3".into(),
                        series_instance_uid: "1.2.3.4".into(),
                        sop_instance_uids: vec!["1.2.3.4.5".into(), "1.2.3.4.6".into()],
                    }],
                }),
                side_object: Some(object(2)),
                await_until_ms: 1_767_225_720_123,
                confirmed_sites: 1,
                reporting: events::CommitmentReporting::SameAssociation.into(),
                repeated_event_id: vec![9; 16].into(),
            })),
        ),
        (
            "commitment_decided",
            Event::CommitmentDecided(events::CommitmentDecided {
                tenant: "default".into(),
                transaction_uid: "1.2.3.9".into(),
                requester: "PACS1".into(),
                request_event_id: vec![9; 16].into(),
                committed: 1,
                failed: vec![events::CommitmentFailures { failure_reason: 0x0112, count: 1, place_gaps: vec![1] }],
            }),
        ),
        (
            "commitment_reported",
            Event::CommitmentReported(events::CommitmentReported {
                tenant: "default".into(),
                transaction_uid: "1.2.3.9".into(),
                requester: "PACS1".into(),
                decision_event_id: vec![10; 16].into(),
                outcome: events::CommitmentReportOutcome::GivenUp.into(),
                reason: "connection refused".into(),
            }),
        ),
        (
            "hold_placed",
            Event::HoldPlaced(events::HoldPlaced {
                tenant: "default".into(),
                hold_id: vec![1; 16].into(),
                study_instance_uids: vec!["1.2.3".into(), "1.2.4".into()],
                placed_by: "operator".into(),
                key_id: String::new(),
                protected: events::HoldProtected {
                    patient: Some(events::HeldPatient {
                        patient_id: "ID01".into(),
                        issuer_of_patient_id: Some("EAST".into()),
                    }),
                    query: "PatientName=DOE*".into(),
                    reason: "a court asks".into(),
                }
                .encode_to_vec()
                .into(),
            }),
        ),
        (
            "hold_released",
            Event::HoldReleased(events::HoldReleased {
                tenant: "default".into(),
                hold_id: vec![1; 16].into(),
                promotion_event_id: vec![9; 16].into(),
                released_by: "operator".into(),
                reason: b"the court has decided".as_slice().into(),
                key_id: String::new(),
            }),
        ),
        (
            "policy_adopted",
            Event::PolicyAdopted(events::PolicyAdopted {
                tenant: "default".into(),
                name: "mammograms".into(),
                version: 2,
                promotion_event_id: vec![9; 16].into(),
                action: events::PolicyAction::Erase.into(),
                delay_ms: 1_209_600_000,
                studies_max: 500,
                adopted_by: "operator".into(),
                key_id: String::new(),
                protected: events::PolicyProtected {
                    expression: "'MG' in modalities && received_days > 3650".into(),
                    reason: "retention is ten years".into(),
                }
                .encode_to_vec()
                .into(),
            }),
        ),
        (
            "policy_withdrawn",
            Event::PolicyWithdrawn(events::PolicyWithdrawn {
                tenant: "default".into(),
                name: "mammograms".into(),
                promotion_event_id: vec![9; 16].into(),
                withdrawn_by: "operator".into(),
                reason: b"the law has changed".as_slice().into(),
                key_id: String::new(),
            }),
        ),
        (
            "erasure_requested",
            Event::ErasureRequested(Box::new(events::ErasureRequested {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                promotion_event_id: vec![9; 16].into(),
                series: vec![erased_series()],
                delay_ms: 604_800_000,
                requested_by: "operator".into(),
                reason: b"the patient asks".as_slice().into(),
                key_id: String::new(),
            })),
        ),
        (
            "erasure_withdrawn",
            Event::ErasureWithdrawn(events::ErasureWithdrawn {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                erasure_event_id: vec![2; 16].into(),
                promotion_event_id: vec![9; 16].into(),
                withdrawn_by: "operator".into(),
                reason: b"another patient was meant".as_slice().into(),
                key_id: String::new(),
            }),
        ),
        (
            "erasure_confirmed",
            Event::ErasureConfirmed(events::ErasureConfirmed {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                erasure_event_id: vec![2; 16].into(),
                site: "west".into(),
                holds: vec![events::OriginEnd { site: "east".into(), incarnation: 1, partition: 7, end: 42 }],
            }),
        ),
        (
            "versions_erased",
            Event::VersionsErased(Box::new(events::VersionsErased {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                erasure_event_id: vec![2; 16].into(),
                series: vec![erased_series()],
                kept: vec![events::KeptVersion {
                    series_instance_uid: "1.2.3.4".into(),
                    sop_instance_uid: "1.2.3.4.6".into(),
                    store_event_id: vec![6; 16].into(),
                    because: events::KeptBecause::Held.into(),
                    because_of: vec![1; 16].into(),
                }],
                confirmation_event_ids: vec![vec![7; 16].into(), vec![8; 16].into()],
            })),
        ),
        (
            "objects_destroyed",
            Event::ObjectsDestroyed(events::ObjectsDestroyed {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                versions_erased_event_id: vec![3; 16].into(),
                site: "west".into(),
                objects: 2,
                bytes: 1_052_000,
                absent: 1,
            }),
        ),
        (
            "keys_judged",
            Event::KeysJudged(events::KeysJudged {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                versions_erased_event_id: vec![3; 16].into(),
                key_ids: vec![vec![4; 16].into(), vec![5; 16].into()],
                kept: vec![events::KeptKey { key_id: vec![6; 16].into(), needed_by_event_id: vec![7; 16].into() }],
                correction_event_ids: vec![vec![8; 16].into()],
            }),
        ),
        (
            "keys_destroyed",
            Event::KeysDestroyed(events::KeysDestroyed {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                keys_judged_event_id: vec![9; 16].into(),
                site: "west".into(),
                keys: 2,
                absent: 1,
            }),
        ),
        (
            "move_policy_adopted",
            Event::MovePolicyAdopted(events::MovePolicyAdopted {
                tenant: "default".into(),
                name: "old".into(),
                version: 2,
                promotion_event_id: vec![9; 16].into(),
                rest_ms: 604_800_000,
                studies_max: 500,
                adopted_by: "operator".into(),
                key_id: String::new(),
                protected: events::PolicyProtected {
                    expression: "received_days > 365".into(),
                    reason: "seldom wanted".into(),
                }
                .encode_to_vec()
                .into(),
            }),
        ),
        (
            "study_moved",
            Event::StudyMoved(events::StudyMoved {
                tenant: "default".into(),
                study_instance_uid: "1.2.3".into(),
                site: "west".into(),
                tier: events::ObjectTier::Cold.into(),
                asked_by: "operator".into(),
            }),
        ),
    ];
    samples.extend(of_patients());
    samples
}

fn erased_series() -> events::ErasedSeries {
    events::ErasedSeries {
        series_instance_uid: "1.2.3.4".into(),
        instances: vec![events::ErasedInstance {
            sop_instance_uid: "1.2.3.4.5".into(),
            versions: vec![events::ErasedVersion {
                store_event_id: vec![4; 16].into(),
                object_keys: vec![vec![1; 16].into(), vec![2; 16].into()],
            }],
            repeat_event_ids: vec![vec![5; 16].into()],
        }],
    }
}

#[test]
fn golden_bytes_of_every_released_version_read_as_they_did() {
    let folder = schemas().join("golden/v1");
    if freezing() {
        for (name, event) in samples() {
            if !folder.join(format!("{name}.bin")).exists() {
                fs::write(folder.join(format!("{name}.bin")), event.encode()).expect("written");
                fs::write(folder.join(format!("{name}.txt")), format!("{}\n{event:#?}\n", event.kind()))
                    .expect("written");
            }
        }
    }
    let mut kinds = Vec::new();
    for (name, sample) in samples() {
        let bytes = fs::read(folder.join(format!("{name}.bin"))).expect("golden bytes");
        let expected = fs::read_to_string(folder.join(format!("{name}.txt"))).expect("golden text");
        let (kind, _) = expected.split_once('\n').expect("kind");
        let event = Event::decode(kind, bytes.clone().into()).expect("decodes");
        assert_eq!(format!("{kind}\n{event:#?}\n"), expected, "{name}");
        assert_eq!(event.encode(), bytes, "{name} encodes to the same bytes");
        assert_eq!(event, sample, "{name}");
        kinds.push(event.kind());
    }
    kinds.sort_unstable();
    let mut written = EVENT_TYPES.to_vec();
    written.sort_unstable();
    assert_eq!(kinds, written, "every event type that is written has a golden file");
}

#[test]
fn the_golden_envelope_reads_back() {
    let path = schemas().join("golden/v1/envelope.txt");
    let envelope = Envelope {
        id: "018f4d2e-9c3a-7000-8000-000000000001".parse().expect("id"),
        kind: "cairn.instance.stored.v1".into(),
        site: "main".parse().expect("site"),
        study_instance_uid: "1.2.3".into(),
        tenant: "default".into(),
        hlc: Hlc { wall_ms: 1_767_225_600_123, counter: 4 },
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        correlation_id: Some("07070707-0707-0707-0707-070707070707".into()),
        causation_id: Some("018f4d2e-9c3a-7000-8000-000000000000".parse().expect("id")),
        object_keys: vec!["018f4d2e-9c3a-7000-8000-000000000002".parse().expect("key")],
        origin: Some("other/1/3/9".parse().expect("position")),
    };
    let rendered: String = envelope.to_headers().iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    if freezing() && !path.exists() {
        fs::write(&path, &rendered).expect("written");
    }
    let golden = fs::read_to_string(&path).expect("golden envelope");
    assert_eq!(rendered, golden);
    let find = |wanted: &str| golden.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == wanted);
    assert_eq!(Envelope::from_headers(|name| find(name).map(|(_, value)| value)), Ok(envelope));
}
