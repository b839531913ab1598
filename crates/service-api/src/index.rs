//! Index: the query projections, and where instances are.

use crate::{
    AnswerStream, Error,
    parked::{ParkedEvent, ParkedSelection},
};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_archive::{
    Digest, EventId, PositionVector,
    events::{BulkDataEntry, FrameTable},
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
    /// Whether this version is the one shown.
    pub shown: bool,
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

    /// The instances of a selection: by study, series number, instance number, then UID.
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

    /// Fills a new generation from the log, compares it with the serving one at the same position, and, with `switch`,
    /// lets it serve; without, it is dropped again (a verification). Yields progress. Queries and ingest go on.
    async fn rebuild(&self, switch: bool) -> Result<AnswerStream<RebuildProgress>, Error>;
}

/// A step of a rebuild.
#[derive(Clone, Debug, PartialEq)]
pub struct RebuildProgress {
    /// Generation being filled.
    pub generation: u32,
    /// Events folded so far.
    pub events: u64,
    /// Events to fold.
    pub total: u64,
    /// Set by the last step: whether the digests of old and new generation agreed (`None`: nothing to compare with),
    /// and that the new one serves.
    pub done: Option<RebuildOutcome>,
}

/// How a rebuild ended.
#[derive(Clone, Debug, PartialEq)]
pub struct RebuildOutcome {
    /// Digest of the generation that served until now, at the same position.
    pub before: StateDigest,
    /// Digest of the new generation.
    pub after: StateDigest,
    /// Whether the new generation serves now.
    pub switched: bool,
}
