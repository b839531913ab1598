use super::{
    Connection, Wire, answers,
    peers::{
        Again::{Safe, Unsent},
        Peers, call,
    },
    upload::upload,
};
use crate::{
    convert::{object_to, position_to, vector_from},
    error::is_not_sent,
    replication as convert,
    replication_proto::{
        self as pb, peer_service_client::PeerServiceClient, put_object_request::Part,
        replication_service_client::ReplicationServiceClient,
    },
    site,
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{Position, PositionVector, SiteId};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Peer, Replication,
    ingest::Body,
    replication::{AtRisk, Delivered, Delivery, Inspected, Introduction, Meeting, ReplicationStatus, Report, Suspects},
    site::{Decision, Grounds, SiteStatus},
};
use cairn_store_api::ObjectRef;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};

/// Longest piece of an object in one message, in bytes.
const CHUNK_BYTES_MAX: usize = 256 << 10;

/// A [`Peer`] somewhere else: in one process or in several, each of which can answer for the site.
#[derive(Clone)]
pub struct PeerClient {
    peers: Peers<PeerServiceClient<Wire>>,
    /// Longest time in which neither a piece of an object is taken nor an answer comes.
    silence_max: Duration,
}

impl PeerClient {
    /// Calls the processes at the other ends of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| PeerServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self { peers: Peers::new(connection, client)?, silence_max: connection.answer_timeout })
    }

    /// The next bytes of an object that is sent. Where they come from is bounded as the connection is.
    async fn next(&self, body: &mut Body<'_>) -> Result<Option<Bytes>, Error> {
        let next = timeout(self.silence_max, body.next()).await;
        let late = |_| Error::new(ErrorKind::Unavailable, format!("no bytes to send within {:?}", self.silence_max));
        next.map_err(late)?.transpose()
    }

    /// Sends the object's pieces and, only if it came whole, its end. Stops when the server has answered: its answer counts.
    async fn pump(
        &self,
        sender: mpsc::Sender<pb::PutObjectRequest>,
        object: &ObjectRef,
        body: &mut Body<'_>,
    ) -> Result<(), Error> {
        let request = |part| pb::PutObjectRequest { part: Some(part) };
        if sender.send(request(Part::Object(object_to(object)))).await.is_err() {
            return Ok(());
        }
        while let Some(mut bytes) = self.next(body).await? {
            while !bytes.is_empty() {
                let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX));
                if sender.send(request(Part::Chunk(chunk))).await.is_err() {
                    return Ok(());
                }
            }
        }
        let _answered = sender.send(request(Part::End(true))).await;
        Ok(())
    }
}

#[async_trait]
impl Peer for PeerClient {
    async fn meet(&self, caller: Introduction) -> Result<Meeting, Error> {
        convert::meeting_from(call!(self.peers, Safe, meet, convert::introduction_to(&caller))?)
    }

    async fn missing(&self, objects: Vec<ObjectRef>) -> Result<Vec<u32>, Error> {
        let request = pb::MissingRequest { objects: objects.iter().map(object_to).collect() };
        Ok(call!(self.peers, Safe, missing, request)?.missing)
    }

    async fn put_object(&self, object: ObjectRef, mut body: Body<'_>) -> Result<(), Error> {
        let mut last = Error::new(ErrorKind::Unavailable, "no process to call");
        for peer in self.peers.order() {
            let Some(mut client) = self.peers.client(peer) else { continue };
            let (upload, requests) = upload();
            let call = client.put_object(requests);
            match upload.drive(call, Some(self.silence_max), |sender| self.pump(sender, &object, &mut body)).await? {
                Ok(_) => {
                    self.peers.answered(peer);
                    return Ok(());
                }
                Err(status) => {
                    let unsent = is_not_sent(&status);
                    last = self.peers.failure(peer, status);
                    // Of what was sent, nothing can be sent again.
                    if !unsent {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    async fn read_object(&self, caller: &SiteId, object: ObjectRef) -> Result<AnswerStream<Bytes>, Error> {
        let request = pb::ReadObjectRequest { site: caller.to_string(), object: Some(object_to(&object)) };
        let found = call!(self.peers, Safe, read_object, request)?;
        Ok(answers(found, |message| Ok(message.chunk)))
    }

    async fn append(&self, delivery: Delivery) -> Result<Delivered, Error> {
        convert::delivered_from(call!(self.peers, Unsent, append, convert::delivery_to(delivery))?)
    }

    async fn tell(&self, process: u64, report: Report) -> Result<(), Error> {
        call!(self.peers, Safe, tell, convert::report_to(process, &report))?;
        Ok(())
    }

    async fn step_down(&self, successor: &SiteId, grounds: Grounds) -> Result<PositionVector, Error> {
        let grounds = Some(site::grounds_to(&grounds));
        let request = pb::StepDownRequest { successor: successor.to_string(), grounds };
        vector_from(call!(self.peers, Safe, step_down, request)?.holds.unwrap_or_default())
    }
}

/// A [`Replication`] somewhere else.
#[derive(Clone)]
pub struct ReplicationClient(Peers<ReplicationServiceClient<Wire>>);

impl ReplicationClient {
    /// Calls the processes at the other ends of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| ReplicationServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self(Peers::new(connection, client)?))
    }
}

#[async_trait]
impl Replication for ReplicationClient {
    async fn status(&self) -> Result<ReplicationStatus, Error> {
        convert::status_from(call!(self.0, Safe, status, pb::StatusRequest {})?)
    }

    async fn at_risk(&self, peer: &SiteId) -> Result<AnswerStream<AtRisk>, Error> {
        let found = call!(self.0, Safe, at_risk, pb::AtRiskRequest { peer: peer.to_string() })?;
        Ok(answers(found, convert::at_risk_from))
    }

    async fn confirm(&self, position: &Position, sites: u32, timeout: Duration) -> Result<u32, Error> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let request = pb::ConfirmRequest { position: Some(position_to(position)), sites, timeout_ms };
        Ok(call!(self.0, Safe, confirm, request)?.sites)
    }

    async fn repair(&self, suspects: Suspects) -> Result<AnswerStream<Inspected>, Error> {
        let found = call!(self.0, Safe, repair, convert::suspects_to(&suspects))?;
        Ok(answers(found, convert::inspected_from))
    }

    async fn set_paused(&self, peer: &SiteId, paused: bool) -> Result<(), Error> {
        call!(self.0, Safe, set_paused, pb::SetPausedRequest { peer: peer.to_string(), paused })?;
        Ok(())
    }

    async fn site(&self) -> Result<SiteStatus, Error> {
        site::site_from(call!(self.0, Safe, site, pb::SiteRequest {})?)
    }

    async fn decide(&self, decision: Decision, grounds: Grounds) -> Result<SiteStatus, Error> {
        let (decision, grounds) = (Some(site::decision_to(&decision)), Some(site::grounds_to(&grounds)));
        site::site_from(call!(self.0, Unsent, decide, pb::DecideRequest { decision, grounds })?)
    }
}
