//! What is of the wire alone when a site is reached over gRPC: how objects are cut, where calls go, and when they end.

mod serving;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Digest, Incarnation, ObjectKey, Offset, Partition, PositionVector, SiteId};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Peer,
    ingest::Body,
    replication::{Delivered, Delivery, Introduction, Meeting, Report},
    site::Grounds,
};
use cairn_service_grpc::{
    Code, Status,
    client::{Connection, PeerClient},
    common,
    replication_proto::{self as pb, peer_service_client::PeerServiceClient, put_object_request::Part},
    server::{Served, ServerConfig},
};
use cairn_store_api::ObjectRef;
use futures_util::{StreamExt, future::pending, stream};
use serving::{Serving, serve};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::watch;
use tonic::transport::Endpoint;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Manner {
    #[default]
    Takes,
    /// Can't just now.
    Starting,
    /// Takes nothing of an object.
    Deaf,
    /// Takes all of it and does not answer.
    Mute,
}

/// One process of a site.
#[derive(Default)]
struct Process {
    manner: Manner,
    calls: Mutex<Vec<&'static str>>,
    pieces: Mutex<Vec<usize>>,
    /// How each body ended.
    ended: watch::Sender<Vec<Result<(), ErrorKind>>>,
}

impl Process {
    fn called(&self, what: &'static str) -> Result<(), Error> {
        self.calls.lock().expect("not poisoned").push(what);
        match self.manner {
            Manner::Starting => Err(Error::new(ErrorKind::Unavailable, "replication is starting")),
            Manner::Takes | Manner::Deaf | Manner::Mute => Ok(()),
        }
    }

    fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().expect("not poisoned").clone()
    }
}

#[async_trait]
impl Peer for Process {
    async fn meet(&self, _: Introduction) -> Result<Meeting, Error> {
        self.called("meet")?;
        let (site, incarnation) = ("south".parse().expect("site"), Incarnation(1));
        Ok(Meeting { process: 0, site, incarnation, partitions: 1, holds: Vec::new(), strayed: Vec::new() })
    }

    async fn missing(&self, _: Vec<ObjectRef>) -> Result<Vec<u32>, Error> {
        self.called("missing").map(|()| Vec::new())
    }

    async fn put_object(&self, _: ObjectRef, mut body: Body<'_>) -> Result<(), Error> {
        self.called("put_object")?;
        if self.manner == Manner::Deaf {
            return pending().await;
        }
        while let Some(chunk) = body.next().await {
            let taken = chunk.map(|chunk| self.pieces.lock().expect("not poisoned").push(chunk.len()));
            if let Err(error) = taken {
                self.ended.send_modify(|ended| ended.push(Err(error.kind)));
                return Err(error);
            }
        }
        self.ended.send_modify(|ended| ended.push(Ok(())));
        match self.manner {
            Manner::Mute => pending().await,
            Manner::Takes | Manner::Starting | Manner::Deaf => Ok(()),
        }
    }

    async fn read_object(&self, _: &SiteId, _: ObjectRef) -> Result<AnswerStream<Bytes>, Error> {
        self.called("read_object")?;
        Ok(Box::pin(stream::empty()))
    }

    async fn append(&self, _: Delivery) -> Result<Delivered, Error> {
        self.called("append").map(|()| Delivered { repeated: 0 })
    }

    async fn tell(&self, _: u64, _: Report) -> Result<(), Error> {
        self.called("tell")
    }

    async fn step_down(&self, _: &SiteId, _: Grounds) -> Result<PositionVector, Error> {
        self.called("step_down").map(|()| PositionVector::default())
    }
}

async fn start(manner: Manner) -> (Arc<Process>, Serving) {
    let process = Arc::new(Process { manner, ..Process::default() });
    let served = Served { peer: Some(process.clone()), ..Served::default() };
    (process, serve(served, ServerConfig::default(), None).await)
}

fn address(serving: &Serving) -> String {
    format!("http://{}", serving.address)
}

fn client(serving: &Serving, answer_timeout: Duration) -> PeerClient {
    PeerClient::new(&Connection { answer_timeout, ..Connection::to(address(serving)) }).expect("client")
}

const MINUTE: Duration = Duration::from_secs(60);

fn object() -> ObjectRef {
    ObjectRef { key: ObjectKey::from_slice(&[1; 16]).expect("16 bytes"), length: 8 << 20, digest: Digest([2; 32]) }
}

fn eight_mib() -> Body<'static> {
    Box::pin(stream::iter([Ok(Bytes::from(vec![7; 8 << 20]))]))
}

#[tokio::test]
async fn an_object_goes_in_pieces_of_at_most_256_kib() {
    let (process, serving) = start(Manner::Takes).await;
    let sizes = [(1 << 20) + 1, 0, 256 << 10, 1];
    let body = stream::iter(sizes.map(|size| Ok(Bytes::from(vec![0; size]))));
    client(&serving, MINUTE).put_object(object(), Box::pin(body)).await.expect("arrives");
    let quarter = 256 << 10;
    let pieces = [quarter, quarter, quarter, quarter, 1, quarter, 1];
    assert_eq!(*process.pieces.lock().expect("not poisoned"), pieces, "none is empty, none too long");
    serving.stop().await;
}

/// Sends these messages and then no more.
async fn put_raw(serving: &Serving, parts: Vec<Part>) -> Status {
    let channel = Endpoint::from_shared(address(serving)).expect("address").connect().await.expect("connects");
    let requests = parts.into_iter().map(|part| pb::PutObjectRequest { part: Some(part) });
    PeerServiceClient::new(channel).put_object(stream::iter(requests)).await.expect_err("not whole")
}

#[tokio::test]
async fn what_is_not_said_to_be_whole_is_not() {
    let (process, serving) = start(Manner::Takes).await;
    let object = || {
        let (key, blake3) = (Bytes::from_static(&[1; 16]), Bytes::from_static(&[2; 32]));
        Part::Object(common::Object { key, length_bytes: 3, blake3 })
    };
    let chunk = || Part::Chunk(Bytes::from_static(b"all"));
    // All the bytes are there, and nobody said so.
    assert_eq!(put_raw(&serving, vec![object(), chunk()]).await.code(), Code::Cancelled);
    assert_eq!(put_raw(&serving, vec![object()]).await.code(), Code::Cancelled);
    for again in [Part::End(false), object()] {
        assert_eq!(put_raw(&serving, vec![object(), chunk(), again]).await.code(), Code::InvalidArgument);
    }
    let (aborted, invalid) = (Err(ErrorKind::Aborted), Err(ErrorKind::Invalid));
    assert_eq!(*process.ended.borrow(), [aborted, aborted, invalid, invalid]);
    let unnamed = Part::Object(common::Object { key: Bytes::new(), length_bytes: 3, blake3: Bytes::new() });
    for first in [vec![], vec![chunk(), Part::End(true)], vec![unnamed, chunk(), Part::End(true)]] {
        let status = put_raw(&serving, first).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("object"), "{status}");
    }
    assert_eq!(process.ended.borrow().len(), 4, "what has no name is not offered");
    serving.stop().await;
}

#[tokio::test]
async fn silence_ends_a_call() {
    let short = Duration::from_millis(300);
    for manner in [Manner::Deaf, Manner::Mute] {
        let (_, serving) = start(manner).await;
        let silent = client(&serving, short).put_object(object(), eight_mib()).await.expect_err("silent");
        assert_eq!(silent.kind, ErrorKind::Unavailable);
        assert!(silent.message.contains(&address(&serving)), "{silent}");
        serving.stop().await;
    }
    let (_, serving) = start(Manner::Takes).await;
    let stuck = stream::iter([Ok(Bytes::from_static(b"some"))]).chain(stream::pending());
    let client = client(&serving, Duration::from_secs(1));
    client.missing(Vec::new()).await.expect("is there");
    let stuck = client.put_object(object(), Box::pin(stuck)).await.expect_err("stuck");
    assert_eq!(stuck.kind, ErrorKind::Unavailable);
    assert!(!stuck.message.contains(&address(&serving)), "it was not the other side: {stuck}");
    serving.stop().await;
}

#[tokio::test]
async fn what_goes_on_is_not_silent() {
    let (process, serving) = start(Manner::Takes).await;
    let (piece, silence_max) = (Duration::from_millis(400), Duration::from_secs(2));
    let mut ticks = tokio::time::interval(piece);
    let body = stream::poll_fn(move |context| ticks.poll_tick(context).map(Some)).take(8);
    let body = body.map(|_| Ok(Bytes::from_static(b"piece")));
    let begun = tokio::time::Instant::now();
    client(&serving, silence_max).put_object(object(), Box::pin(body)).await.expect("arrives");
    assert!(begun.elapsed() > silence_max, "longer than silence may last: {:?}", begun.elapsed());
    assert_eq!(process.pieces.lock().expect("not poisoned").len(), 8);
    serving.stop().await;
}

fn delivery() -> Delivery {
    Delivery {
        process: 0,
        site: "north".parse().expect("site"),
        incarnation: Incarnation(1),
        partition: Partition(0),
        from: Offset(0),
        to: Offset(0),
        records: Vec::new(),
        erased: Vec::new(),
        keys: Vec::new(),
    }
}

#[tokio::test]
async fn another_process_takes_what_the_first_surely_did_not_get() {
    let (_, gone) = start(Manner::Takes).await;
    let (process, serving) = start(Manner::Takes).await;
    let addresses = vec![address(&gone), address(&serving)];
    gone.stop().await;
    for _ in 0..2 {
        // A new client each time begins with the dead one.
        let client = PeerClient::new(&Connection { addresses: addresses.clone(), ..Connection::to("") });
        client.expect("client").put_object(object(), eight_mib()).await.expect("the other takes it");
        let client = PeerClient::new(&Connection { addresses: addresses.clone(), ..Connection::to("") });
        client.expect("client").append(delivery()).await.expect("the other takes them");
    }
    assert_eq!(process.calls(), ["put_object", "append", "put_object", "append"]);
    assert_eq!(*process.ended.borrow(), [Ok(()), Ok(())], "whole");
    serving.stop().await;
}

#[tokio::test]
async fn only_what_changes_nothing_is_asked_of_another() {
    let (starting, one) = start(Manner::Starting).await;
    let (other, two) = start(Manner::Takes).await;
    let addresses = vec![address(&one), address(&two)];
    let begin = || PeerClient::new(&Connection { addresses: addresses.clone(), ..Connection::to("") }).expect("client");
    let caller = Introduction { site: delivery().site, incarnation: Incarnation(1), partitions: 1, marks: Vec::new() };
    begin().meet(caller).await.expect("the other is met");
    begin().missing(vec![object()]).await.expect("the other knows");
    let refused = begin().append(delivery()).await.expect_err("it may have been taken");
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    let refused = begin().put_object(object(), eight_mib()).await.expect_err("of its bytes some are gone");
    assert_eq!((refused.kind, refused.message.as_str()), (ErrorKind::Unavailable, "replication is starting"));
    assert_eq!(starting.calls(), ["meet", "missing", "append", "put_object"]);
    assert_eq!(other.calls(), ["meet", "missing"]);
    one.stop().await;
    two.stop().await;
}
