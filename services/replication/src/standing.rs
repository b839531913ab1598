//! How this site stands among the others: which of them it has met, and whether its log strayed from what they hold of it.

use cairn_archive::SiteId;
use std::{collections::BTreeSet, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Shared by everything that talks to peers.
pub(crate) struct Standing {
    peers: BTreeSet<SiteId>,
    met: watch::Sender<BTreeSet<SiteId>>,
    strayed: watch::Sender<Option<String>>,
    /// Peers that were not met by then are not waited for.
    deadline: Instant,
}

impl Standing {
    pub(crate) fn new(peers: BTreeSet<SiteId>, wait: Duration, strayed: Option<String>) -> Self {
        let deadline = Instant::now() + wait;
        Self { peers, met: watch::Sender::default(), strayed: watch::Sender::new(strayed), deadline }
    }

    /// A peer was met, and found nothing amiss.
    pub(crate) fn met(&self, peer: &SiteId) {
        self.met.send_if_modified(|met| met.insert(peer.clone()));
    }

    /// Waits until every peer was met, or it is time to go on without. A log that was restored from a backup looks well to
    /// a peer that holds less of it than the backup: what such a peer is sent it would take for what another holds.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub(crate) async fn all_met(&self) {
        let mut met = self.met.subscribe();
        let all = met.wait_for(|met| self.peers.is_subset(met));
        // The sender is `self`: it can't be gone.
        drop(tokio::time::timeout_at(self.deadline, all).await);
    }

    /// This site's log does not have what `peer` holds of it. Nobody is sent anything until it was begun anew.
    pub(crate) fn strayed(&self, peer: &SiteId) -> String {
        let why = format!(
            "this site's log lacks events of its own that {peer} holds: it was restored from a backup, and needs a new \
             life (`cairn site renew`)"
        );
        self.strayed.send_if_modified(|strayed| strayed.is_none() && strayed.replace(why.clone()).is_none());
        why
    }

    /// Why, if it did.
    pub(crate) fn why_strayed(&self) -> Option<String> {
        self.strayed.borrow().clone()
    }

    /// Returns when it did.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub(crate) async fn until_strayed(&self) -> String {
        let mut strayed = self.strayed.subscribe();
        match strayed.wait_for(Option::is_some).await.map(|why| why.clone()) {
            Ok(Some(why)) => why,
            // The sender is `self`: it can't be gone.
            _ => std::future::pending().await,
        }
    }
}
