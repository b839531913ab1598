//! Moving what waits, study by study.

use super::{
    queue::{Turn, key},
    service::TieringService,
};
use crate::{
    metrics,
    notes::{Change, Kind},
};
use cairn_archive::events::{DamageFoundBy, Event, ObjectTier, StudyMoved};
use cairn_service_api::{
    Error, ErrorKind,
    index::{Detail, InstanceRecord, Selection},
    lifecycle::NamedObject,
};
use cairn_store_api::{StoreErrorKind, Tier, Tiers};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::{Arc, atomic::Ordering};

/// What came of moving an object.
enum Outcome {
    Moved,
    /// It is there already, or is not to be moved.
    NotMoved,
    /// The cold store restores it first.
    Archived,
}

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

    /// Moves every version of every instance of a study. Side objects stay where objects come in: they are looked at to find
    /// what is wanted of an instance.
    async fn move_study(&self, tiers: &Arc<dyn Tiers>, turn: &Turn) -> Result<(), Error> {
        match turn.to() {
            Tier::Cold => self.move_away(tiers, turn).await,
            Tier::Hot => self.recall(tiers, turn).await,
        }
    }

    /// It is said first that all of it is cold, and what the index then knows to be is moved: what is said to be hot never is
    /// cold. What comes after that stays hot.
    async fn move_away(&self, tiers: &Arc<dyn Tiers>, turn: &Turn) -> Result<(), Error> {
        let looked = tokio::time::timeout(self.config.look_timeout, tiers.space_of(Tier::Cold)).await;
        looked.map_err(|_| Error::new(ErrorKind::Unavailable, "the cold object store does not answer"))??;
        if self.versions(turn).await?.is_empty() {
            return Ok(());
        }
        if !turn.is_said {
            self.say(turn).await?;
            self.queue.lock().await.said(turn);
        }
        let versions = self.versions(turn).await?;
        let cold = versions.into_iter().filter(|version| version.is_cold).collect();
        self.move_all(tiers, turn, cold).await?;
        Ok(())
    }

    /// It is said when all of it is hot.
    async fn recall(&self, tiers: &Arc<dyn Tiers>, turn: &Turn) -> Result<(), Error> {
        let versions = self.versions(turn).await?;
        let was_cold = versions.iter().any(|version| version.is_cold);
        let moved = self.move_all(tiers, turn, versions).await?;
        if was_cold || moved > 0 {
            self.say(turn).await?;
        }
        Ok(())
    }

    /// Says as an event where the study is: by it the index knows InstanceAvailability.
    async fn say(&self, turn: &Turn) -> Result<(), Error> {
        let tier = match turn.to() {
            Tier::Hot => ObjectTier::Hot,
            Tier::Cold => ObjectTier::Cold,
        };
        let moved = StudyMoved {
            tenant: turn.study.tenant.clone(),
            study_instance_uid: turn.study.uid.to_string(),
            site: self.appender.site().to_string(),
            tier: tier.into(),
            asked_by: turn.by.clone(),
        };
        self.appender.append(&Event::StudyMoved(moved), None).await?;
        Ok(())
    }

    /// Gives how many had to be moved.
    async fn move_all(&self, tiers: &Arc<dyn Tiers>, turn: &Turn, of: Vec<InstanceRecord>) -> Result<u64, Error> {
        let tenant = &turn.study.tenant;
        let moves = stream::iter(of).map(|version| async move {
            let named = NamedObject {
                object: version.object,
                named_by: version.store_event,
                tenant: tenant.clone(),
                study_instance_uid: version.study_instance_uid.to_string(),
                series_instance_uid: version.series_instance_uid.to_string(),
                sop_instance_uid: version.sop_instance_uid.to_string(),
            };
            self.move_object(tiers, &named, turn.to()).await
        });
        let mut outcomes = moves.buffer_unordered(self.config.objects_at_once.max(1));
        let (mut moved, mut archived) = (0, 0_u64);
        while let Some(outcome) = outcomes.try_next().await? {
            match outcome {
                Outcome::Moved => moved += 1,
                Outcome::NotMoved => {}
                Outcome::Archived => archived += 1,
            }
        }
        if archived > 0 {
            let message =
                format!("{archived} objects are put away: the cold store was asked to restore them, which takes hours");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(moved)
    }

    /// All versions of a study, when the index knows all that the log has of it.
    async fn versions(&self, turn: &Turn) -> Result<Vec<InstanceRecord>, Error> {
        let index = self.index.as_ref();
        let index = index.ok_or_else(|| Error::new(ErrorKind::Unavailable, "there is no index here to ask"))?;
        index.wait_for(&self.appender.all_of(turn.study.uid.as_str()).await?, self.config.index_wait).await?;
        let selection = Selection {
            tenant: turn.study.tenant.clone(),
            studies: vec![turn.study.uid.clone()],
            all_versions: true,
            as_stored: true,
            ..Selection::default()
        };
        match index.instances(selection, Detail::Location).await {
            // Nothing is left of it.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Vec::new()),
            found => found?.try_collect().await,
        }
    }

    async fn move_object(&self, tiers: &Arc<dyn Tiers>, named: &NamedObject, to: Tier) -> Result<Outcome, Error> {
        let object = &named.object;
        if self.notes.is_erased(&object.key).await? {
            return Ok(Outcome::NotMoved);
        }
        match tiers.move_to(object, to).await {
            Ok(false) => Ok(Outcome::NotMoved),
            // The others are asked for too.
            Err(error) if error.kind() == StoreErrorKind::Archived => Ok(Outcome::Archived),
            Ok(true) => {
                self.moved.objects.fetch_add(1, Ordering::Relaxed);
                self.moved.bytes.fetch_add(object.length, Ordering::Relaxed);
                metrics::moved(to, object.length);
                if to == Tier::Cold {
                    // Nobody waits for it: what comes in goes first.
                    self.pace.take(object.length, self.config.bytes_per_second_max).await;
                }
                Ok(Outcome::Moved)
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
                Ok(Outcome::NotMoved)
            }
            Err(error) => Err(error.into()),
        }
    }
}
