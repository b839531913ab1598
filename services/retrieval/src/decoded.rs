//! Bytes that only decoding gives: of deflated data sets, and of frames that begin within a byte.

use bytes::{Bytes, BytesMut};
use cairn_dicom::inflate::{InflateLimits, Inflater};
use cairn_service_api::{AnswerStream, Error, ErrorKind};
use futures_util::{StreamExt, stream};
use std::{collections::VecDeque, ops::Range};

/// Piece in which deflated bytes are inflated: what comes out of one piece is held.
const PIECE_BYTES: usize = 4 << 10;

/// A deflated data set on its way through an inflater: gives ranges of the inflated bytes, in ascending order.
pub(crate) struct Inflated {
    deflated: AnswerStream<Bytes>,
    inflater: Option<Box<Inflater>>,
    received: Bytes,
    ready: VecDeque<Bytes>,
    /// Offset of the first byte that is ready, in the inflated data set.
    position: u64,
}

impl Inflated {
    pub(crate) fn new(deflated: AnswerStream<Bytes>, bytes_max: u64) -> Self {
        let limits = InflateLimits { bytes_max, ..InflateLimits::default() };
        Self {
            deflated,
            inflater: Some(Box::new(Inflater::new(limits))),
            received: Bytes::new(),
            ready: VecDeque::new(),
            position: 0,
        }
    }

    /// Offset of the next byte, in the inflated data set.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Makes some bytes ready; `false` at the end.
    async fn advance(&mut self) -> Result<bool, Error> {
        while self.ready.is_empty() {
            let Some(inflater) = &mut self.inflater else { return Ok(false) };
            let ready = &mut self.ready;
            let mut sink = |bytes: &[u8]| {
                if !bytes.is_empty() {
                    ready.push_back(Bytes::copy_from_slice(bytes));
                }
            };
            let too_large =
                |error: cairn_dicom::inflate::InflateError| Error::new(ErrorKind::Exhausted, error.to_string());
            if self.received.is_empty() {
                match self.deflated.next().await {
                    Some(chunk) => self.received = chunk?,
                    None => {
                        inflater.finish(&mut sink).map_err(too_large)?;
                        self.inflater = None;
                        continue;
                    }
                }
            }
            let piece = self.received.split_to(self.received.len().min(PIECE_BYTES));
            inflater.push(&piece, &mut sink).map_err(too_large)?;
        }
        Ok(true)
    }

    /// The next bytes of the range, which must not begin before the last one given; `None` once it is given whole.
    async fn next_of(&mut self, range: &Range<u64>) -> Result<Option<Bytes>, Error> {
        while self.position < range.end {
            if !self.advance().await? {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "deflated data set ends before a value that was found in it",
                ));
            }
            let Some(chunk) = self.ready.front_mut() else { continue };
            let skipped = range.start.saturating_sub(self.position).min(chunk.len() as u64);
            let wanted = (range.end - self.position - skipped).min(chunk.len() as u64 - skipped);
            let _ = chunk.split_to(skipped as usize);
            let bytes = chunk.split_to(wanted as usize);
            self.position += skipped + wanted;
            if chunk.is_empty() {
                self.ready.pop_front();
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// A range as a whole; the caller has bounded it.
    pub(crate) async fn collect(&mut self, range: &Range<u64>) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(bytes) = self.next_of(range).await? {
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }

    /// A range as a stream.
    pub(crate) fn stream(self, range: Range<u64>) -> AnswerStream<Bytes> {
        Box::pin(stream::unfold(Some((self, range)), |state| async move {
            let (mut this, range) = state?;
            match this.next_of(&range).await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some((this, range)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

/// The bits `first_bit..first_bit + bits` of bytes, moved so that the first is the lowest of the first byte. The first
/// pixel of a byte is its lowest bit (PS3.5 section 8.1.1 and Annex D, edition 2025c); what is left of the last byte is
/// zero. `bytes` begins with the byte that has `first_bit`, which is below 8.
pub(crate) fn shifted(bytes: AnswerStream<Bytes>, first_bit: u32, bits: u64) -> AnswerStream<Bytes> {
    let state = Some(Shift { bytes, by: first_bit % 8, held: None, bits_left: bits });
    Box::pin(stream::unfold(state, |state| async move {
        let mut shift = state?;
        loop {
            match shift.step().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Some((Ok(bytes), Some(shift))),
                Ok(None) => return None,
                Err(error) => return Some((Err(error), None)),
            }
        }
    }))
}

struct Shift {
    bytes: AnswerStream<Bytes>,
    by: u32,
    /// The last byte received: its upper bits are not given yet.
    held: Option<u8>,
    bits_left: u64,
}

impl Shift {
    async fn step(&mut self) -> Result<Option<Bytes>, Error> {
        if self.bits_left == 0 {
            return Ok(None);
        }
        let mut out = BytesMut::new();
        match self.bytes.next().await {
            Some(chunk) => {
                for byte in chunk? {
                    if let Some(low) = self.held.replace(byte) {
                        let pair = u16::from_le_bytes([low, byte]);
                        self.give((pair >> self.by) as u8, &mut out);
                    }
                }
            }
            None => {
                let last = self.held.take();
                let last = last.ok_or_else(|| Error::new(ErrorKind::Corrupt, "pixel data ends before the frame"))?;
                self.give(last >> self.by, &mut out);
            }
        }
        Ok(Some(out.freeze()))
    }

    fn give(&mut self, byte: u8, out: &mut BytesMut) {
        let bits = self.bits_left.min(8) as u32;
        if bits > 0 {
            out.extend_from_slice(&[byte & (0xFF_u8 >> (8 - bits))]);
            self.bits_left -= u64::from(bits);
        }
    }
}
