//! How fast instances and bytes may go.

use bytes::Bytes;
use cairn_service_api::AnswerStream;
use futures_util::{StreamExt, stream};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// Bytes that go in one piece under a limit.
const PIECE_BYTES: usize = 64 << 10;

/// Lets so many a second pass, in the order in which they ask.
#[derive(Debug)]
struct Gate {
    per_second: f64,
    next: Mutex<Option<Instant>>,
}

impl Gate {
    async fn take(&self, count: f64) {
        let at = {
            let mut next = self.next.lock().await;
            let at = next.unwrap_or_else(Instant::now).max(Instant::now());
            *next = Some(at + Duration::try_from_secs_f64(count / self.per_second).unwrap_or(Duration::MAX / 4));
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// Limits of a run. Cloning is cheap; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    instances: Option<Arc<Gate>>,
    bytes: Option<Arc<Gate>>,
}

impl Pace {
    /// So many instances and bytes a second at most; `None`: as fast as it goes.
    pub fn new(instances_per_second: Option<f64>, bytes_per_second: Option<u64>) -> Self {
        let gate = |per_second: f64| Arc::new(Gate { per_second: per_second.max(0.001), next: Mutex::default() });
        Self { instances: instances_per_second.map(gate), bytes: bytes_per_second.map(|bytes| gate(bytes as f64)) }
    }

    /// Waits until so many instances may go.
    pub async fn instances(&self, count: u64) {
        if let Some(gate) = &self.instances {
            gate.take(count as f64).await;
        }
    }

    /// Waits until so many bytes may go.
    pub(crate) async fn bytes(&self, count: usize) {
        if let Some(gate) = &self.bytes {
            gate.take(count as f64).await;
        }
    }

    /// Hands bytes on as fast as they may go.
    pub fn paced(&self, bytes: AnswerStream<Bytes>) -> AnswerStream<Bytes> {
        if self.bytes.is_none() {
            return bytes;
        }
        let pieces = bytes.flat_map(|chunk| {
            let pieces: Vec<_> = match chunk {
                Ok(chunk) => chunk.chunks(PIECE_BYTES).map(|piece| Ok(chunk.slice_ref(piece))).collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(pieces)
        });
        let pace = self.clone();
        Box::pin(pieces.then(move |piece| {
            let pace = pace.clone();
            async move {
                if let Ok(piece) = &piece {
                    pace.bytes(piece.len()).await;
                }
                piece
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_a_second_pass() {
        let pace = Pace::new(Some(10.0), Some(1_000_000));
        let begin = Instant::now();
        for _ in 0..21 {
            pace.instances(1).await;
        }
        assert_eq!(begin.elapsed().as_millis(), 2000);
        let chunk = Bytes::from(vec![0; 3_000_000]);
        let body: AnswerStream<Bytes> = Box::pin(stream::iter([Ok(chunk.clone())]));
        let begin = Instant::now();
        let passed: Vec<_> = pace.paced(body).collect().await;
        assert_eq!(passed.iter().flatten().map(Bytes::len).sum::<usize>(), chunk.len());
        assert!(begin.elapsed().as_millis() >= 2900, "{:?}", begin.elapsed());
    }
}
