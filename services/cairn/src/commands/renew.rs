//! `cairn site renew`: a new life of a log that was restored from a backup.

use super::{Failure, load};
use crate::{cli::ConfigSource, config::Config, peers, stores};
use async_trait::async_trait;
use cairn_archive::{Envelope, EventId, Offset, Partition, Position, SiteId};
use cairn_replication::renew::{self, Elsewhere, Found, Holder};
use cairn_service_api::{Error, ErrorKind};
use cairn_service_grpc::{
    client::{Connection, PeerClient},
    log_proto::{DescribeRequest, ReadRequest, Start},
};
use cairn_store_api::EventLog;

pub async fn run(source: &ConfigSource, without: &[SiteId], yes: Option<SiteId>) -> Result<(), Failure> {
    let config = load(source)?.config;
    let site: SiteId = config.site.name.parse().map_err(Failure::failed)?;
    if yes.as_ref().is_some_and(|named| *named != site) {
        return Err(Failure::usage(format!("this is site {site}")));
    }
    let log = stores::log_to_renew(&config, yes.is_some()).await?;
    let renewed = renew(&config, &*log, without, yes.is_some()).await;
    // After a new life was begun it is closed already.
    let closed = log.close().await.map_err(Failure::failed);
    renewed.and(closed)
}

async fn renew(config: &Config, log: &dyn EventLog, without: &[SiteId], is_meant: bool) -> Result<(), Failure> {
    let site = log.site();
    let asked = asked(config, without)?;
    let holders = asked.iter().map(|(site, peer, log)| Holder { site: site.clone(), peer, log });
    let found = renew::find(log, &holders.collect::<Vec<_>>()).await?;
    print(log, &found);
    if found.lost.is_empty() {
        println!("nothing was done: nobody who was asked holds what this log lacks");
        return Ok(());
    }
    if !is_meant {
        return Err(Failure::usage(format!("nothing was done: if that is meant, add --yes {site}")));
    }
    log.renew(found.incarnation, found.begins).await.map_err(Failure::failed)?;
    println!("life {} has begun: start {site}, and what it lost comes back from the other sites", found.incarnation.0);
    Ok(())
}

type Asked = (SiteId, PeerClient, LogClient);

/// The other sites.
fn asked(config: &Config, without: &[SiteId]) -> Result<Vec<Asked>, Failure> {
    let mut asked = Vec::new();
    for (site, peer) in &config.replication.peers {
        let site: SiteId = site.parse().map_err(Failure::failed)?;
        let connection = peers::connection(config, &peer.addresses)?;
        if let Some(connection) = connection.filter(|_| !without.contains(&site)) {
            asked.push((site, PeerClient::new(&connection)?, LogClient(connection)));
        }
    }
    Ok(asked)
}

fn print(log: &dyn EventLog, found: &Found) {
    println!("site {}, life {} of its log", log.site(), log.incarnation().0);
    for lost in &found.lost {
        println!(
            "partition {}: {} holds {} events of this site that its log lacks",
            lost.partition.0, lost.held_by, lost.events
        );
    }
    if !found.lost.is_empty() {
        let (incarnation, events) = (found.incarnation.0, found.events_of_new_life);
        println!(
            "life {incarnation} begins after what others hold of it; {events} events that are in it stay, and are of that life"
        );
    }
}

/// The log of another site, read over gRPC.
struct LogClient(Connection);

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn answered(status: cairn_service_grpc::Status) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the log of another site can't be read: {}", status.message()))
}

#[async_trait]
impl Elsewhere for LogClient {
    async fn end(&self, partition: Partition) -> Result<Offset, Error> {
        let described = self.0.event_log()?.describe(DescribeRequest {}).await.map_err(answered)?.into_inner();
        let ends = described.end.unwrap_or_default().ends;
        let end = ends.iter().find(|end| end.partition == u32::from(partition.0));
        Ok(end.map_or(Offset(0), |end| Offset(end.offset)))
    }

    async fn origins(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<(Position, EventId)>, Error> {
        let request = ReadRequest {
            partitions: vec![partition.0.into()],
            start: Start::Offset.into(),
            offset: from.0,
            limit: to.0.saturating_sub(from.0),
            ..ReadRequest::default()
        };
        let mut events = self.0.event_log()?.read(request).await.map_err(answered)?.into_inner();
        let mut origins = Vec::new();
        while let Some(event) = events.message().await.map_err(answered)? {
            // One that can't be read is of no site.
            let envelope = Envelope::from_headers(|name| event.headers.get(name).map(String::as_str)).ok();
            origins.extend(envelope.and_then(|envelope| Some((envelope.origin?, envelope.id))));
        }
        Ok(origins)
    }
}
