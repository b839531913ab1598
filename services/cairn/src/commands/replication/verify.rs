//! `cairn replication verify`: compares what two sites hold by their digest trees, from the whole down to single events.

use super::super::{
    Failure, index, server_address,
    table::{Cell, Rows},
};
use crate::cli::{Common, Output, ServerArgs};
use cairn_archive::{Digest, EventId, envelope::rfc3339};
use cairn_dicom::Uid;
use cairn_service_api::{
    AnswerStream, Error, Index,
    digests::{DigestTree, FoldedEvent, Of, StudyDigest},
};
use cairn_service_grpc::client::IndexClient;
use futures_util::{StreamExt, TryStreamExt, future::try_join};
use std::{cmp::Ordering, collections::HashMap};

/// Studies that are looked up at once.
const STUDIES_AT_ONCE: usize = 256;
/// Events whose origins are looked up at once.
const EVENTS_AT_ONCE: usize = 64;
/// How often a study is looked at again that changed meanwhile.
const LOOKS_MAX: u32 = 3;

const COLUMNS: [(&str, usize); 10] = [
    ("Tenant", 8),
    ("StudyInstanceUID", 44),
    ("Differs", 7),
    ("OnlyAt", 6),
    ("OnItsWay", 8),
    ("Type", 32),
    ("Event", 36),
    ("Origin", 24),
    ("HappenedAt", 24),
    ("SOPInstanceUID", 44),
];

/// One of the two sites.
struct Side {
    name: &'static str,
    address: String,
    index: IndexClient,
    tree: DigestTree,
}

impl Side {
    async fn ask(name: &'static str, server: &ServerArgs) -> Result<Self, Failure> {
        let (address, index) = (server_address(server), index(server)?);
        let tree = index.digest_tree().await?;
        Ok(Self { name, address, index, tree })
    }

    /// Digests of some studies, those that it has.
    async fn digests(&self, tenant: &str, studies: Vec<Uid>) -> Result<HashMap<Uid, StudyDigest>, Error> {
        let found = self.index.study_digests(tenant, Of::Studies(studies)).await?;
        found.map_ok(|digest| (digest.study_instance_uid.clone(), digest)).try_collect().await
    }

    /// The sums that stand for the whole.
    fn row(&self) -> [Cell; 5] {
        let (events, state) = self.tree.leaves.roots();
        [
            self.address.clone().into(),
            self.tree.site.to_string().into(),
            self.tree.leaves.total().studies.into(),
            Digest(events).to_string().into(),
            Digest(state).to_string().into(),
        ]
    }
}

/// Compares, and tells what differs, so many differences at most; 0: all.
pub async fn run(common: &Common, with: String, limit: u64) -> Result<(), Failure> {
    let there = ServerArgs { server: Some(with), ..common.server.clone() };
    let sides = try_join(Side::ask("here", &common.server), Side::ask("there", &there)).await?;
    let mut comparison = Comparison {
        tenant: common.server.tenant.clone(),
        sides: sides.into(),
        same_fold: false,
        rows: Rows::new(common.output, &COLUMNS),
        left: if limit == 0 { u64::MAX } else { limit },
        told: Told::default(),
    };
    comparison.same_fold = comparison.sides[0].tree.fold_version == comparison.sides[1].tree.fold_version;
    let leaves = comparison.differing_leaves();
    if leaves.is_empty() && comparison.same_fold {
        return equal(common.output, &comparison.sides);
    }
    comparison.among(&leaves).await?;
    comparison.rows.flush()?;
    comparison.verdict(leaves.len())
}

/// Says by which sums the two are equal.
fn equal(output: Output, sides: &[Side; 2]) -> Result<(), Failure> {
    let columns = [("Server", 28), ("Site", 12), ("Studies", 9), ("EventDigest", 64), ("StateDigest", 64)];
    let mut rows = Rows::new(output, &columns);
    for side in sides {
        rows.cells(&side.row())?;
    }
    rows.flush()
}

/// What was told so far.
#[derive(Default)]
struct Told {
    studies: u64,
    on_their_way: u64,
    really: u64,
    unknown: u64,
}

struct Comparison {
    tenant: String,
    sides: [Side; 2],
    same_fold: bool,
    rows: Rows,
    /// Differences that may still be told.
    left: u64,
    told: Told,
}

impl Comparison {
    fn differing_leaves(&self) -> Vec<u8> {
        let [here, there] = &self.sides;
        let differs = |leaf: &u8| {
            let (here, there) = (here.tree.leaves.get(*leaf), there.tree.leaves.get(*leaf));
            here.events != there.events || self.same_fold && here != there
        };
        (0..=u8::MAX).filter(differs).collect()
    }

    fn same(&self, one: &StudyDigest, other: &StudyDigest) -> bool {
        one.events == other.events && (one.state == other.state || !self.same_fold)
    }

    /// Studies of these leaves that differ: those of the one side, then those that only the other one has.
    async fn among(&mut self, leaves: &[u8]) -> Result<(), Failure> {
        for of in 0..2 {
            if leaves.is_empty() {
                return Ok(());
            }
            let digests = self.sides[of].index.study_digests(&self.tenant, Of::Leaves(leaves.to_vec())).await?;
            let mut pages = digests.try_chunks(STUDIES_AT_ONCE);
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| error.1)?;
                let uids = page.iter().map(|digest| digest.study_instance_uid.clone()).collect();
                let beside = self.sides[1 - of].digests(&self.tenant, uids).await?;
                for digest in page {
                    let differs = match beside.get(&digest.study_instance_uid) {
                        None => true,
                        Some(beside) => of == 0 && !self.same(&digest, beside),
                    };
                    if differs {
                        self.look_at(&digest.study_instance_uid).await?;
                    }
                    if self.left == 0 {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells in what a study differs, if it still does.
    async fn look_at(&mut self, study: &Uid) -> Result<(), Failure> {
        let before = self.left;
        for _ in 0..LOOKS_MAX {
            if self.events_of(study).await? {
                break;
            }
            let [here, there] = &self.sides;
            let digests = |side: &Side| {
                let (index, tenant, studies) = (side.index.clone(), self.tenant.clone(), vec![study.clone()]);
                async move { index.study_digests(&tenant, Of::Studies(studies)).await?.try_next().await }
            };
            let (here, there) = try_join(digests(here), digests(there)).await?;
            match (here, there) {
                (Some(here), Some(there)) if self.same(&here, &there) => return Ok(()),
                (Some(here), Some(there)) if here.events == there.events => {
                    self.tell(study, "state", None, "no", None)?;
                    break;
                }
                // It has grown meanwhile.
                _ => {}
            }
        }
        self.told.studies += u64::from(self.left < before);
        Ok(())
    }

    /// Tells of the events of a study that only one side has; whether there are any.
    async fn events_of(&mut self, study: &Uid) -> Result<bool, Failure> {
        let [here, there] = &self.sides;
        let events = |side: &Side| {
            let (index, tenant) = (side.index.clone(), self.tenant.clone());
            async move { index.study_events(&tenant, study, Vec::new()).await }
        };
        let (here, there) = try_join(events(here), events(there)).await?;
        let mut merge = Merge { of: [here, there], next: [None, None], begun: false };
        let (mut lacking, mut any) = ([Vec::new(), Vec::new()], false);
        while let Some((side, event)) = merge.next().await? {
            any = true;
            lacking[side].push(event.event);
            if lacking[side].len() == EVENTS_AT_ONCE {
                self.tell_events(study, side, std::mem::take(&mut lacking[side])).await?;
            }
            if self.left == 0 {
                return Ok(true);
            }
        }
        for (side, events) in lacking.into_iter().enumerate().filter(|(_, events)| !events.is_empty()) {
            self.tell_events(study, side, events).await?;
        }
        Ok(any)
    }

    async fn tell_events(&mut self, study: &Uid, side: usize, events: Vec<EventId>) -> Result<(), Failure> {
        let (own, other) = (&self.sides[side], &self.sides[1 - side]);
        let mut found = own.index.study_events(&self.tenant, study, events).await?;
        let (name, folded) = (own.name, other.tree.folded.clone());
        while let Some(event) = found.try_next().await? {
            // What the other one had folded before its events were asked for would have been among them.
            let on_its_way = match &event.origin {
                Some(origin) if folded.contains(origin) => "no",
                Some(_) => "yes",
                None => "unknown",
            };
            self.tell(study, "events", Some(name), on_its_way, Some(&event))?;
        }
        Ok(())
    }

    fn tell(
        &mut self,
        study: &Uid,
        differs: &str,
        only_at: Option<&str>,
        on_its_way: &str,
        event: Option<&FoldedEvent>,
    ) -> Result<(), Failure> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        match on_its_way {
            "yes" => self.told.on_their_way += 1,
            "no" => self.told.really += 1,
            _ => self.told.unknown += 1,
        }
        let text = |text: Option<String>| text.map_or(Cell::Absent, Cell::from);
        self.rows.cells(&[
            self.tenant.clone().into(),
            study.to_string().into(),
            differs.into(),
            text(only_at.map(str::to_owned)),
            on_its_way.into(),
            text(event.map(|event| event.kind.clone())),
            text(event.map(|event| event.event.to_string())),
            text(event.and_then(|event| event.origin.as_ref()).map(ToString::to_string)),
            text(event.map(|event| rfc3339(event.happened_at_ms))),
            text(event.and_then(|event| event.about.as_ref()).map(|(_, instance)| instance.to_string())),
        ])
    }

    fn verdict(&self, leaves: usize) -> Result<(), Failure> {
        let [here, there] = &self.sides;
        let names = format!("{} and {}", here.tree.site, there.tree.site);
        let Told { studies, on_their_way, really, unknown } = &self.told;
        let mut said = match (studies, leaves) {
            (0, 0) => format!("{names} have folded the same events"),
            (0, _) => format!(
                "{names} differ in {leaves} of 256 parts, and no study of tenant {} was found that does: either they are in \
                 step by now, or a study of which nothing is stored differs",
                self.tenant
            ),
            (studies, _) => {
                let least = if self.left == 0 { "at least " } else { "" };
                format!(
                    "{names} differ in {least}{studies} studies: {on_their_way} differences are on their way, {really} are \
                     not, of {unknown} it is not known"
                )
            }
        };
        if !self.same_fold {
            let versions = [here, there].map(|side| side.tree.fold_version);
            said += &format!("; state was not compared: they fold by versions {} and {}", versions[0], versions[1]);
        }
        Err(Failure::Differs(said))
    }
}

/// Events of both sides, in their common order.
struct Merge {
    of: [AnswerStream<FoldedEvent>; 2],
    next: [Option<FoldedEvent>; 2],
    begun: bool,
}

impl Merge {
    /// The next event that only one has, and which.
    async fn next(&mut self) -> Result<Option<(usize, FoldedEvent)>, Error> {
        if !std::mem::replace(&mut self.begun, true) {
            for side in 0..2 {
                self.next[side] = self.of[side].try_next().await?;
            }
        }
        loop {
            let order = match &self.next {
                [None, None] => return Ok(None),
                [Some(_), None] => Ordering::Less,
                [None, Some(_)] => Ordering::Greater,
                [Some(here), Some(there)] => here.order().cmp(&there.order()),
            };
            let only = match order {
                Ordering::Less => Some(0),
                Ordering::Greater => Some(1),
                Ordering::Equal => None,
            };
            let mut gone = None;
            for side in (0..2).filter(|side| only.is_none_or(|only| only == *side)) {
                let next = self.of[side].try_next().await?;
                gone = std::mem::replace(&mut self.next[side], next);
            }
            if let Some(event) = only.and(gone).map(|event| (only.unwrap_or_default(), event)) {
                return Ok(Some(event));
            }
        }
    }
}
