//! Received bytes on their way out: in pieces, counted, with their checksum.

use crate::budget::{Budget, Lease};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_types::base64;
use bytes::{Bytes, BytesMut};
use cairn_store_api::StoreError;
use http_body::{Body, Frame, SizeHint};
use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

const PIECE_FIRST: usize = 64 * 1024;
const PIECE: usize = 256 * 1024;
/// An announced length is no reason to take more at once than this.
const PIECE_ANNOUNCED_MIN: usize = 4 * 1024;

/// A part while it fills.
#[derive(Default)]
pub(crate) struct Pieces {
    full: Vec<Bytes>,
    open: BytesMut,
    /// Bytes that `open` may hold.
    room: usize,
    pub(crate) length: u64,
    crc: u32,
    lease: Lease,
}

impl Pieces {
    /// Takes the first of these bytes, as many as it likes; gives how many. `hint` is how many may come in all.
    pub(crate) async fn take(
        &mut self,
        bytes: &[u8],
        hint: Option<u64>,
        budget: &Budget,
        part_bytes: u64,
    ) -> Result<usize, StoreError> {
        let left = usize::try_from(part_bytes - self.length).unwrap_or(usize::MAX);
        if self.open.len() == self.room {
            let announced = hint.map(|hint| usize::try_from(hint).unwrap_or(PIECE).clamp(PIECE_ANNOUNCED_MIN, PIECE));
            let first = announced.unwrap_or(PIECE_FIRST);
            let room = if self.length == 0 { first } else { PIECE }.min(left);
            budget.grow(&mut self.lease, room as u64).await?;
            let full = std::mem::replace(&mut self.open, BytesMut::with_capacity(room));
            self.full.extend((!full.is_empty()).then(|| full.freeze()));
            self.room = room;
        }
        let now = bytes.len().min(self.room - self.open.len()).min(left);
        let now_bytes = bytes.get(..now).unwrap_or_default();
        self.open.extend_from_slice(now_bytes);
        self.crc = crc32c::crc32c_append(self.crc, now_bytes);
        self.length += now as u64;
        Ok(now)
    }

    pub(crate) fn seal(mut self) -> Sealed {
        let last = std::mem::take(&mut self.open);
        self.full.extend((!last.is_empty()).then(|| last.freeze()));
        Sealed { pieces: self.full, length: self.length, crc: self.crc, _lease: self.lease }
    }
}

/// Bytes that can be sent, as often as needed.
pub(crate) struct Sealed {
    pieces: Vec<Bytes>,
    pub(crate) length: u64,
    crc: u32,
    _lease: Lease,
}

impl Sealed {
    /// Bytes that were counted elsewhere.
    pub(crate) fn of(bytes: Bytes) -> Self {
        let (length, crc) = (bytes.len() as u64, crc32c::crc32c(&bytes));
        Self { pieces: vec![bytes], length, crc, _lease: Lease::default() }
    }

    /// As S3's header has it.
    pub(crate) fn checksum(&self) -> String {
        base64::encode(self.crc.to_be_bytes())
    }

    pub(crate) fn body(&self) -> ByteStream {
        match self.pieces.as_slice() {
            [] => ByteStream::from_static(&[]),
            [one] => ByteStream::from(one.clone()),
            pieces => {
                let pieces = Sending { pieces: pieces.iter().cloned().collect(), left: self.length };
                ByteStream::new(SdkBody::from_body_1_x(pieces))
            }
        }
    }
}

struct Sending {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.pieces.pop_front();
        self.left -= next.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
