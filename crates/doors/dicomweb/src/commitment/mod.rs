//! Storage commitment (PS3.18 section 13, edition 2025c): a request is answered with the result where that is known soon, and
//! can be asked for later.

mod payload;

use crate::{
    body::{self, RequestBody},
    door::Door,
    media_type::MediaType,
    multipart::BodyError,
    problem::{Answer, Problem},
    request::{Call, joined},
    respond::{DICOM_JSON, JSON, set},
};
use axum::{
    body::Body,
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, Response, StatusCode, header},
};
use cairn_archive::{
    commitment::Reference,
    events::{CommitmentReporting, Door as DoorKind},
};
use cairn_service_api::{
    Commitments,
    commitment::{Commitment, Request, Transaction},
};
use futures_util::{StreamExt, TryStreamExt};
use std::{sync::Arc, time::Duration};

/// `POST /commitment-requests/{transactionUID}`: 200 with the result, or 202 when it is not known soon.
pub(crate) async fn request(State(door): State<Arc<Door>>, request: HttpRequest) -> Answer {
    let (parts, body) = request.into_parts();
    let mut body = RequestBody::bounded(body, &door.config, door.config.limits.commitment_bytes_max);
    let call = Call::read(&parts, &door.config).and_then(|call| {
        check_content(&call.headers)?;
        Ok(call)
    });
    let read = match call {
        Ok(call) => taken(&mut body).await.map(|bytes| (call, bytes)),
        Err(problem) => Err(problem),
    };
    let (call, bytes) = match read {
        Ok(read) => read,
        Err(problem) => {
            body::discard(body, door.config.limits.discarded_bytes_max, door.config.timeouts.discard).await;
            return Err(problem);
        }
    };
    let asked = Asked::read(&door, &call)?;
    let references = payload::references(&bytes).map_err(Problem::bad_request)?;
    // What was stored before is awaited by the service itself.
    let request = asked.request(&call, references)?;
    let (transaction, commitments) = (request.transaction.clone(), asked.commitments.clone());
    door.within(commitments.request_commitment(request)).await?;
    asked.result(&transaction, door.config.timeouts.commitment).await
}

/// `GET /commitment-requests/{transactionUID}`: 200 with the result, or 202 while it is not known.
pub(crate) async fn result(door: Arc<Door>, call: Call) -> Answer {
    let asked = Asked::read(&door, &call)?;
    asked.result(&asked.transaction, Duration::ZERO).await
}

/// What every call says.
struct Asked<'a> {
    door: &'a Arc<Door>,
    commitments: Arc<dyn Commitments>,
    transaction: Transaction,
    media_type: &'static str,
}

impl<'a> Asked<'a> {
    fn read(door: &'a Arc<Door>, call: &Call) -> Result<Self, Problem> {
        let media_type = call.accept.choose(&[DICOM_JSON, JSON]);
        let media_type = media_type.ok_or_else(|| Problem::not_acceptable("results are DICOM JSON"))?;
        call.no_other_parameters()?;
        let bad = || Problem::bad_request("the path holds a bad UID");
        let transaction_uid = call.rest.last().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        let away = || Problem::unavailable("storage commitment is not offered here", door.config.timeouts.retry_after);
        let commitments = door.services.commitments.clone().ok_or_else(away)?;
        let (tenant, requester) = (door.config.tenant.clone(), door.config.calling_ae_title.clone());
        Ok(Self { door, commitments, transaction: Transaction { tenant, requester, transaction_uid }, media_type })
    }

    fn request(&self, call: &Call, references: Vec<Reference>) -> Result<Request, Problem> {
        Ok(Request {
            transaction: self.transaction.clone(),
            called_ae_title: String::new(),
            door: DoorKind::Dicomweb,
            peer_address: call.peer.clone(),
            references,
            confirmed_sites: call.confirmed_sites()?,
            reporting: CommitmentReporting::AskedFor,
        })
    }

    /// What is known after `wait` at most.
    async fn result(&self, transaction: &Transaction, wait: Duration) -> Answer {
        let Commitment { decided_at_ms, .. } = self.door.within(self.commitments.commitment(transaction, wait)).await?;
        if decided_at_ms.is_none() {
            return self.accepted();
        }
        let outcomes = self.door.within(self.commitments.commitment_outcomes(transaction)).await?;
        let outcomes = self.door.within(outcomes.try_collect::<Vec<_>>()).await?;
        let mut response = Response::new(Body::from(payload::result(outcomes)));
        set(&mut response, header::CONTENT_TYPE, self.media_type)?;
        set(&mut response, header::CACHE_CONTROL, "private, no-cache")?;
        set(&mut response, header::VARY, "accept")?;
        Ok(response)
    }

    fn accepted(&self) -> Answer {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::ACCEPTED;
        let wait = self.door.config.timeouts.retry_after.as_secs().max(1);
        set(&mut response, header::RETRY_AFTER, &wait.to_string())?;
        set(&mut response, header::CACHE_CONTROL, "no-store")?;
        Ok(response)
    }
}

fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = MediaType::parse(&joined(headers, header::CONTENT_TYPE));
    let is_json = media_type.is_some_and(|media_type| matches!(media_type.essence(), DICOM_JSON | JSON));
    let is_coded = headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity");
    match is_json && !is_coded {
        true => Ok(()),
        false => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "requests come as application/dicom+json")),
    }
}

async fn taken(body: &mut RequestBody) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await.transpose().map_err(|error: BodyError| Problem::from(error))? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
