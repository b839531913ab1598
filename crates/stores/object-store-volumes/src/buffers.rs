//! Buffers of small objects, kept for the next ones: memory that was given back to the machine costs more to get again
//! than to fill.

use crate::lock;
use std::sync::Mutex;

/// Buffers kept at most.
const KEPT_MAX: usize = 8;

pub(crate) struct Buffers {
    /// Capacity of a buffer, in bytes.
    size: usize,
    kept: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, kept: Mutex::default() }
    }

    /// An empty buffer that takes at least as much as it was made for.
    pub(crate) fn take(&self) -> Vec<u8> {
        lock(&self.kept).pop().unwrap_or_else(|| Vec::with_capacity(self.size))
    }

    /// Keeps a buffer, if it is one of these and there is need.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
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
        one.extend([7; 40]);
        let place = one.as_ptr();
        buffers.give_back(one);
        buffers.give_back(Vec::with_capacity(10));
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (place, 0, 100));
        assert_eq!(lock(&buffers.kept).len(), 0);
        (0..20).for_each(|_| buffers.give_back(Vec::with_capacity(100)));
        assert_eq!(lock(&buffers.kept).len(), KEPT_MAX);
    }
}
