//! Buffers that objects are read into, kept for the next reads: memory new from the machine costs as much as what is read
//! into it.

use crate::lock;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

/// Buffers are as long as the next multiple of this, so that one fits the next read of about its length.
const STEP: usize = 128 * 1024;
/// Shorter ones are not worth keeping.
const KEPT_MIN: usize = 64 * 1024;

/// The buffers that nobody uses.
pub(crate) struct Chunks {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    /// Those given back last at the end.
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Chunks {
    /// None yet; so many bytes are kept at most.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { kept: Mutex::default(), bytes_max }
    }

    /// A buffer of this length. What is in it is of no meaning, and must be overwritten.
    pub(crate) fn take(self: &Arc<Self>, length: usize) -> Chunk {
        if length <= KEPT_MIN {
            return Chunk { buffer: vec![0; length], length, home: None };
        }
        let whole = length.next_multiple_of(STEP);
        let mut kept = lock(&self.kept);
        let fitting = kept.buffers.iter().rposition(|buffer| buffer.len() == whole);
        let buffer = fitting.and_then(|at| kept.buffers.remove(at));
        kept.bytes -= buffer.as_ref().map_or(0, Vec::len);
        drop(kept);
        Chunk { buffer: buffer.unwrap_or_else(|| vec![0; whole]), length, home: Some(Arc::clone(self)) }
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = lock(&self.kept);
        kept.bytes += buffer.len();
        kept.buffers.push_back(buffer);
        while kept.bytes > self.bytes_max
            && let Some(oldest) = kept.buffers.pop_front()
        {
            kept.bytes -= oldest.len();
        }
    }
}

/// A buffer in use. Dropped, it goes back to where it came from.
pub(crate) struct Chunk {
    buffer: Vec<u8>,
    length: usize,
    home: Option<Arc<Chunks>>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl AsMut<[u8]> for Chunk {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.give_back(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again_for_reads_of_about_their_length_and_the_oldest_go_first() {
        let chunks = Arc::new(Chunks::new(4 * STEP));
        let place = |chunk: &Chunk| chunk.as_ref().as_ptr();
        let one = chunks.take(STEP + 1);
        let first = place(&one);
        drop(one);
        let again = chunks.take(2 * STEP);
        assert_eq!((place(&again), again.as_ref().len()), (first, 2 * STEP));
        let other = chunks.take(2 * STEP - 7);
        let second = place(&other);
        assert_ne!(first, second);
        drop((again, other));
        drop(chunks.take(KEPT_MIN));
        drop(chunks.take(KEPT_MIN + 1));
        let kept = lock(&chunks.kept);
        assert_eq!((kept.bytes, kept.buffers.len()), (3 * STEP, 2));
        assert_eq!(kept.buffers[0].as_ptr(), second);
    }
}
