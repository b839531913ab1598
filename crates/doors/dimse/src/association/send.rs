//! Messages out: command sets and small data sets in one write, large data sets streamed without copying them.

use super::{Association, AssociationError};
use crate::{
    command::Command,
    pdu::{PDU_HEADER_BYTES, PDV_HEADER_BYTES, pdu_type},
};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::VecDeque;

/// A data set on its way out.
#[derive(Default)]
pub(super) struct Outgoing {
    context_id: u8,
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

/// Bytes queued beyond which they are written.
const BATCH_BYTES: usize = 1024 * 1024;
const COMMAND: u8 = 1;
const LAST: u8 = 2;

impl Association {
    /// Queues a message; [`Association::flush`] writes it. Answers queued together go out in one write.
    ///
    /// `has_data_set` of the command is taken from `data_set`.
    ///
    /// # Errors
    /// `Closed` once the association has ended.
    pub fn queue(
        &mut self,
        context_id: u8,
        command: &mut Command,
        data_set: Option<&[u8]>,
    ) -> Result<(), AssociationError> {
        command.has_data_set = data_set.is_some();
        let command = command.encode();
        let mut out = BytesMut::with_capacity(command.len() + data_set.map_or(0, <[u8]>::len) + 64);
        self.write_pdus(&mut out, context_id, COMMAND, &command);
        if let Some(data_set) = data_set {
            self.write_pdus(&mut out, context_id, 0, data_set);
        }
        self.link()?.queue(out.freeze());
        Ok(())
    }

    fn write_pdus(&self, out: &mut BytesMut, context_id: u8, control: u8, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            let (piece, after) = rest.split_at(rest.len().min(self.fragment_bytes_max));
            rest = after;
            let control = if rest.is_empty() { control | LAST } else { control };
            put_header(out, context_id, control, piece.len());
            out.put_slice(piece);
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Bytes queued and not yet written.
    pub fn queued(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.queued())
    }

    /// Writes what is queued.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    /// # Cancel safety
    /// Not safe: dropped half-way, the association can only be dropped too.
    pub async fn flush(&mut self) -> Result<(), AssociationError> {
        self.link()?.flush().await
    }

    /// Queues a message and writes it.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    pub async fn send(
        &mut self,
        context_id: u8,
        command: &mut Command,
        data_set: Option<&[u8]>,
    ) -> Result<(), AssociationError> {
        self.queue(context_id, command, data_set)?;
        self.flush().await
    }

    /// Begins a message whose data set follows by [`Association::send_data`] and [`Association::finish_data`].
    ///
    /// # Errors
    /// `Closed` once the association has ended.
    pub fn begin_data(&mut self, context_id: u8, command: &mut Command) -> Result<(), AssociationError> {
        command.has_data_set = true;
        let command = command.encode();
        let mut out = BytesMut::with_capacity(command.len() + 64);
        self.write_pdus(&mut out, context_id, COMMAND, &command);
        self.link()?.queue(out.freeze());
        self.outgoing = Outgoing { context_id, ..Outgoing::default() };
        Ok(())
    }

    /// Sends more of the data set, in PDUs as large as the peer takes. What is left over waits for the next call.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    pub async fn send_data(&mut self, chunk: Bytes) -> Result<(), AssociationError> {
        self.outgoing.bytes += chunk.len();
        self.outgoing.chunks.push_back(chunk);
        // One byte at least is kept back, so that the last fragment can say that it is the last.
        while self.outgoing.bytes > self.fragment_bytes_max {
            self.queue_fragment(self.fragment_bytes_max, 0)?;
            if self.queued() >= BATCH_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Sends the last fragment of the data set.
    ///
    /// # Errors
    /// [`AssociationError`]; the association is of no more use.
    pub async fn finish_data(&mut self) -> Result<(), AssociationError> {
        self.queue_fragment(self.outgoing.bytes, LAST)?;
        self.flush().await
    }

    fn queue_fragment(&mut self, length: usize, control: u8) -> Result<(), AssociationError> {
        if self.headers.capacity() < PDU_HEADER_BYTES + PDV_HEADER_BYTES {
            self.headers.reserve(4096);
        }
        put_header(&mut self.headers, self.outgoing.context_id, control, length);
        let header = self.headers.split().freeze();
        self.link()?.queue(header);
        let mut left = length;
        while left > 0
            && let Some(first) = self.outgoing.chunks.front_mut()
        {
            let piece = first.split_to(first.len().min(left));
            left -= piece.len();
            if first.is_empty() {
                self.outgoing.chunks.pop_front();
            }
            self.outgoing.bytes -= piece.len();
            self.link()?.queue(piece);
        }
        Ok(())
    }
}

fn put_header(out: &mut BytesMut, context_id: u8, control: u8, length: usize) {
    // Fragments are no longer than `fragment_bytes_max`, which came from 32 bits.
    let length = length as u32;
    out.put_slice(&[pdu_type::P_DATA_TF, 0]);
    out.put_u32(length + PDV_HEADER_BYTES as u32);
    out.put_u32(length + 2);
    out.put_slice(&[context_id, control]);
}
