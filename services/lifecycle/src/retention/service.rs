//! What is asked of retention: holds are placed and released, erasures asked for and withdrawn.

use super::{
    follow::{Follower, Turn},
    known::conflict,
    worked::Worked,
};
use crate::{append::Appender, config::ErasureConfig, fixity::Damages, notes::Notes};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    EventId, HoldId, SiteId,
    erasure::{Stage, StudyFacts},
    events::{
        ErasedInstance, ErasedSeries, ErasureRequested, ErasureWithdrawn, Event, HeldPatient, HoldPlaced,
        HoldProtected, HoldReleased,
    },
    holds::{HeldBy, Hold},
};
use cairn_process::clock::Clock;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Replication, Retention,
    retention::{ErasureGrounds, ErasureReport, ErasureScope, ErasureStatus, HoldInForce, NewHold},
};
use cairn_store_api::{EventLog, KeyRing, ObjectStore};
use futures_util::stream;
use prost::Message;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Studies that one event of a hold names at most, so that the event stays within its bounds.
const STUDIES_OF_EVENT: usize = 4096;
/// Encoded bytes of what one request names at most: what takes effect names it too, with why the rest was kept.
const REQUEST_BYTES_MAX: usize = 192 << 10;
/// Bytes of a reason or a query at most.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;

/// Holds and erasures of a site.
pub struct RetentionService {
    pub(crate) follower: Follower,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) damages: Arc<Damages>,
    pub(super) index: Option<Arc<dyn Index>>,
    pub(super) replication: Option<Arc<dyn Replication>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(crate) worked: Worked,
    /// `None`: there is no key store here.
    pub(super) keys: Option<Arc<KeyRing>>,
    /// Events of whose keys this process knows that they are gone.
    pub(super) keys_gone: Mutex<BTreeSet<EventId>>,
    pub(super) config: ErasureConfig,
}

/// What retention works on.
pub(crate) struct With {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) keys: Option<Arc<KeyRing>>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) appender: Arc<Appender>,
    pub(crate) damages: Arc<Damages>,
    pub(crate) index: Option<Arc<dyn Index>>,
    pub(crate) replication: Option<Arc<dyn Replication>>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl RetentionService {
    pub(crate) fn new(with: With, config: ErasureConfig) -> Self {
        let With { log, keys, objects, notes, appender, damages, index, replication, clock } = with;
        let worked = Worked::new(notes.clone(), clock.clone());
        let follower = Follower::new(log, notes, appender);
        let keys_gone = Mutex::default();
        Self { follower, objects, damages, index, replication, clock, worked, keys, keys_gone, config }
    }

    pub(crate) fn own(&self) -> &SiteId {
        self.follower.log.site()
    }

    /// Every other site: those that this one is to send to, and those of which it has anything.
    pub(crate) async fn others(&self, turn: &Turn<'_>) -> Result<BTreeSet<SiteId>, Error> {
        let mut sites = turn.known().sites();
        if let Some(replication) = &self.replication {
            sites.extend(replication.status().await?.peers.into_iter().map(|peer| peer.site));
        }
        sites.remove(self.own());
        Ok(sites)
    }

    /// Every site that an erasure waits for: not those that were declared dead, once a delay has passed since this site learnt of it.
    pub(super) async fn awaited(&self, turn: &Turn<'_>) -> Result<BTreeSet<SiteId>, Error> {
        let mut sites = self.others(turn).await?;
        for dead in turn.known().authority.dead() {
            let by_the_wall = self.clock.unix_ms().saturating_sub(dead.at_ms);
            let at_work = self.worked.since_learnt(dead.declared).await?;
            if at_work.min(Duration::from_millis(by_the_wall)) >= self.config.dead_site_delay {
                sites.remove(&dead.site);
            }
        }
        sites.insert(self.own().clone());
        Ok(sites)
    }

    /// The turn to decide what does not commute.
    pub(crate) async fn turn_with_authority(&self) -> Result<Turn<'_>, Error> {
        let turn = self.follower.turn().await?;
        let others = self.others(&turn).await?;
        turn.known().may_decide(self.own(), &others)?;
        Ok(turn)
    }

    fn check(&self, hold: &NewHold) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        if hold.patient.as_ref().is_some_and(|(id, _)| id.trim().is_empty()) {
            return invalid("a patient is held by an ID".to_owned());
        }
        if hold.studies.is_empty() && hold.patient.is_none() {
            return invalid("a hold names a patient or studies".to_owned());
        }
        if hold.studies.len() > self.config.hold_studies_max {
            return invalid(format!("a hold names {} studies at most", self.config.hold_studies_max));
        }
        match [&hold.reason, &hold.query, &hold.by].into_iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            true => invalid(format!("a text is longer than {TEXT_BYTES_MAX} bytes")),
            false => Ok(()),
        }
    }

    /// Asks that something of a study be erased, by what is known of it, with the turn to decide.
    ///
    /// # Errors
    /// `NotFound`: there is nothing to erase. `Conflict`: it is held.
    pub(crate) async fn ask(
        &self,
        turn: &mut Turn<'_>,
        facts: &StudyFacts,
        scope: ErasureScope,
        delay_ms: u64,
        grounds: ErasureGrounds,
    ) -> Result<Vec<EventId>, Error> {
        let ErasureScope { tenant, study, series, instances } = scope;
        let known = turn.known();
        match facts.held(&known.holds, &known.authority, &tenant, study.as_str()) {
            Some(HeldBy::Hold(id)) => return Err(conflict(format!("hold {id} holds it"))),
            Some(HeldBy::Unreadable(id)) => {
                return Err(conflict(format!("event {id} may hold it, and needs a newer build to be read")));
            }
            None => {}
        }
        let means =
            |list: &[cairn_dicom::Uid], uid: &str| list.is_empty() || list.iter().any(|one| one.as_str() == uid);
        let (named, _) = facts.to_erase(|of_series, instance| means(&series, of_series) && means(&instances, instance));
        if named.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, "there is nothing to erase"));
        }
        let (under, mut ids) = (known.under(), Vec::new());
        let configured = u64::try_from(self.config.delay.as_millis()).unwrap_or(u64::MAX);
        for series in in_parts(named) {
            let requested = ErasureRequested {
                tenant: tenant.clone(),
                study_instance_uid: study.to_string(),
                promotion_event_id: under.clone(),
                series,
                delay_ms: delay_ms.max(configured),
                requested_by: grounds.by.clone(),
                reason: grounds.reason.clone().into_bytes().into(),
                key_id: String::new(),
            };
            ids.push(turn.append(&Event::ErasureRequested(Box::new(requested)), None).await?);
        }
        tracing::info!(study = %study, requests = ids.len(), "it is asked that something be erased");
        Ok(ids)
    }

    pub(super) async fn status_of(&self, turn: &Turn<'_>, id: EventId) -> Result<Option<ErasureStatus>, Error> {
        let known = turn.known();
        let Some(erasure) = known.erasures.get(id) else { return Ok(None) };
        let Some(requested) = erasure.requested() else { return Ok(None) };
        let stage = erasure.stage(&known.authority);
        let mut waits_for = BTreeSet::new();
        if stage == Stage::Requested {
            waits_for = self.awaited(turn).await?;
            waits_for.retain(|site| !erasure.confirmed().contains_key(site));
        }
        Ok(Some(ErasureStatus {
            id,
            tenant: requested.tenant.clone(),
            study_instance_uid: requested.study_instance_uid.clone(),
            stage,
            versions: requested.versions,
            site: requested.site.to_string(),
            requested_at_ms: requested.at_ms,
            delay_ms: requested.delay_ms,
            requested_by: requested.by.clone(),
            withdrawn_by: erasure.withdrawn_by(&known.authority).unwrap_or_default().to_owned(),
            confirmed: erasure.confirmed().keys().cloned().collect(),
            waits_for: waits_for.into_iter().collect(),
            erased: erasure.effects().values().map(|effect| effect.erased).sum(),
            kept: erasure.effects().values().map(|effect| effect.kept).sum(),
            destroyed: erasure.destroyed().into_iter().map(|(site, destroyed)| (site.clone(), destroyed)).collect(),
        }))
    }
}

#[async_trait]
impl Retention for RetentionService {
    async fn place_hold(&self, hold: NewHold) -> Result<HoldId, Error> {
        self.check(&hold)?;
        let mut turn = self.follower.turn().await?;
        if turn.known().holds.in_force(&turn.known().authority).count() >= self.config.holds_max {
            let message = format!("{} holds are in force, and no more may be", self.config.holds_max);
            return Err(Error::new(ErrorKind::Exhausted, message));
        }
        let NewHold { tenant, patient, studies, query, by, reason } = hold;
        let id = HoldId(uuid::Uuid::now_v7());
        let patient =
            patient.map(|(patient_id, issuer_of_patient_id)| HeldPatient { patient_id, issuer_of_patient_id });
        let protected: Bytes = HoldProtected { patient, query, reason }.encode_to_vec().into();
        let mut parts: Vec<&[_]> = studies.chunks(STUDIES_OF_EVENT).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        for part in parts {
            let placed = HoldPlaced {
                tenant: tenant.clone(),
                hold_id: Bytes::copy_from_slice(id.as_bytes()),
                study_instance_uids: part.iter().map(ToString::to_string).collect(),
                placed_by: by.clone(),
                key_id: String::new(),
                protected: protected.clone(),
            };
            turn.append(&Event::HoldPlaced(placed), None).await?;
        }
        tracing::info!(hold = %id, studies = studies.len(), "a hold is placed");
        Ok(id)
    }

    async fn release_hold(&self, id: HoldId, grounds: ErasureGrounds) -> Result<(), Error> {
        let mut turn = self.turn_with_authority().await?;
        let known = turn.known();
        let Some(hold) = known.holds.get(&known.authority, id) else {
            return Err(Error::new(ErrorKind::NotFound, "no such hold is in force here"));
        };
        let released = HoldReleased {
            tenant: hold.tenant.clone(),
            hold_id: Bytes::copy_from_slice(id.as_bytes()),
            promotion_event_id: known.under(),
            released_by: grounds.by,
            reason: grounds.reason.into_bytes().into(),
            key_id: String::new(),
        };
        turn.append(&Event::HoldReleased(released), None).await?;
        tracing::info!(hold = %id, "a hold is released");
        Ok(())
    }

    async fn holds(&self) -> Result<AnswerStream<HoldInForce>, Error> {
        let turn = self.follower.turn().await?;
        let known = turn.known();
        let holds: Vec<_> = known.holds.in_force(&known.authority).map(|(id, hold)| Ok(in_force(id, hold))).collect();
        Ok(Box::pin(stream::iter(holds)))
    }

    async fn request_erasure(
        &self,
        scope: ErasureScope,
        delay_ms: u64,
        grounds: ErasureGrounds,
    ) -> Result<Vec<EventId>, Error> {
        if grounds.reason.len() > TEXT_BYTES_MAX || grounds.by.len() > TEXT_BYTES_MAX {
            return Err(Error::new(ErrorKind::Invalid, format!("a text is longer than {TEXT_BYTES_MAX} bytes")));
        }
        let mut turn = self.turn_with_authority().await?;
        let facts = self.follower.study(&scope.tenant, scope.study.as_str()).await?;
        self.ask(&mut turn, &facts, scope, delay_ms, grounds).await
    }

    async fn withdraw_erasure(&self, id: EventId, grounds: ErasureGrounds) -> Result<(), Error> {
        let mut turn = self.turn_with_authority().await?;
        let known = turn.known();
        let unknown = || Error::new(ErrorKind::NotFound, "no such erasure is known here");
        let erasure = known.erasures.get(id).ok_or_else(unknown)?;
        let requested = erasure.requested().ok_or_else(unknown)?;
        match erasure.stage(&known.authority) {
            Stage::Requested => {}
            Stage::Withdrawn => return Ok(()),
            Stage::Erased => return Err(conflict("it took effect".to_owned())),
            Stage::Void | Stage::Unknown => return Err(conflict("it does not count any more".to_owned())),
        }
        let withdrawn = ErasureWithdrawn {
            tenant: requested.tenant.clone(),
            study_instance_uid: requested.study_instance_uid.clone(),
            erasure_event_id: Bytes::copy_from_slice(id.as_bytes()),
            promotion_event_id: known.under(),
            withdrawn_by: grounds.by,
            reason: grounds.reason.into_bytes().into(),
            key_id: String::new(),
        };
        turn.append(&Event::ErasureWithdrawn(withdrawn), Some(id)).await?;
        tracing::info!(erasure = %id, "an erasure is withdrawn");
        Ok(())
    }

    async fn erasures(&self) -> Result<AnswerStream<ErasureStatus>, Error> {
        let turn = self.follower.turn().await?;
        let ids: Vec<EventId> = turn.known().erasures.iter().map(|(id, _)| id).collect();
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            all.extend(self.status_of(&turn, id).await?.map(Ok));
        }
        Ok(Box::pin(stream::iter(all)))
    }

    async fn erasure_report(&self, id: EventId) -> Result<ErasureReport, Error> {
        self.report(id).await
    }
}

fn in_force(id: HoldId, hold: &Hold) -> HoldInForce {
    let protected = hold.protected();
    let patient = protected.and_then(|protected| protected.patient.clone());
    HoldInForce {
        id,
        hold: NewHold {
            tenant: hold.tenant.clone(),
            patient: patient.map(|patient| (patient.patient_id, patient.issuer_of_patient_id)),
            studies: hold.studies().into_iter().filter_map(|study| study.parse().ok()).collect(),
            query: protected.map(|protected| protected.query.clone()).unwrap_or_default(),
            by: hold.placed_by().to_owned(),
            reason: protected.map(|protected| protected.reason.clone()).unwrap_or_default(),
        },
        is_unreadable: protected.is_none(),
        site: hold.site().map(ToString::to_string).unwrap_or_default(),
        placed_at_ms: hold.at_ms(),
    }
}

/// Parts each of which fits in one request.
fn in_parts(series: Vec<ErasedSeries>) -> Vec<Vec<ErasedSeries>> {
    let mut parts: Vec<Vec<ErasedSeries>> = Vec::new();
    let mut bytes = REQUEST_BYTES_MAX;
    for ErasedSeries { series_instance_uid, instances } in series {
        for instance in instances {
            let length = instance.encoded_len() + 2 * series_instance_uid.len();
            bytes += length;
            if bytes > REQUEST_BYTES_MAX {
                parts.push(Vec::new());
                bytes = length;
            }
            add(parts.last_mut(), &series_instance_uid, instance);
        }
    }
    parts
}

fn add(part: Option<&mut Vec<ErasedSeries>>, series: &str, instance: ErasedInstance) {
    let Some(part) = part else { return };
    match part.last_mut().filter(|last| last.series_instance_uid == series) {
        Some(last) => last.instances.push(instance),
        None => part.push(ErasedSeries { series_instance_uid: series.to_owned(), instances: vec![instance] }),
    }
}
