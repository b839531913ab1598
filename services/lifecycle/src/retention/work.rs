//! What comes of erasures by itself: this site confirms them in time, the one with authority has them take effect.

use super::{follow::Turn, service::RetentionService};
use bytes::Bytes;
use cairn_archive::{
    EventId, SiteId,
    erasure::{Erasure, Requested, Stage, judge},
    events::{ErasureConfirmed, Event, VersionsErased},
};
use cairn_service_api::{Error, ErrorKind};
use std::{collections::BTreeSet, time::Duration};

impl RetentionService {
    /// Does what is to be done, again and again. Stores and sites that are away are waited for.
    ///
    /// # Cancel safety
    /// The next start goes on from what the log says.
    pub(crate) async fn run(&self) {
        loop {
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "holds and erasures are held up");
            }
            tokio::time::sleep(self.config.look_interval).await;
        }
    }

    /// Does what is to be done now.
    pub(super) async fn look(&self) -> Result<(), Error> {
        self.worked.note_down().await?;
        // What took effect before a restart, first; also where a key store is an older one again.
        self.destroy_all().await?;
        self.destroy_keys().await?;
        // A site's death is learnt of from here on, also while nothing waits for that site.
        self.awaited(&self.follower.turn().await?).await?;
        for id in self.open_erasures().await? {
            self.confirm(id).await?;
            self.conclude(id).await?;
        }
        self.destroy_all().await?;
        self.judge_keys().await?;
        self.destroy_keys().await?;
        self.follower.turn().await?.note_down().await
    }

    async fn open_erasures(&self) -> Result<Vec<EventId>, Error> {
        let turn = self.follower.turn().await?;
        if turn.known().is_unreadable() {
            tracing::error!("nothing is erased: events about holds or erasures need a newer build to be read");
            return Ok(Vec::new());
        }
        Ok(turn.known().requested())
    }

    /// Confirms an erasure once its time has passed here.
    async fn confirm(&self, id: EventId) -> Result<(), Error> {
        let at_work = self.worked.since_learnt(id).await?;
        let mut turn = self.follower.turn().await?;
        let Some((requested, erasure)) = open(&turn, id) else { return Ok(()) };
        if erasure.confirmed().contains_key(self.own()) || !self.has_passed(requested, at_work) {
            return Ok(());
        }
        let (tenant, study_instance_uid) = (requested.tenant.clone(), requested.study_instance_uid.clone());
        // What is under the keys in use so far is in the log by then.
        self.retire_keys(&tenant, &study_instance_uid).await;
        turn.read_on().await?;
        let (site, holds) = (self.own().to_string(), turn.known().ends());
        let confirmed = ErasureConfirmed { tenant, study_instance_uid, erasure_event_id: copied(&id), site, holds };
        turn.append(&Event::ErasureConfirmed(confirmed), Some(id)).await?;
        Ok(())
    }

    /// Both clocks must say so: the one that is not set, and the wall clock, which may have been set back.
    fn has_passed(&self, requested: &Requested, at_work: Duration) -> bool {
        let by_the_wall = self.clock.unix_ms().saturating_sub(requested.at_ms);
        at_work >= Duration::from_millis(requested.delay_ms) && by_the_wall >= requested.delay_ms
    }

    /// Has an erasure take effect, where this site has authority and everybody has confirmed.
    async fn conclude(&self, id: EventId) -> Result<(), Error> {
        let mut turn = self.follower.turn().await?;
        let (others, awaited) = (self.others(&turn).await?, self.awaited(&turn).await?);
        let known = turn.known();
        let Some((_, erasure)) = open(&turn, id) else { return Ok(()) };
        if known.may_decide(self.own(), &others).is_err() || !is_confirmed(&turn, erasure, &awaited) {
            return Ok(());
        }
        let place = known.places.get(&id).copied();
        let place = place.ok_or_else(|| Error::new(ErrorKind::Corrupt, "a request has no place in the log"))?;
        let Event::ErasureRequested(request) = self.follower.event(place).await? else { return Ok(()) };
        let facts = self.follower.study(&request.tenant, &request.study_instance_uid).await?;
        let judged = judge(&request, &facts, &known.holds, &known.authority);
        let (erased, kept) = (judged.series.len(), judged.kept.len());
        let event = VersionsErased {
            tenant: request.tenant.clone(),
            study_instance_uid: request.study_instance_uid.clone(),
            erasure_event_id: copied(&id),
            series: judged.series,
            kept: judged.kept,
            confirmation_event_ids: erasure.confirmed().values().map(|confirmed| copied(&confirmed.event)).collect(),
        };
        turn.append(&Event::VersionsErased(Box::new(event)), Some(id)).await?;
        tracing::info!(erasure = %id, series = erased, versions_kept = kept, "an erasure takes effect");
        Ok(())
    }
}

/// Whether every site confirmed an erasure, and everything that they held then is here.
fn is_confirmed(turn: &Turn<'_>, erasure: &Erasure, sites: &BTreeSet<SiteId>) -> bool {
    let (confirmed, held) = (erasure.confirmed(), &turn.known().held);
    sites.iter().all(|site| confirmed.get(site).is_some_and(|confirmed| held.covers(&confirmed.holds)))
}

/// An erasure that may take effect.
fn open<'a>(turn: &'a Turn<'_>, id: EventId) -> Option<(&'a Requested, &'a Erasure)> {
    let known = turn.known();
    let erasure = known.erasures.get(id).filter(|erasure| erasure.stage(&known.authority) == Stage::Requested)?;
    Some((erasure.requested()?, erasure))
}

fn copied(id: &EventId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}
