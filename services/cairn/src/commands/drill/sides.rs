//! The two sites of a drill, as they are asked.

use crate::{
    cli::ServerArgs,
    commands::{Failure, connection, server_address},
};
use cairn_archive::SiteId;
use cairn_service_api::{
    Error, Index, Ingest, Replication,
    index::{IndexStatus, StateDigest},
    replication::{AtRisk, ReplicationStatus, Risk},
    site::SiteStatus,
};
use cairn_service_grpc::client::{Connection, IndexClient, IngestClient, ReplicationClient, RetrievalClient};
use futures_util::StreamExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Events at risk, and conflicts, that are looked at; with more of them nothing is said of single ones.
pub const LISTED_MAX: usize = 100_000;
/// For an index to have folded all that its log holds, before that counts as being behind.
const SETTLE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// One site.
#[derive(Clone)]
pub struct Side {
    /// Its name.
    pub name: SiteId,
    /// Where it is called.
    pub addresses: Vec<String>,
    pub tenant: String,
    pub replication: ReplicationClient,
    pub index: IndexClient,
    pub retrieval: RetrievalClient,
    ingest: IngestClient,
}

/// What is at risk, event by event; those that are about sites alone are left out.
#[derive(Debug, Default)]
pub struct Lacking {
    /// Study Instance UIDs.
    pub studies: BTreeSet<String>,
    /// There were too many to look at.
    pub more: bool,
}

/// What is known of a site before a drill.
#[derive(Clone, Debug)]
pub struct Facts {
    pub site: SiteStatus,
    pub replication: ReplicationStatus,
    pub index: IndexStatus,
    pub digest: StateDigest,
    /// Why it takes no instances.
    pub refuses: Option<String>,
    /// Conflicts by what they are; the number of versions of each.
    pub conflicts: BTreeMap<String, usize>,
    /// How far its clock is from the one here, in milliseconds.
    pub clock_off_ms: u64,
}

/// How to reach the processes at `addresses`, with the certificates of the arguments.
fn connection_to(server: &ServerArgs, addresses: &[String]) -> Result<Connection, Failure> {
    let mut to = connection(server)?;
    let scheme = if to.tls.is_some() { "https" } else { "http" };
    let whole = |address: &String| {
        if address.contains("://") { address.clone() } else { format!("{scheme}://{address}") }
    };
    to.addresses = addresses.iter().map(whole).collect();
    Ok(to)
}

impl Side {
    /// Calls a site, which says its name.
    ///
    /// # Errors
    /// It is not reached; the message says where it was sought.
    pub async fn at(server: &ServerArgs, addresses: &[String]) -> Result<Self, Failure> {
        let to = connection_to(server, addresses)?;
        let replication = ReplicationClient::new(&to)?;
        let at = to.addresses.join(", ");
        let site = replication.site().await.map_err(|error| {
            let message = format!("{at}: {}", error.message);
            Failure::from(Error { message, ..error })
        })?;
        Ok(Self {
            name: site.site,
            addresses: to.addresses.clone(),
            tenant: server.tenant.clone(),
            index: IndexClient::new(&to)?,
            retrieval: RetrievalClient::new(&to)?,
            ingest: IngestClient::new(&to)?,
            replication,
        })
    }

    /// The site that the arguments name.
    pub async fn original(server: &ServerArgs) -> Result<Self, Failure> {
        Self::at(server, &[server_address(server)]).await
    }

    /// What it is not known to have at another site, summed up, with the time of its clock.
    pub async fn risk(&self, of: &SiteId) -> Result<(u64, Risk), Error> {
        let status = self.replication.status().await?;
        let peer = status.peers.iter().find(|peer| peer.site == *of);
        Ok((status.at_ms, peer.map(|peer| peer.risk).unwrap_or_default()))
    }

    /// The same, event by event.
    pub async fn lacking(&self, of: &SiteId) -> Result<Lacking, Error> {
        let mut found = self.replication.at_risk(of).await?;
        let (mut lacking, mut seen) = (Lacking::default(), 0);
        while let Some(event) = found.next().await {
            let AtRisk { kind, study_instance_uid, .. } = event?;
            seen += 1;
            if seen > LISTED_MAX {
                lacking.more = true;
                break;
            }
            if !kind.starts_with("cairn.site.") {
                lacking.studies.insert(study_instance_uid);
            }
        }
        Ok(lacking)
    }

    /// Everything that is asked before a drill.
    pub async fn facts(&self, now_ms: impl Fn() -> u64) -> Result<Facts, Error> {
        let asked_ms = now_ms();
        let site = self.replication.site().await?;
        // The answer is of some time between.
        let clock_off_ms =
            if site.at_ms < asked_ms { asked_ms - site.at_ms } else { site.at_ms.saturating_sub(now_ms()) };
        let refuses = self.ingest.ready().await.err().map(|error| error.message);
        Ok(Facts {
            site,
            clock_off_ms,
            replication: self.replication.status().await?,
            index: self.settled().await?,
            digest: self.index.digest().await?.0,
            refuses,
            conflicts: self.conflicts().await?,
        })
    }

    /// How far its index is, once it is nowhere behind, or after a while.
    async fn settled(&self) -> Result<IndexStatus, Error> {
        let deadline = tokio::time::Instant::now() + SETTLE;
        loop {
            let status = self.index.status().await?;
            if status.lag_events == 0 || tokio::time::Instant::now() > deadline {
                return Ok(status);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Conflicts, as far as they are looked at.
    pub async fn conflicts(&self) -> Result<BTreeMap<String, usize>, Error> {
        let mut found = self.index.conflicts(&self.tenant, false).await?.take(LISTED_MAX);
        let mut conflicts = BTreeMap::new();
        while let Some(conflict) = found.next().await {
            let conflict = conflict?;
            let (study, instance) = (conflict.study_instance_uid, conflict.sop_instance_uid);
            conflicts.insert(format!("{study} {instance}"), conflict.versions.len());
        }
        Ok(conflicts)
    }
}
