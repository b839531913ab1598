//! Inflating a deflated data set as a stream (PS3.5 section A.5), under limits.

use flate2::{Decompress, FlushDecompress, Status};

use crate::finding::FindingKind;

/// Bounds of what a deflated data set may inflate to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InflateLimits {
    /// Bytes in all.
    pub bytes_max: u64,
    /// Inflated bytes for each received byte, once more than `free_bytes` came out.
    pub ratio_max: u64,
    /// Bytes that may come out whatever the ratio: small objects of one colour compress a thousandfold.
    pub free_bytes: u64,
}

impl Default for InflateLimits {
    fn default() -> Self {
        Self { bytes_max: 4 << 30, ratio_max: 200, free_bytes: 64 << 20 }
    }
}

/// A deflated data set inflates beyond its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// More than [`InflateLimits::bytes_max`].
    #[error("deflated data set inflates to more than {0} bytes")]
    TooLarge(u64),
    /// More than [`InflateLimits::ratio_max`] for each byte received.
    #[error("deflated data set inflates more than {0} times")]
    Ratio(u64),
}

const PIECE: usize = 32 * 1024;
/// Bytes that tell a zlib header from a raw stream.
const PROBE: usize = 5;

/// Inflates one deflated data set as the header walker does: the bytes that come out are those which its offsets count.
/// Bytes that were never deflated are passed on as they are.
pub struct Inflater {
    limits: InflateLimits,
    stream: Option<Decompress>,
    probe: Vec<u8>,
    out: Box<[u8]>,
    taken: u64,
    made: u64,
    zlib: bool,
    /// Not deflated at all: passed on as it is.
    plain: bool,
    over: bool,
    damaged: bool,
}

impl Inflater {
    /// An inflater of one data set.
    pub fn new(limits: InflateLimits) -> Self {
        Self {
            limits,
            stream: None,
            probe: Vec::new(),
            out: vec![0; PIECE].into_boxed_slice(),
            taken: 0,
            made: 0,
            zlib: false,
            plain: false,
            over: false,
            damaged: false,
        }
    }

    /// Takes the next bytes; gives what comes out to `sink`, in pieces of at most 32 KiB where it was deflated.
    ///
    /// # Errors
    /// The limits are passed; the inflater is used up.
    pub fn push(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), InflateError> {
        self.push_some(bytes, |piece| {
            sink(piece);
            true
        })?;
        Ok(())
    }

    /// As `push`, until `sink` says `false`; returns how many bytes were taken.
    pub(crate) fn push_some(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(&[u8]) -> bool,
    ) -> Result<usize, InflateError> {
        let mut probed = 0;
        if self.stream.is_none() {
            probed = (PROBE - self.probe.len()).min(bytes.len());
            self.probe.extend_from_slice(&bytes[..probed]);
            if self.probe.len() < PROBE {
                return Ok(probed);
            }
            self.begin(&mut sink)?;
        }
        Ok(probed + self.take(&bytes[probed..], &mut sink)?)
    }

    /// The data set is over; gives to `sink` what was held back.
    ///
    /// # Errors
    /// As [`Inflater::push`].
    pub fn finish(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), InflateError> {
        self.finish_some(|piece| {
            sink(piece);
            true
        })?;
        Ok(())
    }

    /// As `finish`, until `sink` says `false`; returns whether that was all.
    pub(crate) fn finish_some(&mut self, mut sink: impl FnMut(&[u8]) -> bool) -> Result<bool, InflateError> {
        if self.stream.is_none() && !self.probe.is_empty() {
            self.begin(&mut sink)?;
        }
        let mut stopped = false;
        self.take(&[], &mut |piece| {
            stopped = !sink(piece);
            !stopped
        })?;
        if !stopped {
            self.damaged |= !self.over;
        }
        Ok(!stopped)
    }

    pub(crate) fn finding(&self) -> Vec<FindingKind> {
        let mut kinds = Vec::new();
        if self.zlib {
            kinds.push(FindingKind::ZlibWrapped);
        }
        if self.plain {
            kinds.push(FindingKind::NotDeflated);
        }
        if self.damaged {
            kinds.push(FindingKind::DeflateDamaged);
        }
        kinds
    }

    fn begin(&mut self, sink: &mut impl FnMut(&[u8]) -> bool) -> Result<(), InflateError> {
        self.zlib = is_zlib(&self.probe);
        self.plain = !self.zlib && is_stored(&self.probe) == Some(false);
        self.stream = Some(Decompress::new(self.zlib));
        // Five bytes leave nothing behind: they make less than one piece.
        let probe = std::mem::take(&mut self.probe);
        self.take(&probe, sink)?;
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8]) -> bool) -> Result<usize, InflateError> {
        if self.plain {
            self.over = true;
            sink(bytes);
            return Ok(bytes.len());
        }
        self.inflate(bytes, sink)
    }

    fn inflate(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8]) -> bool) -> Result<usize, InflateError> {
        let Some(stream) = &mut self.stream else { return Ok(bytes.len()) };
        let mut left = bytes;
        while !self.over && !self.damaged {
            let (before_in, before_out) = (stream.total_in(), stream.total_out());
            let status = stream.decompress(left, &mut self.out, FlushDecompress::None);
            let used = (stream.total_in() - before_in) as usize;
            let made = (stream.total_out() - before_out) as usize;
            left = left.get(used..).unwrap_or_default();
            self.taken += used as u64;
            self.made += made as u64;
            if self.made > self.limits.bytes_max {
                return Err(InflateError::TooLarge(self.limits.bytes_max));
            }
            if self.made > self.limits.free_bytes && self.made / self.taken.max(1) > self.limits.ratio_max {
                return Err(InflateError::Ratio(self.limits.ratio_max));
            }
            let more = sink(self.out.get(..made).unwrap_or_default());
            match status {
                Ok(Status::StreamEnd) => self.over = true,
                Ok(_) if used == 0 && made == 0 => break,
                Ok(_) => {}
                Err(_) => self.damaged = true,
            }
            if !more {
                return Ok(bytes.len() - left.len());
            }
        }
        // Once the stream is over, what follows it is padding.
        Ok(bytes.len())
    }
}

/// Some writers put a zlib stream (RFC 1950) where the Standard wants a raw one (RFC 1951).
fn is_zlib(probe: &[u8]) -> bool {
    match *probe {
        [a, b, ..] => {
            a & 0x0F == 8 && a >> 4 <= 7 && u16::from_be_bytes([a, b]) % 31 == 0 && is_stored(probe) != Some(true)
        }
        _ => false,
    }
}

/// Whether the first block of a raw stream is a stored one, as its type says, with a length that its complement follows:
/// `Some(false)` if only the type says so, `None` if neither does.
fn is_stored(probe: &[u8]) -> Option<bool> {
    match *probe {
        [a, b, c, d, e, ..] if a & 0x06 == 0 => Some(b == !d && c == !e),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use flate2::{Compression, write::DeflateEncoder, write::ZlibEncoder};

    fn inflate(bytes: &[u8], limits: InflateLimits) -> Result<(usize, Vec<FindingKind>), InflateError> {
        let mut inflater = Inflater::new(limits);
        let mut length = 0;
        for piece in bytes.chunks(7) {
            inflater.push(piece, |out| length += out.len())?;
        }
        inflater.finish(|out| length += out.len())?;
        Ok((length, inflater.finding()))
    }

    fn deflated(length: usize) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![7; length]).expect("writes to memory");
        encoder.finish().expect("writes to memory")
    }

    #[test]
    fn a_bomb_is_stopped_by_ratio_and_by_size() {
        let limits = InflateLimits { bytes_max: 3_000_000, ratio_max: 100, free_bytes: 100_000 };
        assert_eq!(inflate(&deflated(50_000), limits.clone()), Ok((50_000, vec![])));
        assert_eq!(inflate(&deflated(5_000_000), limits.clone()), Err(InflateError::Ratio(100)));
        let limits = InflateLimits { ratio_max: 10_000, ..limits };
        assert_eq!(inflate(&deflated(5_000_000), limits), Err(InflateError::TooLarge(3_000_000)));
    }

    #[test]
    fn what_is_not_deflated_at_all_passes() {
        let plain = b"\x08\x00\x16\x00UI\x04\x001.2\0";
        assert_eq!(inflate(plain, InflateLimits::default()), Ok((plain.len(), vec![FindingKind::NotDeflated])));
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::none());
        encoder.write_all(&[1; 1000]).expect("writes to memory");
        let stored = encoder.finish().expect("writes to memory");
        assert_eq!(inflate(&stored, InflateLimits::default()), Ok((1000, vec![])));
    }

    #[test]
    fn a_zlib_header_and_a_cut_stream_are_tolerated() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&[1; 1000]).expect("writes to memory");
        let zlib = encoder.finish().expect("writes to memory");
        assert_eq!(inflate(&zlib, InflateLimits::default()), Ok((1000, vec![FindingKind::ZlibWrapped])));
        let cut = deflated(1000);
        let (_, findings) = inflate(&cut[..cut.len() - 3], InflateLimits::default()).expect("within limits");
        assert_eq!(findings, [FindingKind::DeflateDamaged]);
    }
}
