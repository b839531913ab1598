use super::{instances, instances::uids_of, only};
use crate::{
    body::AnswerBody,
    door::Door,
    media_type::Packing,
    problem::{Answer, Problem, json_string},
    qido::bracketed,
    request::Call,
    respond::{JSON, Representation},
};
use axum::http::StatusCode;
use bytes::Bytes;
use cairn_archive::Digest;
use cairn_service_api::index::{Detail, InstanceRecord, Selection};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

/// `/versions`: every version of an instance, shown or not, in JSON.
pub(crate) async fn versions(door: Arc<Door>, call: Call) -> Answer {
    call.no_other_parameters()?;
    let media_type = call.accept.choose(&[JSON]);
    let media_type = media_type.ok_or_else(|| Problem::not_acceptable("versions are listed as application/json"))?;
    let selection = Selection { all_versions: true, ..door.selection(&call) };
    let found = door.services.index.instances(selection, Detail::Location);
    let (first, rest) = door.first(found).await?.ok_or_else(Problem::not_found)?;
    let address = call.address.clone();
    let records = stream::iter([Ok(first)]).chain(rest);
    let chunks = records
        .map_ok(move |record| Bytes::from(format!(",{}", version_json(&record, &address.path(&uids_of(&record))))));
    let representation = Representation { content_type: media_type.into(), etag: None, length: None };
    representation.response(StatusCode::OK, AnswerBody::body(Box::pin(bracketed(chunks)), None))
}

fn version_json(record: &InstanceRecord, path: &str) -> String {
    let digest = record.object.digest;
    let rejected: Vec<String> = record.rejected.iter().map(|title| format!("\"{}\"", title.code())).collect();
    format!(
        "{{\"blake3\":\"{digest}\",\"length\":{},\"transferSyntaxUID\":{},\"sopClassUID\":{},\"shown\":{},\
         \"rejected\":[{}],\"storeEvent\":\"{}\",\"url\":{}}}",
        record.object.length,
        json_string(record.transfer_syntax_uid.as_str()),
        json_string(record.sop_class_uid.as_str()),
        record.shown,
        rejected.join(","),
        record.store_event,
        json_string(&format!("{path}/versions/{digest}")),
    )
}

/// `/versions/{blake3}`: the stored file with this digest, whether it is the version shown or not.
pub(crate) async fn version(door: Arc<Door>, call: Call) -> Answer {
    call.no_other_parameters()?;
    let digest: Digest = call.rest.get(1).and_then(|text| text.parse().ok()).ok_or_else(Problem::not_found)?;
    let selection = Selection { version: Some(digest), all_versions: true, as_stored: true, ..door.selection(&call) };
    let record = only(&door, selection, Detail::Location).await?;
    instances::one(&door, &call, record, Packing::Single).await
}
