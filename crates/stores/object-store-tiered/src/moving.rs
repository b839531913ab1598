//! Moving: copied, read back, and only then taken away from where it was.

use crate::TieredStore;
use async_trait::async_trait;
use cairn_archive::ObjectKey;
use cairn_store_api::{ObjectRef, ObjectStore, ObjectWriter, StoreError, StoreErrorKind, StoreSpace, Tier, Tiers};
use futures_util::StreamExt;
use std::sync::atomic::Ordering;

/// Copies a whole object; the bytes are verified as they are read.
async fn pump(object: &ObjectRef, from: &dyn ObjectStore, into: &mut dyn ObjectWriter) -> Result<(), StoreError> {
    let mut bytes = from.read(object, 0..object.length).await?;
    while let Some(chunk) = bytes.next().await {
        into.write(chunk?).await?;
    }
    Ok(())
}

/// Copies an object to where it is not, or where a copy that was cut short left it whole.
async fn copy(object: &ObjectRef, from: &dyn ObjectStore, into: &dyn ObjectStore) -> Result<(), StoreError> {
    let there_already = |error: &StoreError| error.kind() == StoreErrorKind::Conflict;
    let mut writer = match into.put(object.key, Some(object.length)).await {
        Err(error) if there_already(&error) => return Ok(()),
        writer => writer?,
    };
    pump(object, from, &mut *writer).await?;
    match writer.finish_as(object.length, object.digest).await {
        Err(error) if there_already(&error) => Ok(()),
        finished => finished.map(drop),
    }
}

/// Reads an object from end to end.
async fn read_back(object: &ObjectRef, from: &dyn ObjectStore) -> Result<(), StoreError> {
    let (mut bytes, mut length) = (from.read(object, 0..object.length).await?, 0);
    while let Some(chunk) = bytes.next().await {
        length += chunk?.len() as u64;
    }
    match length == object.length {
        true => Ok(()),
        false => Err(StoreError::new(StoreErrorKind::Corrupt, format!("object {} ended early", object.key))),
    }
}

#[async_trait]
impl Tiers for TieredStore {
    async fn tier_of(&self, key: ObjectKey) -> Result<Tier, StoreError> {
        Ok(self.both.find(key).await?.0)
    }

    async fn move_to(&self, object: &ObjectRef, tier: Tier) -> Result<bool, StoreError> {
        let _turn = self.turn(object.key).await?;
        let (from, into) = match tier {
            Tier::Hot => (self.both.store(Tier::Cold), self.both.store(Tier::Hot)),
            Tier::Cold => (self.both.store(Tier::Hot), self.both.store(Tier::Cold)),
        };
        match from.stat(object.key).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                into.stat(object.key).await?;
                return Ok(false);
            }
            found => found?,
        };
        if let Err(error) = copy(object, from, into).await {
            if error.kind() == StoreErrorKind::Archived {
                from.restore(object.key).await?;
            }
            return Err(error);
        }
        if let Err(error) = read_back(object, into).await {
            if error.kind() != StoreErrorKind::Corrupt {
                return Err(error);
            }
            // The copy is damaged, or was. The one that it is of is not.
            tracing::warn!(object_key = %object.key, "a copy that was made to move an object is damaged, and is made again");
            let mut writer = into.repair(object).await?;
            pump(object, from, &mut *writer).await?;
            writer.finish().await?;
            read_back(object, into).await?;
        }
        // Said before it is taken away: who does not find it looks again.
        match tier {
            Tier::Hot => self.both.recalled.fetch_add(1, Ordering::AcqRel),
            Tier::Cold => self.both.moved.fetch_add(1, Ordering::AcqRel),
        };
        from.delete(object.key).await?;
        Ok(true)
    }

    async fn space_of(&self, tier: Tier) -> Result<StoreSpace, StoreError> {
        self.both.store(tier).space().await
    }
}
