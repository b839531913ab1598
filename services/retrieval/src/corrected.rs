//! Instances as corrections have them given out: pieces of the stored object, and the bytes that are new.

use crate::{ahead::range_of, read};
use bytes::Bytes;
use cairn_archive::{correction::modifications, fold::default_character_set};
use cairn_dicom::{
    TransferSyntax,
    rewrite::{Piece, Rewriter},
};
use cairn_service_api::{AnswerStream, Error, ErrorKind, Reason, index::InstanceRecord, retrieval::Part};
use cairn_store_api::{ObjectRef, ObjectStore};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{ops::Range, sync::Arc};

/// The file to give out.
#[derive(Clone, Debug)]
pub(crate) struct Corrected {
    object: ObjectRef,
    data_set_offset: u64,
    /// Ranges are of the object.
    pieces: Vec<Piece>,
    /// Bytes of the file.
    pub(crate) length: u64,
}

/// Looks at a data set up to its pixels; `None` where it is given out as it is stored.
pub(crate) async fn corrected(objects: &dyn ObjectStore, record: &InstanceRecord) -> Result<Option<Corrected>, Error> {
    if record.corrections.is_empty() {
        return Ok(None);
    }
    let encoding = TransferSyntax::from(&record.transfer_syntax_uid).encoding;
    if encoding.is_deflated() {
        let message =
            "a deflated instance can't be given out with its corrections; its versions can, as they are stored";
        return Err(Error::because(ErrorKind::Invalid, Reason::TransferSyntax, message));
    }
    let (object, begin) = (record.object, record.data_set_offset);
    let default = default_character_set(&record.default_character_set);
    let mut rewriter = Rewriter::new(encoding, modifications(&record.corrections), default);
    let mut bytes = read::open(objects, &object, begin..object.length).await?;
    while let Some(chunk) = bytes.try_next().await? {
        if !rewriter.push(&chunk) {
            break;
        }
        tokio::task::yield_now().await;
    }
    let of_object = |piece: Piece| match piece {
        Piece::Stored(range) => {
            let at = |offset: u64| begin.saturating_add(offset).min(object.length);
            Piece::Stored(at(range.start)..at(range.end))
        }
        made => made,
    };
    let pieces: Vec<Piece> =
        std::iter::once(Piece::Stored(0..begin)).chain(rewriter.finish().pieces.into_iter().map(of_object)).collect();
    let length = pieces.iter().map(length_of).sum();
    Ok(Some(Corrected { object, data_set_offset: begin, pieces, length }))
}

fn length_of(piece: &Piece) -> u64 {
    match piece {
        Piece::Stored(range) => range.end.saturating_sub(range.start),
        Piece::Made(bytes) => bytes.len() as u64,
    }
}

impl Corrected {
    /// The range of the file that a part means.
    pub(crate) fn range_of(&self, part: &Part) -> Result<Range<u64>, Error> {
        range_of(self.length, self.data_set_offset, part)
    }

    /// A range of the file. Nothing is read before the first poll.
    pub(crate) fn open(&self, objects: Arc<dyn ObjectStore>, range: Range<u64>) -> AnswerStream<Bytes> {
        let object = self.object;
        let bytes = stream::iter(self.pieces_of(range)).flat_map(move |piece| match piece {
            Piece::Stored(range) => read::open_later(objects.clone(), object, range),
            Piece::Made(bytes) => stream::once(async { Ok(bytes) }).boxed(),
        });
        Box::pin(read::end_at_error(bytes.boxed()))
    }

    /// What of each piece lies in a range.
    fn pieces_of(&self, range: Range<u64>) -> Vec<Piece> {
        let (mut position, mut wanted) = (0, Vec::new());
        for piece in &self.pieces {
            let length = length_of(piece);
            let from = range.start.saturating_sub(position).min(length);
            let to = range.end.saturating_sub(position).min(length);
            position += length;
            match piece {
                _ if from >= to => {}
                Piece::Stored(stored) => wanted.push(Piece::Stored(stored.start + from..stored.start + to)),
                Piece::Made(bytes) => wanted.push(Piece::Made(bytes.slice(from as usize..to as usize))),
            }
        }
        wanted
    }
}
