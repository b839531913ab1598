//! Objects in parts, and what makes an object readable: a request that succeeds only where nothing is.

use crate::failure::{Failure, Fate};
use crate::meta::Meta;
use crate::pieces::Sealed;
use crate::shared::Shared;
use crate::{metrics, unavailable};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use cairn_archive::ObjectKey;
use cairn_store_api::{StoreError, StoreErrorKind};
use std::{future::Future, sync::Arc};
use tokio::task::JoinSet;

/// An upload that was begun. Dropping it ends its requests.
pub(crate) struct Upload {
    shared: Arc<Shared>,
    name: String,
    id: String,
    sending: JoinSet<Result<CompletedPart, StoreError>>,
    sent: Vec<CompletedPart>,
    begun: i32,
}

impl Upload {
    /// Begins an upload. One whose answer was lost is a leftover, and removed as such.
    pub(crate) async fn begin(shared: Arc<Shared>, key: ObjectKey, writer: &str) -> Result<Self, StoreError> {
        let name = shared.names.object(key);
        let meta = Meta { writer: writer.to_owned(), ..Meta::default() };
        let begin = || {
            let begin = shared.requests.client.create_multipart_upload().bucket(&shared.config.bucket).key(&name);
            let begin = begin.content_type("application/octet-stream").set_metadata(Some(meta.encode()));
            let begin = begin.set_storage_class(shared.storage_class());
            begin.checksum_algorithm(ChecksumAlgorithm::Crc32C).send()
        };
        let begun = shared.requests.until_done("begin-upload", shared.requests.deadline(), begin).await?;
        let id = begun.upload_id.ok_or_else(|| unavailable("the object store began an upload without a name"))?;
        Ok(Self { shared, name, id, sending: JoinSet::new(), sent: Vec::new(), begun: 0 })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Sends a part while the next one fills; waits while too many are under way.
    pub(crate) async fn send(&mut self, part: Sealed) -> Result<(), StoreError> {
        self.begun += 1;
        let (shared, name, id, number) = (self.shared.clone(), self.name.clone(), self.id.clone(), self.begun);
        self.sending.spawn(async move {
            let checksum = part.checksum();
            let send = || {
                let send = shared.requests.client.upload_part().bucket(&shared.config.bucket).key(&name);
                let send = send.upload_id(&id).part_number(number).content_length(part.length as i64);
                send.checksum_crc32_c(&checksum).body(part.body()).customize().disable_payload_signing().send()
            };
            let sent = shared.requests.until_done("put-part", shared.requests.deadline(), send).await;
            let sent = sent.map_err(|failure| match failure.fate {
                Fate::Missing => unavailable("an upload was ended by somebody else"),
                _ => failure.into(),
            })?;
            let done = CompletedPart::builder().part_number(number).checksum_crc32_c(checksum);
            Ok(done.set_e_tag(sent.e_tag).build())
        });
        while self.sending.len() > self.shared.config.parts_in_flight_max {
            self.join().await?;
        }
        Ok(())
    }

    async fn join(&mut self) -> Result<(), StoreError> {
        if let Some(sent) = self.sending.join_next().await {
            let sent = sent.map_err(|error| StoreError::new(StoreErrorKind::Internal, format!("a part: {error}")))?;
            self.sent.push(sent?);
        }
        Ok(())
    }

    /// Waits until all parts are stored; gives the upload's name and the parts.
    pub(crate) async fn wait(mut self) -> Result<(String, Vec<CompletedPart>), StoreError> {
        while !self.sending.is_empty() {
            self.join().await?;
        }
        self.sent.sort_by_key(|part| part.part_number);
        Ok((self.id, self.sent))
    }
}

impl Shared {
    /// Puts the parts together, unless the key is taken.
    pub(crate) async fn complete(
        &self,
        key: ObjectKey,
        writer: &str,
        id: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<(), StoreError> {
        let name = self.names.object(key);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        self.conditionally("complete", key, writer, || {
            let complete = self.requests.client.complete_multipart_upload().bucket(&self.config.bucket).key(&name);
            complete.upload_id(id).multipart_upload(parts.clone()).if_none_match("*").send()
        })
        .await
    }

    /// Puts the parts together, whatever is there. An upload that is gone was completed by a try whose answer was lost, if
    /// what is there is its writer's.
    pub(crate) async fn complete_over(
        &self,
        key: ObjectKey,
        writer: &str,
        id: &str,
        parts: Vec<CompletedPart>,
    ) -> Result<(), StoreError> {
        let (name, deadline) = (self.names.object(key), self.requests.deadline());
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = || {
            let complete = self.requests.client.complete_multipart_upload().bucket(&self.config.bucket).key(&name);
            complete.upload_id(id).multipart_upload(parts.clone()).send()
        };
        match self.requests.until_done("complete-repair", deadline, complete).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.fate == Fate::Missing => match self.find(key, self.requests.deadline()).await {
                Ok(found) if found.meta.as_ref().is_some_and(|meta| meta.writer == writer) => Ok(()),
                _ => Err(unavailable("an upload is gone")),
            },
            Err(failure) => Err(failure.into()),
        }
    }

    /// Asks for an object to be there, on condition that none is, until it is known what came of it: after a lost answer
    /// the object says whose it is.
    pub(crate) async fn conditionally<T, E, F>(
        &self,
        what: &'static str,
        key: ObjectKey,
        writer: &str,
        mut request: impl FnMut() -> F,
    ) -> Result<(), StoreError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let taken = || StoreError::new(StoreErrorKind::Conflict, format!("object {key} is there already"));
        let deadline = self.requests.deadline();
        let mut tries = 0;
        loop {
            let failure = match self.requests.once(what, deadline, request()).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            let look = match failure.fate {
                Fate::Present if tries == 0 => return Err(taken()),
                // An earlier try may have been the one. An upload is gone once it is complete.
                Fate::Present | Fate::Unknown => true,
                Fate::Missing if tries > 0 => true,
                Fate::Refused => false,
                _ => return Err(failure.into()),
            };
            if failure.is_temporary() && !self.requests.pause(tries, deadline).await {
                return Err(failure.into());
            }
            if look {
                let found = match self.find(key, deadline).await {
                    Ok(found) => Some(found.meta.is_some_and(|meta| meta.writer == writer)),
                    Err(Failure { fate: Fate::Missing, .. }) => None,
                    Err(failure) => return Err(failure.into()),
                };
                metrics::read_back(found.is_some());
                match found {
                    Some(true) => return Ok(()),
                    Some(false) => return Err(taken()),
                    None if failure.fate == Fate::Missing => return Err(unavailable("an upload is gone")),
                    None => {}
                }
                if failure.fate == Fate::Present && !self.requests.pause(tries, deadline).await {
                    return Err(unavailable("the object store says that an object is there and is not"));
                }
            }
            tries += 1;
        }
    }
}
