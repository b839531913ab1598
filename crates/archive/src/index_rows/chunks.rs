//! Headers of a series in compressed chunks, sealed once full, so that a series that trickles in does not rewrite
//! itself.
//!
//! A chunk holds the headers of consecutive store events; its key is the stamp of the first, so that the header of a
//! version is in the last chunk that begins at or before the version's stamp, whatever was merged since. New headers
//! make a small chunk; small chunks are merged when there are many, and what fills a chunk seals it.

use super::{
    RowError,
    codec::{Reader, Writer},
};
use crate::{
    fold::{OpenChunks, PendingHeader, Stamp},
    ids::EventId,
};
use bytes::Bytes;
use std::collections::HashSet;

const VERSION: u8 = 1;
/// Headers in a sealed chunk at most.
pub const HEADERS_MAX: usize = 64;
/// Uncompressed bytes at which a chunk is sealed.
pub const BYTES_MAX: usize = 128 << 10;
/// Open chunks at which they are merged.
pub const OPEN_MAX: u32 = 12;
/// What a chunk may hold uncompressed, whatever a row says: events are smaller than 512 KiB.
const UNCOMPRESSED_MAX: usize = BYTES_MAX + (1 << 20);

/// Whether the open chunks have to be read and merged with what comes.
pub fn must_merge(open: &OpenChunks, pending: &[PendingHeader]) -> bool {
    let bytes: usize = pending.iter().map(|header| header.header.len()).sum();
    open.chunks > 0
        && (open.chunks >= OPEN_MAX
            || open.headers as usize + pending.len() >= HEADERS_MAX
            || open.bytes as usize + bytes >= BYTES_MAX)
}

/// Chunks to write, by the stamp that is their key, and what is open after that. `merged` are the headers of the open
/// chunks, read because [`must_merge`] says so.
pub fn build(
    open: OpenChunks,
    merged: Option<Vec<PendingHeader>>,
    pending: &[PendingHeader],
) -> (Vec<(Stamp, Bytes)>, OpenChunks) {
    let (mut open, all) = match merged {
        None => (open, pending.to_vec()),
        Some(mut merged) => {
            merged.extend_from_slice(pending);
            merged.sort_by_key(|header| header.stamp);
            merged.dedup_by_key(|header| header.stamp);
            (OpenChunks::default(), merged)
        }
    };
    let mut chunks = Vec::new();
    let mut rest = all.as_slice();
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let length = rest
            .iter()
            .take(HEADERS_MAX)
            .take_while(|header| {
                let fits = bytes == 0 || bytes + header.header.len() <= BYTES_MAX;
                bytes += header.header.len();
                fits
            })
            .count();
        let (chunk, after) = rest.split_at(length);
        chunks.push((first.stamp, encode(chunk)));
        let bytes: usize = chunk.iter().map(|header| header.header.len()).sum();
        let is_sealed = !after.is_empty() || length == HEADERS_MAX || bytes >= BYTES_MAX;
        open = match open {
            _ if is_sealed => OpenChunks::default(),
            OpenChunks { chunks: 0, .. } => {
                OpenChunks { from: first.stamp, chunks: 1, headers: length as u32, bytes: bytes as u32 }
            }
            open => OpenChunks {
                from: open.from,
                chunks: open.chunks + 1,
                headers: open.headers + length as u32,
                bytes: open.bytes + bytes as u32,
            },
        };
        rest = after;
    }
    (chunks, open)
}

fn encode(headers: &[PendingHeader]) -> Bytes {
    let mut out = Writer::version(VERSION);
    out.varint(headers.len() as u64);
    let mut raw = Vec::with_capacity(headers.iter().map(|header| header.header.len()).sum());
    for header in headers {
        out.varint(header.stamp.0).fixed(header.id.as_bytes()).varint(header.header.len() as u64);
        raw.extend_from_slice(&header.header);
    }
    out.varint(raw.len() as u64).bytes(&lz4_flex::block::compress(&raw));
    out.0.into()
}

/// A chunk without the headers that these events brought; `None`: none of them is in it. Without any headers it is no chunk.
pub fn without(chunk: &[u8], gone: &HashSet<EventId>) -> Result<Option<Option<Bytes>>, RowError> {
    let headers = decode(chunk)?;
    let left: Vec<PendingHeader> = headers.iter().filter(|header| !gone.contains(&header.id)).cloned().collect();
    Ok((left.len() < headers.len()).then(|| (!left.is_empty()).then(|| encode(&left))))
}

/// Headers of a chunk in the order of their stamps. They share one buffer.
pub fn decode(bytes: &[u8]) -> Result<Vec<PendingHeader>, RowError> {
    let mut reader = Reader::new(bytes, VERSION, "headers")?;
    let count = reader.count()?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let entry: (u64, EventId, usize) = (reader.varint()?, reader.event_id()?, reader.number()?);
        entries.push(entry);
    }
    let length: usize = reader.number()?;
    let total = entries.iter().try_fold(0_usize, |sum, (_, _, length)| sum.checked_add(*length));
    if length > UNCOMPRESSED_MAX || total != Some(length) {
        return Err(reader.bad());
    }
    let raw = lz4_flex::block::decompress(reader.bytes()?, length).map_err(|_| reader.bad())?;
    reader.end()?;
    if raw.len() != length {
        return Err(RowError::Malformed("headers"));
    }
    let raw = Bytes::from(raw);
    let mut at = 0;
    let headers = entries.into_iter().map(|(stamp, id, length)| {
        at += length;
        PendingHeader { stamp: Stamp(stamp), id, header: raw.slice(at - length..at) }
    });
    Ok(headers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(n: u64, length: usize) -> PendingHeader {
        let id = format!("018f4d2e-9c3a-7000-8000-{n:012x}").parse().expect("valid");
        PendingHeader { stamp: Stamp(n), id, header: vec![n as u8; length].into() }
    }

    /// Rows as a store would have them.
    fn append(
        rows: &mut std::collections::BTreeMap<Stamp, Bytes>,
        open: &mut OpenChunks,
        pending: &[PendingHeader],
    ) -> usize {
        let merged = must_merge(open, pending).then(|| {
            let from = open.from;
            let keys: Vec<Stamp> = rows.range(from..).map(|(stamp, _)| *stamp).collect();
            keys.iter().flat_map(|key| decode(&rows.remove(key).expect("there")).expect("decodes")).collect::<Vec<_>>()
        });
        let (chunks, after) = build(*open, merged, pending);
        let written = chunks.iter().map(|(_, bytes)| decode(bytes).expect("decodes").len()).sum();
        rows.extend(chunks);
        *open = after;
        written
    }

    #[test]
    fn a_trickle_is_found_and_does_not_rewrite_itself() {
        for batch in [1, 3, 10, 64, 65, 200] {
            let (mut rows, mut open, mut written) = (Default::default(), OpenChunks::default(), 0);
            let all: Vec<PendingHeader> = (1..=600).map(|n| header(n * 7, 900)).collect();
            for pending in all.chunks(batch) {
                written += append(&mut rows, &mut open, pending);
                assert!(open.chunks <= OPEN_MAX);
            }
            assert!(written < 600 * 5, "{written} headers written for 600 in batches of {batch}");
            assert!(rows.len() <= 600 / 64 + OPEN_MAX as usize + 600 / batch.max(60) + 1, "{} chunks", rows.len());
            for one in &all {
                let (_, chunk) = rows.range(..=one.stamp).next_back().expect("a chunk begins before");
                let headers = decode(chunk).expect("decodes");
                assert_eq!(headers.iter().find(|header| header.id == one.id), Some(one));
            }
        }
    }

    #[test]
    fn large_headers_are_chunks_of_their_own_and_damage_is_told() {
        let (chunks, open) = build(OpenChunks::default(), None, &[header(1, 500 << 10), header(2, 10), header(3, 10)]);
        assert_eq!(chunks.len(), 2);
        assert_eq!((open.from, open.headers), (Stamp(2), 2));
        for length in 0..chunks[1].1.len() {
            assert!(decode(&chunks[1].1[..length]).is_err());
        }
    }
}
