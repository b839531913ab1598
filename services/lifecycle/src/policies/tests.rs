//! Policies over the embedded log and stores and the index, with a clock that is set.

use super::{PolicyService, With};
use crate::{
    append::Appender,
    config::PoliciesConfig,
    retention::{
        RetentionService,
        tests::{DAY_MS, Site},
    },
};
use async_trait::async_trait;
use cairn_archive::{
    EventId, ObjectKey,
    erasure::Stage,
    events::{Event, InstanceProtected, InstanceStored, Object, ObjectTier, StudyMoved},
    policies::Action,
};
use cairn_index::{IndexConfig, IndexService};
use cairn_index_store_embedded::{EmbeddedIndexStore, IndexStoreConfig};
use cairn_process::clock::Clock;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Index, Policies, Retention, Tiering,
    policies::{Fate, Forecast, Halted, NewPolicy, PolicyRun, PolicyStatus, WhatIf},
    retention::{ErasureGrounds, NewHold},
    tiering::{NewMoves, QueuedMove, TierStatus, TieringStatus},
};
use cairn_store_api::{EventLog, IndexStore, Tier, WholeLog};
use futures_util::{TryStreamExt, stream};
use prost::Message;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tempfile::TempDir;

const TENANT: &str = "default";

/// A site whose index is kept too.
struct World {
    site: Site,
    rows: TempDir,
}

struct Opened {
    log: Arc<dyn EventLog>,
    rows: Arc<dyn IndexStore>,
    index: Arc<IndexService>,
    retention: Arc<RetentionService>,
    moves: Arc<Moves>,
    policies: PolicyService,
}

/// A site's two stores: what is asked waits, until it is moved by an event.
#[derive(Default)]
struct Moves {
    has_none: AtomicBool,
    asked: Mutex<Vec<NewMoves>>,
}

#[async_trait]
impl Tiering for Moves {
    async fn tiering(&self) -> Result<TieringStatus, Error> {
        let space = Err("it is away".to_owned());
        let tiers = match self.has_none.load(Ordering::Relaxed) {
            true => Vec::new(),
            false => vec![TierStatus { tier: Tier::Cold, space }],
        };
        Ok(TieringStatus { tiers, ..TieringStatus::default() })
    }

    async fn move_studies(&self, moves: NewMoves) -> Result<u64, Error> {
        let count = moves.studies.len() as u64;
        self.asked.lock().unwrap().push(moves);
        Ok(count)
    }

    async fn moves(&self) -> Result<AnswerStream<QueuedMove>, Error> {
        let asked = self.asked.lock().unwrap().clone();
        let queued = |of: NewMoves| {
            of.studies.into_iter().map(move |study_instance_uid| QueuedMove {
                place: 1,
                tenant: of.tenant.clone(),
                study_instance_uid,
                to: of.to,
                by: of.by.clone(),
                asked_at_ms: 0,
                is_under_way: false,
                failure: String::new(),
            })
        };
        Ok(Box::pin(stream::iter(asked.into_iter().flat_map(queued).map(Ok).collect::<Vec<_>>())))
    }
}

impl Moves {
    /// What was asked for since it was last looked: it waits no more.
    fn take(&self) -> Vec<NewMoves> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl World {
    fn new() -> Self {
        Self { site: Site::new(), rows: tempfile::tempdir().unwrap() }
    }

    async fn open(&self) -> Opened {
        let (log, notes, retention) = self.site.open_with_notes().await;
        let store = EmbeddedIndexStore::open(self.rows.path().into(), IndexStoreConfig::default()).await.unwrap();
        let rows: Arc<dyn IndexStore> = Arc::new(store);
        let share = Box::new(WholeLog::new(log.partitions()));
        let index = IndexService::open(log.clone(), rows.clone(), share, IndexConfig::default()).await.unwrap();
        let retention = Arc::new(retention);
        let clock = self.site.clocks.clone();
        let moves = Arc::new(Moves::default());
        let (to_ask, tiering) = (Some(index.clone() as Arc<dyn Index>), moves.clone());
        let with = With { retention: retention.clone(), index: to_ask, tiering, notes, clock };
        let policies = PolicyService::new(with, PoliciesConfig::default());
        Opened { log, rows, index, retention, moves, policies }
    }

    /// Says that the site moved a study.
    async fn moved(&self, opened: &Opened, study: u8, tier: ObjectTier) {
        self.site.clocks.pass(1);
        let appender = Appender::new(opened.log.clone(), self.site.clocks.clone());
        let moved = StudyMoved {
            tenant: TENANT.into(),
            study_instance_uid: uid(study),
            site: opened.log.site().to_string(),
            tier: tier.into(),
            asked_by: "policy:a".into(),
        };
        appender.append(&Event::StudyMoved(moved), None).await.unwrap();
    }

    /// Stores an instance that is a study of its own.
    async fn store(&self, opened: &Opened, study: u8, modality: &str) {
        let appender = Appender::new(opened.log.clone(), self.site.clocks.clone());
        let key = ObjectKey::from_slice(&[study; 16]).unwrap();
        self.site.objects.there.lock().unwrap().insert(key, 100);
        let header = [b"\x08\0\x60\0CS\x02\0".as_slice(), modality.as_bytes(), b"\x10\0\x20\0LO\x02\0P1"].concat();
        let stored = InstanceStored {
            tenant: TENANT.into(),
            study_instance_uid: uid(study),
            series_instance_uid: format!("{}.1", uid(study)),
            sop_instance_uid: format!("{}.1.1", uid(study)),
            sop_class_uid: "1.2.840.10008.5.1.4.1.1.7".into(),
            transfer_syntax_uid: "1.2.840.10008.1.2.1".into(),
            object: Some(Object { key: vec![study; 16].into(), length_bytes: 100, blake3: vec![1; 32].into() }),
            protected: InstanceProtected { header: header.into(), extractor_version: 1 }.encode_to_vec().into(),
            ..InstanceStored::default()
        };
        appender.append(&Event::InstanceStored(Box::new(stored)), None).await.unwrap();
    }
}

impl Opened {
    async fn close(self) {
        self.index.close().await.unwrap();
        self.rows.sync(true).await.unwrap();
    }

    async fn adopt(&self, expression: &str, studies_max: u64) -> u32 {
        self.policies.adopt_policy(policy(expression, studies_max)).await.unwrap()
    }

    /// What the last run of the policy came to, after a look.
    async fn looked(&self) -> PolicyRun {
        self.policies.look().await.unwrap();
        let all: Vec<PolicyStatus> = self.policies.policies().await.unwrap().try_collect().await.unwrap();
        all.into_iter().next_back().unwrap().last_run.unwrap()
    }

    async fn erasures(&self) -> Vec<(EventId, String, Stage)> {
        let all: Vec<_> = self.retention.erasures().await.unwrap().try_collect().await.unwrap();
        all.into_iter().map(|one| (one.id, one.study_instance_uid, one.stage)).collect()
    }

    async fn what_if(&self) -> Forecast {
        let of = WhatIf::Named { tenant: TENANT.into(), name: "a".into() };
        let parts: Vec<Forecast> = self.policies.what_if(of, 100).await.unwrap().try_collect().await.unwrap();
        let sums = parts.last().unwrap().sums;
        Forecast { sums, studies: parts.into_iter().flat_map(|part| part.studies).collect() }
    }
}

fn uid(study: u8) -> String {
    format!("1.2.3.{study}")
}

fn grounds() -> ErasureGrounds {
    ErasureGrounds { by: "operator".into(), reason: "a trial".into() }
}

fn policy(expression: &str, studies_max: u64) -> NewPolicy {
    let (expression, grounds) = (expression.to_owned(), grounds());
    NewPolicy { tenant: TENANT.into(), name: "a".into(), expression, studies_max, grounds, ..NewPolicy::default() }
}

#[tokio::test]
async fn what_is_meant_and_not_cold_is_moved_once_and_what_was_recalled_lately_is_left_alone() {
    let world = World::new();
    let opened = world.open().await;
    for (study, modality) in [(1, "CT"), (2, "MR"), (3, "CT")] {
        world.store(&opened, study, modality).await;
    }
    // What is held is moved too: nothing of it goes.
    let hold = NewHold { tenant: TENANT.into(), studies: vec![uid(3).parse().unwrap()], ..NewHold::default() };
    opened.retention.place_hold(hold).await.unwrap();
    let to_move = |studies_max| NewPolicy {
        action: Action::Move,
        delay_ms: 7 * DAY_MS,
        ..policy("'CT' in modalities", studies_max)
    };
    opened.policies.adopt_policy(to_move(1)).await.unwrap();
    let run = opened.looked().await;
    assert_eq!((run.halted, run.sums.due, run.sums.due_bytes), (Some(Halted::TooMany), 2, 200));
    assert!(opened.moves.take().is_empty());

    assert_eq!(opened.policies.adopt_policy(to_move(5)).await.unwrap(), 2);
    assert_eq!(opened.looked().await.asked, 2);
    let (asked, studies) =
        (opened.moves.asked.lock().unwrap().clone(), [1, 3].map(|study| uid(study).parse().unwrap()));
    let by = "policy:a".to_owned();
    assert_eq!(asked, [NewMoves { tenant: TENANT.into(), studies: studies.to_vec(), to: Tier::Cold, by }]);
    let fates = |forecast: Forecast| forecast.studies.into_iter().map(|one| one.fate).collect::<Vec<_>>();
    assert_eq!(fates(opened.what_if().await), [Fate::Waiting, Fate::Waiting]);

    // One is moved and one was moved and recalled; what comes of it later is not cold.
    opened.moves.take();
    world.moved(&opened, 1, ObjectTier::Cold).await;
    world.moved(&opened, 3, ObjectTier::Cold).await;
    world.moved(&opened, 3, ObjectTier::Hot).await;
    world.site.clocks.pass(7 * DAY_MS - 1);
    let run = opened.looked().await;
    assert_eq!((run.sums.matching, run.sums.left_alone, run.asked), (1, 1, 0));
    assert_eq!(fates(opened.what_if().await), [Fate::Recalled]);
    world.site.clocks.pass(1);
    assert_eq!(fates(opened.what_if().await), [Fate::Due]);
    assert!(opened.erasures().await.is_empty());
    opened.close().await;
}

#[tokio::test]
async fn a_site_with_one_store_moves_nothing() {
    let world = World::new();
    let opened = world.open().await;
    world.store(&opened, 1, "CT").await;
    opened.moves.has_none.store(true, Ordering::Relaxed);
    opened.policies.adopt_policy(NewPolicy { action: Action::Move, ..policy("true", 5) }).await.unwrap();
    assert_eq!(opened.looked().await.halted, Some(Halted::NoColdStore));
    assert!(opened.moves.take().is_empty());
    opened.close().await;
}

#[tokio::test]
async fn what_is_due_is_asked_for_once_and_what_is_held_or_was_withdrawn_is_left_alone() {
    let world = World::new();
    let opened = world.open().await;
    for (study, modality) in [(1, "CT"), (2, "MR"), (3, "CT")] {
        world.store(&opened, study, modality).await;
    }
    let hold = NewHold { tenant: TENANT.into(), studies: vec![uid(3).parse().unwrap()], ..NewHold::default() };
    let hold = opened.retention.place_hold(hold).await.unwrap();
    assert_eq!(opened.adopt("'CT' in modalities", 5).await, 1);

    let run = opened.looked().await;
    assert_eq!((run.version, run.asked, run.halted), (1, 1, None), "{run:?}");
    assert_eq!((run.sums.studies, run.sums.matching, run.sums.held), (3, 2, 1), "{run:?}");
    assert_eq!((run.sums.due, run.sums.due_bytes), (1, 100), "{run:?}");
    let [(erasure, study, Stage::Requested)]: [_; 1] = opened.erasures().await.try_into().unwrap() else { panic!() };
    assert_eq!(study, uid(1));
    let forecast = opened.what_if().await;
    let mut fates: Vec<_> =
        forecast.studies.iter().map(|one| (one.study.study_instance_uid.to_string(), one.fate)).collect();
    fates.sort_by(|(a, _), (b, _)| a.cmp(b));
    let held = Fate::Held(cairn_archive::holds::HeldBy::Hold(hold));
    assert_eq!(fates, [(uid(1), Fate::UnderWay(erasure)), (uid(3), held)]);

    // Not twice, neither before its time nor in it.
    for _ in 0..2 {
        world.site.clocks.pass(DAY_MS / 2);
        opened.looked().await;
        assert_eq!(opened.erasures().await.len(), 1);
    }
    opened.retention.withdraw_erasure(erasure, grounds()).await.unwrap();
    world.site.clocks.pass(DAY_MS);
    let run = opened.looked().await;
    assert_eq!((run.asked, run.sums.left_alone, run.sums.held), (0, 1, 1), "{run:?}");
    // Another version is another decision.
    assert_eq!(opened.adopt("'CT' in modalities", 6).await, 2);
    assert_eq!(opened.looked().await.asked, 1);
    assert_eq!(opened.erasures().await.len(), 2);

    opened.policies.withdraw_policy(TENANT, "a", grounds()).await.unwrap();
    let again = opened.policies.withdraw_policy(TENANT, "a", grounds()).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::NotFound);
    opened.retention.release_hold(hold, grounds()).await.unwrap();
    world.site.clocks.pass(DAY_MS);
    opened.policies.look().await.unwrap();
    assert_eq!(opened.erasures().await.len(), 2, "it is in force no more");
    opened.close().await;
}

#[tokio::test]
async fn a_policy_that_would_erase_more_than_its_bound_erases_nothing() {
    let world = World::new();
    let opened = world.open().await;
    for study in 1..=3 {
        world.store(&opened, study, "CT").await;
    }
    let refused = opened.policies.adopt_policy(policy("true", 0)).await.unwrap_err();
    assert!(refused.kind == ErrorKind::Invalid && refused.message.contains("bound"), "{refused:?}");
    for bad in [
        policy("true", u64::MAX),
        policy("color == 'red'", 1),
        policy("bytes", 1),
        NewPolicy { name: "a b".into(), ..policy("true", 1) },
        NewPolicy { name: String::new(), ..policy("true", 1) },
    ] {
        assert_eq!(opened.policies.adopt_policy(bad).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    opened.adopt("true", 2).await;
    let run = opened.looked().await;
    assert_eq!((run.asked, run.halted, run.sums.due), (0, Some(Halted::TooMany), 3));
    assert!(opened.erasures().await.is_empty());
    opened.adopt("true", 3).await;
    assert_eq!(opened.looked().await.asked, 3);
    opened.close().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_or_a_year_ahead_halts_policies_until_it_is_right_or_said_to_be() {
    let world = World::new();
    let clocks = &world.site.clocks;
    let opened = world.open().await;
    world.store(&opened, 1, "CT").await;
    opened.adopt("received_days >= 30", 5).await;
    assert_eq!(opened.looked().await.sums.matching, 0, "nothing is so old");
    let right = clocks.unix_ms();
    for wrong in [right + 365 * DAY_MS, right - DAY_MS] {
        clocks.set(wrong);
        clocks.pass(DAY_MS / 2);
        let run = opened.looked().await;
        assert_eq!((run.halted, run.asked), (Some(Halted::Clock), 0), "{wrong}");
    }
    // A restart does not make it right.
    opened.close().await;
    clocks.set(right + 365 * DAY_MS);
    let opened = world.open().await;
    assert_eq!(opened.looked().await.halted, Some(Halted::Clock));
    assert!(opened.erasures().await.is_empty());
    // Set right it is, with what passed meanwhile.
    clocks.set(right + DAY_MS);
    let run = opened.looked().await;
    assert_eq!((run.halted, run.sums.matching), (None, 0));
    // Time passes, and it is due.
    clocks.pass(31 * DAY_MS);
    assert_eq!(opened.looked().await.asked, 1);

    // What an operator knows to be right is.
    world.store(&opened, 2, "CT").await;
    clocks.set(clocks.unix_ms() + 365 * DAY_MS);
    assert_eq!(opened.looked().await.halted, Some(Halted::Clock));
    opened.policies.accept_clock(grounds()).await.unwrap();
    assert_eq!(opened.looked().await.asked, 1);
    // And so is one that was set back, which events made ahead of it do not speak against any more.
    world.store(&opened, 3, "CT").await;
    clocks.set(clocks.unix_ms() - 300 * DAY_MS);
    assert_eq!(opened.looked().await.halted, Some(Halted::Clock));
    opened.policies.accept_clock(grounds()).await.unwrap();
    clocks.pass(DAY_MS);
    let run = opened.looked().await;
    assert_eq!((run.halted, run.sums.due), (None, 0), "what came by a clock that was ahead is not old");
    opened.close().await;
}

#[tokio::test]
async fn what_was_asked_for_is_taken_back_where_it_is_not_meant_any_more() {
    let world = World::new();
    let opened = world.open().await;
    world.store(&opened, 1, "CT").await;
    world.site.clocks.pass(40 * DAY_MS);
    opened.policies.accept_clock(grounds()).await.unwrap();
    opened.adopt("received_days >= 30", 5).await;
    assert_eq!(opened.looked().await.asked, 1);
    // Something of the study comes while it could still be withdrawn.
    world.store(&opened, 1, "CT").await;
    world.site.clocks.pass(DAY_MS);
    let run = opened.looked().await;
    assert_eq!((run.taken_back, run.asked, run.sums.matching), (1, 0, 0), "{run:?}");
    assert_eq!(opened.erasures().await[0].2, Stage::Withdrawn);
    // Nobody left it alone: when it is old again it is asked for again.
    world.site.clocks.pass(30 * DAY_MS);
    let run = opened.looked().await;
    assert_eq!((run.asked, run.sums.left_alone), (1, 0), "{run:?}");
    opened.close().await;
}
