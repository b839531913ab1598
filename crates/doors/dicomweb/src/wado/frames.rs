use super::{
    form::{self, FrameForm},
    instances::uids_of,
    parts::{OnePart, Part, multipart, readable},
    record,
};
use crate::{
    body::AnswerBody,
    door::Door,
    media_type::Packing,
    multipart::{Boundary, content_type},
    problem::{Answer, Problem},
    request::Call,
    respond::{Representation, slice, whole_or_slice},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use cairn_dicom::TransferSyntax;
use cairn_service_api::{
    index::{Detail, InstanceRecord},
    retrieval::Frame,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

/// Frames by number, in the order asked for.
pub(crate) async fn frames(door: Arc<Door>, call: Call) -> Answer {
    call.no_other_parameters()?;
    let list = call.rest.get(1).map(String::as_str).unwrap_or_default();
    let numbers = frame_numbers(list, door.config.limits.frames_max)?;
    let record = record(&door, &call, Detail::Tables).await?;
    of_record(&door, &call, record, numbers).await
}

/// These frames of an instance.
pub(super) async fn of_record(door: &Door, call: &Call, record: InstanceRecord, numbers: Vec<u32>) -> Answer {
    let stored = TransferSyntax::from_uid(record.transfer_syntax_uid.as_str());
    let form = form::frame_form(&call.accept, &stored, numbers.len() == 1).ok_or_else(|| {
        let text = format!("frames of this instance are given as stored, in transfer syntax {}", stored.uid());
        Problem::not_acceptable(format!("{text} (transfer-syntax=*)"))
    })?;
    let found = door.first(door.services.retrieval.frames(&record, &numbers)).await?;
    let (first, rest) = found.ok_or_else(Problem::not_found)?;
    if numbers.len() == 1 {
        return one(door, call, &record, first, form).await;
    }
    let boundary = Boundary::random();
    let representation =
        Representation { content_type: content_type(form.media_type, &boundary), etag: None, length: None };
    if call.method == Method::HEAD {
        return representation.response(StatusCode::OK, Body::empty());
    }
    let first = door.within(async { Ok(Frame { bytes: readable(first.bytes).await?, ..first }) }).await?;
    let location = call.address.path(&uids_of(&record));
    let parts = stream::iter([Ok(first)]).chain(rest).map_ok(move |frame| Part {
        content_type: form.content_type(),
        length: Some(frame.length),
        location: Some(format!("{location}/frames/{}", frame.number)),
        data: frame.bytes,
    });
    let body = multipart(boundary, Box::pin(parts));
    representation.response(StatusCode::OK, AnswerBody::body(body, None))
}

/// One frame, of which ranges can be given: of the body or of the whole message, as viewers that load step by step ask.
async fn one(door: &Door, call: &Call, record: &InstanceRecord, frame: Frame, form: FrameForm) -> Answer {
    let Frame { number, length, bytes } = frame;
    let entity = format!("{}-{number}-{}-{}", record.object.digest, form.syntax, form.media_type);
    match form.packing {
        Packing::Single => {
            let representation = Representation {
                content_type: form.content_type(),
                etag: Some(format!("\"{}-{number}\"", record.object.digest)),
                length: Some(length),
            };
            let open = async |range: Option<std::ops::Range<u64>>| Ok(whole_or_slice(bytes, range));
            representation.answer(door, call, open).await
        }
        Packing::Multipart => {
            let location = format!("{}/frames/{number}", call.address.path(&uids_of(record)));
            let message = OnePart::new(&entity, form.media_type, &form.content_type(), length, Some(&location));
            let representation = Representation {
                content_type: message.content_type.clone(),
                etag: Some(format!("\"{}-{number}-parts\"", record.object.digest)),
                length: Some(message.length()),
            };
            let open = async |range| message.open(range, async |range| Ok(slice(bytes, range))).await;
            representation.answer(door, call, open).await
        }
    }
}

/// Reads a frame list: numbers from 1, joined by commas.
pub(super) fn frame_numbers(list: &str, most: usize) -> Result<Vec<u32>, Problem> {
    let bad = || Problem::bad_request("the frame list is not numbers from 1, joined by commas");
    let mut numbers = Vec::new();
    for text in list.split(',') {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse::<u32>().ok()).flatten().filter(|number| *number > 0);
        numbers.push(number.ok_or_else(bad)?);
        if numbers.len() > most {
            return Err(Problem::bad_request("the frame list is too long"));
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_lists() {
        assert_eq!(frame_numbers("1", 10), Ok(vec![1]));
        assert_eq!(frame_numbers("3,1,3", 10), Ok(vec![3, 1, 3]));
        for bad in ["", "0", "-1", "+1", "1,", "1, 2", "a", "99999999999", "1,2,3"] {
            assert_eq!(frame_numbers(bad, 2).map_err(|p| p.status.as_u16()), Err(400), "{bad}");
        }
    }
}
