//! Reading: every byte is verified before it is given out. A read that breaks off goes on where it was; wrong bytes are
//! asked for once more, since they may have become wrong on the way.

use crate::cache::Which;
use crate::failure::{Failure, Fate};
use crate::meta::Meta;
use crate::requests::Deadline;
use crate::shared::{Shared, corrupt, not_found};
use crate::{metrics, unavailable};
use aws_sdk_s3::primitives::ByteStream as Body;
use blake3::Hash;
use blake3::hazmat::ChainingValue;
use bytes::{Buf, Bytes, BytesMut};
use cairn_archive::ObjectKey;
use cairn_store_api::tree::{GROUP, Hashes, PAGE_DATA, Shape, page_of, verify_groups, verify_whole};
use cairn_store_api::{ByteStream, ObjectRef, StoreError, StoreErrorKind};
use futures_util::stream;
use std::{ops::Range, sync::Arc};

/// Tries after which wrong bytes are damage.
const WRONG_MAX: u32 = 2;

fn invalid(key: ObjectKey) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, format!("object {key} is of another length or digest"))
}

/// An open read.
struct Reader {
    shared: Arc<Shared>,
    object: ObjectRef,
    range: Range<u64>,
    hashes: Hashes,
    /// Who wrote it: names its hashes.
    writer: String,
    /// The page of an object of several that was used last.
    page: Option<(u64, Vec<ChainingValue>)>,
    body: Option<Body>,
    /// Bytes that came and were not asked for yet.
    rest: Bytes,
}

/// Opens a read: the first answer has what is needed to verify it, but for long objects.
pub(crate) async fn open(shared: Arc<Shared>, object: ObjectRef, range: Range<u64>) -> Result<ByteStream, StoreError> {
    let ObjectRef { key, length, digest } = object;
    if range.start > range.end || range.end > length {
        let message = format!("bytes {}..{} are not in object {key} of {length}", range.start, range.end);
        return Err(StoreError::new(StoreErrorKind::Invalid, message));
    }
    let deadline = shared.requests.deadline();
    if range.is_empty() {
        let info = shared.stat(key).await?;
        return if info.object == object { Ok(Box::pin(stream::empty())) } else { Err(invalid(key)) };
    }
    let (total, meta, body) = get(&shared, &object, &range, deadline).await?;
    let meta = meta.ok_or_else(|| corrupt(key))?;
    if total != length || meta.facts.is_some_and(|facts| facts.digest != digest) {
        return Err(invalid(key));
    }
    let shape = Shape::of(length);
    let hashes = match &meta.tree {
        Some(tree) => Hashes::verify(shape, &digest.0, tree).ok_or_else(|| corrupt(key))?,
        None if shape.pages() == 0 => Hashes::Digest(Hash::from_bytes(digest.0)),
        None => top(&shared, &object, &meta.writer, deadline).await?,
    };
    let reader =
        Reader { shared, object, range, hashes, writer: meta.writer, page: None, body: Some(body), rest: Bytes::new() };
    Ok(Box::pin(stream::unfold(Some(reader), |reader| async {
        let mut reader = reader.filter(|reader| !reader.range.is_empty())?;
        match reader.next().await {
            Ok(bytes) => Some((Ok(bytes), Some(reader))),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

/// Asks for the groups of a range. Gives the object's length, its metadata and the bytes to come.
async fn get(
    shared: &Shared,
    object: &ObjectRef,
    range: &Range<u64>,
    deadline: Deadline,
) -> Result<(u64, Option<Meta>, Body), StoreError> {
    let group = GROUP as u64;
    let from = range.start / group * group;
    let to = range.end.next_multiple_of(group).min(object.length);
    let name = shared.names.object(object.key);
    let (total, meta, body) =
        get_bytes(shared, "get", &name, from..to, deadline).await.map_err(|failure| match failure.fate {
            Fate::Missing => not_found(object.key),
            Fate::OutOfRange => invalid(object.key),
            _ => failure.into(),
        })?;
    Ok((total, meta, body))
}

async fn get_bytes(
    shared: &Shared,
    what: &'static str,
    name: &str,
    range: Range<u64>,
    deadline: Deadline,
) -> Result<(u64, Option<Meta>, Body), Failure> {
    let bytes = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
    let get = || shared.requests.client.get_object().bucket(&shared.config.bucket).key(name).range(&bytes).send();
    let got = shared.requests.until_done(what, deadline, get).await?;
    // Without a range the answer is all of it.
    let total = match got.content_range.as_deref().and_then(|range| range.rsplit('/').next()) {
        Some(total) => total.parse().ok(),
        None if range.start == 0 => got.content_length.and_then(|length| u64::try_from(length).ok()),
        None => None,
    };
    let total = total.ok_or_else(|| Failure::new(Fate::Wrong, format!("{what}: the store does not read ranges")))?;
    Ok((total, Meta::decode(got.metadata.as_ref()), got.body))
}

/// Reads as much of a body; `rest` is what came beyond.
async fn fill(shared: &Shared, body: &mut Body, rest: &mut Bytes, length: usize) -> Result<Bytes, StoreError> {
    if rest.len() >= length {
        return Ok(rest.split_to(length));
    }
    let mut bytes = BytesMut::with_capacity(length);
    loop {
        let now = rest.len().min(length - bytes.len());
        bytes.extend_from_slice(rest.get(..now).unwrap_or_default());
        rest.advance(now);
        if bytes.len() == length {
            return Ok(bytes.freeze());
        }
        let next = tokio::time::timeout(shared.config.attempt_timeout, body.next()).await;
        *rest = match next {
            Err(_) => return Err(unavailable("the object store does not send what was asked for")),
            Ok(None) => return Err(unavailable("the object store's answer ended early")),
            Ok(Some(Err(error))) => return Err(unavailable(&format!("the object store's answer broke off: {error}"))),
            Ok(Some(Ok(bytes))) => bytes,
        };
    }
}

/// Reads hashes that are an object of their own, and makes what `verify` makes of them.
async fn hashes<T>(
    shared: &Shared,
    object: &ObjectRef,
    writer: &str,
    (at, length): (u64, usize),
    deadline: Deadline,
    verify: impl Fn(&[u8]) -> Option<T>,
) -> Result<T, StoreError> {
    let name = shared.names.tree(object.key, writer);
    let (mut wrong, mut tries) = (0, 0);
    loop {
        let got = get_bytes(shared, "get-hashes", &name, at..at + length as u64, deadline).await;
        let (_, meta, mut body) = match got {
            Ok(got) => got,
            Err(Failure { fate: Fate::Missing | Fate::OutOfRange, .. }) => return Err(corrupt(object.key)),
            Err(failure) => return Err(failure.into()),
        };
        if meta.and_then(|meta| meta.facts).is_some_and(|facts| facts.digest != object.digest) {
            return Err(invalid(object.key));
        }
        match fill(shared, &mut body, &mut Bytes::new(), length).await {
            Ok(bytes) => match verify(&bytes) {
                Some(verified) => return Ok(verified),
                None => {
                    metrics::wrong_bytes();
                    wrong += 1;
                    if wrong >= WRONG_MAX {
                        return Err(corrupt(object.key));
                    }
                }
            },
            Err(error) if !shared.requests.pause(tries, deadline).await => return Err(error),
            Err(_) => {}
        }
        tries += 1;
    }
}

/// What can be verified with the digest alone.
async fn top(shared: &Shared, object: &ObjectRef, writer: &str, deadline: Deadline) -> Result<Hashes, StoreError> {
    let shape = Shape::of(object.length);
    let make = |values: Vec<ChainingValue>| match shape.pages() {
        1 => Hashes::Page(values),
        _ => Hashes::Pages(values),
    };
    if let Some(known) = shared.cache.get(object.key, Which::Top, &object.digest) {
        return Ok(make(known.1.clone()));
    }
    let place = shape.top_of_tree().unwrap_or(shape.page_of_tree(0));
    let verify = |bytes: &[u8]| match Hashes::verify(shape, &object.digest.0, bytes)? {
        Hashes::Page(values) | Hashes::Pages(values) => Some(values),
        Hashes::Digest(_) => None,
    };
    let values = hashes(shared, object, writer, place, deadline, verify).await?;
    shared.cache.insert(object.key, Which::Top, Arc::new((object.digest, values.clone())));
    Ok(make(values))
}

impl Reader {
    /// The next bytes, verified.
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let group = GROUP as u64;
        let from = self.range.start / group * group;
        let to = (from + self.shared.config.read_chunk_bytes).min(self.range.end.next_multiple_of(group));
        let to = to.min((page_of(from) + 1) * PAGE_DATA).min(self.object.length);
        let length = usize::try_from(to - from).unwrap_or(usize::MAX);
        let deadline = self.shared.requests.deadline();
        let (mut wrong, mut tries) = (0, 0);
        let bytes = loop {
            match self.fetch(length, deadline).await {
                Ok(bytes) if self.verify(from, &bytes, deadline).await? => break bytes,
                Ok(_) => {
                    metrics::wrong_bytes();
                    wrong += 1;
                    if wrong >= WRONG_MAX {
                        return Err(corrupt(self.object.key));
                    }
                }
                Err(error) if error.kind() != StoreErrorKind::Unavailable => return Err(error),
                Err(error) if !self.shared.requests.pause(tries, deadline).await => return Err(error),
                Err(_) => {}
            }
            tries += 1;
            (self.body, self.rest) = (None, Bytes::new());
        };
        let end = to.min(self.range.end);
        let (start, stop) = ((self.range.start - from) as usize, (end - from) as usize);
        self.range.start = end;
        Ok(bytes.slice(start..stop))
    }

    async fn fetch(&mut self, length: usize, deadline: Deadline) -> Result<Bytes, StoreError> {
        let body = match &mut self.body {
            Some(body) => body,
            body @ None => body.insert(get(&self.shared, &self.object, &self.range, deadline).await?.2),
        };
        fill(&self.shared, body, &mut self.rest, length).await
    }

    async fn verify(&mut self, from: u64, bytes: &[u8], deadline: Deadline) -> Result<bool, StoreError> {
        let group = from / GROUP as u64;
        if let Hashes::Pages(_) = &self.hashes {
            let number = page_of(from);
            if self.page.as_ref().is_none_or(|(known, _)| *known != number) {
                self.page = Some((number, self.page(number, deadline).await?));
            }
        }
        Ok(match (&self.hashes, &self.page) {
            (Hashes::Digest(digest), _) => verify_whole(digest, bytes),
            (Hashes::Page(page), _) | (Hashes::Pages(_), Some((_, page))) => verify_groups(page, group, bytes),
            (Hashes::Pages(_), None) => false,
        })
    }

    async fn page(&self, number: u64, deadline: Deadline) -> Result<Vec<ChainingValue>, StoreError> {
        let (shared, object, which) = (&self.shared, &self.object, Which::Page(number));
        if let Some(known) = shared.cache.get(object.key, which, &object.digest) {
            return Ok(known.1.clone());
        }
        let place = Shape::of(object.length).page_of_tree(number);
        let verify = |bytes: &[u8]| self.hashes.verify_page(number, bytes);
        let values = hashes(shared, object, &self.writer, place, deadline, verify).await?;
        shared.cache.insert(object.key, which, Arc::new((object.digest, values.clone())));
        Ok(values)
    }
}
