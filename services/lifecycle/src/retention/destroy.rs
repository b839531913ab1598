//! Destroying objects. Nothing else in the archive does, and only what an event that took effect names (I6).

use super::{follow::object_keys, service::RetentionService};
use bytes::Bytes;
use cairn_archive::{
    EventId, ObjectKey,
    events::{Event, ObjectsDestroyed, VersionsErased},
};
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::StoreErrorKind;

impl RetentionService {
    /// Destroys what took effect and is not said to be destroyed here. Cut short it goes on from the beginning: what is
    /// gone is gone.
    pub(super) async fn destroy_all(&self) -> Result<(), Error> {
        loop {
            let next = {
                let turn = self.follower.turn().await?;
                let next = turn.known().to_destroy(self.own()).first().copied();
                next.and_then(|effect| Some((effect, *turn.known().places.get(&effect)?)))
            };
            let Some((effect, place)) = next else { return Ok(()) };
            let Event::VersionsErased(event) = self.follower.event(place).await? else {
                return Err(Error::new(ErrorKind::Corrupt, "what took effect can't be read again"));
            };
            self.destroy(effect, &event).await?;
        }
    }

    async fn destroy(&self, effect: EventId, event: &VersionsErased) -> Result<(), Error> {
        // A site that was away when it took effect says by this event what others said when they confirmed.
        self.retire_keys(&event.tenant, &event.study_instance_uid).await;
        let mut destroyed = ObjectsDestroyed {
            tenant: event.tenant.clone(),
            study_instance_uid: event.study_instance_uid.clone(),
            versions_erased_event_id: Bytes::copy_from_slice(effect.as_bytes()),
            site: self.own().to_string(),
            ..ObjectsDestroyed::default()
        };
        for key in object_keys(&event.series).filter_map(|key| ObjectKey::from_slice(key).ok()) {
            match self.destroy_object(key).await? {
                Some(bytes) => {
                    destroyed.objects += 1;
                    destroyed.bytes += bytes;
                }
                None => destroyed.absent += 1,
            }
        }
        let (objects, bytes) = (destroyed.objects, destroyed.bytes);
        let mut turn = self.follower.turn().await?;
        turn.append(&Event::ObjectsDestroyed(destroyed), Some(effect)).await?;
        tracing::info!(event = %effect, objects, bytes, "what was erased is destroyed here");
        Ok(())
    }

    /// Destroys an object; gives the bytes that it had, `None` if it was not there.
    async fn destroy_object(&self, key: ObjectKey) -> Result<Option<u64>, Error> {
        let found = match self.objects.stat(key).await {
            Ok(info) => Some(info.object.length),
            Err(error) if error.kind() == StoreErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        self.damages.destroy(key).await?;
        Ok(found)
    }
}
