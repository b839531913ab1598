//! One identity (study, series, SOP Instance UID): its versions, and which of them is shown.

use super::{Condition, Erasing, EventOrder, Rejected, Revoked, Stamp};
use crate::{
    ids::{Digest, EventId, ObjectKey},
    rejection::Titles,
};
use bytes::Bytes;

/// An object as an event names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Key.
    pub key: ObjectKey,
    /// Length in bytes.
    pub length: u64,
    /// BLAKE3-256 of all bytes.
    pub digest: Digest,
}

/// What happens to a version that conflicts with one that is there (design: section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Resend {
    /// The first stays shown.
    #[default]
    Keep,
    /// A correction by its origin is shown.
    SupersedeSameSource,
    /// Kept, not shown.
    Refuse,
}

/// Where the frame and bulk data tables of a version are.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum TablesAt {
    /// There are none.
    #[default]
    Nowhere,
    /// In the version's row: encoded frame table and bulk data entries.
    Here(Bytes),
    /// In a row of their own.
    Apart,
}

/// One stored version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The store event.
    pub order: EventOrder,
    /// Where the log stood; local.
    pub stamp: Stamp,
    /// The repair that says so in place of the event itself.
    pub by: Option<EventId>,
    /// Its bytes.
    pub object: StoredObject,
    /// SOP Class UID.
    pub sop_class_uid: String,
    /// Transfer Syntax UID.
    pub transfer_syntax_uid: String,
    /// Offset in the object at which the data set begins.
    pub data_set_offset: u64,
    /// Offset in the object of the Pixel Data value; 0: none.
    pub pixel_data_offset: u64,
    /// Frames; 0 without Pixel Data.
    pub frames: u32,
    /// InstanceNumber, where it is a number.
    pub instance_number: Option<i64>,
    /// Object with what did not fit in the event.
    pub side_object: Option<StoredObject>,
    /// Calling AE title of the sender.
    pub calling_ae_title: String,
    /// Issuer of Patient ID that applies.
    pub issuer_of_patient_id: String,
    /// Character set assumed where the header names none.
    pub default_character_set: String,
    /// Time zone assumed where the header names none.
    pub time_zone: String,
    /// The re-send policy applied.
    pub resend: Resend,
    /// Whether the index keeps a header of it.
    pub has_header: bool,
    /// Whether what its event said of the patient is gone with its key: it is erased, whatever else is known.
    pub is_shredded: bool,
    /// Its tables.
    pub tables: TablesAt,
}

/// What comparing the bytes of two versions said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same content, encoded otherwise.
    AnotherEncoding,
    /// Different content.
    Different,
}

/// Two versions were compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The event.
    pub order: EventOrder,
    /// Where the log stood; local.
    pub stamp: Stamp,
    /// The repair that says so in place of the event itself.
    pub by: Option<EventId>,
    /// Store event of one.
    pub first: EventId,
    /// Store event of the other.
    pub second: EventId,
    /// What the bytes said.
    pub verdict: Verdict,
}

/// An operator chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The event.
    pub order: EventOrder,
    /// Where the log stood; local.
    pub stamp: Stamp,
    /// The repair that says so in place of the event itself.
    pub by: Option<EventId>,
    /// Store event of the version to show.
    pub store_event: EventId,
}

/// One fact about an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A version was stored.
    Stored(Box<Version>),
    /// Versions were compared.
    Compared(Compared),
    /// A version was chosen.
    Chosen(Chosen),
    /// A note rejected it.
    Rejected(Rejected),
    /// A rejection was taken back.
    Revoked(Revoked),
    /// Its bytes were found damaged at a site, or whole again.
    Condition(Condition),
    /// An erasure names it.
    Erasing(Erasing),
}

/// One fact of an [`InstanceState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactRef<'a> {
    /// A version was stored.
    Stored(&'a Version),
    /// Versions were compared.
    Compared(&'a Compared),
    /// A version was chosen.
    Chosen(&'a Chosen),
    /// A note rejected it.
    Rejected(&'a Rejected),
    /// A rejection was taken back.
    Revoked(&'a Revoked),
    /// Its bytes were found damaged at a site, or whole again.
    Condition(&'a Condition),
    /// An erasure names it.
    Erasing(&'a Erasing),
}

impl Fact {
    /// The same, borrowed.
    pub fn as_ref(&self) -> FactRef<'_> {
        match self {
            Self::Stored(version) => FactRef::Stored(version),
            Self::Compared(compared) => FactRef::Compared(compared),
            Self::Chosen(chosen) => FactRef::Chosen(chosen),
            Self::Rejected(rejected) => FactRef::Rejected(rejected),
            Self::Revoked(revoked) => FactRef::Revoked(revoked),
            Self::Condition(condition) => FactRef::Condition(condition),
            Self::Erasing(erasing) => FactRef::Erasing(erasing),
        }
    }

    /// The event that says so.
    pub fn order(&self) -> &EventOrder {
        match self {
            Self::Stored(version) => &version.order,
            Self::Compared(compared) => &compared.order,
            Self::Chosen(chosen) => &chosen.order,
            Self::Rejected(rejected) => &rejected.order,
            Self::Revoked(revoked) => &revoked.order,
            Self::Condition(condition) => &condition.order,
            Self::Erasing(erasing) => &erasing.order,
        }
    }

    /// Where the log stood when it was folded.
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::Stored(version) => version.stamp,
            Self::Compared(compared) => compared.stamp,
            Self::Chosen(chosen) => chosen.stamp,
            Self::Rejected(rejected) => rejected.stamp,
            Self::Revoked(revoked) => revoked.stamp,
            Self::Condition(condition) => condition.stamp,
            Self::Erasing(erasing) => erasing.stamp,
        }
    }
}

impl FactRef<'_> {
    /// The event that says so: the one whose place the fact has, or its repair.
    pub fn said_by(self) -> EventId {
        let (order, by) = match self {
            Self::Stored(version) => (&version.order, version.by),
            Self::Compared(compared) => (&compared.order, compared.by),
            Self::Chosen(chosen) => (&chosen.order, chosen.by),
            Self::Rejected(rejected) => (&rejected.order, rejected.by),
            Self::Revoked(revoked) => (&revoked.order, revoked.by),
            Self::Condition(condition) => (&condition.order, condition.by),
            Self::Erasing(erasing) => (&erasing.order, erasing.by),
        };
        by.unwrap_or(order.id)
    }

    /// Whether it is all that its event says. An event about several instances leaves a trace, and that stands for it.
    pub fn is_whole_event(self) -> bool {
        !matches!(self, Self::Rejected(_) | Self::Revoked(_) | Self::Erasing(_))
    }
}

impl Version {
    /// The event that says so: the one whose place the version has, or its repair. Names the version's rows.
    pub fn said_by(&self) -> EventId {
        FactRef::Stored(self).said_by()
    }
}

/// What became of a fact that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Nothing was known in its place.
    New,
    /// It counts instead of what a repair said.
    Instead,
    /// What was known stays.
    Not,
}

/// Why a version is the one shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// It is the first live one.
    First,
    /// It corrects this one, by its sender's policy.
    Corrects(EventId),
    /// By this choice.
    Chosen(EventId),
    /// It has the same bytes as this one, which would be shown if its own were not damaged.
    Whole(EventId),
}

/// How the versions of one identity relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// All have the same bytes.
    Same,
    /// All have the same content.
    AnotherEncoding,
    /// Some were not compared yet, as far as known none differs.
    NotComparedYet,
    /// Contents differ.
    Content,
}

/// All that is known under one identity: a set of facts, each in event order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceState {
    versions: Vec<Version>,
    compared: Vec<Compared>,
    chosen: Vec<Chosen>,
    rejected: Vec<Rejected>,
    revoked: Vec<Revoked>,
    conditions: Vec<Condition>,
    erasing: Vec<Erasing>,
    /// Versions that are erased, apart from those that are there.
    erased: Vec<Version>,
}

impl InstanceState {
    /// From facts in any order.
    pub fn from_facts(facts: impl IntoIterator<Item = Fact>) -> Self {
        let mut state = Self::default();
        facts.into_iter().for_each(|fact| {
            state.insert(fact);
        });
        state
    }

    /// Adds a fact. Of those in one place the event itself counts, else the first of its repairs by `ce_id`.
    pub fn insert(&mut self, fact: Fact) -> Inserted {
        fn insert<T>(list: &mut Vec<T>, item: T, place: impl Fn(&T) -> (&EventOrder, Option<EventId>)) -> Inserted {
            let found = list.binary_search_by(|other| place(other).0.cmp(place(&item).0));
            match found.map(|at| list.get_mut(at).ok_or(at)) {
                Ok(Ok(known)) if place(&item).1 < place(known).1 => {
                    *known = item;
                    Inserted::Instead
                }
                Ok(_) => Inserted::Not,
                Err(at) => {
                    list.insert(at, item);
                    Inserted::New
                }
            }
        }
        match fact {
            Fact::Stored(version) => {
                let is_erased = version.is_shredded || self.is_erased(version.order.id);
                let (list, other) = match is_erased {
                    true => (&mut self.erased, &self.versions),
                    false => (&mut self.versions, &self.erased),
                };
                // A log may have an event twice, and its key may go between reading one and the other.
                if other.iter().any(|known| known.order == version.order) {
                    return Inserted::Not;
                }
                insert(list, *version, |version| (&version.order, version.by))
            }
            Fact::Compared(compared) => insert(&mut self.compared, compared, |compared| (&compared.order, compared.by)),
            Fact::Chosen(chosen) => insert(&mut self.chosen, chosen, |chosen| (&chosen.order, chosen.by)),
            Fact::Rejected(rejected) => insert(&mut self.rejected, rejected, |rejected| (&rejected.order, rejected.by)),
            Fact::Revoked(revoked) => insert(&mut self.revoked, revoked, |revoked| (&revoked.order, revoked.by)),
            Fact::Condition(condition) => insert(&mut self.conditions, condition, |other| (&other.order, other.by)),
            Fact::Erasing(erasing) => {
                let inserted = insert(&mut self.erasing, erasing, |erasing| (&erasing.order, erasing.by));
                self.part_the_erased();
                inserted
            }
        }
    }

    /// Versions that are erased are apart from those that are there.
    fn part_the_erased(&mut self) {
        let mut all = std::mem::take(&mut self.versions);
        all.append(&mut self.erased);
        all.sort_by(|a, b| a.order.cmp(&b.order));
        let is_erased = |version: &Version| version.is_shredded || self.is_erased(version.order.id);
        (self.erased, self.versions) = all.into_iter().partition(is_erased);
    }

    /// Whether what this event stored is erased, before or after it came here.
    pub fn is_erased(&self, store_event: EventId) -> bool {
        self.erasing.iter().any(|erasing| erasing.is_done && erasing.store_events.contains(&store_event))
    }

    /// Whether somebody asked that what this event stored be erased, so that what comes again is stored again.
    pub fn is_to_be_erased(&self, store_event: EventId) -> bool {
        self.erasing.iter().any(|erasing| erasing.store_events.contains(&store_event))
    }

    /// The fact that an event says ([`FactRef::said_by`]).
    pub fn fact(&self, event: EventId) -> Option<FactRef<'_>> {
        let versions = self.versions.iter().chain(&self.erased).map(FactRef::Stored);
        let compared = self.compared.iter().map(FactRef::Compared);
        let chosen = self.chosen.iter().map(FactRef::Chosen);
        let rejected = self.rejected.iter().map(FactRef::Rejected);
        let revoked = self.revoked.iter().map(FactRef::Revoked);
        let conditions = self.conditions.iter().map(FactRef::Condition);
        let erasing = self.erasing.iter().map(FactRef::Erasing);
        let facts = versions.chain(compared).chain(chosen).chain(rejected).chain(revoked);
        let mut facts = facts.chain(conditions).chain(erasing);
        facts.find(|fact| fact.said_by() == event)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
            && self.compared.is_empty()
            && self.chosen.is_empty()
            && self.rejected.is_empty()
            && self.revoked.is_empty()
            && self.conditions.is_empty()
            && self.erasing.is_empty()
            && self.erased.is_empty()
    }

    /// Versions in event order; those that are erased are not among them.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Bytes of all objects of these versions.
    pub fn bytes(&self) -> u64 {
        let objects = self.versions.iter().flat_map(|version| [Some(&version.object), version.side_object.as_ref()]);
        objects.flatten().map(|object| object.length).sum()
    }

    /// Versions that are erased, in event order.
    pub fn erased(&self) -> &[Version] {
        &self.erased
    }

    /// The version that this event stored.
    pub fn version(&self, store_event: EventId) -> Option<&Version> {
        self.versions.iter().find(|version| version.order.id == store_event)
    }

    /// Rejections, in event order.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Revocations of rejections, in event order.
    pub fn revoked(&self) -> &[Revoked] {
        &self.revoked
    }

    /// Whether a rejection was taken back, before or after it came here.
    pub fn is_revoked(&self, rejection: &Rejected) -> bool {
        self.revoked.iter().any(|revoked| revoked.rejection == rejection.order.id)
    }

    /// The titles under which a version is rejected; none: it is live.
    pub fn titles(&self, version: &Version) -> Titles {
        let hiding = self.rejected.iter().filter(|rejected| rejected.hides(version.order.id));
        hiding.filter(|rejected| !self.is_revoked(rejected)).map(|rejected| rejected.title).collect()
    }

    /// Whether the bytes of a version are damaged or gone at some site, as far as that was said last.
    pub fn is_damaged(&self, version: &Version) -> bool {
        let said = || self.conditions.iter().filter(|condition| condition.store_event == version.order.id);
        said().any(|condition| {
            let last = said().filter(|other| other.site == condition.site).map(|other| &other.order).max();
            condition.damaged && last == Some(&condition.order)
        })
    }

    /// Whether versions are there, and none of them is live.
    pub fn is_hidden(&self) -> bool {
        !self.versions.is_empty() && self.shown().is_none()
    }

    /// The version shown: the first live one in event order, unless a superseding decision says otherwise; or, where the bytes
    /// of that are damaged, the first live one that has the same bytes whole.
    pub fn shown(&self) -> Option<&Version> {
        self.shown_because().map(|(version, _)| version)
    }

    /// The version shown, and why.
    pub fn shown_because(&self) -> Option<(&Version, Because)> {
        let live = |version: &Version| self.titles(version).is_empty();
        let (shown, because) = self.shown_of(live)?;
        let same = |other: &&Version| other.object.digest == shown.object.digest && !self.is_damaged(other);
        let whole = || self.versions.iter().filter(|version| live(version)).find(same);
        let instead = if self.is_damaged(shown) { whole() } else { None };
        Some(instead.map_or((shown, because), |whole| (whole, Because::Whole(shown.order.id))))
    }

    /// The version shown to those whom these titles hide nothing from: the one that everybody is shown, else the one that
    /// would be if nothing were rejected, unless other titles hide that.
    pub fn shown_to(&self, sees: Titles) -> Option<&Version> {
        let rejected = || {
            let (version, _) = self.shown_of(|_| true)?;
            sees.contain(self.titles(version)).then_some(version)
        };
        self.shown().or_else(|| if sees.is_empty() { None } else { rejected() })
    }

    /// Corrections and choices take effect in event order, so that a correction that came after an operator's choice
    /// is shown, and a choice after a correction overrules it.
    fn shown_of(&self, counts: impl Fn(&Version) -> bool) -> Option<(&Version, Because)> {
        let chosen = |choice: &Chosen| {
            let version = self.version(choice.store_event).filter(|version| counts(version))?;
            Some((version, Because::Chosen(choice.order.id)))
        };
        let mut shown: Option<(&Version, Because)> = None;
        let mut choices = self.chosen.iter().peekable();
        for version in self.versions.iter().filter(|version| counts(version)) {
            while let Some(choice) = choices.next_if(|choice| choice.order < version.order) {
                shown = chosen(choice).or(shown);
            }
            shown = Some(match shown {
                None => (version, Because::First),
                Some((shown, _)) if self.supersedes(version, shown) => (version, Because::Corrects(shown.order.id)),
                Some(shown) => shown,
            });
        }
        choices.fold(shown, |shown, choice| chosen(choice).or(shown))
    }

    fn supersedes(&self, version: &Version, shown: &Version) -> bool {
        let same = |own: &str, other: &str| !own.is_empty() && own == other;
        version.resend == Resend::SupersedeSameSource
            && (same(&version.calling_ae_title, &shown.calling_ae_title)
                || same(&version.issuer_of_patient_id, &shown.issuer_of_patient_id))
            && !self.has_same_content(version, shown)
    }

    fn verdict(&self, a: &Version, b: &Version) -> Option<Verdict> {
        if a.object.digest == b.object.digest {
            return Some(Verdict::AnotherEncoding);
        }
        let pair = |compared: &&Compared| {
            let digest = |id| self.version(id).map(|version| version.object.digest);
            let (first, second) = (digest(compared.first), digest(compared.second));
            let (a, b) = (Some(a.object.digest), Some(b.object.digest));
            (first, second) == (a, b) || (first, second) == (b, a)
        };
        // The latest word counts, should there be several.
        self.compared.iter().rev().find(pair).map(|compared| compared.verdict)
    }

    /// Whether two versions are known to have the same content, directly or through others.
    pub fn has_same_content(&self, a: &Version, b: &Version) -> bool {
        if a.object.digest == b.object.digest {
            return true;
        }
        if self.compared.is_empty() {
            return false;
        }
        let mut reached = vec![a];
        let mut at = 0;
        while let Some(from) = reached.get(at).copied() {
            at += 1;
            for to in &self.versions {
                let known = reached.iter().any(|other| other.order.id == to.order.id);
                if !known && self.verdict(from, to) == Some(Verdict::AnotherEncoding) {
                    reached.push(to);
                }
            }
        }
        reached.iter().any(|version| version.object.digest == b.object.digest)
    }

    /// How the live versions relate.
    pub fn relation(&self) -> Relation {
        let live = || self.versions.iter().filter(|version| self.titles(version).is_empty());
        let Some(first) = live().next() else { return Relation::Same };
        let mut worst = Relation::Same;
        for version in live().filter(|version| version.object.digest != first.object.digest) {
            let relation = if self.has_same_content(first, version) {
                Relation::AnotherEncoding
            } else if live().any(|other| self.verdict(other, version) == Some(Verdict::Different)) {
                Relation::Content
            } else {
                Relation::NotComparedYet
            };
            worst = worst.max(relation);
        }
        worst
    }

    /// Hash of the canonical state; `None` while nothing is known.
    pub fn hash(&self, series_instance_uid: &str, sop_instance_uid: &str) -> Option<[u8; 32]> {
        fn text(out: &mut Vec<u8>, text: &str) {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        if self.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(512);
        text(&mut out, series_instance_uid);
        text(&mut out, sop_instance_uid);
        for version in self.versions.iter().chain(&self.erased) {
            text(&mut out, &version.sop_class_uid);
            text(&mut out, &version.transfer_syntax_uid);
            text(&mut out, &version.calling_ae_title);
            text(&mut out, &version.issuer_of_patient_id);
            text(&mut out, &version.default_character_set);
            text(&mut out, &version.time_zone);
            out.extend_from_slice(version.order.id.as_bytes());
            out.extend_from_slice(version.object.key.as_bytes());
            out.extend_from_slice(&version.object.digest.0);
            for number in [version.object.length, version.data_set_offset, version.pixel_data_offset] {
                out.extend(number.to_le_bytes());
            }
            out.push(version.resend as u8);
        }
        // What the header says may be gone of those that are erased, and may not.
        for version in &self.versions {
            out.push(u8::from(version.has_header));
            out.extend(version.frames.to_le_bytes());
        }
        for compared in &self.compared {
            for id in [&compared.order.id, &compared.first, &compared.second] {
                out.extend_from_slice(id.as_bytes());
            }
            out.push(compared.verdict as u8);
        }
        for chosen in &self.chosen {
            out.extend_from_slice(chosen.order.id.as_bytes());
            out.extend_from_slice(chosen.store_event.as_bytes());
        }
        for rejected in &self.rejected {
            out.extend_from_slice(rejected.order.id.as_bytes());
            out.push(rejected.title as u8);
            out.extend((rejected.store_events.len() as u64).to_le_bytes());
            rejected.store_events.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
        }
        for revoked in &self.revoked {
            out.extend_from_slice(revoked.order.id.as_bytes());
            out.extend_from_slice(revoked.rejection.as_bytes());
        }
        for condition in &self.conditions {
            out.extend_from_slice(condition.order.id.as_bytes());
            out.extend_from_slice(condition.store_event.as_bytes());
            out.push(u8::from(condition.damaged));
            text(&mut out, &condition.site);
        }
        for erasing in &self.erasing {
            out.extend_from_slice(erasing.order.id.as_bytes());
            out.push(u8::from(erasing.is_done));
            out.extend((erasing.store_events.len() as u64).to_le_bytes());
            erasing.store_events.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
        }
        if let Some(shown) = self.shown() {
            out.extend_from_slice(shown.order.id.as_bytes());
        }
        Some(*blake3::hash(&out).as_bytes())
    }
}
