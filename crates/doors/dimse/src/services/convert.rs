//! Data sets for a peer that did not accept the syntax they are stored in.

use bytes::Bytes;
use cairn_dicom::{
    TransferSyntax,
    convert::{ConvertError, ConvertLimits, Converter},
    transfer_syntax::PixelCoding,
};
use cairn_service_api::{AnswerStream, Error, ErrorKind, Reason, index::InstanceRecord};
use futures_util::{StreamExt, stream};
use std::collections::VecDeque;

/// Converted bytes made before the first is sent. Nearly every object fits: one that can't be converted then fails
/// its own sub-operation and not the association.
const AHEAD_BYTES: usize = 4 * 1024 * 1024;

/// Whether an instance can be converted to an uncompressed syntax without a codec: its own is uncompressed, or it has
/// no pixels.
pub(super) fn is_convertible(record: &InstanceRecord) -> bool {
    let stored = TransferSyntax::from(&record.transfer_syntax_uid);
    stored.is_native() || (record.pixel_data_offset == 0 && stored.pixels != PixelCoding::Other)
}

fn failed(error: ConvertError) -> Error {
    Error::because(ErrorKind::Invalid, Reason::TransferSyntax, format!("data set can not be converted: {error}"))
}

struct State {
    source: AnswerStream<Bytes>,
    converter: Converter,
    /// Received and not yet taken by the converter.
    left: Bytes,
    ended: bool,
}

impl State {
    /// The next converted piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut out = Vec::new();
        loop {
            if !self.left.is_empty() {
                let taken = self.converter.push(&self.left, &mut out).map_err(failed)?;
                self.left = self.left.slice(taken..);
            } else if let Some(piece) = if self.ended { None } else { self.source.next().await } {
                self.left = piece?;
            } else {
                self.ended = true;
                let done = self.converter.finish(&mut out).map_err(failed)?.is_some();
                return Ok((!done || !out.is_empty()).then(|| out.into()));
            }
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
    }
}

/// A data set on its way from one syntax to another, so much of it converted already that an object of ordinary size
/// is known to convert to its end.
///
/// # Errors
/// `Invalid` (`TransferSyntax`), or what the source yields.
pub(super) async fn converted(
    source: AnswerStream<Bytes>,
    from: &TransferSyntax,
    to: &TransferSyntax,
) -> Result<AnswerStream<Bytes>, Error> {
    let converter = Converter::new(from, to, ConvertLimits::default()).map_err(failed)?;
    let mut state = State { source, converter, left: Bytes::new(), ended: false };
    let (mut ahead, mut bytes) = (VecDeque::new(), 0);
    loop {
        match state.next().await? {
            None => return Ok(Box::pin(stream::iter(ahead.into_iter().map(Ok)))),
            Some(piece) => {
                bytes += piece.len();
                ahead.push_back(piece);
            }
        }
        if bytes >= AHEAD_BYTES {
            break;
        }
    }
    let rest = stream::unfold(Some(state), |state| async {
        let mut state = state?;
        match state.next().await {
            Ok(piece) => piece.map(|piece| (Ok(piece), Some(state))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(Box::pin(stream::iter(ahead.into_iter().map(Ok)).chain(rest)))
}
