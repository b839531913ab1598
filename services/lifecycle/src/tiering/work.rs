//! Moving what waits, study by study.

use super::{
    queue::{Turn, key},
    service::TieringService,
};
use crate::{
    metrics,
    notes::{Change, Kind},
};
use cairn_archive::events::DamageFoundBy;
use cairn_service_api::{
    Error, ErrorKind,
    index::{Detail, InstanceRecord, Selection},
    lifecycle::NamedObject,
};
use cairn_store_api::{StoreErrorKind, Tier, Tiers};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::{Arc, atomic::Ordering};

impl TieringService {
    /// Does what is to be done, again and again. Stores and services that are away are waited for.
    ///
    /// # Cancel safety
    /// The next start goes on from what is noted down: an object is where it was, where it is to be, or in both.
    pub(crate) async fn run(&self) {
        let Some(tiers) = self.tiers.clone() else { return };
        loop {
            let turn = self.queue.lock().await.begin(self.clock.elapsed());
            match turn {
                Some(turn) => self.take(&tiers, turn).await,
                // Somebody asks for something, or what failed may be tried again.
                None => {
                    let _asked = tokio::time::timeout(self.config.look_interval, self.asked.notified()).await;
                }
            }
        }
    }

    async fn take(&self, tiers: &Arc<dyn Tiers>, turn: Turn) {
        let moved = match self.move_study(tiers, &turn).await {
            Ok(()) => self.is_done(&turn).await,
            Err(error) => Err(error),
        };
        if let Err(error) = moved {
            tracing::warn!(study = %turn.study.uid, to = ?turn.to(), %error, "a study could not be moved, and is tried again");
            let not_before = self.clock.elapsed() + self.config.retry_pause;
            self.queue.lock().await.failed(&turn, error.message, not_before);
        }
    }

    async fn is_done(&self, turn: &Turn) -> Result<(), Error> {
        let mut queue = self.queue.lock().await;
        if queue.is_as_begun(turn) {
            self.notes.change(vec![Change::remove(Kind::Move, &key(&turn.study))]).await?;
            queue.done(turn);
        }
        self.moved.studies.fetch_add(1, Ordering::Relaxed);
        tracing::info!(study = %turn.study.uid, to = ?turn.to(), "a study is moved");
        Ok(())
    }

    /// Moves every version of every instance of a study that the index knows of. What comes meanwhile stays where objects
    /// come in; so do side objects, which are looked at to find what is wanted of an instance.
    async fn move_study(&self, tiers: &Arc<dyn Tiers>, turn: &Turn) -> Result<(), Error> {
        let named = self.objects_of(turn).await?;
        let moves = stream::iter(named).map(|named| async move { self.move_object(tiers, &named, turn.to()).await });
        moves.buffer_unordered(self.config.objects_at_once.max(1)).try_collect::<()>().await
    }

    async fn objects_of(&self, turn: &Turn) -> Result<Vec<NamedObject>, Error> {
        let index = self.index.as_ref();
        let index = index.ok_or_else(|| Error::new(ErrorKind::Unavailable, "there is no index here to ask"))?;
        let selection = Selection {
            tenant: turn.study.tenant.clone(),
            studies: vec![turn.study.uid.clone()],
            all_versions: true,
            as_stored: true,
            ..Selection::default()
        };
        let found = match index.instances(selection, Detail::Location).await {
            // Nothing is left of it.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Vec::new()),
            found => found?,
        };
        let tenant = &turn.study.tenant;
        let named = |record: InstanceRecord| NamedObject {
            object: record.object,
            named_by: record.store_event,
            tenant: tenant.clone(),
            study_instance_uid: record.study_instance_uid.to_string(),
            series_instance_uid: record.series_instance_uid.to_string(),
            sop_instance_uid: record.sop_instance_uid.to_string(),
        };
        found.map_ok(named).try_collect().await
    }

    async fn move_object(&self, tiers: &Arc<dyn Tiers>, named: &NamedObject, to: Tier) -> Result<(), Error> {
        let object = &named.object;
        if self.notes.is_erased(&object.key).await? {
            return Ok(());
        }
        match tiers.move_to(object, to).await {
            Ok(false) => Ok(()),
            Ok(true) => {
                self.moved.objects.fetch_add(1, Ordering::Relaxed);
                self.moved.bytes.fetch_add(object.length, Ordering::Relaxed);
                metrics::moved(to, object.length);
                if to == Tier::Cold {
                    // Nobody waits for it: what comes in goes first.
                    self.pace.take(object.length, self.config.bytes_per_second_max).await;
                }
                Ok(())
            }
            Err(error)
                if matches!(
                    error.kind(),
                    StoreErrorKind::NotFound | StoreErrorKind::Corrupt | StoreErrorKind::Invalid
                ) =>
            {
                tracing::error!(object_key = %object.key, %error, "an object is left where it is");
                if let Some(damage) = self.damages.inspect(object, u64::MAX).await? {
                    self.damages.found(named, damage, DamageFoundBy::Retrieval).await?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}
