use super::{
    convert,
    form::{self, DICOM, Delivery},
    parts::{OnePart, Part, multipart, readable},
    record,
};
use crate::{
    body::AnswerBody,
    door::Door,
    media_type::Packing,
    multipart::{Boundary, content_type},
    problem::{Answer, Problem},
    request::{Call, PathUids},
    respond::Representation,
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use bytes::Bytes;
use cairn_dicom::TransferSyntax;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Retrieval,
    index::{Detail, InstanceRecord},
    retrieval::{Part as StoredPart, RetrievedInstance},
};
use futures_util::{StreamExt, stream};
use std::{ops::Range, sync::Arc};

fn not_acceptable() -> Problem {
    Problem::not_acceptable(
        "instances are given as application/dicom, alone or in multipart/related, in the transfer syntax in which they \
         are stored (transfer-syntax=*) or, if that is an uncompressed one, in Explicit or Implicit VR Little Endian",
    )
}

/// The instances of a study, of a series, or one.
pub(crate) async fn instances(door: Arc<Door>, call: Call) -> Answer {
    call.no_other_parameters()?;
    if call.uids.instance.is_some() {
        let record = record(&door, &call, Detail::Location).await?;
        return one(&door, &call, record, Packing::Multipart).await;
    }
    match form::allows(&call.accept, Packing::Multipart) {
        true => several(&door, &call).await,
        false if form::allows(&call.accept, Packing::Single) => the_only_one(&door, &call).await,
        false => Err(not_acceptable()),
    }
}

/// A study or series of one instance, asked for as one body.
async fn the_only_one(door: &Arc<Door>, call: &Call) -> Answer {
    let found = door.services.index.instances(door.selection(call), Detail::Location);
    let (record, mut rest) = door.first(found).await?.ok_or_else(Problem::not_found)?;
    let second = door.within(async { rest.next().await.transpose() }).await?;
    if second.is_some() {
        let text = "several instances are given as multipart/related; type=\"application/dicom\"";
        return Err(Problem::not_acceptable(text));
    }
    one(door, call, record, Packing::Single).await
}

/// One instance: as one body or as the one part of a message; `either` where the client takes both.
pub(super) async fn one(door: &Door, call: &Call, record: InstanceRecord, either: Packing) -> Answer {
    let form = form::delivery(&call.accept, &stored_syntax(&record), either);
    let (packing, delivery) = form.ok_or_else(not_acceptable)?;
    let retrieval = Arc::clone(&door.services.retrieval);
    let syntax = match &delivery {
        Delivery::AsStored => record.transfer_syntax_uid.as_str().to_owned(),
        Delivery::Converted(target) => target.uid().to_owned(),
    };
    let entity = format!("{}-{syntax}", record.given_name());
    let location = call.address.path(&uids_of(&record));
    match (packing, delivery) {
        (Packing::Single, Delivery::AsStored) => {
            let etag = Some(format!("\"{entity}\""));
            let length = record.given_length();
            let representation = Representation { content_type: DICOM.into(), etag, length };
            representation.answer(door, call, |range| async move { open(&*retrieval, &record, range).await }).await
        }
        (Packing::Multipart, Delivery::AsStored) if record.given_length().is_none() => {
            let part_type = part_type(&syntax);
            let boundary = Boundary::of(&entity);
            let (content_type, etag) = (content_type(DICOM, &boundary), Some(format!("\"{entity}-parts\"")));
            let representation = Representation { content_type, etag, length: None };
            let open = async |_| {
                let data = open(&*retrieval, &record, None).await?;
                let part = Part { content_type: part_type, length: None, location: Some(location), data };
                Ok(multipart(boundary, Box::pin(stream::iter([Ok(part)]))))
            };
            representation.answer(door, call, open).await
        }
        (Packing::Multipart, Delivery::AsStored) => {
            let part_type = part_type(&syntax);
            let message = OnePart::new(&entity, DICOM, &part_type, record.object.length, Some(&location));
            let representation = Representation {
                content_type: message.content_type.clone(),
                etag: Some(format!("\"{entity}-parts\"")),
                length: Some(message.length()),
            };
            let open =
                async |range| message.open(range, async |range| open(&*retrieval, &record, Some(range)).await).await;
            representation.answer(door, call, open).await
        }
        (packing, Delivery::Converted(target)) => {
            let boundary = Boundary::of(&entity);
            let multipart_type = content_type(DICOM, &boundary);
            let (content_type, etag) = match packing {
                Packing::Single => (DICOM.to_owned(), format!("\"{entity}\"")),
                Packing::Multipart => (multipart_type, format!("\"{entity}-parts\"")),
            };
            let representation = Representation { content_type, etag: Some(etag), length: None };
            let open = async |_| {
                let file = convert::converted(open(&*retrieval, &record, None).await?, &record, &target)?;
                let content_type = part_type(&syntax);
                Ok(match packing {
                    Packing::Single => file,
                    Packing::Multipart => {
                        let part = Part { content_type, length: None, location: Some(location), data: file };
                        multipart(boundary, Box::pin(stream::iter([Ok(part)])))
                    }
                })
            };
            representation.answer(door, call, open).await
        }
    }
}

async fn open(
    retrieval: &dyn Retrieval,
    record: &InstanceRecord,
    range: Option<Range<u64>>,
) -> Result<AnswerStream<Bytes>, Error> {
    match range {
        Some(range) if range != (0..record.object.length) => retrieval.open(record, StoredPart::FileRange(range)).await,
        _ => retrieval.open(record, StoredPart::File).await,
    }
}

/// Instances as the parts of one message.
async fn several(door: &Door, call: &Call) -> Answer {
    // Where every stored form fits, nothing need be known of the instances before the first of them is sent.
    if !form::any_is_given_as_part(&call.accept) || call.method == Method::HEAD {
        check_forms(door, call).await?;
    }
    let boundary = Boundary::random();
    let content_type = content_type(DICOM, &boundary);
    let representation = Representation { content_type, etag: None, length: None };
    if call.method == Method::HEAD {
        return representation.response(StatusCode::OK, Body::empty());
    }
    let found = door.services.retrieval.instances(door.selection(call), StoredPart::File);
    let (first, rest) = door.first(found).await?.ok_or_else(Problem::not_found)?;
    let call = call.clone();
    let mut parts = stream::iter([Ok(first)]).chain(rest).map(move |instance| part(instance?, &call));
    // The first bytes decide the status: after them, damage can only cut the answer.
    let first = door
        .within(async {
            let Some(part) = parts.next().await.transpose()? else {
                return Err(Error::new(ErrorKind::NotFound, "there is nothing under this address"));
            };
            Ok(Part { data: readable(part.data).await?, ..part })
        })
        .await?;
    let body = multipart(boundary, Box::pin(stream::iter([Ok(first)]).chain(parts)));
    representation.response(StatusCode::OK, AnswerBody::body(body, None))
}

/// Whether there are instances, and every one of them is stored in an acceptable form.
async fn check_forms(door: &Door, call: &Call) -> Result<(), Problem> {
    let found = door.services.index.instances(door.selection(call), Detail::Location);
    let (first, rest) = door.first(found).await?.ok_or_else(Problem::not_found)?;
    let mut records = stream::iter([Ok(first)]).chain(rest);
    while let Some(record) = door.within(async { records.next().await.transpose() }).await? {
        if form::delivery_as_part(&call.accept, &stored_syntax(&record)).is_none() {
            return Err(not_acceptable());
        }
    }
    Ok(())
}

fn stored_syntax(record: &InstanceRecord) -> TransferSyntax {
    TransferSyntax::from_uid(record.transfer_syntax_uid.as_str())
}

fn part_type(syntax: &str) -> String {
    format!("{DICOM}; transfer-syntax={syntax}")
}

fn part(instance: RetrievedInstance, call: &Call) -> Result<Part, Error> {
    let RetrievedInstance { record, bytes } = instance;
    let location = Some(call.address.path(&uids_of(&record)));
    // Forms were looked at before the answer began; an instance stored since then is given as it is.
    match form::delivery_as_part(&call.accept, &stored_syntax(&record)).unwrap_or(Delivery::AsStored) {
        Delivery::AsStored => Ok(Part {
            content_type: part_type(record.transfer_syntax_uid.as_str()),
            length: record.given_length(),
            location,
            data: bytes,
        }),
        Delivery::Converted(target) => Ok(Part {
            content_type: part_type(target.uid()),
            length: None,
            location,
            data: convert::converted(bytes, &record, &target)?,
        }),
    }
}

/// The UIDs of an instance, for its address.
pub(super) fn uids_of(record: &InstanceRecord) -> PathUids {
    PathUids {
        study: Some(record.study_instance_uid.clone()),
        series: Some(record.series_instance_uid.clone()),
        instance: Some(record.sop_instance_uid.clone()),
    }
}
