//! Destroying keys: what is erased goes with them, wherever its events were copied to. One site concludes which, and every site
//! with a key store destroys them, and says so.

use super::{follow::Turn, service::RetentionService};
use bytes::Bytes;
use cairn_archive::{
    EventId, KeyId, SiteId,
    erasure::judged_keys,
    events::{Event, KeysDestroyed, KeysJudged},
};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{KeyRing, KeyState};
use std::{collections::BTreeSet, sync::PoisonError};

impl RetentionService {
    /// From now on nothing more comes under the keys that are in use here for a study.
    pub(super) async fn retire_keys(&self, tenant: &str, study_instance_uid: &str) {
        if let Some(keys) = &self.keys {
            keys.retire(tenant, study_instance_uid).await;
        }
    }

    /// Concludes what becomes of the keys of what took effect, where this site has authority.
    ///
    /// A site retires the keys that it has in use before it confirms, or says that it destroyed what another site erased, and all that
    /// it appended before is here: so what is under its keys is known. Those of a site that said neither stay, until it is back, and
    /// so does what was written about the study.
    pub(super) async fn judge_keys(&self) -> Result<(), Error> {
        while self.keys.is_some() {
            let mut turn = self.follower.turn().await?;
            let others = self.others(&turn).await?;
            let known = turn.known();
            if known.is_unreadable() || known.may_decide(self.own(), &others).is_err() {
                break;
            }
            let mut to_judge = known.erasures.keys_to_judge();
            let next = to_judge.find_map(|(effect, follows)| Some((effect, follows, *known.places.get(&effect)?)));
            drop(to_judge);
            let Some((effect, follows, place)) = next else { break };
            let Event::VersionsErased(erased) = self.follower.event(place).await? else {
                return Err(Error::new(ErrorKind::Corrupt, "what took effect can't be read again"));
            };
            let keys = self.follower.study_keys(&erased.tenant, &erased.study_instance_uid).await?;
            let judged = keys.judge(effect, &erased, &self.absent(&turn, effect).await?);
            let (count, left) = (judged.key_ids.len(), judged.kept.len());
            turn.append(&Event::KeysJudged(judged), Some(follows)).await?;
            tracing::info!(event = %effect, keys = count, kept = left, "keys of what is erased are to be destroyed");
        }
        Ok(())
    }

    /// Sites that took no part in what took effect: declared dead by then, they may have more of the study than is known here.
    pub(super) async fn absent(&self, turn: &Turn<'_>, effect: EventId) -> Result<BTreeSet<SiteId>, Error> {
        let mut sites = self.others(turn).await?;
        if let Some(erasure) = turn.known().erasures.of(effect) {
            let took_part = erasure.took_part(effect);
            sites.retain(|site| !took_part.contains(site));
        }
        Ok(sites)
    }

    /// Destroys the keys of which the log says that they go, and says so. A key store that was brought back from an old backup may
    /// have them again, so each process looks once. Cut short it goes on from the beginning.
    pub(super) async fn destroy_keys(&self) -> Result<(), Error> {
        let Some(keys) = &self.keys else { return Ok(()) };
        let to_do: Vec<_> = {
            let turn = self.follower.turn().await?;
            let known = turn.known();
            let done = self.keys_gone.lock().unwrap_or_else(PoisonError::into_inner);
            let events = known.erasures.all_keys().filter(|event| !done.contains(event));
            events.filter_map(|event| Some((event, *known.places.get(&event)?))).collect()
        };
        for (id, place) in to_do {
            let Event::KeysJudged(judged) = self.follower.event(place).await? else {
                return Err(Error::new(ErrorKind::Corrupt, "which keys go can't be read again"));
            };
            self.destroy_judged(keys, id, judged).await?;
            self.keys_gone.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        Ok(())
    }

    async fn destroy_judged(&self, keys: &KeyRing, id: EventId, judged: KeysJudged) -> Result<(), Error> {
        let ids: Vec<KeyId> = judged_keys(&judged).collect();
        let mut here = 0;
        for key in &ids {
            here += u32::from(matches!(keys.store().get(*key).await?, KeyState::Key(_)));
        }
        let all = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        keys.destroy(ids).await?;
        let mut turn = self.follower.turn().await?;
        let is_said = turn.known().erasures.keys_destroyed_at(id).any(|(site, _)| site == self.own());
        if all == 0 || (is_said && here == 0) {
            return Ok(());
        }
        let destroyed = KeysDestroyed {
            tenant: judged.tenant,
            study_instance_uid: judged.study_instance_uid,
            keys_judged_event_id: Bytes::copy_from_slice(id.as_bytes()),
            site: self.own().to_string(),
            keys: here,
            absent: all - here,
        };
        turn.append(&Event::KeysDestroyed(destroyed), Some(id)).await?;
        tracing::info!(event = %id, keys = here, "keys of what was erased are destroyed here");
        Ok(())
    }
}
