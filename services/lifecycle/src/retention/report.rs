//! Evidence: what of an erasure this site's stores have, by reading them.

use super::service::RetentionService;
use cairn_archive::{
    EventId, KeyId, ObjectKey, Offset, Partition, SiteId,
    erasure::{NeededBy, judged_keys},
    events::{ErasedInstance, ErasedSeries, ErasedVersion, Event},
};
use cairn_dicom::Uid;
use cairn_service_api::{
    Error, ErrorKind,
    index::{Detail, Selection},
    retention::{ErasedKey, ErasedObject, ErasureReport, ErasureStatus, KeptKey},
};
use cairn_store_api::KeyState;
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};

impl RetentionService {
    /// See `Retention::erasure_report`.
    pub(super) async fn report(&self, id: EventId) -> Result<ErasureReport, Error> {
        let unknown = || Error::new(ErrorKind::NotFound, "no such erasure is known here");
        let (status, places, gone, absent) = {
            let turn = self.follower.turn().await?;
            let status = self.status_of(&turn, id).await?.ok_or_else(unknown)?;
            let known = turn.known();
            let effects = known.erasures.get(id).map(|erasure| erasure.effects().keys().copied().collect::<Vec<_>>());
            let effects = effects.unwrap_or_default();
            let mut absent = BTreeSet::new();
            for effect in &effects {
                absent.extend(self.absent(&turn, *effect).await?);
            }
            let of_keys: Vec<_> = effects.iter().flat_map(|effect| known.erasures.keys_of(*effect)).collect();
            let gone = of_keys.iter().flat_map(|judged| known.erasures.keys_destroyed_at(*judged));
            let gone: BTreeMap<SiteId, u64> = gone.map(|(site, at_ms)| (site.clone(), at_ms)).collect();
            let events = [id].into_iter().chain(effects).chain(of_keys);
            let places: Vec<_> = events.filter_map(|event| known.places.get(&event).copied()).collect();
            (status, places, gone, absent)
        };
        let answered = self.answered(&status.tenant, &status.study_instance_uid).await;
        let (mut reason, mut objects, mut kept) = (String::new(), Vec::new(), Vec::new());
        let (mut keys, mut left) = (Vec::new(), BTreeSet::new());
        for place in places {
            match self.follower.event(place).await? {
                Event::ErasureRequested(_) => reason = self.reason(place).await?,
                Event::VersionsErased(event) => {
                    for (series, instance, version) in versions(&event.series) {
                        for key in version.object_keys.iter().filter_map(|key| ObjectKey::from_slice(key).ok()) {
                            objects.push(ErasedObject {
                                series_instance_uid: series.series_instance_uid.clone(),
                                sop_instance_uid: instance.sop_instance_uid.clone(),
                                store_event: EventId::from_slice(&version.store_event_id).map_err(|_| unknown())?,
                                key,
                                is_stored: self.damages.is_stored(key).await?,
                                is_answered: answered.as_ref().map(|keys| keys.contains(&key)),
                            });
                        }
                    }
                    kept.extend(event.kept);
                }
                Event::KeysJudged(event) => {
                    for id in judged_keys(&event) {
                        keys.push(ErasedKey { id, is_destroyed: self.is_destroyed(id).await? });
                    }
                    left.extend(event.kept.iter().filter_map(|kept| KeyId::from_slice(&kept.key_id).ok()));
                }
                _ => {}
            }
        }
        let kept_keys = self.kept_keys(&status, left, &absent).await?;
        let (at_site, at_ms) = (self.own().clone(), self.clock.unix_ms());
        let keys_destroyed = gone.into_iter().collect();
        Ok(ErasureReport { at_site, at_ms, status, reason, objects, kept, keys, kept_keys, keys_destroyed })
    }

    /// Why something was asked to be erased; empty where that went with its key, or the key is not here.
    async fn reason(&self, place: (Partition, Offset)) -> Result<String, Error> {
        match self.follower.opened(place).await {
            Ok(Event::ErasureRequested(event)) if event.key_id.is_empty() => {
                Ok(String::from_utf8_lossy(&event.reason).into_owned())
            }
            Ok(_) => Ok(String::new()),
            Err(error) if error.kind == ErrorKind::Unavailable => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether a key is destroyed, by the key store itself.
    async fn is_destroyed(&self, id: KeyId) -> Result<Option<bool>, Error> {
        match &self.keys {
            Some(keys) => Ok(Some(keys.store().get(id).await? == KeyState::Destroyed)),
            None => Ok(None),
        }
    }

    /// Of the keys that were left those that something still needs, as it is now. What nothing needs went with a later erasure,
    /// or is about to.
    async fn kept_keys(
        &self,
        status: &ErasureStatus,
        left: BTreeSet<KeyId>,
        absent: &BTreeSet<SiteId>,
    ) -> Result<Vec<KeptKey>, Error> {
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.follower.study_keys(&status.tenant, &status.study_instance_uid).await?;
        let kept = left.into_iter().filter_map(|id| {
            let needed_by = known.needed_by(id, absent)?;
            let may_be_used_at = match &needed_by {
                NeededBy::Site(site, _) => Some(site.clone()),
                NeededBy::Event(_) => None,
            };
            Some(KeptKey { id, needed_by: needed_by.event(), may_be_used_at })
        });
        Ok(kept.collect())
    }

    /// Keys of every object that the index answers with, of a study; `None` if it can't be asked.
    async fn answered(&self, tenant: &str, study: &str) -> Option<BTreeSet<ObjectKey>> {
        let (index, study) = (self.index.as_ref()?, study.parse::<Uid>().ok()?);
        let selection =
            Selection { tenant: tenant.to_owned(), studies: vec![study], all_versions: true, ..Selection::default() };
        let records = index.instances(selection, Detail::Location).await.ok()?;
        let keys = records.map_ok(|record| {
            let side = record.side_object.map(|side| side.key);
            [Some(record.object.key), side].into_iter().flatten().collect::<Vec<_>>()
        });
        let keys: Vec<Vec<ObjectKey>> = keys.try_collect().await.ok()?;
        Some(keys.into_iter().flatten().collect())
    }
}

fn versions(series: &[ErasedSeries]) -> impl Iterator<Item = (&ErasedSeries, &ErasedInstance, &ErasedVersion)> {
    let instances = series.iter().flat_map(|series| series.instances.iter().map(move |instance| (series, instance)));
    instances.flat_map(|(series, instance)| instance.versions.iter().map(move |version| (series, instance, version)))
}
