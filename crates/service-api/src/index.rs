//! Index: the query projections, and where instances are.

use crate::{
    AnswerStream, Error,
    digests::{DigestTree, FoldedEvent, Of, StudyDigest},
    parked::{ParkedEvent, ParkedSelection},
    patients::{FactsOf, KnownFact},
    survey::{Survey, Surveyed},
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, PositionVector,
    correction::InForce,
    events::{BulkDataEntry, FrameTable},
    rejection::Titles,
};
use cairn_dicom::{Tag, Uid, dataset::DataSet};
use cairn_store_api::ObjectRef;
use std::time::Duration;

/// Query/Retrieve level (PS3.4 section C.6, edition 2025c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// PATIENT
    Patient,
    /// STUDY
    Study,
    /// SERIES
    Series,
    /// IMAGE
    Instance,
}

/// What was negotiated or asked for beyond plain matching (PS3.4 section C.5.1.1, PS3.18 section 8.3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryOptions {
    /// Fuzzy semantic matching of person names.
    pub fuzzy_person_names: bool,
    /// Combined date-time matching.
    pub combined_date_time: bool,
    /// Time zone query adjustment.
    pub time_zone_adjustment: bool,
    /// Empty value matching (`""`).
    pub empty_value: bool,
    /// Multiple value matching.
    pub multiple_value: bool,
}

/// Which attributes an answer carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returning {
    /// Those that the identifier names (C-FIND).
    Keys,
    /// The default ones of QIDO-RS at the level and above (PS3.18 section 10.6.3.3), those that the identifier names,
    /// and these.
    DefaultAnd(Vec<Tag>),
    /// Everything that the index has at the level and above (`includefield=all`).
    All,
}

/// A query. Whatever the level, keys of every level may be given (relational); doors enforce hierarchical rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Whose instances.
    pub tenant: String,
    /// What one answer stands for.
    pub level: Level,
    /// Matching keys and, with empty values, return keys. Text is decoded; there is no (0008,0005), here nor in answers:
    /// which character set an answer travels in is the door's to say. An answer has each key, with no value where there is
    /// none; it lacks those that are not supported at the level, the same ones in every answer.
    pub identifier: DataSet,
    /// What was negotiated.
    pub options: QueryOptions,
    /// Which attributes to answer with.
    pub returning: Returning,
    /// Answers to pass over, in the stable order.
    pub offset: u64,
    /// Answers at most; `None`: all.
    pub limit: Option<u64>,
    /// Generation of the index to ask, such as one that holds the archive as it once was; `None`: the one that serves.
    pub generation: Option<u32>,
    /// What is rejected under these titles alone is found too, and counted. Patients are listed and counted without.
    pub sees_rejected: Titles,
}

/// Which instances. Empty lists do not restrict; lists of one kind are alternatives, kinds restrict each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Whose instances.
    pub tenant: String,
    /// Patient ID, and its issuer where the request names one.
    pub patient: Option<(String, Option<String>)>,
    /// Study Instance UIDs.
    pub studies: Vec<Uid>,
    /// Series Instance UIDs.
    pub series: Vec<Uid>,
    /// SOP Instance UIDs.
    pub instances: Vec<Uid>,
    /// This version, shown or not.
    pub version: Option<Digest>,
    /// Every version, not only the one shown.
    pub all_versions: bool,
    /// What is rejected under these titles alone is among them, unless another version is shown. A version that is named by its
    /// digest, and every one with `all_versions`, is there whatever it is rejected under.
    pub sees_rejected: Titles,
    /// As they are stored: corrections are not applied.
    pub as_stored: bool,
}

/// How much of each instance to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Where it is.
    Location,
    /// And its frame and bulk data tables.
    Tables,
    /// And its header.
    Header,
}

/// One version of an instance, as the index knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceRecord {
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// Series Instance UID.
    pub series_instance_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// Transfer Syntax UID of the stored data set.
    pub transfer_syntax_uid: Uid,
    /// `ce_id` of its store event.
    pub store_event: EventId,
    /// Its bytes: a complete Part 10 file.
    pub object: ObjectRef,
    /// Offset in the object at which the data set begins.
    pub data_set_offset: u64,
    /// Offset in the object of the first byte of the top-level Pixel Data value; 0: none.
    pub pixel_data_offset: u64,
    /// Whether this version is the one shown to everybody.
    pub shown: bool,
    /// The titles under which it is rejected; none: it is live.
    pub rejected: Titles,
    /// Whether its bytes are damaged or gone at some site.
    pub damaged: bool,
    /// Whether somebody asked that it be erased, whatever becomes of that: nobody is to count on it.
    pub is_to_be_erased: bool,
    /// Whether this site moved it to its cold object store, or is about to.
    pub is_cold: bool,
    /// NumberOfFrames, 1 for an image without it, 0 without Pixel Data.
    pub frames: u32,
    /// Frame table (`Detail::Tables` and up). With `side_object` set it may be there instead.
    pub frame_table: Option<FrameTable>,
    /// Bulk data table (`Detail::Tables` and up).
    pub bulk_data: Vec<BulkDataEntry>,
    /// Header as Explicit VR Little Endian (`Detail::Header`).
    pub header: Bytes,
    /// Object with an encoded `InstanceStoredSide` where header or tables were too large for the event; retrieval
    /// reads it.
    pub side_object: Option<ObjectRef>,
    /// Character set assumed where the header names none.
    pub default_character_set: String,
    /// Issuer of Patient ID that applies.
    pub issuer_of_patient_id: String,
    /// Corrections that its data set is given out with, in their order; the header has them already.
    pub corrections: Vec<InForce>,
    /// Bytes of the corrected file, where retrieval has looked.
    pub corrected_length: Option<u64>,
}

impl InstanceRecord {
    /// Bytes of the file as it is given out, if that is known.
    pub fn given_length(&self) -> Option<u64> {
        if self.corrections.is_empty() { Some(self.object.length) } else { self.corrected_length }
    }

    /// Tells the bytes as they are given out from any others.
    pub fn given_name(&self) -> String {
        if self.corrections.is_empty() {
            return self.object.digest.to_string();
        }
        let mut hasher = blake3::Hasher::new();
        self.corrections.iter().for_each(|correction| {
            hasher.update(correction.event.as_bytes());
        });
        format!("{}-{}", self.object.digest, &hasher.finalize().to_hex()[..16])
    }
}

/// Several versions under one identity, or one SOP Instance UID in several studies or series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Study Instance UID.
    pub study_instance_uid: Uid,
    /// Series Instance UID.
    pub series_instance_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// What kind of conflict.
    pub kind: ConflictKind,
    /// The versions in event order.
    pub versions: Vec<ConflictVersion>,
}

/// What kind of conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// Different content under one identity.
    Content,
    /// Not compared yet.
    NotComparedYet,
    /// The same content, encoded otherwise: no alarm.
    AnotherEncoding,
    /// The same SOP Instance UID in another study or series.
    Elsewhere,
}

/// One of the versions in conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictVersion {
    /// `ce_id` of its store event.
    pub store_event: EventId,
    /// Digest of its object.
    pub digest: Digest,
    /// Transfer Syntax UID.
    pub transfer_syntax_uid: Uid,
    /// When it was stored, in milliseconds since the Unix epoch (event order's clock).
    pub stored_at_ms: u64,
    /// Calling AE title of its sender.
    pub calling_ae_title: String,
    /// Study Instance UID (differs from the conflict's in `Elsewhere`).
    pub study_instance_uid: Uid,
    /// Series Instance UID.
    pub series_instance_uid: Uid,
    /// Whether it is the one shown.
    pub shown: bool,
}

/// How far the index is and what it holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IndexStatus {
    /// Generation that answers queries.
    pub generation: u32,
    /// What has been folded.
    pub folded: PositionVector,
    /// What the log holds.
    pub log_end: PositionVector,
    /// Events not folded yet.
    pub lag_events: u64,
    /// When the oldest event not folded yet was appended, in milliseconds since the Unix epoch; `None` when all are folded.
    pub oldest_unfolded_ms: Option<u64>,
    /// Events parked because they could not be decoded or projected.
    pub parked: u64,
    /// Studies that are incomplete because of them.
    pub incomplete_studies: u64,
    /// Studies.
    pub studies: u64,
    /// Series.
    pub series: u64,
    /// Instances shown.
    pub instances: u64,
    /// Version of the fold.
    pub fold_version: u32,
}

/// Digests of the whole state at a position (design: E over folded events, S over canonical state).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDigest {
    /// Version of the fold that S is of.
    pub fold_version: u32,
    /// Order-free sum over the folded events.
    pub events: [u8; 32],
    /// Hash of the canonical state.
    pub state: [u8; 32],
    /// Studies summed up.
    pub studies: u64,
}

/// The index service.
#[async_trait]
pub trait Index: Send + Sync {
    /// Answers a query, streamed as found: studies by StudyDate and StudyTime descending, then UID; series and
    /// instances by number, then UID; patients by issuer and ID. Stable under concurrent ingest.
    ///
    /// # Errors
    /// `Invalid` (`UnusableKey`): a key can't be used; it never means "match all".
    async fn query(&self, query: Query) -> Result<AnswerStream<DataSet>, Error>;

    /// The instances of a selection: by study, series number, instance number, then UID; series and studies of which nothing is
    /// shown to everybody come last.
    async fn instances(&self, selection: Selection, detail: Detail) -> Result<AnswerStream<InstanceRecord>, Error>;

    /// Waits until everything that `after` means is folded. `Unavailable` (`NotYetIndexed`) when that takes longer
    /// than `timeout`.
    async fn wait_for(&self, after: &PositionVector, timeout: Duration) -> Result<(), Error>;

    /// Conflicts, by study.
    async fn conflicts(&self, tenant: &str, include_other_encodings: bool) -> Result<AnswerStream<Conflict>, Error>;

    /// Events that could not be folded. A study that one is of is incomplete.
    async fn parked(&self, selection: ParkedSelection) -> Result<AnswerStream<ParkedEvent>, Error>;

    /// How far the index is.
    async fn status(&self) -> Result<IndexStatus, Error>;

    /// Digests of the serving generation, at the position in the status returned with it.
    async fn digest(&self) -> Result<(StateDigest, PositionVector), Error>;

    /// All generations, by number.
    async fn generations(&self) -> Result<Vec<GenerationStatus>, Error>;

    /// Changes what generations there are. What was begun goes on by itself, in all processes of the index and after
    /// restarts of any: [`Index::generations`] says how far it is.
    ///
    /// # Errors
    /// `Conflict`: what is asked for can't be done now; nothing was changed. `NotFound`: no such generation.
    async fn manage(&self, change: Change) -> Result<Changed, Error>;

    /// Studies of a tenant that differ between two generations, `limit` at most; found by the digest tree, so that
    /// generations that are equal cost next to nothing. Each is as of what it has folded at that moment.
    async fn diff(&self, diff: Diff) -> Result<AnswerStream<StudyDifference>, Error>;

    /// The digest tree of the serving generation.
    async fn digest_tree(&self) -> Result<DigestTree, Error>;

    /// Digests of a tenant's studies in the serving generation.
    async fn study_digests(&self, tenant: &str, of: Of) -> Result<AnswerStream<StudyDigest>, Error>;

    /// The events that are folded in a study, in [`FoldedEvent::order`]; none where it is not there. With `only`, those of
    /// them alone, each with where it stands and its origin, which costs a read of the log.
    async fn study_events(
        &self,
        tenant: &str,
        study: &Uid,
        only: Vec<EventId>,
    ) -> Result<AnswerStream<FoldedEvent>, Error>;

    /// Facts about patients: everybody's in no order, others in the order of events.
    async fn patient_facts(&self, tenant: &str, of: FactsOf) -> Result<AnswerStream<KnownFact>, Error>;

    /// Goes through all studies of a tenant of which something is there, in parts.
    ///
    /// # Errors
    /// `Invalid`: the expression can't be used.
    async fn survey(&self, survey: Survey) -> Result<AnswerStream<Surveyed>, Error>;
}

/// What a generation of the index is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It answers queries.
    Serving,
    /// It is filled from the log, to serve later.
    Filling,
    /// It is filled up to a position and stays there.
    Frozen,
    /// It served before, and is kept up for a while so that it can serve again.
    Kept,
    /// It is being removed.
    Dropping,
    /// What a later version made of it.
    Other,
}

/// What comes after a generation is filled and was compared with the serving one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It serves, if both are equal.
    Serve,
    /// It is kept up, and compared again and again, until somebody decides.
    Wait,
    /// It is dropped: only the comparison was wanted.
    Drop,
}

/// A comparison of a generation with the one that served, both at one position of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// What both have folded.
    pub position: PositionVector,
    /// Digest of the generation that served.
    pub serving: StateDigest,
    /// Digest of the other one.
    pub own: StateDigest,
}

impl Certificate {
    /// Whether both hold the same. Of two versions of the fold only the events folded can be compared, and this is false.
    pub fn is_equal(&self) -> bool {
        self.serving == self.own
    }
}

/// How far a generation is and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationStatus {
    /// Its number.
    pub generation: u32,
    /// What it is for.
    pub role: Role,
    /// Version of the fold that fills it.
    pub fold_version: u32,
    /// Whether filling is halted.
    pub paused: bool,
    /// What comes after filling.
    pub then: Then,
    /// When it took its role, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What it has folded.
    pub folded: PositionVector,
    /// Where a frozen one ends.
    pub until: Option<PositionVector>,
    /// Events folded.
    pub events: u64,
    /// Events to fold: the log's, or those up to where it ends.
    pub total: u64,
    /// Events folded a second, of late, by all processes; `None`: not known yet, or not being filled.
    pub events_per_second: Option<f64>,
    /// Events parked.
    pub parked: u64,
    /// Studies.
    pub studies: u64,
    /// Series.
    pub series: u64,
    /// Instances shown.
    pub instances: u64,
    /// Its digest at `folded`.
    pub digest: StateDigest,
    /// How it last compared with the serving one.
    pub certificate: Option<Certificate>,
}

impl GenerationStatus {
    /// Seconds until it is filled at the present speed, if that is known.
    pub fn seconds_left(&self) -> Option<f64> {
        let left = self.total.saturating_sub(self.events);
        self.events_per_second.filter(|speed| *speed > 0.0 && left > 0).map(|speed| left as f64 / speed)
    }
}

/// A change of what generations there are.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Fill a new generation from the log and compare it with the serving one.
    Rebuild {
        /// What comes then.
        then: Then,
    },
    /// Fill a new generation up to a position, which then stays there and can be asked beside the serving one.
    Freeze(Until),
    /// Halt filling.
    Pause(u32),
    /// Go on filling.
    Resume(u32),
    /// Let it serve: one that was filled and compared, or one that is kept.
    Switch {
        /// Which.
        generation: u32,
        /// Although it differs from the serving one.
        accept_difference: bool,
    },
    /// Let the generation serve again that did before.
    Rollback,
    /// Remove one that does not serve.
    Drop(u32),
}

/// Up to where events are meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Until {
    /// Those that the site's log took before this time, in milliseconds since the Unix epoch.
    Time(u64),
    /// Those before these positions of the site's log.
    Position(PositionVector),
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The generation made, or changed.
    pub generation: u32,
    /// Where a frozen one ends.
    pub until: Option<PositionVector>,
    /// Of one that serves now: how it compared before.
    pub certificate: Option<Certificate>,
}

/// Which generations to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// Whose studies.
    pub tenant: String,
    /// The one.
    pub a: u32,
    /// The other.
    pub b: u32,
    /// Studies at most.
    pub limit: u64,
}

/// A study that two generations do not have alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyDifference {
    /// Study Instance UID.
    pub study_instance_uid: String,
    /// Leaf of the digest tree that it is summed in.
    pub leaf: u8,
    /// E and S in the one; `None`: it has no event of the study.
    pub a: Option<([u8; 32], [u8; 32])>,
    /// E and S in the other.
    pub b: Option<([u8; 32], [u8; 32])>,
}
