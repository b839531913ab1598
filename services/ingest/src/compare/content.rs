//! Whether two stored data sets say the same: equal once normalised to Explicit VR Little Endian without group
//! lengths and padding. Both are walked, which normalises all but bulk values; these are then read side by side.
//! Memory is bounded whatever their size.

use crate::versions::Version;
use bytes::{Buf, Bytes};
use cairn_archive::events::Comparison;
use cairn_dicom::{
    FindingKind, Header, HeaderWalker, TransferSyntax, Vr, WalkLimits, Walked,
    inflate::{InflateLimits, Inflater},
    walk::BulkEntry,
};
use cairn_store_api::{ByteStream, ObjectStore, StoreError, StoreErrorKind};
use futures_util::TryStreamExt;
use std::collections::VecDeque;

/// Largest header compared, in bytes; what is beyond it is compared as bulk data.
const HEADER_BYTES_MAX: usize = 16 << 20;
/// Piece in which values are compared, in bytes: a multiple of every unit of byte order.
const BLOCK_BYTES: usize = 64 << 10;
/// Piece in which deflated bytes are inflated: what comes out is held.
const INFLATED_PIECE_BYTES: usize = 4 << 10;

/// Compares the content of two objects.
///
/// # Errors
/// One of them can't be read.
pub(crate) async fn same_content(
    objects: &dyn ObjectStore,
    first: &Version,
    second: &Version,
) -> Result<Comparison, StoreError> {
    let (Some(a), Some(b)) = (walk(objects, first).await?, walk(objects, second).await?) else {
        return Ok(Comparison::NotComparable);
    };
    if !same_header(a.header(), b.header()) {
        return Ok(Comparison::Different);
    }
    let same_place = |(a, b): (&BulkEntry, &BulkEntry)| a.path == b.path;
    if a.bulk.len() != b.bulk.len() || !a.bulk.iter().zip(&b.bulk).all(same_place) {
        return Ok(Comparison::Different);
    }
    let pairs: Vec<_> = a.bulk.iter().zip(&b.bulk).collect();
    let encapsulated = pairs.iter().any(|(a, b)| a.encapsulated || b.encapsulated);
    if encapsulated && first.transfer_syntax_uid != second.transfer_syntax_uid {
        // Whether the pixels are equal only decoding both could say.
        return Ok(Comparison::NotComparable);
    }
    same_values(objects, (first, second), &pairs).await
}

/// `None`: it can't be parsed.
async fn walk(objects: &dyn ObjectStore, version: &Version) -> Result<Option<Walked>, StoreError> {
    // One threshold for every VR, so that it does not matter which one a value was written with.
    let limits = WalkLimits {
        bulk_over_bytes: 65_534,
        text_over_bytes: 65_534,
        header_bytes_max: HEADER_BYTES_MAX,
        ..WalkLimits::default()
    };
    let mut walker = HeaderWalker::new(&TransferSyntax::from(&version.transfer_syntax_uid), limits);
    let mut bytes = objects.read(&version.object, version.data_set_offset..version.object.length).await?;
    while let Some(chunk) = bytes.try_next().await? {
        if walker.push(&chunk).is_err() {
            return Ok(None);
        }
        tokio::task::yield_now().await;
    }
    let damaged =
        |kind| matches!(kind, FindingKind::Unreadable | FindingKind::DeflateDamaged | FindingKind::SequenceDamaged);
    let walked = walker.finish().ok();
    Ok(walked.filter(|walked| !walked.findings.iter().any(|finding| damaged(finding.kind))))
}

/// Elements of one level, and below: nesting is bounded by the walk.
fn same_header(a: Header<'_>, b: Header<'_>) -> bool {
    let (mut a, mut b) = (a.elements(), b.elements());
    loop {
        let (a, b) = match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a.tag == b.tag => (a, b),
            _ => return false,
        };
        let same = match (a.vr, b.vr) {
            (Vr::SQ, Vr::SQ) => {
                let (mut a, mut b) = (a.items(), b.items());
                loop {
                    match (a.next(), b.next()) {
                        (None, None) => break true,
                        (Some(a), Some(b)) if same_header(a, b) => {}
                        _ => break false,
                    }
                }
            }
            (vr, other) if vr == other || vr == Vr::UN || other == Vr::UN => {
                let text = vr.is_text() || other.is_text();
                if text { unpadded(a.value) == unpadded(b.value) } else { a.value == b.value }
            }
            _ => false,
        };
        if !same {
            return false;
        }
    }
}

fn unpadded(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |at| at + 1);
    value.get(..end).unwrap_or_default()
}

async fn same_values(
    objects: &dyn ObjectStore,
    (first, second): (&Version, &Version),
    pairs: &[(&BulkEntry, &BulkEntry)],
) -> Result<Comparison, StoreError> {
    let (mut a, mut b) = (DataSetReader::open(objects, first).await?, DataSetReader::open(objects, second).await?);
    let (mut block_a, mut block_b) = (vec![0; BLOCK_BYTES], vec![0; BLOCK_BYTES]);
    for (entry_a, entry_b) in pairs {
        // A sequence that is in neither header is written in lengths or delimiters, in one encoding or the other.
        if entry_a.vr == Vr::SQ && first.transfer_syntax_uid != second.transfer_syntax_uid {
            return Ok(Comparison::NotComparable);
        }
        if entry_a.length != entry_b.length || entry_a.encapsulated != entry_b.encapsulated {
            return Ok(Comparison::Different);
        }
        a.go_to(entry_a.offset).await?;
        b.go_to(entry_b.offset).await?;
        let mut left = entry_a.length;
        while left > 0 {
            let length = left.min(BLOCK_BYTES as u64) as usize;
            let (block_a, block_b) = (&mut block_a[..length], &mut block_b[..length]);
            a.fill(block_a).await?;
            b.fill(block_b).await?;
            if entry_a.big_endian != entry_b.big_endian {
                let unit = if entry_a.big_endian { entry_a.vr } else { entry_b.vr }.unit_bytes();
                block_a.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
            }
            if block_a != block_b {
                return Ok(Comparison::Different);
            }
            left -= length as u64;
            tokio::task::yield_now().await;
        }
    }
    Ok(Comparison::AnotherEncoding)
}

/// The bytes of a data set in order, inflated if need be.
struct DataSetReader {
    bytes: ByteStream,
    inflater: Option<Box<Inflater>>,
    ready: VecDeque<Bytes>,
    /// Received and not inflated yet.
    deflated: Bytes,
    position: u64,
}

impl DataSetReader {
    async fn open(objects: &dyn ObjectStore, version: &Version) -> Result<Self, StoreError> {
        let deflated = TransferSyntax::from(&version.transfer_syntax_uid).encoding.is_deflated();
        Ok(Self {
            bytes: objects.read(&version.object, version.data_set_offset..version.object.length).await?,
            inflater: deflated.then(|| Box::new(Inflater::new(InflateLimits::default()))),
            ready: VecDeque::new(),
            deflated: Bytes::new(),
            position: 0,
        })
    }

    fn ended() -> StoreError {
        StoreError::new(StoreErrorKind::Corrupt, "object ends before a value that was found in it")
    }

    /// Makes some bytes ready.
    async fn advance(&mut self) -> Result<(), StoreError> {
        while self.ready.is_empty() {
            if self.deflated.is_empty() {
                self.deflated = self.bytes.try_next().await?.ok_or_else(Self::ended)?;
            }
            let Some(inflater) = &mut self.inflater else {
                self.ready.push_back(std::mem::take(&mut self.deflated));
                return Ok(());
            };
            let piece = self.deflated.split_to(self.deflated.len().min(INFLATED_PIECE_BYTES));
            let ready = &mut self.ready;
            let inflated = inflater.push(&piece, |bytes| {
                if !bytes.is_empty() {
                    ready.push_back(Bytes::copy_from_slice(bytes));
                }
            });
            inflated.map_err(|error| StoreError::new(StoreErrorKind::Corrupt, error.to_string()))?;
        }
        Ok(())
    }

    fn take(&mut self, length: usize) {
        if let Some(chunk) = self.ready.front_mut() {
            chunk.advance(length);
            self.position += length as u64;
            if chunk.is_empty() {
                self.ready.pop_front();
            }
        }
    }

    async fn go_to(&mut self, offset: u64) -> Result<(), StoreError> {
        while self.position < offset {
            self.advance().await?;
            let at_hand = self.ready.front().map_or(0, Bytes::len);
            self.take((offset - self.position).min(at_hand as u64) as usize);
        }
        Ok(())
    }

    async fn fill(&mut self, mut block: &mut [u8]) -> Result<(), StoreError> {
        while !block.is_empty() {
            self.advance().await?;
            let Some(chunk) = self.ready.front() else { continue };
            let length = chunk.len().min(block.len());
            let (now, rest) = block.split_at_mut(length);
            now.copy_from_slice(&chunk[..length]);
            block = rest;
            self.take(length);
        }
        Ok(())
    }
}
