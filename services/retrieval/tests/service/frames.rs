//! Frames: native, in fragments, and those that only decoding gives.

use crate::support::{Archive, BIG_ENDIAN, DEFLATED, EXPLICIT, Image, JPEG, collect};
use cairn_retrieval::{RetrievalConfig, RetrievalService};
use cairn_service_api::{Error, ErrorKind, Retrieval, index::InstanceRecord};
use futures_util::TryStreamExt;
use proptest::prelude::*;
use std::{sync::atomic::Ordering, time::Instant};

/// Frames asked for, each with what it gave.
async fn get(
    service: &RetrievalService,
    record: &InstanceRecord,
    numbers: &[u32],
) -> Result<Vec<(u32, Result<Vec<u8>, ErrorKind>)>, Error> {
    let mut frames = service.frames(record, numbers).await?;
    let mut got = Vec::new();
    while let Some(frame) = frames.try_next().await? {
        let bytes = collect(frame.bytes).await;
        if let Ok(bytes) = &bytes {
            assert_eq!(bytes.len() as u64, frame.length, "frame {}", frame.number);
        }
        got.push((frame.number, bytes.map_err(|error| error.kind)));
    }
    Ok(got)
}

fn expect(numbers: &[u32], frame: impl Fn(u32) -> Vec<u8>) -> Vec<(u32, Result<Vec<u8>, ErrorKind>)> {
    numbers.iter().map(|number| (*number, Ok(frame(*number)))).collect()
}

#[tokio::test]
async fn native_frames_come_in_the_order_asked_for() {
    let image = Image { rows: 100, columns: 100, bits_allocated: 16, frames: 40, ..Image::default() };
    let archive = Archive::default();
    let record = archive.add(EXPLICIT, &image.native());
    let service = archive.service();
    let pixels = image.pixels();
    let frame = |n: u32| pixels[(n as usize - 1) * 20_000..n as usize * 20_000].to_vec();
    let all: Vec<u32> = (1..=40).collect();
    for numbers in [&[1][..], &[40], &[7, 3, 3, 4, 5, 40, 1], &all] {
        assert!(get(&service, &record, numbers).await.expect("frames") == expect(numbers, frame), "{numbers:?}");
    }
    for numbers in [&[0][..], &[41], &[1, 2, 99]] {
        let missing = get(&service, &record, numbers).await;
        assert_eq!(missing.err().map(|error| error.kind), Some(ErrorKind::NotFound), "before anything is given");
    }
    assert_eq!(get(&service, &record, &[]).await.expect("no frames"), []);
}

#[tokio::test]
async fn one_frame_of_a_large_instance_reads_that_frame_alone() {
    let image = Image { rows: 512, columns: 512, bits_allocated: 16, frames: 100, ..Image::default() };
    let archive = Archive::default();
    let record = archive.add(EXPLICIT, &image.native());
    let service = archive.service();
    let begun = Instant::now();
    get(&service, &record, &[57]).await.expect("a frame");
    let read = archive.objects.bytes_read.load(Ordering::Relaxed);
    assert!(read <= (512 << 10) + (128 << 10), "{read} bytes were read, in {:?}", begun.elapsed());
}

#[tokio::test]
async fn frames_of_several_fragments_are_joined_and_small_ones_are_read_together() {
    let pieces: Vec<Vec<u8>> = (0..90_u8).map(|n| vec![n; 2 + usize::from(n) * 2]).collect();
    let frames: Vec<Vec<&[u8]>> = pieces.chunks(3).map(|frame| frame.iter().map(Vec::as_slice).collect()).collect();
    let image = Image { frames: 30, ..Image::default() };
    let archive = Archive::default();
    let record = archive.add(JPEG, &image.encapsulated(&frames));
    let all: Vec<u32> = (1..=30).collect();
    let frame = |n: u32| frames[n as usize - 1].concat();
    for config in [RetrievalConfig::default(), RetrievalConfig { frame_batch_bytes: 0, ..RetrievalConfig::default() }] {
        let service = archive.configured(config);
        for numbers in [&[1][..], &[30, 2, 3, 29], &all] {
            assert!(get(&service, &record, numbers).await.expect("frames") == expect(numbers, frame), "{numbers:?}");
        }
    }
    let service = archive.service();
    archive.objects.reads.store(0, Ordering::Relaxed);
    get(&service, &record, &all).await.expect("frames");
    assert_eq!(archive.objects.reads.load(Ordering::Relaxed), 1);
    let aside = archive.move_aside(&record);
    assert!(get(&service, &aside, &all).await.expect("frames") == expect(&all, frame));
}

#[tokio::test]
async fn a_damaged_frame_fails_by_itself() {
    let image = Image { rows: 100, columns: 100, bits_allocated: 16, frames: 20, ..Image::default() };
    let archive = Archive::default();
    let record = archive.add(EXPLICIT, &image.native());
    archive.objects.damage(record.object.key, record.pixel_data_offset + 10 * 20_000);
    let service = archive.service();
    let all: Vec<u32> = (1..=20).collect();
    let got = get(&service, &record, &all).await.expect("frames");
    let pixels = image.pixels();
    let failed: Vec<u32> = got.iter().filter(|(_, bytes)| bytes.is_err()).map(|(number, _)| *number).collect();
    assert!(failed.contains(&11) && failed.len() <= 6, "{failed:?}");
    for (number, bytes) in got {
        let at = (number as usize - 1) * 20_000;
        assert!(bytes.as_ref().map_or_else(|kind| *kind == ErrorKind::Corrupt, |b| *b == pixels[at..at + 20_000]));
    }
}

/// Bits `first..first + count`, the lowest of each byte first.
fn bits(bytes: &[u8], first: usize, count: usize) -> Vec<u8> {
    let bit = |n: usize| bytes[n / 8] >> (n % 8) & 1;
    let mut out = vec![0; count.div_ceil(8)];
    (0..count).for_each(|n| out[n / 8] |= bit(first + n) << (n % 8));
    out
}

#[tokio::test]
async fn deflated_frames_are_inflated_and_bound_by_nothing_but_themselves() {
    for (rows, frames, batch) in [(20, 5, 1 << 20), (300, 7, 1 << 20), (300, 7, 1_000), (1, 3, 1 << 20)] {
        let image = Image { rows, columns: 300, frames, ..Image::default() };
        let archive = Archive::default();
        let record = archive.add(DEFLATED, &image.deflated());
        let pixels = image.pixels();
        let length = usize::from(rows) * 300;
        let frame = |n: u32| pixels[(n as usize - 1) * length..n as usize * length].to_vec();
        let config = RetrievalConfig { frame_batch_bytes: batch, ..RetrievalConfig::default() };
        let service = archive.configured(config);
        // With the header at hand, and with what the index gives for tables alone.
        for record in [record.clone(), InstanceRecord { header: bytes::Bytes::new(), ..record.clone() }] {
            let numbers = [frames, 1, 2, 2, frames - 1];
            assert!(get(&service, &record, &numbers).await.expect("frames") == expect(&numbers, frame), "{rows}");
        }
        let missing = get(&service, &record, &[frames + 1]).await;
        assert_eq!(missing.err().map(|error| error.kind), Some(ErrorKind::NotFound));
    }
}

#[tokio::test]
async fn an_inflation_bomb_is_no_frame() {
    let image = Image { rows: 2_000, columns: 2_000, frames: 3, ..Image::default() };
    let archive = Archive::default();
    let record = archive.add(DEFLATED, &image.deflated());
    let config = RetrievalConfig { inflated_bytes_max: 1_000_000, ..RetrievalConfig::default() };
    let service = archive.configured(config);
    let got = get(&service, &record, &[2]).await.expect("frames");
    assert_eq!(got, [(2, Err(ErrorKind::Exhausted))]);
}

/// As words of 16 bits: frames of an odd number of bytes begin within one. Large ones, and one in the header.
#[tokio::test]
async fn big_endian_frames_are_given_in_little_endian() {
    for (rows, columns, bits_allocated, frames) in [(64, 64, 16, 3), (33, 31, 8, 4), (700, 500, 16, 2), (2, 3, 16, 1)] {
        let image = Image { rows, columns, bits_allocated, frames, ..Image::default() };
        let archive = Archive::default();
        let record = archive.add(BIG_ENDIAN, &image.big_endian());
        let pixels = image.pixels();
        let length = usize::from(rows) * usize::from(columns) * usize::from(bits_allocated) / 8;
        let frame = |n: u32| pixels[(n as usize - 1) * length..n as usize * length].to_vec();
        let numbers: Vec<u32> = (1..=frames).chain([1]).rev().collect();
        let got = get(&archive.service(), &record, &numbers).await.expect("frames");
        assert!(got == expect(&numbers, frame), "{rows} x {columns} of {bits_allocated} bits");
        if rows > 2 {
            let path = [cairn_dicom::tags::PIXEL_DATA.0];
            let (stated, bytes) = archive.service().bulk_data(&record, &path).await.expect("opens");
            let bytes = collect(bytes).await.expect("bytes");
            assert!(bytes.len() as u64 == stated && bytes[..pixels.len()] == pixels);
        }
    }
}

#[tokio::test]
async fn frames_that_cannot_be_told_apart_are_refused_and_not_invented() {
    let archive = Archive::default();
    // Two frames, three fragments, and an offset table that lies.
    let image = Image { frames: 2, ..Image::default() };
    let mut data_set = image.encapsulated(&[vec![&[1; 10]], vec![&[2; 10], &[3; 10]]]);
    let table = data_set.windows(8).rposition(|w| w == [0, 0, 0, 0, 18, 0, 0, 0]).expect("the offset table");
    data_set[table + 4] = 17;
    let record = archive.add(JPEG, &data_set);
    let outcome = get(&archive.service(), &record, &[1]).await;
    if let Err(error) = outcome {
        assert_eq!(error.kind, ErrorKind::Invalid);
    } else {
        panic!("no frame can be right");
    }
    // One bit a pixel, high byte first: which bit is first is anybody's guess.
    let image = Image { rows: 3, columns: 5, bits_allocated: 1, frames: 700, instance: "1.2.3.4.6".into() };
    let record = archive.add(BIG_ENDIAN, &image.big_endian());
    let outcome = get(&archive.service(), &record, &[2]).await;
    assert_eq!(outcome.err().map(|error| error.kind), Some(ErrorKind::Invalid));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// One-bit frames begin anywhere within a byte.
    #[test]
    fn one_bit_frames_are_the_bits_of_the_pixel_data(
        rows in 1_u16..40,
        columns in 1_u16..40,
        frames in 2_u32..30,
        wanted in prop::collection::vec(1_u32..30, 1..6),
        deflated: bool,
    ) {
        let image = Image { rows, columns, bits_allocated: 1, frames, ..Image::default() };
        let numbers: Vec<u32> = wanted.into_iter().map(|number| (number - 1) % frames + 1).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let got = runtime.block_on(async {
            let archive = Archive::default();
            let record = match deflated {
                true => archive.add(DEFLATED, &image.deflated()),
                false => archive.add(EXPLICIT, &image.native()),
            };
            get(&archive.service(), &record, &numbers).await.expect("frames")
        });
        let pixels = image.pixels();
        let count = usize::from(rows) * usize::from(columns);
        prop_assert!(got == expect(&numbers, |n| bits(&pixels, (n as usize - 1) * count, count)));
    }
}
