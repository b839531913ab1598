//! One client over several processes of a service.

mod serving;

use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{EventId, Position, events::ReceiptEnd, ids::ReceiptId};
use cairn_dicom::Uid;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Ingest,
    ingest::{Body, InstanceOffer, OfferedForm, QuarantineEntry, Sender, StoreOutcome, Stored},
};
use cairn_service_grpc::{
    client::{Connection, IngestClient},
    server::{Served, ServerConfig},
};
use futures_util::{StreamExt, stream};
use serving::{Serving, serve};
use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

/// Takes everything; each position tells who took it.
#[derive(Default)]
struct Process {
    number: u32,
    opened: AtomicU32,
    open: Mutex<HashSet<ReceiptId>>,
    starting: AtomicBool,
}

impl Process {
    fn there(&self) -> Result<(), Error> {
        match self.starting.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Unavailable, "ingest is starting")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Ingest for Process {
    async fn open_receipt(&self, _: Sender) -> Result<ReceiptId, Error> {
        self.there()?;
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.number.to_be_bytes());
        bytes[12..].copy_from_slice(&self.opened.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let id = ReceiptId::from_slice(&bytes).expect("16 bytes");
        self.open.lock().expect("not poisoned").insert(id);
        Ok(id)
    }

    async fn store(&self, receipt: ReceiptId, _: InstanceOffer, mut body: Body<'_>) -> Result<Stored, Error> {
        if !self.open.lock().expect("not poisoned").contains(&receipt) {
            return Err(Error::new(ErrorKind::NotFound, "receipt is not open"));
        }
        let mut length = 0;
        while let Some(chunk) = body.next().await {
            length += chunk?.len() as u64;
        }
        let uid: Uid = "1.2".parse().expect("UID");
        Ok(Stored {
            study_instance_uid: uid.clone(),
            series_instance_uid: uid.clone(),
            sop_instance_uid: uid.clone(),
            sop_class_uid: uid,
            digest: cairn_archive::Digest([0; 32]),
            length,
            position: format!("main/1/0/{}", self.number).parse().expect("position"),
            outcome: StoreOutcome::New,
            findings: Vec::new(),
            confirmed_sites: 0,
            rejections: Vec::new(),
        })
    }

    async fn close_receipt(&self, receipt: ReceiptId, _: ReceiptEnd) -> Result<(), Error> {
        let open = self.open.lock().expect("not poisoned").remove(&receipt);
        open.then_some(()).ok_or_else(|| Error::new(ErrorKind::NotFound, "receipt is not open"))
    }

    async fn choose_version(
        &self,
        _: &str,
        _: (Uid, Uid, Uid),
        _: EventId,
        _: &str,
        _: &str,
    ) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::NotFound, "no such version"))
    }

    async fn repair(&self, _: cairn_service_api::parked::Repair) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::NotFound, "no such event"))
    }

    async fn revoke_rejection(&self, _: cairn_service_api::rejection::Revocation) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::NotFound, "no such event"))
    }

    async fn correct(&self, _: cairn_service_api::correction::Correction) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::NotFound, "no such event"))
    }

    async fn revoke_correction(
        &self,
        _: cairn_service_api::correction::CorrectionRevocation,
    ) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::NotFound, "no such event"))
    }

    async fn say_of_patients(&self, _: cairn_service_api::patients::PatientStatement) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::NotFound, "no such event"))
    }

    async fn revoke_patient_fact(&self, _: cairn_service_api::patients::PatientRevocation) -> Result<Position, Error> {
        Err(Error::new(ErrorKind::NotFound, "no such event"))
    }

    async fn quarantine(&self) -> Result<AnswerStream<QuarantineEntry>, Error> {
        let entry = QuarantineEntry {
            id: EventId::from_slice(&[u8::try_from(self.number).expect("small"); 16]).expect("16 bytes"),
            refused_at_ms: self.number.into(),
            reason: "too-large".into(),
            calling_ae_title: String::new(),
            length: 1,
            complete: true,
        };
        Ok(Box::pin(stream::iter([Ok(entry)])))
    }

    async fn quarantined_bytes(&self, id: EventId) -> Result<AnswerStream<Bytes>, Error> {
        match id.as_bytes()[0] == u8::try_from(self.number).expect("small") {
            true => Ok(Box::pin(stream::iter([Ok(Bytes::from_static(b"kept"))]))),
            false => Err(Error::new(ErrorKind::NotFound, "no such entry")),
        }
    }

    async fn ready(&self) -> Result<(), Error> {
        self.there()
    }
}

struct Running {
    serving: Serving,
    process: Arc<Process>,
}

async fn start(number: u32, at: Option<SocketAddr>) -> Running {
    let process = Arc::new(Process { number, ..Process::default() });
    let served = Served { ingest: Some(process.clone()), ..Served::default() };
    Running { serving: serve(served, ServerConfig::default(), at).await, process }
}

impl Running {
    async fn end(self) {
        self.serving.stop().await;
    }
}

fn client(processes: &[&Running]) -> IngestClient {
    let addresses = processes.iter().map(|running| format!("http://{}", running.serving.address)).collect();
    IngestClient::new(&Connection { addresses, ..Connection::to("") }).expect("client")
}

async fn store(client: &IngestClient, receipt: ReceiptId) -> Result<u64, Error> {
    let offer = InstanceOffer { form: OfferedForm::File, length_hint: None, study_instance_uid: None };
    let body = stream::iter([Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"def"))]);
    let stored = client.store(receipt, offer, Box::pin(body)).await?;
    assert_eq!(stored.length, 6, "the whole body, whoever took it");
    Ok(stored.position.offset.0)
}

#[tokio::test]
async fn calls_go_round_and_a_receipt_stays_where_it_was_opened() {
    let (one, two) = (start(1, None).await, start(2, None).await);
    let client = client(&[&one, &two]);
    let mut takers = HashSet::new();
    for _ in 0..4 {
        let receipt = client.open_receipt(Sender::default()).await.expect("opens");
        let taker = store(&client, receipt).await.expect("stores");
        for _ in 0..3 {
            assert_eq!(store(&client, receipt).await.expect("stores"), taker);
        }
        client.close_receipt(receipt, ReceiptEnd::Completed).await.expect("closes");
        takers.insert(taker);
    }
    assert_eq!(takers, HashSet::from([1, 2]));
    assert!(one.process.open.lock().expect("not poisoned").is_empty());
    let all: Vec<_> = client.quarantine().await.expect("lists").map(|entry| entry.expect("entry")).collect().await;
    assert_eq!(all.iter().map(|entry| entry.refused_at_ms).collect::<Vec<_>>(), [2, 1], "of both, newest first");
    for entry in all {
        assert!(client.quarantined_bytes(entry.id).await.is_ok(), "wherever it is");
    }
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn an_association_goes_on_with_another_process_when_its_own_has_stopped() {
    let (one, two) = (start(1, None).await, start(2, None).await);
    let client = client(&[&one, &two]);
    let receipt = client.open_receipt(Sender::default()).await.expect("opens");
    let (first, other) = match store(&client, receipt).await.expect("stores") {
        1 => (one, two),
        _ => (two, one),
    };
    first.end().await;
    // Nothing of the body was sent to the one that is gone, so the sender need not know.
    assert_eq!(store(&client, receipt).await.expect("stores elsewhere"), u64::from(other.process.number));
    assert_eq!(store(&client, receipt).await.expect("stores"), u64::from(other.process.number));
    client.close_receipt(receipt, ReceiptEnd::Completed).await.expect("closes");
    client.ready().await.expect("one is ready");
    let address = other.serving.address;
    other.end().await;
    let away = client.ready().await.expect_err("none is there");
    assert_eq!(away.kind, ErrorKind::Unavailable, "{away}");
    let anew = start(9, Some(address)).await;
    client.ready().await.expect("it is found again");
    anew.end().await;
}

#[tokio::test]
async fn one_that_starts_is_passed_over_and_a_receipt_of_a_process_started_anew_is_replaced() {
    let (one, two) = (start(1, None).await, start(2, None).await);
    two.process.starting.store(true, Ordering::Relaxed);
    let client = client(&[&one, &two]);
    for _ in 0..4 {
        let receipt = client.open_receipt(Sender::default()).await.expect("opens at the other");
        assert_eq!(store(&client, receipt).await.expect("stores"), 1);
    }
    let receipt = client.open_receipt(Sender::default()).await.expect("opens");
    one.process.open.lock().expect("not poisoned").clear();
    let lost = store(&client, receipt).await.expect_err("its receipt is gone");
    assert_eq!(lost.kind, ErrorKind::Unavailable, "the sender may try again: {lost}");
    assert_eq!(store(&client, receipt).await.expect("does"), 1);
    one.end().await;
    two.end().await;
}
