//! The process dies at each numbered step of ingest, and at random moments under load: no acknowledged instance is
//! lost, none that was not acknowledged is there in part, and the next start needs no operator.

use crate::{
    stow::{Sent, data_set_of, data_set_over_http, stow},
    support::{Archive, Start, directory, eventually, rounds},
};
use cairn_archive::{Partition, rejection::KEY_OBJECT_SELECTION_DOCUMENT};
use cairn_dicom::{
    CharacterSet, Tag, Uid, Vr,
    dataset::{DataSet, Value},
    part10::{NewFileMeta, write_file_meta},
    tags,
    transfer_syntax::Encoding,
};
use cairn_ingest::crash::Step;
use std::path::Path;

/// What passes every step: new instances, one whose header needs a side object, a rejection note about other studies, a
/// repeat, a conflict, a refusal.
fn scenario() -> Vec<Sent> {
    let mut files: Vec<Sent> =
        cairn_synthetic::studies(23, 4).take(12).map(|made| Sent::new(made.file, made.sop_instance_uid)).collect();
    files.push(with_large_header());
    files.push(note_about_other_studies());
    files.push(files[0].clone());
    let mut other = files[1].clone();
    *other.file.last_mut().unwrap() ^= 1;
    files.push(other);
    files.push(Sent { file: b"no DICOM at all, and no data set either".to_vec(), sop_instance_uid: None });
    files
}

/// An instance whose header is larger than an event may be.
fn with_large_header() -> Sent {
    let uid = |text: &str| text.parse::<Uid>().unwrap();
    let (class, instance) = (uid("1.2.840.10008.5.1.4.1.1.66"), uid("2.25.9000000001"));
    let mut set = DataSet::new();
    set.put_text(tags::SOP_CLASS_UID, class.as_str());
    set.put_text(tags::SOP_INSTANCE_UID, instance.as_str());
    set.put_text(tags::STUDY_INSTANCE_UID, "2.25.9000000002");
    set.put_text(tags::SERIES_INSTANCE_UID, "2.25.9000000003");
    set.put_text(tags::PATIENT_ID, "LARGE");
    set.put_text(Tag::new(0x0011, 0x0010), "CAIRN TEST");
    for element in 0x1000..0x1400 {
        set.put(Tag::new(0x0011, element), Vr::LT, Value::Text(vec!["x".repeat(1_000)]));
    }
    let mut file = write_file_meta(&NewFileMeta {
        sop_class_uid: &class,
        sop_instance_uid: &instance,
        transfer_syntax_uid: "1.2.840.10008.1.2.1",
        source_ae_title: None,
    });
    file.extend(set.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).unwrap());
    Sent { file, sop_instance_uid: Some(instance) }
}

/// Studies that a note is about, of none of which anything is there. They are in other partitions than the note's.
const NOTED: [&str; 2] = ["2.25.9000000011", "2.25.9000000012"];

/// A rejection note about instances of other studies than its own.
fn note_about_other_studies() -> Sent {
    let (own, instance) = ("2.25.9000000013", "2.25.9000000014".parse::<Uid>().unwrap());
    assert!(NOTED.iter().all(|study| Partition::of_study(study, 64) != Partition::of_study(own, 64)));
    let items = |mut of: DataSet, tag: Tag, items: Vec<DataSet>| {
        of.put(tag, Vr::SQ, Value::Sequence(items));
        of
    };
    let texts = |texts: &[(Tag, &str)]| {
        let mut set = DataSet::new();
        texts.iter().for_each(|(tag, text)| set.put_text(*tag, text));
        set
    };
    let evidence = NOTED.map(|study| {
        let sop = texts(&[(tags::REFERENCED_SOP_INSTANCE_UID, "2.25.9000000015")]);
        let series = texts(&[(tags::SERIES_INSTANCE_UID, "2.25.9000000016")]);
        let series = items(series, tags::REFERENCED_SOP_SEQUENCE, vec![sop]);
        items(texts(&[(tags::STUDY_INSTANCE_UID, study)]), tags::REFERENCED_SERIES_SEQUENCE, vec![series])
    });
    let note = texts(&[
        (tags::SOP_CLASS_UID, KEY_OBJECT_SELECTION_DOCUMENT),
        (tags::SOP_INSTANCE_UID, instance.as_str()),
        (tags::STUDY_INSTANCE_UID, own),
        (tags::SERIES_INSTANCE_UID, "2.25.9000000017"),
    ]);
    let concept = texts(&[(tags::CODE_VALUE, "113001"), (tags::CODING_SCHEME_DESIGNATOR, "DCM")]);
    let note = items(note, tags::CONCEPT_NAME_CODE_SEQUENCE, vec![concept]);
    let note = items(note, tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, evidence.to_vec());
    let mut file = write_file_meta(&NewFileMeta {
        sop_class_uid: &KEY_OBJECT_SELECTION_DOCUMENT.parse().unwrap(),
        sop_instance_uid: &instance,
        transfer_syntax_uid: "1.2.840.10008.1.2.1",
        source_ae_title: None,
    });
    file.extend(note.encode(Encoding::ExplicitLittle, CharacterSet::DEFAULT).unwrap());
    Sent { file, sop_instance_uid: Some(instance) }
}

/// What the note says is said of each study, once it was acknowledged.
fn check_note(archive: &Archive, acknowledged: &[Sent]) {
    let note = note_about_other_studies();
    if acknowledged.iter().any(|sent| sent.file == note.file) {
        for study in NOTED {
            let listed = archive.ok(&["rejections", "list", study, "-o", "json"]);
            assert!(listed.contains("113001"), "the note was acknowledged, and nothing is rejected in {study}");
        }
    }
}

/// Sends one by one; gives those that were acknowledged. Ends when the archive is gone.
fn send(archive: &Archive, files: &[Sent]) -> (Vec<Sent>, bool) {
    let mut acknowledged = Vec::new();
    for sent in files {
        match stow(archive.http, &[&sent.file]) {
            Ok(answer) if matches!(answer.status, 200 | 202) => acknowledged.push(sent.clone()),
            Ok(answer) => assert!(sent.sop_instance_uid.is_none(), "refused: {answer:?}"),
            Err(_) => return (acknowledged, true),
        }
    }
    (acknowledged, false)
}

/// Every acknowledged data set is given back whole; of the others either all or nothing.
fn check(archive: &Archive, files: &[Sent], acknowledged: &[Sent]) {
    archive.settled();
    for sent in files {
        let Some(uid) = &sent.sop_instance_uid else { continue };
        let versions = data_set_over_http(archive, uid);
        let own = data_set_of(&sent.file);
        let was_acknowledged = acknowledged.iter().any(|other| other.file == sent.file);
        assert!(!was_acknowledged || versions.contains(&own), "{uid} was acknowledged and is not there as sent");
        let known: Vec<Vec<u8>> = files
            .iter()
            .filter(|f| f.sop_instance_uid == sent.sop_instance_uid)
            .map(|f| data_set_of(&f.file))
            .collect();
        assert!(versions.iter().all(|version| known.contains(version)), "{uid} is there with bytes that nobody sent");
    }
    check_note(archive, acknowledged);
    let verified = archive.ok(&["index", "verify"]);
    assert!(verified.contains("equal"), "{verified}");
}

fn start_dying(data: &Path, step: &str) -> Archive {
    Archive::start_with(data, Start { environment: vec![("CAIRN_CRASH_AT", step.into())], ..Start::default() })
}

#[test]
fn no_step_of_ingest_loses_or_invents_anything() {
    let folder = directory();
    let files = scenario();
    for step in Step::ALL {
        let data = folder.path().join(step.name());
        let mut dying = start_dying(&data, step.name());
        let (acknowledged, gone) = send(&dying, &files);
        if gone {
            assert!(!dying.wait().success(), "{} aborts", step.name());
            drop(dying);
        } else {
            // Steps after the answer: the comparison in the background, the receipt's end.
            assert!(!dying.wait().success(), "{} is passed by the scenario", step.name());
            drop(dying);
        }
        let archive = Archive::start(&data);
        check(&archive, &files, &acknowledged);
        let (again, gone) = send(&archive, &files);
        assert!(!gone && again.len() == files.len() - 1, "{}: all but the refused one are taken again", step.name());
        check(&archive, &files, &again);
        archive.kill();
    }
}

#[test]
fn killed_under_load_it_keeps_what_it_acknowledged() {
    let rounds = rounds(3);
    let folder = directory();
    for round in 0..rounds {
        let data = folder.path().join(format!("{round}"));
        let archive = Archive::start(&data);
        let files: Vec<Sent> =
            cairn_synthetic::studies(100 + round, 30).map(|made| Sent::new(made.file, made.sop_instance_uid)).collect();
        let address = archive.http;
        let senders: Vec<_> = files
            .chunks(files.len().div_ceil(4))
            .map(|part| {
                let part = part.to_vec();
                std::thread::spawn(move || {
                    let taken = |sent: &Sent| stow(address, &[&sent.file]).is_ok_and(|answer| answer.status == 200);
                    part.into_iter().take_while(taken).collect::<Vec<Sent>>()
                })
            })
            .collect();
        // At another moment in each round, by what was stored, not by time.
        let enough = 5.0 + (round * 17 % 60) as f64;
        eventually("stores under way", || (archive.stored() >= enough).then_some(()));
        archive.kill();
        let acknowledged: Vec<Sent> = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
        assert!(!acknowledged.is_empty());
        let archive = Archive::start(&data);
        check(&archive, &files, &acknowledged);
        archive.stop();
    }
}
