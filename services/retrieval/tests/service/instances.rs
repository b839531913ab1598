//! Whole instances, parts of them, their metadata and bulk data.

use crate::support::{Archive, BIG_ENDIAN, DEFLATED, EXPLICIT, Image, collect, element};
use cairn_dicom::{Tag, Vr, tags};
use cairn_retrieval::RetrievalConfig;
use cairn_service_api::{ErrorKind, Retrieval, index::Selection, retrieval::Part};
use futures_util::{StreamExt, TryStreamExt};
use std::sync::atomic::Ordering;

fn image(n: u32, rows: u16) -> Image {
    Image { instance: format!("1.2.3.4.{n}"), rows, columns: 256, frames: 1, ..Image::default() }
}

#[tokio::test]
async fn an_instance_comes_back_whole_as_data_set_or_as_a_range() {
    let archive = Archive::default();
    let data_set = image(1, 700).native();
    let record = archive.add(EXPLICIT, &data_set);
    let service = archive.service();
    let file = [vec![0; 200], data_set.clone()].concat();
    for (part, expected) in [
        (Part::File, &file[..]),
        (Part::DataSet, &data_set),
        (Part::FileRange(150..70_000), &file[150..70_000]),
        (Part::FileRange(10..10), &[]),
    ] {
        let bytes = service.open(&record, part.clone()).await.expect("opens");
        assert!(collect(bytes).await.expect("reads") == expected, "{part:?}");
    }
    for range in [0..file.len() as u64 + 1, 9..u64::MAX] {
        let outside = service.open(&record, Part::FileRange(range)).await;
        assert_eq!(outside.err().map(|error| error.kind), Some(ErrorKind::Invalid));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_come_in_order_whatever_their_size_and_within_the_bound() {
    let archive = Archive::default();
    // Small ones between large ones: none may hold the room that an earlier one waits for.
    let images: Vec<_> = (0..60).map(|n| image(n, if n % 7 == 3 { 20_000 } else { 50 + n as u16 })).collect();
    images.iter().for_each(|image| {
        archive.add(EXPLICIT, &image.native());
    });
    let config = RetrievalConfig {
        read_ahead_bytes: 1 << 20,
        whole_bytes_max: 128 << 10,
        read_ahead_instances: 4,
        ..RetrievalConfig::default()
    };
    let service = archive.configured(config);
    let mut instances = service.instances(Selection::default(), Part::DataSet).await.expect("opens");
    let mut n = 0;
    while let Some(instance) = instances.try_next().await.expect("an instance") {
        assert_eq!(instance.record.sop_instance_uid.as_str(), images[n].instance);
        assert!(instance.record.frame_table.is_some());
        if n % 11 == 5 {
            // Who drops the bytes of one gets the next all the same.
            drop(instance.bytes);
        } else {
            assert!(collect(instance.bytes).await.expect("reads") == images[n].native(), "{n}");
        }
        n += 1;
    }
    assert_eq!(n, 60);
}

#[tokio::test]
async fn reading_ahead_stops_at_the_bound_and_when_nobody_asks_any_more() {
    let archive = Archive::default();
    (0..200).for_each(|n| {
        archive.add(EXPLICIT, &image(n, 400).native());
    });
    let config =
        RetrievalConfig { read_ahead_bytes: 1 << 20, read_ahead_instances: 1_000, ..RetrievalConfig::default() };
    let service = archive.configured(config);
    let mut instances = service.instances(Selection::default(), Part::File).await.expect("opens");
    let first = instances.try_next().await.expect("reads").expect("one");
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
    let ahead = archive.objects.bytes_read.load(Ordering::Relaxed);
    assert!(ahead <= 2 << 20, "{ahead} bytes were read ahead of a bound of 1 MiB");
    drop((first, instances));
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
    let after = archive.objects.bytes_read.load(Ordering::Relaxed);
    assert!(after <= ahead + (1 << 20), "reading went on: {after}");
}

#[tokio::test]
async fn retrievals_that_nobody_takes_share_one_bound_and_leave_others_room_to_go_on() {
    const MIB: u64 = 1 << 20;
    let archive = Archive::default();
    (0..100).for_each(|n| {
        archive.add(EXPLICIT, &image(n, 400).native());
    });
    let config = RetrievalConfig {
        read_ahead_bytes: 8 * MIB,
        read_ahead_own_bytes: MIB / 2,
        read_ahead_shared_bytes: 10 * MIB,
        read_ahead_instances: 1_000,
        ..RetrievalConfig::default()
    };
    let service = archive.configured(config);
    let read = || archive.objects.bytes_read.load(Ordering::Relaxed);
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(service.instances(Selection::default(), Part::File).await.expect("opens"));
    }
    for _ in 0..20_000 {
        tokio::task::yield_now().await;
    }
    let ahead = read();
    assert!(
        (10 * MIB..=25 * MIB).contains(&ahead),
        "{ahead} bytes were read ahead of bounds of 10 MiB and 30 * 512 KiB"
    );
    let mut instances = service.instances(Selection::default(), Part::File).await.expect("opens");
    let mut taken = 0;
    while let Some(instance) = instances.try_next().await.expect("reads") {
        taken += collect(instance.bytes).await.expect("reads").len() as u64;
    }
    assert!(taken > 9 * MIB, "all of it: {taken}");
    // What they held is there for others again.
    drop(held);
    let before = read();
    let _one = service.instances(Selection::default(), Part::File).await.expect("opens");
    for _ in 0..20_000 {
        tokio::task::yield_now().await;
    }
    let ahead = read() - before;
    assert!((7 * MIB..=9 * MIB).contains(&ahead), "{ahead} bytes were read ahead of a bound of 8 MiB");
}

#[tokio::test]
async fn a_damaged_instance_fails_by_itself_and_before_any_wrong_byte() {
    let archive = Archive::default();
    let records: Vec<_> = (0..4).map(|n| archive.add(EXPLICIT, &image(n, 700).native())).collect();
    archive.objects.damage(records[1].object.key, 100_000);
    archive.objects.remove(records[2].object.key);
    let service = archive.service();
    let mut instances = service.instances(Selection::default(), Part::DataSet).await.expect("opens");
    let mut outcomes = Vec::new();
    while let Some(instance) = instances.try_next().await.expect("an instance") {
        let n = outcomes.len() as u32;
        let (mut bytes, whole) = (instance.bytes, image(n, 700).native());
        let mut got = Vec::new();
        let mut outcome = None;
        while let Some(chunk) = bytes.next().await {
            match chunk {
                Ok(chunk) => got.extend_from_slice(&chunk),
                Err(error) => outcome = Some(error.kind),
            }
        }
        assert!(whole.starts_with(&got));
        assert_eq!(outcome.is_none(), whole.len() == got.len());
        outcomes.push(outcome);
    }
    assert_eq!(outcomes, [None, Some(ErrorKind::Corrupt), Some(ErrorKind::Corrupt), None]);
    let gone = service.open(&records[2], Part::File).await;
    assert_eq!(gone.err().map(|error| error.kind), Some(ErrorKind::Corrupt));
}

#[tokio::test]
async fn metadata_is_complete_also_from_side_objects_and_reads_nothing_else() {
    let archive = Archive::default();
    let near = archive.add(EXPLICIT, &image(1, 700).native());
    let far = archive.add(EXPLICIT, &image(2, 700).native());
    archive.move_aside(&far);
    let service = archive.service();
    let records: Vec<_> =
        service.metadata(Selection::default()).await.expect("opens").try_collect().await.expect("reads");
    for (record, expected) in records.iter().zip([&near, &far]) {
        assert_eq!(record.header, expected.header);
        assert_eq!((&record.frame_table, &record.bulk_data), (&expected.frame_table, &expected.bulk_data));
    }
    assert!(archive.objects.bytes_read.load(Ordering::Relaxed) < 4_096, "the objects themselves were not read");

    let far = archive.records.0.lock().expect("not poisoned")[1].clone();
    archive.objects.remove(far.side_object.expect("a side object").key);
    let kept: Vec<_> = service.metadata(Selection::default()).await.expect("opens").collect().await;
    assert!(kept.iter().all(Result::is_ok), "what was read last is kept");
    let anew: Vec<_> = archive.service().metadata(Selection::default()).await.expect("opens").collect().await;
    assert!(anew[0].is_ok());
    assert_eq!(anew[1].as_ref().err().map(|error| error.kind), Some(ErrorKind::Corrupt));
}

/// An image with a large private value in an item of a sequence.
fn with_bulk() -> (Vec<u8>, Vec<u8>) {
    let value: Vec<u8> = (0..5_000_u32).flat_map(u32::to_le_bytes).collect();
    let (mut item, mut sequence) = (Vec::new(), Vec::new());
    element(&mut item, false, Tag::new(0x0009, 0x0010), Vr::LO, None, b"CAIRN TEST");
    element(&mut item, false, Tag::new(0x0009, 0x1001), Vr::OB, None, &value);
    element(&mut sequence, false, Tag::new(0xFFFE, 0xE000), Vr::UN, None, &item);
    let mut data_set = image(1, 10).native();
    element(&mut data_set, false, Tag::new(0x7FE1, 0x0010), Vr::LO, None, b"CAIRN TEST");
    element(&mut data_set, false, Tag::new(0x7FE1, 0x1001), Vr::SQ, None, &sequence);
    (data_set, value)
}

#[tokio::test]
async fn a_value_that_is_not_in_the_header_is_had_by_its_path() {
    let (data_set, value) = with_bulk();
    let path = [0x7FE1_1001, 0, 0x0009_1001];
    let deflate = |bytes: &[u8]| {
        use std::io::Write;
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("to memory");
        encoder.finish().expect("to memory")
    };
    for (syntax, stored) in [(EXPLICIT, data_set.clone()), (DEFLATED, deflate(&data_set))] {
        for aside in [false, true] {
            let archive = Archive::default();
            let mut record = archive.add(syntax, &stored);
            if aside {
                record = archive.move_aside(&record);
            }
            let service = archive.service();
            let (length, bytes) = service.bulk_data(&record, &path).await.expect("opens");
            assert_eq!(length, value.len() as u64);
            assert!(collect(bytes).await.expect("reads") == value, "{syntax} {aside}");
            let (_, pixels) = service.bulk_data(&record, &[tags::PIXEL_DATA.0]).await.expect("opens");
            assert!(collect(pixels).await.expect("reads") == image(1, 10).pixels());
            for none in [&[tags::PATIENT_ID.0][..], &[0x7FE1_1001, 1, 0x0009_1001], &[]] {
                let missing = service.bulk_data(&record, none).await;
                assert_eq!(missing.err().map(|error| error.kind), Some(ErrorKind::NotFound));
            }
        }
    }
}

/// Stored high byte first, two sequences deep; each value by the units of its own VR.
#[tokio::test]
async fn values_within_sequences_of_big_endian_data_sets_are_given_in_little_endian() {
    let value: Vec<u8> = (0..1_250_u64).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    let (outer, inner) = (Tag::new(0x0040, 0x0555), Tag::new(0x0040, 0xA730));
    for vr in [Vr::OB, Vr::OW, Vr::OF, Vr::OL, Vr::OD, Vr::OV] {
        let mut stored = value.clone();
        stored.chunks_exact_mut(vr.unit_bytes()).for_each(<[u8]>::reverse);
        let (mut item, mut around, mut sequence) = (Vec::new(), Vec::new(), Vec::new());
        element(&mut item, true, Tag::new(0x0009, 0x0010), Vr::LO, None, b"CAIRN TEST");
        element(&mut item, true, Tag::new(0x0009, 0x1001), vr, None, &stored);
        let mut items = Vec::new();
        element(&mut items, true, Tag::new(0xFFFE, 0xE000), Vr::UN, None, &[]);
        element(&mut items, true, Tag::new(0xFFFE, 0xE000), Vr::UN, None, &item);
        element(&mut around, true, inner, Vr::SQ, None, &items);
        element(&mut sequence, true, Tag::new(0xFFFE, 0xE000), Vr::UN, None, &around);
        // Undefined length, as many senders have it.
        let mut data_set = Vec::new();
        let image = image(1, 10).big_endian();
        let pixels = image.windows(4).rposition(|tag| tag == [0x7F, 0xE0, 0, 0x10]).expect("pixels");
        data_set.extend_from_slice(&image[..pixels]);
        element(&mut data_set, true, outer, Vr::SQ, Some(u32::MAX), &sequence);
        element(&mut data_set, true, Tag::new(0xFFFE, 0xE0DD), Vr::UN, None, &[]);
        data_set.extend_from_slice(&image[pixels..]);
        let archive = Archive::default();
        let record = archive.add(BIG_ENDIAN, &data_set);
        let path = [outer.0, 0, inner.0, 1, 0x0009_1001];
        let (length, bytes) = archive.service().bulk_data(&record, &path).await.expect("opens");
        assert_eq!(length, value.len() as u64, "{vr:?}");
        assert!(collect(bytes).await.expect("reads") == value, "{vr:?}");
    }
}
