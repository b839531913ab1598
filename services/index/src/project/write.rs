//! Changed studies as row changes: derived rows first, state rows next, removed rows last.

use crate::rows::{Rows, malformed};
use bytes::Bytes;
use cairn_archive::{
    Partition, Position,
    digest::{Leaf, leaf_of},
    fold::{FactRef, InstanceChange, PendingHeader, SeriesState, Stamp, StudyChange, StudyKey, StudyState, Version},
    ids::EventId,
    index_rows::{
        BY_INSTANCE, BY_SERIES, CONFLICTS, FACTS, HEADERS, LEAVES, ORIGINS, RowChange, SERIES, STUDIES, TRACES,
        VERSION_TABLES, access, bucket_of_instance, by_instance_ck, by_instance_pk, by_series_pk, chunks, conflict_ck,
        decode_series, encode_fact, encode_leaf, encode_series, encode_study, encode_trace, fact_ck, header_ck,
        series_ck, study_pk, tenant_pk,
    },
};
use cairn_dicom::Uid;
use cairn_service_api::Error;
use cairn_store_api::CkRange;
use std::collections::{BTreeMap, HashSet};

/// Buckets that this partition has listed already, so that each is written once.
pub(crate) type KnownBuckets = HashSet<(access::BucketList, String, Bytes)>;

/// Bounds of rows (`Mutation`, IS-12).
const KEY_BYTES_MAX: usize = 1 << 10;
const VALUE_BYTES_MAX: usize = 1 << 20;

/// What a commit will do.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) derived: Vec<RowChange>,
    state: Vec<RowChange>,
    /// Differences of the leaves.
    pub(crate) leaves: BTreeMap<u8, (Leaf, Leaf)>,
    pub(crate) buckets: Vec<(access::BucketList, String, Bytes)>,
}

/// Rows of one changed study. Reads chunks of headers where some are merged.
pub(crate) async fn study(
    rows: &Rows,
    change: StudyChange,
    to: Stamp,
    partition: Partition,
    known: &KnownBuckets,
    changes: &mut Changes,
) -> Result<(), Error> {
    let key = change.key.clone();
    let pk = study_pk(&key);
    facts(&pk, &key, &change, &mut changes.derived);
    let (leads_otherwise, mut erased) = (leads_otherwise(&change), erased_headers(&change));
    for series in change.series {
        let (mut after, gone) = (series.after, erased.remove(&series.uid).unwrap_or_default());
        let pending: Vec<_> = series.pending.into_iter().filter(|header| !gone.contains(&header.id)).collect();
        let uid = series.uid.as_str();
        if !pending.is_empty() {
            headers(rows, &pk, uid, (&pending, &gone), &mut after, &mut changes.derived).await?;
        }
        erase_headers(rows, &pk, uid, &gone, &mut changes.derived).await?;
        if series.before.is_none() || change.torn {
            let mut study = Vec::new();
            cairn_archive::index_rows::pack_uid(&mut study, &key.study_instance_uid);
            let by_series = by_series_pk(&key.tenant, series.uid.as_str());
            changes.derived.push(RowChange::put(BY_SERIES, by_series, study, Bytes::new()));
        }
        let row = encode_series(to, &after, series.before.as_ref());
        changes.state.push(RowChange::put(SERIES, pk.clone(), series_ck(series.uid.as_str()), row));
    }
    for (series, gone) in erased {
        erase_headers(rows, &pk, series.as_str(), &gone, &mut changes.derived).await?;
    }
    if leads_otherwise {
        let rows_now = access::AccessRows::of(&key, &change.after);
        let before = change.before.as_ref().map(|before| access::AccessRows::of(&key, before)).unwrap_or_default();
        access_rows(&rows_now, &before, change.torn, &mut changes.derived);
    }
    let patient_before = change.before.as_ref().and_then(|before| access::PatientRow::of(&key, before));
    let patient_now = access::PatientRow::of(&key, &change.after);
    access::PatientRow::changes(patient_now, patient_before, change.torn, &mut changes.derived);
    if change.after.shown > 0 {
        for (list, bucket) in access::buckets_of(&key, &change.after) {
            let entry = (list, key.tenant.clone(), bucket);
            if !known.contains(&entry) && !changes.buckets.contains(&entry) {
                changes.derived.push(access::bucket_row(list, &key.tenant, &entry.2, partition));
                changes.buckets.push(entry);
            }
        }
    }
    let (before, after) = changes.leaves.entry(leaf_of(&key.tenant, &key.study_instance_uid)).or_default();
    if let Some(state) = &change.before {
        before.add(&state.leaf(&key));
    }
    after.add(&change.after.leaf(&key));
    let row = encode_study(to, &change.after, change.before.as_ref());
    changes.state.push(RowChange::put(STUDIES, pk, Bytes::new(), row));
    Ok(())
}

/// The rows of a study's series that the commit leaves as they are, written anew: what they were before is as they are now. So
/// nothing is left in them of what was erased.
pub(crate) async fn series_anew(
    rows: &Rows,
    key: &StudyKey,
    committed: Stamp,
    to: Stamp,
    changes: &mut Changes,
) -> Result<(), Error> {
    let pk = study_pk(key);
    let is_of_study = |row: &&RowChange| row.table == SERIES && row.pk == pk;
    let written: HashSet<Bytes> = changes.state.iter().filter(is_of_study).map(|row| row.ck.clone()).collect();
    let mut pages = rows.series(key);
    while let Some(page) = pages.next().await? {
        for row in page.into_iter().filter(|row| !written.contains(&row.ck)) {
            if let (Some(now), _) = decode_series(&row.value).map_err(malformed)?.as_of(committed) {
                changes.state.push(RowChange::put(SERIES, pk.clone(), row.ck, encode_series(to, &now, Some(&now))));
            }
        }
    }
    Ok(())
}

/// Whether a study is found by something else than before the batch.
fn leads_otherwise(change: &StudyChange) -> bool {
    let same = |before: &StudyState| {
        (before.shown > 0) == (change.after.shown > 0)
            && (before.hidden > 0) == (change.after.hidden > 0)
            && before.modalities == change.after.modalities
            && before.attributes.variants() == change.after.attributes.variants()
    };
    change.torn || !change.before.as_ref().is_some_and(same)
}

/// Diffs against what leads to the study already; after a torn commit that is not known, and all rows are written.
fn access_rows(now: &access::AccessRows, before: &access::AccessRows, torn: bool, out: &mut Vec<RowChange>) {
    if !torn {
        return now.changes(before, out);
    }
    let mut removed = Vec::new();
    now.changes(before, &mut removed);
    out.extend(removed.into_iter().filter(|change| change.value.is_none()));
    now.changes(&access::AccessRows::default(), out);
}

fn facts(pk: &Bytes, key: &StudyKey, change: &StudyChange, out: &mut Vec<RowChange>) {
    for InstanceChange { identity, state, new } in &change.instances {
        for (id, fact) in new.iter().filter_map(|id| Some((id, state.fact(*id)?))) {
            out.push(RowChange::put(FACTS, pk.clone(), fact_ck(identity, id), encode_fact(fact)));
        }
    }
    for (id, tables) in &change.tables {
        out.push(RowChange::put(VERSION_TABLES, pk.clone(), id.as_bytes().to_vec(), tables.clone()));
    }
    for trace in &change.traces {
        out.push(RowChange::put(TRACES, pk.clone(), trace.order.id.as_bytes().to_vec(), encode_trace(trace)));
    }
    for identity in &change.new_identities {
        let pk = by_instance_pk(&key.tenant, bucket_of_instance(identity.instance.as_str()));
        out.push(RowChange::put(BY_INSTANCE, pk, by_instance_ck(&key.study_instance_uid, identity), Bytes::new()));
    }
    for InstanceChange { identity, state, .. } in &change.instances {
        let versions = state.versions();
        if versions.windows(2).any(|pair| pair[0].object.digest != pair[1].object.digest) {
            let ck = conflict_ck(&key.study_instance_uid, identity);
            out.push(RowChange::put(CONFLICTS, tenant_pk(&key.tenant), ck, Bytes::new()));
        }
    }
}

/// By series, the events that brought headers of what the batch says is erased.
fn erased_headers(change: &StudyChange) -> BTreeMap<Uid, HashSet<EventId>> {
    let mut erased: BTreeMap<Uid, HashSet<EventId>> = BTreeMap::new();
    for InstanceChange { identity, state, new } in &change.instances {
        let erases = |id: &EventId| matches!(state.fact(*id), Some(FactRef::Erasing(erasing)) if erasing.is_done);
        let gone = state.erased().iter().filter(|version| version.has_header).map(Version::said_by);
        if new.iter().any(erases) {
            erased.entry(identity.series.clone()).or_default().extend(gone);
        }
    }
    erased
}

/// Takes headers out of the chunks that are stored.
async fn erase_headers(
    rows: &Rows,
    pk: &Bytes,
    series: &str,
    gone: &HashSet<EventId>,
    out: &mut Vec<RowChange>,
) -> Result<(), Error> {
    if gone.is_empty() {
        return Ok(());
    }
    // What this commit writes or removes anyway is without them.
    let written: HashSet<Bytes> =
        out.iter().filter(|row| row.table == HEADERS && row.pk == *pk).map(|row| row.ck.clone()).collect();
    let range = CkRange { from: Some(header_ck(series, Stamp(0))), to: Some(header_ck(series, Stamp(u64::MAX))) };
    let mut pages = rows.pages(HEADERS, pk.clone(), range);
    while let Some(page) = pages.next().await? {
        for row in page.into_iter().filter(|row| !written.contains(&row.ck)) {
            match chunks::without(&row.value, gone).map_err(malformed)? {
                None => {}
                Some(Some(chunk)) => out.push(RowChange::put(HEADERS, pk.clone(), row.ck, chunk)),
                Some(None) => out.push(RowChange::delete(HEADERS, pk.clone(), row.ck)),
            }
        }
    }
    Ok(())
}

/// Chunks of headers; `gone` are in none of those that are merged.
async fn headers(
    rows: &Rows,
    pk: &Bytes,
    series: &str,
    (pending, gone): (&[PendingHeader], &HashSet<EventId>),
    after: &mut SeriesState,
    out: &mut Vec<RowChange>,
) -> Result<(), Error> {
    let mut merged = None;
    let mut replaced = Vec::new();
    if chunks::must_merge(&after.open, pending) {
        let first = pending.first().map_or(Stamp(u64::MAX), |header| header.stamp);
        let range = CkRange { from: Some(header_ck(series, after.open.from)), to: Some(header_ck(series, first)) };
        let mut pages = rows.pages(HEADERS, pk.clone(), range);
        let mut found = Vec::new();
        while let Some(page) = pages.next().await? {
            for row in page {
                // What a torn commit wrote ahead comes again in this one.
                let committed = chunks::decode(&row.value).map_err(malformed)?.into_iter();
                found.extend(committed.filter(|header| header.stamp < first && !gone.contains(&header.id)));
                replaced.push(row.ck);
            }
        }
        merged = Some(found);
    }
    let (chunks, open) = chunks::build(after.open, merged, pending);
    after.open = open;
    let written: Vec<Bytes> = chunks.iter().map(|(stamp, _)| header_ck(series, *stamp)).collect();
    for (ck, (_, chunk)) in written.iter().zip(chunks) {
        out.push(RowChange::put(HEADERS, pk.clone(), ck.clone(), chunk));
    }
    for ck in replaced.into_iter().filter(|ck| !written.contains(ck)) {
        out.push(RowChange::delete(HEADERS, pk.clone(), ck));
    }
    Ok(())
}

/// How far events of another site's log are folded.
pub(crate) fn origin(partition: Partition, position: &Position) -> RowChange {
    let pk = Bytes::copy_from_slice(&partition.0.to_be_bytes());
    let ck = format!("{}/{}/{}", position.site, position.incarnation.0, position.partition.0);
    RowChange::put(ORIGINS, pk, ck.into_bytes(), position.to_string().into_bytes())
}

impl Changes {
    /// Adds what another study's events change.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.derived.extend(other.derived);
        self.state.extend(other.state);
        for (number, (before, after)) in other.leaves {
            let (own_before, own_after) = self.leaves.entry(number).or_default();
            own_before.add(&before);
            own_after.add(&after);
        }
        self.buckets.extend(other.buckets);
    }

    /// Whether each row is within what every store takes.
    pub(crate) fn fit(&self) -> bool {
        let fits = |row: &RowChange| {
            let key_fits = row.pk.len() <= KEY_BYTES_MAX && row.ck.len() <= KEY_BYTES_MAX;
            key_fits && row.value.as_ref().is_none_or(|value| value.len() <= VALUE_BYTES_MAX)
        };
        self.derived.iter().chain(&self.state).all(fits)
    }

    /// A leaf's row.
    pub(crate) fn leaf(&mut self, partition: Partition, leaf: u8, to: Stamp, now: &Leaf, before: &Leaf) {
        let pk = Bytes::copy_from_slice(&partition.0.to_be_bytes());
        self.state.push(RowChange::put(LEAVES, pk, vec![leaf], encode_leaf(to, now, Some(before))));
    }

    /// All changes in the order of a commit: derived rows, state rows, and what is removed last. So a commit that a
    /// crash tore either left hints too many, or left its mark on the state row, and then every hint is written again.
    pub(crate) fn into_rows(mut self) -> Vec<RowChange> {
        self.derived.sort_unstable_by(|a, b| (a.table.id, &a.pk, &a.ck).cmp(&(b.table.id, &b.pk, &b.ck)));
        // One event can be parked twice in a batch, and one fact be said twice.
        self.derived.dedup_by(|b, a| (a.table, &a.pk, &a.ck) == (b.table, &b.pk, &b.ck));
        self.state.sort_unstable_by(|a, b| (a.table.id, &a.pk, &a.ck).cmp(&(b.table.id, &b.pk, &b.ck)));
        let (mut rows, removed): (Vec<_>, Vec<_>) = self.derived.into_iter().partition(|row| row.value.is_some());
        rows.append(&mut self.state);
        rows.extend(removed);
        rows
    }
}
