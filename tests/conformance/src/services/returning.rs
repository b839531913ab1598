use super::{Site, all, collect, fill, of_study};
use cairn_dicom::{header::Header, part10::Part10Reader, tags};
use cairn_service_api::{
    DEFAULT_TENANT, ErrorKind,
    index::{Detail, InstanceRecord, Selection},
    retrieval::Part,
};
use cairn_synthetic::Generated;
use futures_util::StreamExt;
use std::{collections::BTreeSet, sync::Arc};

fn data_set(file: &[u8]) -> &[u8] {
    let start = Part10Reader::new(1 << 20).push(file).unwrap().unwrap();
    &file[usize::try_from(start.data_set_offset).unwrap()..]
}

fn of<'a>(made: &'a [Generated], record: &InstanceRecord) -> &'a Generated {
    made.iter().find(|one| one.sop_instance_uid == record.sop_instance_uid).unwrap()
}

fn everything() -> Selection {
    Selection { tenant: DEFAULT_TENANT.into(), ..Selection::default() }
}

async fn records(site: &dyn Site, made: &[Generated]) -> Vec<InstanceRecord> {
    let mut records = Vec::new();
    for study in made.iter().map(|one| &one.study_instance_uid).collect::<BTreeSet<_>>() {
        records.extend(all(site.index().instances(of_study(study), Detail::Tables).await.unwrap()).await);
    }
    records
}

pub(super) async fn instances_come_back_byte_for_byte(site: Arc<dyn Site>) {
    let made = fill(&*site, 21, 5).await;
    let mut count = 0;
    for study in made.iter().map(|one| &one.study_instance_uid).collect::<BTreeSet<_>>() {
        let mut found = site.retrieval().instances(of_study(study), Part::DataSet).await.unwrap();
        while let Some(instance) = found.next().await {
            let instance = instance.unwrap();
            let sent = of(&made, &instance.record);
            assert_eq!(collect(instance.bytes).await.unwrap(), data_set(&sent.file));
            count += 1;
        }
    }
    assert_eq!(count, made.len());
}

pub(super) async fn parts_of_a_file_are_its_bytes(site: Arc<dyn Site>) {
    let made = fill(&*site, 22, 1).await;
    let record = records(&*site, &made).await.remove(0);
    let open = async |part| collect(site.retrieval().open(&record, part).await.unwrap()).await.unwrap();
    let whole = open(Part::File).await;
    assert_eq!(whole.len() as u64, record.object.length);
    let offset = usize::try_from(record.data_set_offset).unwrap();
    assert_eq!(&whole[offset..], data_set(&of(&made, &record).file));
    assert_eq!(open(Part::DataSet).await, &whole[offset..]);
    assert_eq!(open(Part::FileRange(100..300)).await, &whole[100..300]);
    let beyond = Part::FileRange(0..record.object.length + 1);
    let refused = match site.retrieval().open(&record, beyond).await {
        Err(error) => error,
        Ok(bytes) => collect(bytes).await.expect_err("no such range"),
    };
    assert_eq!(refused.kind, ErrorKind::Invalid);
}

pub(super) async fn frames_are_the_pixels(site: Arc<dyn Site>) {
    let made = fill(&*site, 23, 12).await;
    let records = records(&*site, &made).await;
    assert!(records.iter().any(|record| record.frames > 1), "a multi-frame instance is among them");
    for record in records.iter().filter(|record| record.frames > 0) {
        let numbers: Vec<u32> = (1..=record.frames).rev().collect();
        let mut frames = site.retrieval().frames(record, &numbers).await.unwrap();
        let mut found = Vec::new();
        while let Some(frame) = frames.next().await {
            let frame = frame.unwrap();
            assert_eq!(frame.number, numbers[found.len()]);
            let bytes = collect(frame.bytes).await.unwrap();
            assert_eq!(bytes.len() as u64, frame.length);
            found.push(bytes);
        }
        found.reverse();
        let file = &of(&made, record).file;
        assert_eq!(found.concat(), file[file.len() - found.concat().len()..], "Pixel Data ends the file");
        assert_eq!(found.len(), record.frames as usize);
    }
}

pub(super) async fn a_frame_that_does_not_exist_is_not_found(site: Arc<dyn Site>) {
    let made = fill(&*site, 23, 12).await;
    let records = records(&*site, &made).await;
    let record = records.iter().find(|record| record.frames > 0).unwrap();
    for number in [0, record.frames + 1] {
        let missing = match site.retrieval().frames(record, &[1, number]).await {
            Err(error) => error,
            Ok(mut frames) => frames.next().await.unwrap().err().expect("nothing is yielded before"),
        };
        assert_eq!(missing.kind, ErrorKind::NotFound);
    }
}

pub(super) async fn bulk_data_is_the_value(site: Arc<dyn Site>) {
    let made = fill(&*site, 23, 12).await;
    let records = records(&*site, &made).await;
    let mut values = 0;
    for record in &records {
        for entry in &record.bulk_data {
            let (length, bytes) = site.retrieval().bulk_data(record, &entry.path).await.unwrap();
            let bytes = collect(bytes).await.unwrap();
            assert_eq!((length, length), (entry.length_bytes, bytes.len() as u64));
            let from = usize::try_from(record.data_set_offset + entry.offset).unwrap();
            let stored = data_set(&of(&made, record).file);
            let in_data_set = from - usize::try_from(record.data_set_offset).unwrap();
            assert_eq!(bytes, stored[in_data_set..in_data_set + bytes.len()]);
            values += 1;
        }
        let missing = site.retrieval().bulk_data(record, &[tags::PATIENT_NAME.0]).await;
        assert_eq!(missing.err().expect("not bulk data").kind, ErrorKind::NotFound);
    }
    assert!(values > 0);
}

pub(super) async fn metadata_has_headers_and_tables(site: Arc<dyn Site>) {
    let made = fill(&*site, 24, 5).await;
    let study = &made[0].study_instance_uid;
    let found = all(site.retrieval().metadata(of_study(study)).await.unwrap()).await;
    assert_eq!(found.len(), made.iter().filter(|one| one.study_instance_uid == *study).count());
    for record in found {
        let header = Header::new(&record.header);
        let uid = header.get(tags::SOP_INSTANCE_UID).map(|element| element.value.to_vec()).unwrap();
        assert!(String::from_utf8(uid).unwrap().starts_with(record.sop_instance_uid.as_str()));
        assert!(record.frames == 0 || record.frame_table.is_some());
    }
}

pub(super) async fn an_empty_selection_gives_nothing(site: Arc<dyn Site>) {
    fill(&*site, 25, 1).await;
    let nothing = of_study(&"1.2.3".parse().unwrap());
    assert!(all(site.index().instances(nothing.clone(), Detail::Header).await.unwrap()).await.is_empty());
    assert!(site.retrieval().instances(nothing, Part::File).await.unwrap().next().await.is_none());
    let other_tenant = Selection { tenant: "other".into(), ..everything() };
    assert!(all(site.index().instances(other_tenant, Detail::Location).await.unwrap()).await.is_empty());
}
