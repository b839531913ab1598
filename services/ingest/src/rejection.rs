//! Rejection notes: the events by which what they name is rejected, and what operators take back.

use crate::{
    append::{Appender, Context, NotAppended},
    metrics,
    receipts::OpenReceipt,
    refusal::{Cause, Failure, Refusal},
    service::Service,
    versions::{Identity, Version},
};
use bytes::Bytes;
use cairn_archive::{
    EventId, Partition, Position, PositionVector,
    events::{
        Event, InstancesRejected, RejectedInstance, RejectedSeries, RejectionNote, RejectionRevoked, RevokedSeries,
    },
    rejection::{self, Note},
};
use cairn_dicom::Uid;
use cairn_service_api::{
    Error, ErrorKind, Index,
    index::{Detail, Selection},
    rejection::Revocation,
};
use futures_util::{StreamExt, TryStreamExt};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// Instances looked up in the index by one question.
const LOOKED_UP_AT_ONCE: usize = 1_000;
/// Store events of one instance named at most; of one with more none is named, so all are hidden.
const STORES_NAMED_MAX: usize = 4_096;
/// What an event takes beside its instances, in bytes, at most.
const EVENT_MARGIN: usize = 4 << 10;

/// Store events by series and SOP Instance UID.
type Stores = BTreeMap<(Uid, Uid), Vec<EventId>>;

/// The rejection note that an instance is, if it is one.
///
/// # Errors
/// It has the title of one, and what it rejects can't be known: success would be a promise that is not kept.
pub(crate) fn note(identity: &Identity, header: &[u8]) -> Result<Option<Note>, Failure> {
    rejection::note(identity.sop_class_uid.as_str(), header).map_err(|why| {
        let refusal = Refusal::new(Cause::CannotUnderstand, why.to_string()).about(why.tag());
        Failure::from(refusal.of_study(Some(identity.study_instance_uid.clone())))
    })
}

/// The rejections that a note leads to, but for the name of the note's store event.
pub(crate) struct Rejections(Vec<InstancesRejected>);

impl Rejections {
    /// The events that follow from the note's own.
    pub(crate) fn after(self, store_event: EventId) -> Vec<Event> {
        let named = |mut event: InstancesRejected| {
            event.note.get_or_insert_default().store_event_id = Bytes::copy_from_slice(store_event.as_bytes());
            Event::InstancesRejected(Box::new(event))
        };
        self.0.into_iter().map(named).collect()
    }
}

impl Service {
    /// What a note rejects, each instance with the store events that are there now.
    pub(crate) async fn rejections(&self, tenant: &str, identity: &Identity, note: &Note) -> Rejections {
        let until = self.rejection_deadline();
        let mut events = Vec::new();
        for (study, named) in &note.rejected {
            events.extend(self.rejections_in(tenant, identity, note, (study, named), until).await);
        }
        Rejections(events)
    }

    /// Until when the index is waited for on behalf of one note.
    fn rejection_deadline(&self) -> Instant {
        Instant::now() + self.config.hint.rejection_timeout
    }

    async fn rejections_in(
        &self,
        tenant: &str,
        identity: &Identity,
        note: &Note,
        (study, named): (&Uid, &BTreeMap<(Uid, Uid), String>),
        until: Instant,
    ) -> Vec<InstancesRejected> {
        let stores = self.stores_now(tenant, study, named, until).await;
        let event = InstancesRejected {
            tenant: tenant.to_owned(),
            study_instance_uid: study.to_string(),
            note: Some(RejectionNote {
                study_instance_uid: identity.study_instance_uid.to_string(),
                series_instance_uid: identity.series_instance_uid.to_string(),
                sop_instance_uid: identity.sop_instance_uid.to_string(),
                store_event_id: Bytes::new(),
                title_code: note.title.code().to_owned(),
            }),
            ..InstancesRejected::default()
        };
        let bytes_max = usize::try_from(self.config.event_bytes_max).unwrap_or(usize::MAX).saturating_sub(EVENT_MARGIN);
        let parts = in_parts(named, &stores, bytes_max);
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let part = |(series, part)| InstancesRejected { series, parts: count, part, ..event.clone() };
        parts.into_iter().zip(1..).map(part).collect()
    }

    /// What was stored of the instances up to now, as the index says once it has folded everything that is in the log. Without
    /// an answer in time, nothing: then a rejection hides all.
    async fn stores_now(
        &self,
        tenant: &str,
        study: &Uid,
        named: &BTreeMap<(Uid, Uid), String>,
        until: Instant,
    ) -> Stores {
        let Some(index) = &self.index else { return Stores::new() };
        let stores = async {
            self.wait_for_all_of(index.as_ref(), study).await?;
            let uids: BTreeSet<&Uid> = named.keys().map(|(_, instance)| instance).collect();
            let mut stores = Stores::new();
            for uids in uids.into_iter().collect::<Vec<_>>().chunks(LOOKED_UP_AT_ONCE) {
                let selection = Selection {
                    tenant: tenant.to_owned(),
                    studies: vec![study.clone()],
                    instances: uids.iter().map(|uid| (*uid).clone()).collect(),
                    all_versions: true,
                    ..Selection::default()
                };
                let mut records = index.instances(selection, Detail::Location).await?;
                while let Some(record) = records.next().await.transpose()? {
                    let of = (record.series_instance_uid, record.sop_instance_uid);
                    stores.entry(of).or_default().push(record.store_event);
                }
            }
            Ok::<_, Error>(stores)
        };
        let answer = tokio::time::timeout_at(until, stores).await;
        answer.ok().and_then(Result::ok).unwrap_or_else(|| {
            metrics::hint_missed();
            Stores::new()
        })
    }

    /// Waits until the index has folded what the log has of a study.
    pub(crate) async fn wait_for_all_of(&self, index: &dyn Index, study: &Uid) -> Result<(), Error> {
        let log = self.appender.log();
        let partition = Partition::of_study(study.as_str(), log.partitions());
        let mut all = PositionVector::default();
        let end = log.end(partition).await?;
        all.0.insert((log.site().clone(), log.incarnation(), partition), end);
        index.wait_for(&all, self.config.hint.rejection_timeout).await
    }

    /// Says again what a note that came again had not led to when its sender heard of no success. A note of which all was said
    /// says nothing new. `None`: it can't be known in time.
    pub(crate) async fn complete_rejections(
        &self,
        receipt: &OpenReceipt,
        identity: &Identity,
        note: &Note,
        first: &Version,
    ) -> Result<Option<Vec<Position>>, Error> {
        let (tenant, until) = (&receipt.sender.tenant, self.rejection_deadline());
        let mut missing = Vec::new();
        for (study, named) in &note.rejected {
            let said = self.has_said(tenant, study, first.store_event);
            match tokio::time::timeout_at(until, said).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    missing.extend(self.rejections_in(tenant, identity, note, (study, named), until).await);
                }
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
        let context = Context { causation: Some(first.store_event), ..receipt.context() };
        let events = Rejections(missing).after(first.store_event).into_iter().map(|event| (event, context.clone()));
        let appended = self.appender.append_all(events.collect()).await.into_iter();
        let positions = appended.map(|one| one.map(|appended| appended.position).map_err(NotAppended::into));
        positions.collect::<Result<_, Error>>().map(Some)
    }

    /// Whether every event is there to which a note's store event leads in a study.
    async fn has_said(&self, tenant: &str, study: &Uid, note: EventId) -> Result<bool, Error> {
        let none = || Error::new(ErrorKind::Unavailable, "there is no index to ask");
        let index = self.index.as_ref().ok_or_else(none)?;
        self.wait_for_all_of(index.as_ref(), study).await?;
        let kind = Event::InstancesRejected(Box::default()).kind();
        let folded: Vec<_> = index.study_events(tenant, study, Vec::new()).await?.try_collect().await?;
        let rejections: Vec<EventId> =
            folded.into_iter().filter(|folded| folded.kind == kind).map(|folded| folded.event).collect();
        if rejections.is_empty() {
            return Ok(false);
        }
        let mut said = BTreeSet::new();
        let mut folded = index.study_events(tenant, study, rejections).await?;
        while let Some(folded) = folded.next().await.transpose()? {
            let Some(position) = folded.position else { continue };
            if let Some((_, Event::InstancesRejected(event))) = self.appender.event_at(&position).await?
                && event.note.as_ref().is_some_and(|own| own.store_event_id == note.as_bytes()[..])
            {
                said.insert(event.part);
                if u32::try_from(said.len()) == Ok(event.parts) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// The instances that a note names, with what was stored of them, in as many parts as are needed for none to be too large. One
/// that is in another series than the note says is named there too: what is meant is the SOP Instance.
fn in_parts(named: &BTreeMap<(Uid, Uid), String>, stores: &Stores, bytes_max: usize) -> Vec<Vec<RejectedSeries>> {
    let mut all: BTreeMap<(&Uid, &Uid), &str> = BTreeMap::new();
    let classes: BTreeMap<&Uid, &str> = named.iter().map(|((_, sop), class)| (sop, class.as_str())).collect();
    all.extend(named.iter().map(|((series, sop), class)| ((series, sop), class.as_str())));
    all.extend(stores.keys().map(|(series, sop)| ((series, sop), classes.get(sop).copied().unwrap_or_default())));
    let (mut parts, mut bytes) = (Vec::<Vec<RejectedSeries>>::new(), 0);
    for ((series, sop), class) in all {
        let seen = stores.get(&(series.clone(), sop.clone())).map(Vec::as_slice).unwrap_or_default();
        let seen = if seen.len() > STORES_NAMED_MAX { &[] } else { seen };
        let instance = RejectedInstance {
            sop_instance_uid: sop.to_string(),
            sop_class_uid: class.to_owned(),
            store_event_ids: seen.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
        };
        // As if each were in a series of its own; framing included.
        let takes = instance.encoded_len() + series.as_str().len() + 16;
        bytes += takes;
        if parts.is_empty() || bytes > bytes_max {
            (parts, bytes) = ([parts, vec![Vec::new()]].concat(), takes);
        }
        let Some(part) = parts.last_mut() else { continue };
        match part.last_mut().filter(|last| last.series_instance_uid == series.as_str()) {
            Some(last) => last.instances.push(instance),
            None => part.push(RejectedSeries { series_instance_uid: series.to_string(), instances: vec![instance] }),
        }
    }
    parts
}

/// Takes back the rejection that stands at a position of this site's log.
pub(crate) async fn revoke(appender: &Appender, revocation: Revocation) -> Result<Position, Error> {
    appender.check_clock()?;
    let Some((id, Event::InstancesRejected(rejected))) = appender.event_at(&revocation.position).await? else {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no rejection at {}", revocation.position)));
    };
    let series = rejected.series.into_iter().map(|series| RevokedSeries {
        series_instance_uid: series.series_instance_uid,
        sop_instance_uids: series.instances.into_iter().map(|instance| instance.sop_instance_uid).collect(),
    });
    let event = Event::RejectionRevoked(Box::new(RejectionRevoked {
        tenant: rejected.tenant,
        study_instance_uid: rejected.study_instance_uid,
        rejection_event_id: Bytes::copy_from_slice(id.as_bytes()),
        series: series.collect(),
        revoked_by: revocation.by,
        reason: revocation.reason.into_bytes().into(),
        key_id: String::new(),
    }));
    let context = Context { causation: Some(id), ..Context::default() };
    Ok(appender.append(&event, context).await?.position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        text.parse().expect("valid")
    }

    fn id(n: u128) -> EventId {
        EventId(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn many_instances_are_named_in_several_parts_each_once() {
        let named: BTreeMap<_, _> =
            (0..500).map(|n| ((uid(&format!("1.2.{}", n % 3)), uid(&format!("1.3.{n}"))), "1.4".to_owned())).collect();
        let stores = named.keys().map(|key| (key.clone(), vec![id(1), id(2)])).collect();
        let parts = in_parts(&named, &stores, 8 << 10);
        assert!(parts.len() > 3, "{}", parts.len());
        let mut seen = BTreeSet::new();
        for part in &parts {
            let event = InstancesRejected { series: part.clone(), ..InstancesRejected::default() };
            assert!(event.encoded_len() <= 8 << 10, "{}", event.encoded_len());
            for series in part {
                for instance in &series.instances {
                    assert_eq!(instance.store_event_ids.len(), 2);
                    assert!(seen.insert((series.series_instance_uid.clone(), instance.sop_instance_uid.clone())));
                }
            }
        }
        assert_eq!(seen.len(), 500);
        assert_eq!(in_parts(&named, &stores, 1 << 20).len(), 1);
    }

    #[test]
    fn an_instance_in_another_series_than_the_note_says_is_rejected_where_it_is() {
        let named = BTreeMap::from([((uid("1.2.1"), uid("1.3")), "1.4".to_owned())]);
        let stores = Stores::from([((uid("1.2.2"), uid("1.3")), vec![id(7)])]);
        let parts = in_parts(&named, &stores, 1 << 20);
        let named: Vec<_> = parts
            .iter()
            .flatten()
            .map(|series| (series.series_instance_uid.as_str(), series.instances[0].store_event_ids.len()))
            .collect();
        assert_eq!(named, [("1.2.1", 0), ("1.2.2", 1)]);
    }
}
