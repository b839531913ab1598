//! The rows of the index: tables, keys and values, the same for every store. `schemas/index/tables.md` lists them.
//!
//! Every row has exactly one writing partition of the log: rows that are found by something else than their study
//! carry the study in their clustering key, and views over studies are merged at read time. Rows that lead to a study
//! are hints: whoever follows one checks the study's own row.

pub mod access;
pub mod chunks;
mod codec;
mod keys;
mod parked;
mod patient;
mod patient_facts;
mod rows;

pub use codec::RowError;
pub use keys::{
    INSTANCE_BUCKETS, LENGTH_OF_KEY_MAX, OrderKey, Text, bucket_of_instance, by_instance_ck, by_instance_pk,
    by_instance_prefix, by_series_pk, conflict_ck, fact_ck, header_ck, identity_prefix, pack_uid, read_by_instance_ck,
    read_conflict_ck, read_fact_ck, read_patient_ck, series_ck, study_pk, tenant_pk, unpack_uid,
};
pub use parked::{Parked, decode_parked, encode_parked, parked_ck, parked_prefix, repair_ck, repairs_prefix};
pub use patient::PatientPart;
pub use patient_facts::{
    FactRow, bucket_of_patient, decode_patient, decode_patient_fact, patient_fact_ck, patient_fact_rows,
    patient_facts_pk, patient_prefix,
};
pub use rows::{
    Stamped, decode_fact, decode_leaf, decode_series, decode_study, decode_study_now, decode_trace, encode_fact,
    encode_leaf, encode_series, encode_study, encode_trace,
};

use bytes::Bytes;

/// A table of the index. Ids are written down and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableDef {
    /// Unique.
    pub id: u8,
    /// Lower case with underscores.
    pub name: &'static str,
}

macro_rules! tables {
    ($($constant:ident = $id:literal $name:literal $doc:literal;)+) => {
        $(#[doc = $doc] pub const $constant: TableDef = TableDef { id: $id, name: $name };)+
        /// Every table.
        pub const TABLES: &[TableDef] = &[$($constant),+];
    };
}

tables! {
    STUDIES = 1 "studies" "The state of a study.";
    SERIES = 2 "series" "The state of a series.";
    FACTS = 3 "facts" "One fact about an instance: a version, a comparison, a choice.";
    VERSION_TABLES = 4 "version_tables" "Frame and bulk data tables too large for the version's row.";
    HEADERS = 5 "headers" "Chunks of a series' headers.";
    TRACES = 6 "traces" "Events that change nothing shown: repeats, closed receipts, repairs.";
    BY_SERIES = 7 "by_series" "Series Instance UID to studies.";
    BY_INSTANCE = 8 "by_instance" "SOP Instance UID to studies and series.";
    POSTINGS = 9 "postings" "What a study is found by, in the order in which studies are answered.";
    BUCKETS = 10 "buckets" "Which buckets of a bucketed list are in use.";
    PATIENTS = 11 "patients" "Patients by issuer and ID, with their studies and what each says of its patient.";
    CONFLICTS = 12 "conflicts" "Identities with more than one version of different bytes.";
    LEAVES = 13 "leaves" "Sums of the digest tree.";
    PARKED = 14 "parked" "Events that could not be folded.";
    ORIGINS = 15 "origins" "How far events of other sites are folded.";
    REPAIRS = 16 "repairs" "Events that a repair settled.";
    PATIENT_FACTS = 17 "patient_facts" "Facts about patients, by each whom they name.";
    PATIENT_LISTS = 18 "patient_lists" "What those are found by whom facts name.";
}

/// A change of one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowChange {
    /// Table.
    pub table: TableDef,
    /// Partition key.
    pub pk: Bytes,
    /// Clustering key.
    pub ck: Bytes,
    /// New value; `None` removes the row.
    pub value: Option<Bytes>,
}

impl RowChange {
    /// Writes a row.
    pub fn put(table: TableDef, pk: Bytes, ck: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { table, pk, ck: ck.into(), value: Some(value.into()) }
    }

    /// Removes a row.
    pub fn delete(table: TableDef, pk: Bytes, ck: impl Into<Bytes>) -> Self {
        Self { table, pk, ck: ck.into(), value: None }
    }
}
