//! Reading typed rows of one generation.

use bytes::Bytes;
use cairn_archive::{
    fold::{Fact, Identity, InstanceState, SeriesState, Stamp, StudyKey, StudyState},
    index_rows::{
        self, FACTS, RowChange, RowError, SERIES, STUDIES, Stamped, TableDef, decode_fact, decode_series, decode_study,
        decode_study_now, read_fact_ck, series_ck, study_pk, unpack_uid,
    },
};
use cairn_dicom::Uid;
use cairn_service_api::{Error, ErrorKind};
use cairn_store_api::{CkRange, Generation, IndexStore, Mutation, Page, Row, StoreError, Table};
use std::sync::Arc;

/// The rows of one generation.
#[derive(Clone)]
pub(crate) struct Rows {
    pub(crate) store: Arc<dyn IndexStore>,
    pub(crate) generation: Generation,
    pub(crate) page: usize,
}

pub(crate) fn malformed(error: RowError) -> Error {
    Error::new(ErrorKind::Internal, error.to_string())
}

pub(crate) const fn table(table: TableDef) -> Table {
    Table { id: table.id, name: table.name }
}

/// A row change as the store takes it.
pub(crate) fn mutation(change: RowChange) -> Mutation {
    let RowChange { table: of, pk, ck, value } = change;
    match value {
        Some(value) => Mutation::Put { table: table(of), pk, ck, value },
        None => Mutation::Delete { table: table(of), pk, ck },
    }
}

/// The keys that begin with a prefix.
pub(crate) fn prefix_range(prefix: &[u8]) -> CkRange {
    CkRange { from: Some(Bytes::copy_from_slice(prefix)), to: after_prefix(prefix) }
}

/// The first key after all that begin with a prefix; `None`: there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(end.into());
        }
        end.pop();
    }
    None
}

/// The next key after this one.
pub(crate) fn successor(ck: &[u8]) -> Bytes {
    [ck, &[0]].concat().into()
}

impl Rows {
    /// Whether what leads to a study can be taken at its word: then it says what the study's own row says.
    pub(crate) fn are_exact(&self) -> bool {
        self.store.is_exact()
    }

    pub(crate) async fn get(&self, of: TableDef, pk: &[u8], ck: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(self.generation, table(of), pk, ck).await
    }

    pub(crate) async fn get_many(
        &self,
        of: TableDef,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.store.get_many(self.generation, table(of), keys).await
    }

    pub(crate) async fn scan(&self, of: TableDef, pk: &[u8], range: &CkRange, max: usize) -> Result<Page, StoreError> {
        self.store.scan(self.generation, table(of), pk, range, false, max).await
    }

    /// A scan in pages.
    pub(crate) fn pages(&self, of: TableDef, pk: Bytes, range: CkRange) -> Pages {
        Pages { rows: self.clone(), of, pk, range, done: false }
    }

    /// The state of studies, in the order asked for.
    pub(crate) async fn studies(&self, keys: &[StudyKey]) -> Result<Vec<Option<Stamped<StudyState>>>, Error> {
        let asked: Vec<_> = keys.iter().map(|key| (study_pk(key), Bytes::new())).collect();
        let found = self.get_many(STUDIES, &asked).await?;
        found.into_iter().map(|row| row.map(|row| decode_study(&row)).transpose().map_err(malformed)).collect()
    }

    /// The state of studies as it is now, in the order asked for.
    pub(crate) async fn studies_now(&self, keys: &[StudyKey]) -> Result<Vec<Option<StudyState>>, Error> {
        let asked: Vec<_> = keys.iter().map(|key| (study_pk(key), Bytes::new())).collect();
        let found = self.get_many(STUDIES, &asked).await?;
        found.into_iter().map(|row| row.map(|row| decode_study_now(&row)).transpose().map_err(malformed)).collect()
    }

    /// The series of a study, in pages.
    pub(crate) fn series(&self, key: &StudyKey) -> Pages {
        self.pages(SERIES, study_pk(key), CkRange::default())
    }

    /// Some series of a study.
    pub(crate) async fn some_series(
        &self,
        key: &StudyKey,
        uids: &[Uid],
    ) -> Result<Vec<(Uid, Stamped<SeriesState>)>, Error> {
        let pk = study_pk(key);
        let asked: Vec<_> = uids.iter().map(|uid| (pk.clone(), series_ck(uid.as_str()))).collect();
        let found = self.get_many(SERIES, &asked).await?;
        let present = uids.iter().zip(found).filter_map(|(uid, row)| Some((uid.clone(), row?)));
        present.map(|(uid, row)| Ok((uid, decode_series(&row).map_err(malformed)?))).collect()
    }

    /// What is known of an identity, as of a committed offset if one is given.
    pub(crate) async fn instance(
        &self,
        key: &StudyKey,
        identity: &Identity,
        as_of: Option<Stamp>,
    ) -> Result<InstanceState, Error> {
        let range = prefix_range(&index_rows::identity_prefix(identity));
        let mut pages = self.pages(FACTS, study_pk(key), range);
        let mut facts = Vec::new();
        while let Some(rows) = pages.next().await? {
            for row in rows {
                facts.push(decode_fact(&row.value).map_err(malformed)?);
            }
        }
        Ok(InstanceState::from_facts(facts.into_iter().filter(|fact| committed(fact, as_of))))
    }
}

/// Whether a fact was folded at or before a committed offset. A fact's stamp is its own place in the log.
pub(crate) fn committed(fact: &Fact, as_of: Option<Stamp>) -> bool {
    as_of.is_none_or(|as_of| fact.stamp() < as_of)
}

/// A scan in pages.
pub(crate) struct Pages {
    rows: Rows,
    of: TableDef,
    pk: Bytes,
    range: CkRange,
    done: bool,
}

impl Pages {
    /// The next rows; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Row>>, StoreError> {
        if self.done {
            return Ok(None);
        }
        let page = self.rows.scan(self.of, &self.pk, &self.range, self.rows.page).await?;
        self.done = !page.more;
        match page.rows.last() {
            None => Ok(None),
            Some(last) => {
                self.range.from = Some(successor(&last.ck));
                Ok(Some(page.rows))
            }
        }
    }
}

/// Groups the facts of a scan by identity, in the order of keys.
pub(crate) struct Identities {
    pages: Pages,
    buffer: std::collections::VecDeque<Row>,
}

impl Identities {
    /// Of a study, or of one of its series.
    pub(crate) fn new(rows: &Rows, key: &StudyKey, series: Option<&Uid>) -> Self {
        let range = series.map_or_else(CkRange::default, |uid| prefix_range(&series_ck(uid.as_str())));
        Self { pages: rows.pages(FACTS, study_pk(key), range), buffer: Default::default() }
    }

    /// The next identity with its facts.
    pub(crate) async fn next(&mut self) -> Result<Option<(Identity, Vec<Fact>)>, Error> {
        let mut found: Option<(Bytes, Identity, Vec<Fact>)> = None;
        loop {
            if self.buffer.is_empty() {
                match self.pages.next().await? {
                    Some(rows) => self.buffer.extend(rows),
                    None => return Ok(found.map(|(_, identity, facts)| (identity, facts))),
                }
            }
            while let Some(row) = self.buffer.front() {
                let prefix = row.ck.slice(..row.ck.len().saturating_sub(16));
                match &mut found {
                    Some((own, _, facts)) if *own == prefix => facts.push(decode_fact(&row.value).map_err(malformed)?),
                    Some(_) => return Ok(found.map(|(_, identity, facts)| (identity, facts))),
                    None => {
                        let (identity, _) = read_fact_ck(&row.ck).map_err(malformed)?;
                        found = Some((prefix, identity, vec![decode_fact(&row.value).map_err(malformed)?]));
                    }
                }
                self.buffer.pop_front();
            }
        }
    }
}

/// The series that a row of [`SERIES`] is of.
pub(crate) fn series_of(row: &Row) -> Result<(Uid, SeriesState), Error> {
    let (uid, _) = unpack_uid(&row.ck).ok_or_else(|| malformed(RowError::Malformed("series")))?;
    Ok((uid, decode_series(&row.value).map_err(malformed)?.now))
}
