//! Giving an uncompressed instance in another uncompressed transfer syntax than the one in which it is stored.

use crate::respond::slice;
use bytes::{Buf, Bytes};
use cairn_dicom::{
    TransferSyntax,
    convert::{ConvertError, ConvertLimits, Converter},
    part10::{NewFileMeta, write_file_meta},
};
use cairn_service_api::{AnswerStream, Error, ErrorKind, Reason, index::InstanceRecord};
use futures_util::{StreamExt, stream};

/// A DICOM file in the syntax `target`, made from the bytes of the stored file as they come.
pub(super) fn converted(
    file: AnswerStream<Bytes>,
    record: &InstanceRecord,
    target: &TransferSyntax,
) -> Result<AnswerStream<Bytes>, Error> {
    let stored = TransferSyntax::from(&record.transfer_syntax_uid);
    let meta = write_file_meta(&NewFileMeta {
        sop_class_uid: &record.sop_class_uid,
        sop_instance_uid: &record.sop_instance_uid,
        transfer_syntax_uid: target.uid(),
        source_ae_title: None,
    });
    let conversion = Conversion {
        data_set: slice(file, record.data_set_offset..u64::MAX),
        converter: Converter::new(&stored, target, ConvertLimits::default()).map_err(not_convertible)?,
        pending: Bytes::new(),
        out: meta,
        input_ended: false,
        ended: false,
    };
    let chunks = stream::unfold(conversion, |mut conversion| async move {
        let chunk = conversion.next().await.transpose()?;
        conversion.ended |= chunk.is_err();
        Some((chunk, conversion))
    });
    Ok(Box::pin(chunks))
}

fn not_convertible(error: ConvertError) -> Error {
    Error::because(ErrorKind::Invalid, Reason::TransferSyntax, error.to_string())
}

struct Conversion {
    data_set: AnswerStream<Bytes>,
    converter: Converter,
    pending: Bytes,
    out: Vec<u8>,
    input_ended: bool,
    ended: bool,
}

impl Conversion {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.ended {
            if !self.pending.is_empty() {
                let taken = self.converter.push(&self.pending, &mut self.out).map_err(not_convertible)?;
                self.pending.advance(taken);
            } else if self.input_ended {
                self.ended = self.converter.finish(&mut self.out).map_err(not_convertible)?.is_some();
            } else {
                match self.data_set.next().await.transpose()? {
                    Some(chunk) => self.pending = chunk,
                    None => self.input_ended = true,
                }
                continue;
            }
            if self.out.len() >= SEND_BYTES || (self.ended && !self.out.is_empty()) {
                return Ok(Some(std::mem::take(&mut self.out).into()));
            }
        }
        Ok(None)
    }
}

/// Bytes that are worth sending. Also so many of the data set's start are looked at before an answer begins.
const SEND_BYTES: usize = 64 * 1024;
