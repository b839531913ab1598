//! Buffers of objects on their way in: they lie as writes past the page cache want them, and are kept for the next
//! objects, for memory that was given back to the machine costs more to get again than to fill.

use crate::lock;
use cairn_process::disk::DIRECT_ALIGN;
use std::{ops::Deref, sync::Mutex};

/// Bytes of buffers kept at most.
const KEPT_MAX: usize = 8;

/// Bytes that begin at a multiple of [`DIRECT_ALIGN`] in memory.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// What is before `start` is of no meaning. Never grown where it is.
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// An empty one that takes so many bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity + DIRECT_ALIGN);
        let start = bytes.as_ptr().align_offset(DIRECT_ALIGN).min(DIRECT_ALIGN);
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    /// Bytes that it takes where it is.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity().saturating_sub(DIRECT_ALIGN)
    }

    /// Adds bytes; moves to a larger place if need be.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds zeros up to a length.
    pub(crate) fn pad(&mut self, length: usize) {
        self.reserve(length.saturating_sub(self.len()));
        self.bytes.resize(self.start + length.max(self.len()), 0);
    }

    fn reserve(&mut self, more: usize) {
        if self.len() + more > self.capacity() {
            let mut larger = Self::with_capacity((self.len() + more).max(2 * self.capacity()));
            larger.bytes.extend_from_slice(self);
            *self = larger;
        }
    }

    /// Leaves nothing in it.
    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

/// Buffers that nobody uses.
pub(crate) struct Buffers {
    /// Bytes that each takes at least.
    size: usize,
    kept: Mutex<Vec<Buffer>>,
}

impl Buffers {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, kept: Mutex::default() }
    }

    /// An empty buffer that takes at least as much as they were made for.
    pub(crate) fn take(&self) -> Buffer {
        lock(&self.kept).pop().unwrap_or_else(|| Buffer::with_capacity(self.size))
    }

    /// Keeps a buffer, if it is one of these and there is need.
    pub(crate) fn give_back(&self, mut buffer: Buffer) {
        let mut kept = lock(&self.kept);
        if buffer.capacity() == self.size && kept.len() < KEPT_MAX {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_was_given_back_is_empty_and_used_again_and_few_are_kept() {
        let buffers = Buffers::new(100);
        let mut one = buffers.take();
        one.extend(&[7; 40]);
        let place = one.as_ptr();
        buffers.give_back(one);
        buffers.give_back(Buffer::with_capacity(10));
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (place, 0, 100));
        assert_eq!(lock(&buffers.kept).len(), 0);
        (0..20).for_each(|_| buffers.give_back(Buffer::with_capacity(100)));
        assert_eq!(lock(&buffers.kept).len(), KEPT_MAX);
    }

    #[test]
    fn buffers_begin_where_direct_writes_want_them_also_when_they_grow() {
        let mut buffer = Buffer::default();
        assert!(buffer.is_empty() && buffer.capacity() == 0);
        for length in [1, 100, 5_000, 70_000] {
            buffer.extend(&vec![length as u8; length]);
            assert!(buffer.as_ptr().addr().is_multiple_of(DIRECT_ALIGN));
        }
        buffer.pad(80_000);
        assert!(buffer.as_ptr().addr().is_multiple_of(DIRECT_ALIGN) && buffer.len() == 80_000);
        assert_eq!((buffer[0], buffer[1], buffer[101], buffer[75_100], buffer[75_101]), (1, 100, 136, 112, 0));
    }
}
