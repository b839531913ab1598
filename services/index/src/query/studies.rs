//! Studies that a way leads to, in the order of answers, with their states.

use super::cursor::{Context, Cursor, next_key};
use crate::rows::{Rows, malformed, prefix_range};
use bytes::Bytes;
use cairn_archive::{
    fold::{Identity, StudyKey, StudyState},
    index_rows::{
        BY_INSTANCE, BY_SERIES, OrderKey, RowError, bucket_of_instance, by_instance_pk, by_instance_prefix,
        by_series_pk, read_by_instance_ck, unpack_uid,
    },
    plan::{Lists, Way},
};
use cairn_dicom::Uid;
use cairn_service_api::Error;
use cairn_store_api::CkRange;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Fewest studies that are read at once after the first page.
const PAGE_MIN: usize = 16;

/// Studies in order, a page at a time.
pub(crate) struct Studies {
    rows: Rows,
    tenant: String,
    from: From,
    page: usize,
    /// Studies read at once at most.
    page_max: usize,
    /// Whether studies are wanted of which nothing is shown to everybody.
    hidden_too: bool,
    ready: VecDeque<(StudyKey, StudyState)>,
}

enum From {
    Lists { cursor: Cursor, context: Box<Context>, at: Option<Bytes> },
    Sorted(VecDeque<OrderKey>),
}

impl Studies {
    /// Along a way: studies of which something is shown, or is hidden where that is wanted. `hint` is how many will be read at
    /// least, if known.
    pub(crate) async fn new(rows: Rows, tenant: &str, way: &Way, hint: usize, hidden_too: bool) -> Result<Self, Error> {
        let from = match way {
            Way::Lists(lists) => Self::by_lists(&rows, tenant, lists),
            Way::Studies(uids) => sorted(&rows, tenant, uids.iter().cloned().collect()).await?,
            Way::Series(uids) => {
                let mut studies = BTreeSet::new();
                for uid in uids {
                    studies.extend(studies_of_series(&rows, tenant, uid).await?);
                }
                sorted(&rows, tenant, studies).await?
            }
            Way::Instances(uids) => {
                let found = places_of_instances(&rows, tenant, uids).await?;
                sorted(&rows, tenant, found.into_keys().collect()).await?
            }
        };
        let page_max = rows.page.max(1);
        let page = hint.clamp(1, page_max);
        Ok(Self { rows, tenant: tenant.to_owned(), from, page, page_max, hidden_too, ready: VecDeque::new() })
    }

    fn by_lists(rows: &Rows, tenant: &str, lists: &Lists) -> From {
        let context = Box::new(Context::new(rows.clone(), tenant.to_owned()));
        From::Lists { cursor: Cursor::new(lists, rows.page), context, at: Some(Bytes::new()) }
    }

    /// The next study.
    pub(crate) async fn next(&mut self) -> Result<Option<(StudyKey, StudyState)>, Error> {
        while self.ready.is_empty() {
            let keys = self.next_keys().await?;
            if keys.is_empty() {
                return Ok(None);
            }
            self.ready.extend(load(&self.rows, &self.tenant, keys, self.hidden_too).await?);
        }
        Ok(self.ready.pop_front())
    }

    /// The next studies, for whoever loads them by [`load`]; none at the end.
    pub(crate) async fn next_keys(&mut self) -> Result<Vec<OrderKey>, Error> {
        let keys = self.keys().await?;
        self.page = (self.page * 2).min(self.page_max);
        Ok(keys)
    }

    /// So many answers are wanted yet, where a limit says so: no more studies are read than these are likely to need.
    pub(crate) fn expect(&mut self, answers: Option<u64>) {
        if let Some(answers) = answers {
            let most = self.rows.page.max(1);
            self.page_max = usize::try_from(answers).unwrap_or(usize::MAX).clamp(PAGE_MIN.min(most), most);
            self.page = self.page.min(self.page_max);
        }
    }

    /// Goes past so many studies as their lists' rows alone say that they are there; how many are still to be passed over.
    pub(crate) async fn pass_over(&mut self, mut count: u64) -> Result<u64, Error> {
        let From::Lists { cursor, context, at } = &mut self.from else { return Ok(count) };
        if !self.rows.are_exact() {
            return Ok(count);
        }
        while count > 0 {
            let Some(from) = at.take() else { break };
            if let Some(found) = cursor.seek(context, from).await? {
                *at = Some(next_key(&found));
                count -= 1;
            }
        }
        Ok(count)
    }

    async fn keys(&mut self) -> Result<Vec<OrderKey>, Error> {
        match &mut self.from {
            From::Sorted(keys) => Ok(keys.drain(..self.page.min(keys.len())).collect()),
            From::Lists { cursor, context, at } => {
                let mut keys = Vec::with_capacity(self.page);
                while keys.len() < self.page {
                    let Some(from) = at.take() else { break };
                    if let Some(found) = cursor.seek(context, from).await? {
                        *at = Some(next_key(&found));
                        keys.push(OrderKey(found));
                    }
                }
                Ok(keys)
            }
        }
    }
}

/// Loads states of studies of which something is shown, or is hidden where that is wanted. A list's row is a hint: the study
/// must stand where the row says.
pub(crate) async fn load(
    rows: &Rows,
    tenant: &str,
    keys: Vec<OrderKey>,
    hidden_too: bool,
) -> Result<Vec<(StudyKey, StudyState)>, Error> {
    let uids: Vec<Uid> = keys.iter().map(OrderKey::study).collect::<Result<_, _>>().map_err(malformed)?;
    let study = |uid: &Uid| StudyKey { tenant: tenant.to_owned(), study_instance_uid: uid.to_string() };
    let studies: Vec<StudyKey> = uids.iter().map(study).collect();
    let states = rows.studies_now(&studies).await?;
    let mut found = Vec::with_capacity(studies.len());
    for ((order, key), state) in keys.into_iter().zip(studies).zip(states) {
        let wanted = |state: &StudyState| state.shown > 0 || hidden_too && state.hidden > 0;
        let Some(state) = state.filter(wanted) else { continue };
        if OrderKey::new(state.sort_key(), &key.study_instance_uid) == order {
            found.push((key, state));
        }
    }
    Ok(found)
}

/// Named studies in the order of answers.
async fn sorted(rows: &Rows, tenant: &str, uids: BTreeSet<Uid>) -> Result<From, Error> {
    let uids: Vec<Uid> = uids.into_iter().collect();
    let mut orders = Vec::with_capacity(uids.len());
    for page in uids.chunks(rows.page.max(1)) {
        let keys: Vec<StudyKey> = page
            .iter()
            .map(|uid| StudyKey { tenant: tenant.to_owned(), study_instance_uid: uid.to_string() })
            .collect();
        for (key, state) in keys.iter().zip(rows.studies_now(&keys).await?) {
            orders.extend(state.map(|state| OrderKey::new(state.sort_key(), &key.study_instance_uid)));
        }
    }
    orders.sort_unstable();
    Ok(From::Sorted(orders.into()))
}

/// Studies that have a series of this UID.
pub(crate) async fn studies_of_series(rows: &Rows, tenant: &str, series: &Uid) -> Result<Vec<Uid>, Error> {
    let mut pages = rows.pages(BY_SERIES, by_series_pk(tenant, series.as_str()), CkRange::default());
    let mut studies = Vec::new();
    while let Some(page) = pages.next().await? {
        for row in page {
            let study = unpack_uid(&row.ck).ok_or(RowError::Malformed("by_series")).map_err(malformed)?;
            studies.push(study.0);
        }
    }
    Ok(studies)
}

/// Where SOP Instance UIDs are: by study, the identities.
pub(crate) async fn places_of_instances(
    rows: &Rows,
    tenant: &str,
    uids: &[Uid],
) -> Result<BTreeMap<Uid, Vec<Identity>>, Error> {
    let mut places: BTreeMap<Uid, Vec<Identity>> = BTreeMap::new();
    for uid in uids {
        let pk = by_instance_pk(tenant, bucket_of_instance(uid.as_str()));
        let mut pages = rows.pages(BY_INSTANCE, pk, prefix_range(&by_instance_prefix(uid.as_str())));
        while let Some(page) = pages.next().await? {
            for row in page {
                let (instance, study, series) = read_by_instance_ck(&row.ck).map_err(malformed)?;
                places.entry(study).or_default().push(Identity { series, instance });
            }
        }
    }
    Ok(places)
}
