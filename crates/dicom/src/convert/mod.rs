//! From one uncompressed encoding of a data set to another, as a stream, for a peer that did not accept the stored one.
//!
//! Elements, their order and their values stay; what changes is VR fields, byte order, lengths (sequences and items
//! get undefined ones, since a stream can't know better; odd values are padded). Group lengths, stray group 0000 and
//! 0002 elements and trailing padding are dropped.

mod sink;
#[cfg(test)]
mod tests;

use flate2::{Compress, Compression, FlushCompress};

use crate::{
    finding::Finding,
    inflate::{InflateError, InflateLimits, Inflater},
    parse::{Parser, Rules},
    transfer_syntax::TransferSyntax,
    vr::Vr,
};
use sink::ConvertSink;

/// Output after which [`Converter::push`] takes no more for now.
const OUT_ENOUGH: usize = 256 * 1024;

/// Bounds of a conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertLimits {
    /// Sequences open at once.
    pub nesting_max: usize,
    /// Findings reported.
    pub findings_max: usize,
    /// Of a deflated data set.
    pub inflate: InflateLimits,
}

impl Default for ConvertLimits {
    fn default() -> Self {
        Self { nesting_max: 1024, findings_max: 64, inflate: InflateLimits::default() }
    }
}

/// Why a data set cannot be converted. What was already put out is to be thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The syntax asked for is not an uncompressed one of the Standard.
    #[error("only uncompressed transfer syntaxes can be converted to")]
    TargetNotNative,
    /// Pixel Data is compressed, or encoded in a private way.
    #[error("pixel data is not in a form that can be converted")]
    PixelDataNotNative,
    /// Sequences are nested deeper than [`ConvertLimits::nesting_max`].
    #[error("sequences are nested too deep to be converted")]
    NestingTooDeep,
    /// A deflated data set inflates beyond its limits.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// The deflater failed, which it has no reason to.
    #[error("data set could not be deflated")]
    Deflate,
}

/// By VR, the longest value that goes through in one piece.
pub(crate) fn rules(nesting_max: usize, expand_unknown: bool) -> Rules {
    let mut whole_max = [4096; Vr::ALL.len()];
    whole_max[Vr::SQ as usize] = 0;
    Rules { nesting_max, whole_max, expand_unknown }
}

/// Converts one data set. Memory is bounded: a few hundred KiB, whatever the data set.
pub struct Converter {
    parser: Parser<ConvertSink>,
    inflater: Option<Box<Inflater>>,
    deflater: Option<Deflater>,
}

impl Converter {
    /// A converter between these syntaxes. From any syntax without compressed Pixel Data in the data set at hand.
    ///
    /// # Errors
    /// [`ConvertError::TargetNotNative`].
    pub fn new(from: &TransferSyntax, to: &TransferSyntax, limits: ConvertLimits) -> Result<Self, ConvertError> {
        if !to.is_native() {
            return Err(ConvertError::TargetNotNative);
        }
        let inflater = from.encoding.is_deflated().then(|| Box::new(Inflater::new(limits.inflate.clone())));
        let sink = ConvertSink::new(to.encoding.into(), from.is_native(), limits.findings_max);
        Ok(Self {
            parser: Parser::new(from.encoding, rules(limits.nesting_max, false), sink),
            inflater,
            deflater: to.encoding.is_deflated().then(Deflater::new),
        })
    }

    /// Takes bytes of the data set and appends to `out` what comes of them. Returns how many were taken: not all, once
    /// `out` holds some 256 KiB; empty it and push the rest.
    ///
    /// # Errors
    /// See [`ConvertError`]. The converter is used up.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, ConvertError> {
        let taken = match &mut self.inflater {
            None => {
                // Nothing grows by more than a few bytes an element.
                let taken = bytes.len().min(OUT_ENOUGH.saturating_sub(out.len()).max(4096));
                self.parser.push(&bytes[..taken]);
                taken
            }
            Some(inflater) => {
                let parser = &mut self.parser;
                let mut made = 0;
                inflater.push_some(bytes, |piece| {
                    parser.push(piece);
                    made += piece.len();
                    made < OUT_ENOUGH
                })?
            }
        };
        self.drain(out)?;
        Ok(taken)
    }

    /// The data set is over. Call again until it returns `Some`, emptying `out` in between.
    ///
    /// # Errors
    /// See [`ConvertError`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Vec<Finding>>, ConvertError> {
        if let Some(inflater) = &mut self.inflater {
            let parser = &mut self.parser;
            let mut made = 0;
            let done = inflater.finish_some(|piece| {
                parser.push(piece);
                made += piece.len();
                made < OUT_ENOUGH
            })?;
            if !done {
                self.drain(out)?;
                return Ok(None);
            }
            for kind in inflater.finding() {
                self.parser.sink.note(kind);
            }
        }
        self.parser.end();
        self.drain(out)?;
        if let Some(deflater) = &mut self.deflater {
            deflater.finish(out)?;
        }
        Ok(Some(self.parser.sink.take_findings()))
    }

    fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        if let Some(error) = self.parser.sink.error() {
            return Err(error);
        }
        let made = self.parser.sink.out();
        match &mut self.deflater {
            None => out.append(made),
            Some(deflater) => {
                deflater.push(made, out)?;
                made.clear();
            }
        }
        Ok(())
    }
}

/// Converts a data set that is wholly at hand.
///
/// # Errors
/// See [`ConvertError`].
pub fn convert(data_set: &[u8], from: &TransferSyntax, to: &TransferSyntax) -> Result<Vec<u8>, ConvertError> {
    let mut converter = Converter::new(from, to, ConvertLimits::default())?;
    let mut out = Vec::new();
    let mut part = Vec::new();
    let mut left = data_set;
    while !left.is_empty() {
        let taken = converter.push(left, &mut part)?;
        left = left.get(taken..).unwrap_or_default();
        out.append(&mut part);
    }
    while converter.finish(&mut part)?.is_none() {
        out.append(&mut part);
    }
    out.append(&mut part);
    Ok(out)
}

struct Deflater(Compress);

impl Deflater {
    fn new() -> Self {
        Self(Compress::new(Compression::default(), false))
    }

    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ConvertError> {
        while !bytes.is_empty() {
            let used = self.step(bytes, out, FlushCompress::None)?.0;
            bytes = bytes.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        while !self.step(&[], out, FlushCompress::Finish)?.1 {}
        // PS3.5 section A.5: a stream of odd length is followed by a NUL.
        if !self.0.total_out().is_multiple_of(2) {
            out.push(0);
        }
        Ok(())
    }

    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>, flush: FlushCompress) -> Result<(usize, bool), ConvertError> {
        let mut room = [0; 8192];
        let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
        let status = self.0.compress(bytes, &mut room, flush).map_err(|_| ConvertError::Deflate)?;
        let (used, made) = (self.0.total_in() - before_in, self.0.total_out() - before_out);
        if used == 0 && made == 0 && status != flate2::Status::StreamEnd {
            return Err(ConvertError::Deflate);
        }
        out.extend_from_slice(&room[..made as usize]);
        Ok((used as usize, status == flate2::Status::StreamEnd))
    }
}
