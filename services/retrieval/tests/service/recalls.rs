//! Recalls: of a study that is cold, when something of it is read, if that is wanted, and when it can't be.

use crate::support::{Archive, EXPLICIT, Image, collect};
use async_trait::async_trait;
use cairn_retrieval::Told;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Retrieval, Tiering,
    index::{InstanceRecord, Selection},
    retrieval::Part,
    tiering::{NewMoves, QueuedMove, TieringStatus},
};
use cairn_store_api::Tier;
use futures_util::StreamExt;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::watch;

/// Keeps what it is asked.
#[derive(Default)]
struct Queue(watch::Sender<Vec<NewMoves>>);

#[async_trait]
impl Tiering for Queue {
    async fn tiering(&self) -> Result<TieringStatus, Error> {
        Ok(TieringStatus::default())
    }

    async fn move_studies(&self, moves: NewMoves) -> Result<u64, Error> {
        self.0.send_modify(|asked| asked.push(moves));
        Ok(1)
    }

    async fn moves(&self) -> Result<AnswerStream<QueuedMove>, Error> {
        Ok(futures_util::stream::empty().boxed())
    }
}

impl Queue {
    fn told(self: &Arc<Self>, recall_on_read: bool) -> Told {
        Told { tiering: Some(self.clone()), tenant: "default".into(), recall_on_read, ..Told::default() }
    }

    /// How often it was asked, once all that was told is passed on.
    async fn len(&self) -> usize {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        self.0.borrow().len()
    }

    /// The first that was asked for.
    async fn asked(&self) -> NewMoves {
        let mut asked = self.0.subscribe();
        let first = tokio::time::timeout(Duration::from_secs(20), asked.wait_for(|asked| !asked.is_empty()));
        first.await.expect("nothing is asked for").expect("there")[0].clone()
    }
}

fn stored(archive: &Archive) -> InstanceRecord {
    archive.add(EXPLICIT, &Image::default().native())
}

fn recall() -> NewMoves {
    let studies = vec!["1.2.3".parse().expect("a UID")];
    NewMoves { tenant: "default".into(), studies, to: Tier::Hot, by: "retrieval".into() }
}

#[tokio::test]
async fn what_is_cold_and_read_is_recalled_only_where_that_is_wanted() {
    let (archive, wanting, other) = (Archive::default(), Arc::new(Queue::default()), Arc::new(Queue::default()));
    let hot = stored(&archive);
    let (service, quiet) = (archive.telling(wanting.told(true)), archive.telling(other.told(false)));
    collect(service.open(&hot, Part::File).await.expect("opens")).await.expect("reads");
    assert_eq!(wanting.len().await, 0, "what is hot is not recalled");
    let cold = archive.cool(&hot);
    for service in [&quiet, &service] {
        collect(service.open(&cold, Part::File).await.expect("opens")).await.expect("reads");
    }
    assert_eq!(wanting.asked().await, recall());
    assert_eq!(other.len().await, 0);
}

#[tokio::test]
async fn what_is_cold_and_can_not_be_read_is_recalled_and_what_is_hot_is_not() {
    let (archive, queue) = (Archive::default(), Arc::new(Queue::default()));
    let hot = stored(&archive);
    let service = archive.telling(queue.told(false));
    archive.objects.are_away.store(true, Ordering::Relaxed);
    let kind = |failed: Error| failed.kind;
    assert_eq!(service.open(&hot, Part::File).await.err().map(kind), Some(ErrorKind::Unavailable));
    assert_eq!(queue.len().await, 0);

    let cold = archive.cool(&hot);
    assert_eq!(service.open(&cold, Part::File).await.err().map(kind), Some(ErrorKind::Unavailable));
    assert_eq!(queue.asked().await, recall());

    // The same where several are asked for at once, and it shows within the stream.
    let queue = Arc::new(Queue::default());
    let service = archive.telling(queue.told(false));
    let mut instances = service.instances(Selection::default(), Part::File).await.expect("finds");
    let instance = instances.next().await.expect("one").expect("finds");
    assert_eq!(collect(instance.bytes).await.err().map(kind), Some(ErrorKind::Unavailable));
    assert_eq!(queue.asked().await, recall());
}
