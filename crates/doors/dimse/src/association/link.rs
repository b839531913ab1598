//! A transport connection with PDUs on it: reading with time limits, writing in few system calls.

use super::AssociationError;
use crate::{
    Limits,
    pdu::frame::{Expecting, Pdu, PduReader},
};
use bytes::{Buf, Bytes};
use std::{collections::VecDeque, io, io::IoSlice, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout},
};

/// What an association runs over: a TCP socket, TLS over one, or a simulated one.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Called after each read that brought bytes. TCP asks for the next acknowledgement to be sent at once: a
    /// peer with Nagle's algorithm on would wait for it, some 40 ms a message.
    fn after_read(&self) {}
}

impl Transport for tokio::net::TcpStream {
    fn after_read(&self) {
        #[cfg(target_os = "linux")]
        let _ = self.set_quickack(true);
    }
}

impl Transport for tokio::io::DuplexStream {}

/// How long to wait for the next PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// For a PDU that begins something: so long.
    Idle(Duration),
    /// For a PDU that belongs to something begun: the transfer timeout.
    Transfer,
    /// For as long as it takes, unless a PDU has begun.
    Forever,
    /// For as long as the caller waits.
    AsCaller,
}

/// One end of a connection.
pub(crate) struct Link {
    io: Box<dyn Transport>,
    reader: PduReader,
    /// Time spent waiting for more of the PDU that has begun, however many fragments it gave already.
    waited: Duration,
    /// Of the message under way.
    pace: Pace,
    rate_min: u32,
    transfer_timeout: Duration,
    write_timeout: Duration,
    close_timeout: Duration,
    out: VecDeque<Bytes>,
    out_bytes: usize,
    /// A PDU of ours is part written: nothing else may follow, not even an A-ABORT.
    torn: bool,
}

/// How fast a message comes in: a peer whose every PDU is small and quick would else hold its place for ever.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Time spent waiting for the peer; our own does not count.
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Whether the peer sent less than `rate` bytes a second, beyond `grace`.
    fn is_too_slow(&self, rate: u32, grace: Duration) -> bool {
        let needed = self.bytes.checked_div(u64::from(rate)).map(Duration::from_secs);
        needed.is_some_and(|needed| self.waited > grace.saturating_add(needed))
    }
}

/// Slices given to one write; the kernel takes up to 1,024.
const SLICES_MAX: usize = 64;

impl Link {
    pub(crate) fn new(io: Box<dyn Transport>, expecting: Expecting, limits: &Limits) -> Self {
        Self {
            io,
            reader: PduReader::new(expecting, limits.pdu(), limits.read_bytes),
            waited: Duration::ZERO,
            pace: Pace::default(),
            rate_min: limits.receive_rate_min,
            transfer_timeout: limits.transfer_timeout,
            write_timeout: limits.write_timeout,
            close_timeout: limits.close_timeout,
            out: VecDeque::new(),
            out_bytes: 0,
            torn: false,
        }
    }

    pub(crate) fn expect(&mut self, expecting: Expecting) {
        self.reader.expect(expecting);
    }

    /// The next PDU, or piece of a P-DATA-TF.
    ///
    /// # Cancel safety
    /// Safe: bytes that were read stay in the buffer.
    pub(crate) async fn next_pdu(&mut self, wait: Wait) -> Result<Pdu, AssociationError> {
        loop {
            if let Some(pdu) = self.reader.next_pdu()? {
                if self.reader.at_pdu_boundary() {
                    self.waited = Duration::ZERO;
                }
                return Ok(pdu);
            }
            let begun = self.reader.in_pdu();
            let left = match wait {
                Wait::Idle(idle) if !begun => Some(idle),
                Wait::Forever if !begun => None,
                Wait::AsCaller => None,
                _ => Some(self.transfer_timeout.saturating_sub(self.waited)),
            };
            let start = Instant::now();
            let read = self.io.read_buf(self.reader.buffer());
            let read = match left {
                None => read.await?,
                Some(left) => timeout(left, read).await.map_err(|_| AssociationError::Timeout("peer is silent"))??,
            };
            if read == 0 {
                return Err(AssociationError::Closed);
            }
            self.io.after_read();
            self.waited = if begun { self.waited + start.elapsed() } else { Duration::ZERO };
            match wait {
                Wait::Idle(_) | Wait::Forever if !begun => self.pace = Pace::default(),
                Wait::AsCaller => {}
                _ => self.pace.waited += start.elapsed(),
            }
            self.pace.bytes += read as u64;
            if self.pace.is_too_slow(self.rate_min, self.transfer_timeout) {
                return Err(AssociationError::Timeout("peer sends too slowly"));
            }
        }
    }

    /// Queues bytes that make whole PDUs, or go on with one.
    pub(crate) fn queue(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out_bytes += bytes.len();
            self.out.push_back(bytes);
        }
    }

    /// Bytes queued.
    pub(crate) fn queued(&self) -> usize {
        self.out_bytes
    }

    /// Writes all that is queued.
    ///
    /// # Cancel safety
    /// Not safe: dropped half-way, the connection is of no more use, and [`Link::abandon`] will close it.
    pub(crate) async fn flush(&mut self) -> Result<(), AssociationError> {
        while !self.out.is_empty() {
            self.torn = true;
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.out) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            let write = self.io.write_vectored(&slices[..count]);
            let written = timeout(self.write_timeout, write)
                .await
                .map_err(|_| AssociationError::Timeout("peer does not read"))??;
            if written == 0 {
                return Err(AssociationError::Io(io::ErrorKind::WriteZero.into()));
            }
            advance(&mut self.out, written);
            self.out_bytes = self.out_bytes.saturating_sub(written);
        }
        self.torn = false;
        Ok(())
    }

    /// Writes a last PDU if that can still be, then lets the peer close: bytes of the peer's that are not yet
    /// read would otherwise reset the connection and take the PDU with them (Sta13).
    pub(crate) async fn finish(mut self, last: Option<Bytes>) {
        if let Some(last) = last
            && !self.torn
        {
            self.out.clear();
            self.out_bytes = 0;
            self.queue(last);
            if timeout(self.close_timeout, self.flush()).await.is_err() {
                return;
            }
        }
        let linger = async {
            let _ = self.io.shutdown().await;
            let mut sink = vec![0; 16 * 1024];
            while self.io.read(&mut sink).await.is_ok_and(|read| read > 0) {}
        };
        let _ = timeout(self.close_timeout, linger).await;
    }

    /// Says a last word without waiting, for a task that ends by surprise.
    pub(crate) fn abandon(&mut self, last: &[u8]) {
        if !self.torn {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = std::pin::Pin::new(&mut self.io).poll_write(&mut context, last);
        }
    }
}

fn advance(out: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = out.front_mut() {
        if first.len() > written {
            first.advance(written);
            return;
        }
        written -= first.len();
        out.pop_front();
    }
}
