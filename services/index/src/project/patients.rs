//! Facts about patients as row changes.

use super::write::{Changes, KnownBuckets};
use crate::rows::{Rows, malformed};
use bytes::Bytes;
use cairn_archive::{
    Partition,
    digest::{Leaf, event_hash, leaf_of},
    fold::Stamp,
    index_rows::{
        FactRow, PATIENT_FACTS, access, bucket_of_patient, decode_patient_fact, patient_fact_ck, patient_fact_rows,
        patient_facts_pk,
    },
};
use cairn_service_api::Error;
use std::collections::BTreeMap;

/// Facts of a batch, by tenant.
pub(crate) type PatientFacts = Vec<(String, FactRow)>;

/// Adds the rows of facts, and what they add to the digest: each once, however often it comes.
pub(crate) async fn fold(
    rows: &Rows,
    facts: &PatientFacts,
    partition: Partition,
    committed: Stamp,
    known: &KnownBuckets,
    changes: &mut Changes,
) -> Result<(), Error> {
    let once: BTreeMap<_, _> = facts.iter().rev().map(|fact| (fact.1.fact.order.id, fact)).collect();
    for (tenant, row) in once.into_values() {
        if is_folded(rows, tenant, row, committed).await? {
            continue;
        }
        for patient in row.patients() {
            let entry =
                (access::BucketList::PatientFacts, tenant.clone(), Bytes::from(vec![bucket_of_patient(&patient)]));
            if !known.contains(&entry) && !changes.buckets.contains(&entry) {
                changes.derived.push(access::bucket_row(entry.0, tenant, &entry.2, partition));
                changes.buckets.push(entry);
            }
        }
        changes.derived.extend(patient_fact_rows(tenant, row));
        let (_, after) = changes.leaves.entry(leaf_of(tenant, "")).or_default();
        let mut leaf = Leaf::default();
        leaf.events.add(&event_hash(&row.fact.order.id));
        leaf.state.add(&row.fact.hash());
        after.add(&leaf);
    }
    Ok(())
}

/// Whether a fact was committed before. What a torn commit left of it does not count.
async fn is_folded(rows: &Rows, tenant: &str, row: &FactRow, committed: Stamp) -> Result<bool, Error> {
    let Some(patient) = row.patients().into_iter().next() else { return Ok(true) };
    let pk = patient_facts_pk(tenant, bucket_of_patient(&patient));
    let found = rows.get(PATIENT_FACTS, &pk, &patient_fact_ck(&patient, &row.fact.order.id)).await?;
    let found = found.map(|found| decode_patient_fact(&found)).transpose().map_err(malformed)?;
    Ok(found.is_some_and(|found| found.stamp < committed))
}
