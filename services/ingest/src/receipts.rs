//! Receipts: what came in one association, STOW-RS request or import, summed up per study.

use crate::{
    append::Context,
    config::{Profile, ReceiptConfig},
    metrics,
};
use cairn_archive::{
    events::{self, Event, ReceiptClosed, ReceiptEnd, SenderProfile},
    ids::ReceiptId,
};
use cairn_service_api::{Error, ErrorKind, ingest::Sender};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What became of one instance, as a receipt counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Stored,
    Repeated,
    Refused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    stored: u32,
    repeated: u32,
    refused: u32,
    /// Orders studies by when they were touched last.
    touched: u64,
}

/// An open receipt.
pub(crate) struct OpenReceipt {
    pub(crate) id: ReceiptId,
    pub(crate) sender: Sender,
    pub(crate) profile: Arc<Profile>,
    opened_at_ms: u64,
    state: Mutex<State>,
}

struct State {
    studies: HashMap<String, Counts>,
    touches: u64,
    used: Duration,
    /// Stores under way.
    busy: u32,
    /// Set when it ended and its events could not be appended: they are tried again.
    ended: Option<ReceiptEnd>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenReceipt {
    /// What its events belong to.
    pub(crate) fn context(&self) -> Context {
        Context { traceparent: self.sender.traceparent.clone(), correlation: Some(self.id), ..Context::default() }
    }

    /// The sender as events carry it.
    pub(crate) fn in_event(&self) -> events::Receipt {
        events::Receipt {
            receipt_id: self.id.as_bytes().to_vec().into(),
            door: self.sender.door as i32,
            calling_ae_title: self.sender.calling_ae_title.clone(),
            called_ae_title: self.sender.called_ae_title.clone(),
            peer_address: self.sender.peer_address.clone(),
            implementation_class_uid: self.sender.implementation_class_uid.clone(),
            implementation_version_name: self.sender.implementation_version_name.clone(),
        }
    }

    /// The profile as events carry it, with the issuer that the data set names, if any.
    pub(crate) fn profile_in_event(&self, issuer_in_data_set: Option<String>) -> SenderProfile {
        let profile = &self.profile;
        let (issuer, rule) = match (issuer_in_data_set, &self.sender.issuer_of_patient_id) {
            (Some(issuer), _) => (issuer, "data-set".to_owned()),
            (None, Some(issuer)) => (issuer.clone(), "receipt".to_owned()),
            (None, None) => (profile.issuer_of_patient_id.clone(), profile.issuer_rule.clone()),
        };
        SenderProfile {
            issuer_of_patient_id: issuer,
            issuer_rule: rule,
            default_character_set: profile.default_character_set.clone(),
            time_zone: profile.time_zone.clone(),
            resend_policy: profile.resend_policy as i32,
        }
    }

    /// Counts an instance. `study` is empty where it is not known. With too many studies the one touched longest ago
    /// is summed up now, in the event returned.
    pub(crate) fn count(&self, study: &str, counted: Counted, studies_max: usize) -> Option<Event> {
        let mut state = lock(&self.state);
        state.touches += 1;
        let touched = state.touches;
        let mut summed = None;
        if state.studies.len() >= studies_max.max(1) && !state.studies.contains_key(study) {
            let oldest = state.studies.iter().min_by_key(|(_, counts)| counts.touched).map(|(study, _)| study.clone());
            summed = oldest.and_then(|study| state.studies.remove_entry(&study));
        }
        let counts = state.studies.entry(study.to_owned()).or_default();
        counts.touched = touched;
        let count = match counted {
            Counted::Stored => &mut counts.stored,
            Counted::Repeated => &mut counts.repeated,
            Counted::Refused => &mut counts.refused,
        };
        *count = count.saturating_add(1);
        drop(state);
        summed.map(|(study, counts)| self.sum(study, counts, ReceiptEnd::Unspecified))
    }

    fn sum(&self, study_instance_uid: String, counts: Counts, end: ReceiptEnd) -> Event {
        Event::ReceiptClosed(ReceiptClosed {
            tenant: self.sender.tenant.clone(),
            receipt: Some(self.in_event()),
            study_instance_uid,
            stored: counts.stored,
            repeated: counts.repeated,
            refused: counts.refused,
            opened_at_ms: self.opened_at_ms,
            end: end as i32,
        })
    }

    /// How it ended, where that is known.
    pub(crate) fn ended(&self) -> Option<ReceiptEnd> {
        lock(&self.state).ended
    }

    /// The events that close it, by study. Nothing was counted: none.
    pub(crate) fn sums(&self, end: ReceiptEnd) -> Vec<(String, Event)> {
        let studies: Vec<_> = lock(&self.state).studies.iter().map(|(s, c)| (s.clone(), *c)).collect();
        let mut sums: Vec<_> = studies.into_iter().map(|(s, c)| (s.clone(), self.sum(s, c, end))).collect();
        sums.sort_by(|(a, _), (b, _)| a.cmp(b));
        sums
    }

    /// Takes a study off the list: its event is a fact.
    pub(crate) fn forget(&self, study: &str) {
        lock(&self.state).studies.remove(study);
    }
}

/// Marks a receipt as in use by one store.
pub(crate) struct InUse(pub(crate) Arc<OpenReceipt>);

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.busy = state.busy.saturating_sub(1);
    }
}

/// The table of open receipts, bounded.
pub(crate) struct Receipts {
    open: Mutex<HashMap<ReceiptId, Arc<OpenReceipt>>>,
    config: ReceiptConfig,
}

impl Receipts {
    pub(crate) fn new(config: ReceiptConfig) -> Self {
        Self { open: Mutex::default(), config }
    }

    /// Opens a receipt. Receipts that ended, or are idle for too long, make room; they are returned, to be closed.
    pub(crate) fn open(
        &self,
        id: ReceiptId,
        sender: Sender,
        profile: Arc<Profile>,
        opened_at_ms: u64,
        now: Duration,
    ) -> Result<Vec<Arc<OpenReceipt>>, Error> {
        let mut open = lock(&self.open);
        let mut idle = Vec::new();
        if open.len() >= self.config.open_max {
            let is_idle = |receipt: &OpenReceipt| {
                let state = lock(&receipt.state);
                let idle = state.busy == 0 && now.saturating_sub(state.used) > self.config.idle_max;
                idle || state.ended.is_some()
            };
            open.retain(|_, receipt| {
                let keep = !is_idle(receipt);
                if !keep {
                    idle.push(receipt.clone());
                }
                keep
            });
        }
        if open.len() >= self.config.open_max {
            return Err(Error::new(ErrorKind::Exhausted, "too many associations, requests and imports at once"));
        }
        let state = State { studies: HashMap::new(), touches: 0, used: now, busy: 0, ended: None };
        open.insert(id, Arc::new(OpenReceipt { id, sender, profile, opened_at_ms, state: Mutex::new(state) }));
        metrics::receipts_open(open.len());
        Ok(idle)
    }

    /// The receipt, for one store.
    pub(crate) fn use_one(&self, id: ReceiptId, now: Duration) -> Result<InUse, Error> {
        let receipt = lock(&self.open).get(&id).cloned().ok_or_else(|| not_open(id))?;
        let mut state = lock(&receipt.state);
        state.used = now;
        state.busy = state.busy.saturating_add(1);
        drop(state);
        Ok(InUse(receipt))
    }

    /// Takes the receipt out of the table.
    pub(crate) fn close(&self, id: ReceiptId) -> Result<Arc<OpenReceipt>, Error> {
        let mut open = lock(&self.open);
        let receipt = open.remove(&id).ok_or_else(|| not_open(id))?;
        metrics::receipts_open(open.len());
        Ok(receipt)
    }

    /// Puts back a receipt whose events could not be appended, so that they can be tried again.
    pub(crate) fn put_back(&self, receipt: Arc<OpenReceipt>, end: ReceiptEnd) {
        lock(&receipt.state).ended = Some(end);
        lock(&self.open).insert(receipt.id, receipt);
    }

    /// Takes out a receipt that ended and is still to be summed up.
    pub(crate) fn take_ended(&self) -> Option<(Arc<OpenReceipt>, ReceiptEnd)> {
        let mut open = lock(&self.open);
        let (id, end) = open.iter().find_map(|(id, receipt)| Some((*id, lock(&receipt.state).ended?)))?;
        Some((open.remove(&id)?, end))
    }

    /// Takes out all receipts.
    pub(crate) fn drain(&self) -> Vec<Arc<OpenReceipt>> {
        lock(&self.open).drain().map(|(_, receipt)| receipt).collect()
    }
}

fn not_open(id: ReceiptId) -> Error {
    Error::new(ErrorKind::NotFound, format!("receipt {id} is not open"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_archive::events::Door;

    fn sender() -> Sender {
        Sender {
            tenant: "default".into(),
            door: Door::Dimse,
            calling_ae_title: "CT1".into(),
            called_ae_title: "CAIRN".into(),
            peer_address: "127.0.0.1:1".into(),
            implementation_class_uid: "1.2".into(),
            implementation_version_name: "V".into(),
            traceparent: None,
            issuer_of_patient_id: None,
            confirmed_sites: 0,
        }
    }

    fn id(n: u128) -> ReceiptId {
        ReceiptId(uuid::Uuid::from_u128(n))
    }

    fn receipts(open_max: usize) -> Receipts {
        Receipts::new(ReceiptConfig { open_max, studies_max: 2, idle_max: Duration::from_secs(10) })
    }

    fn open(receipts: &Receipts, n: u128, at: u64) -> Result<usize, Error> {
        let profile = crate::config::IngestConfig::default().profile(&std::collections::BTreeMap::new(), "CT1", None);
        receipts.open(id(n), sender(), profile, 0, Duration::from_secs(at)).map(|idle| idle.len())
    }

    fn closed(event: &Event) -> (&str, u32, u32, u32) {
        let Event::ReceiptClosed(event) = event else { panic!("another event: {event:?}") };
        (&event.study_instance_uid, event.stored, event.repeated, event.refused)
    }

    #[test]
    fn counts_are_summed_up_per_study_and_studies_are_bounded() {
        let receipts = receipts(8);
        open(&receipts, 1, 0).expect("room");
        let receipt = receipts.use_one(id(1), Duration::ZERO).expect("open");
        assert_eq!(receipt.0.count("1.1", Counted::Stored, 2), None);
        assert_eq!(receipt.0.count("1.2", Counted::Repeated, 2), None);
        assert_eq!(receipt.0.count("1.1", Counted::Refused, 2), None);
        let summed = receipt.0.count("1.3", Counted::Stored, 2).expect("the study touched longest ago");
        assert_eq!(closed(&summed), ("1.2", 0, 1, 0));
        let sums = receipts.close(id(1)).expect("open").sums(ReceiptEnd::Completed);
        assert_eq!(sums.iter().map(|(_, e)| closed(e)).collect::<Vec<_>>(), [("1.1", 1, 0, 1), ("1.3", 1, 0, 0)]);
        assert_eq!(receipts.close(id(1)).err().map(|e| e.kind), Some(ErrorKind::NotFound));
    }

    #[test]
    fn the_table_is_bounded_and_only_idle_receipts_make_room() {
        let receipts = receipts(2);
        open(&receipts, 1, 0).expect("room");
        open(&receipts, 2, 0).expect("room");
        assert_eq!(open(&receipts, 3, 5).err().map(|e| e.kind), Some(ErrorKind::Exhausted));
        let busy = receipts.use_one(id(1), Duration::ZERO).expect("open");
        assert_eq!(open(&receipts, 3, 11).expect("one was idle"), 1);
        assert!(receipts.use_one(id(1), Duration::from_secs(11)).is_ok());
        assert!(receipts.use_one(id(2), Duration::from_secs(11)).is_err());
        drop(busy);
    }
}
