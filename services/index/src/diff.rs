//! What two generations do not have alike, found by the digest tree.

use crate::{
    answering::{Answers, Ended, answering},
    project::Project,
    query::Studies,
    rows::{Rows, malformed},
    service::{Shared, whole},
};
use cairn_archive::{
    digest::{Leaves, leaf_of},
    fold::{StudyKey, StudyState},
    index_rows::{BY_INSTANCE, INSTANCE_BUCKETS, by_instance_pk, read_by_instance_ck},
};
use cairn_dicom::{Uid, dataset::DataSet};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind,
    index::{Diff, StudyDifference},
};
use cairn_store_api::{CkRange, Generation};
use std::{collections::BTreeSet, sync::Arc};

/// Lists studies that differ. Studies in leaves of the tree that are equal are not looked at.
pub(crate) async fn run(shared: &Arc<Shared>, diff: Diff) -> Result<AnswerStream<StudyDifference>, Error> {
    shared.look().await?;
    let (a, b) = (project(shared, diff.a)?, project(shared, diff.b)?);
    let place = shared.place().await?;
    let shared = shared.clone();
    Ok(answering(shared.config.answers_ahead_max, Some(place), move |answers| async move {
        let _pins = (a.pin(), b.pin());
        let (of_a, of_b) = (leaves(&a).await?, leaves(&b).await?);
        let leaves: BTreeSet<u8> = of_a.differing(&of_b).into_iter().collect();
        if leaves.is_empty() {
            return Ok(());
        }
        let rows = [shared.rows(a.rows.generation), shared.rows(b.rows.generation)];
        let mut found = Found { tenant: diff.tenant, leaves, rows, left: diff.limit, answers };
        for of in 0..2 {
            found.among_shown(of).await?;
        }
        if found.left == diff.limit {
            found.among_all().await?;
        }
        Ok(())
    }))
}

fn project(shared: &Shared, number: u32) -> Result<Arc<Project>, Error> {
    let known = shared.keeping().get(Generation(number));
    known.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no generation {number}")))
}

async fn leaves(project: &Project) -> Result<Leaves, Error> {
    project.refresh(true).await?;
    Ok(project.look(|parts| whole(parts.iter().map(|part| &part.leaves))))
}

struct Found {
    tenant: String,
    /// Those that differ.
    leaves: BTreeSet<u8>,
    rows: [Rows; 2],
    left: u64,
    answers: Answers<StudyDifference>,
}

impl Found {
    /// Studies that the one shows, and, of the other, those that the one does not.
    async fn among_shown(&mut self, of: usize) -> Result<(), Ended> {
        let [a, b] = &self.rows;
        let (own, other) = if of == 0 { (a, b) } else { (b, a) };
        let (own, other) = (own.clone(), other.clone());
        let unusable = |_| Error::new(ErrorKind::Internal, "the list of all studies can't be asked for");
        let all = cairn_archive::plan::plan(&DataSet::new(), &Default::default()).map_err(unusable)?.way;
        let mut studies = Studies::new(own.clone(), &self.tenant, &all, own.page, false).await?;
        while self.left > 0 {
            let Some((key, state)) = studies.next().await? else { break };
            let leaf = leaf_of(&key.tenant, &key.study_instance_uid);
            if !self.leaves.contains(&leaf) {
                continue;
            }
            let beside = other.studies(std::slice::from_ref(&key)).await?.pop().flatten().map(|row| row.now);
            // Those that both show were met among the first one's.
            if of == 0 {
                self.tell(leaf, &key, Some(&state), beside.as_ref()).await?;
            } else if beside.as_ref().is_none_or(|beside| beside.shown == 0) {
                self.tell(leaf, &key, beside.as_ref(), Some(&state)).await?;
            }
        }
        Ok(())
    }

    /// Studies of which nothing is shown: on no list, but their instances are known.
    async fn among_all(&mut self) -> Result<(), Ended> {
        for bucket in 0..INSTANCE_BUCKETS {
            let mut studies: BTreeSet<Uid> = BTreeSet::new();
            for rows in &self.rows {
                let mut pages = rows.pages(BY_INSTANCE, by_instance_pk(&self.tenant, bucket), CkRange::default());
                while let Some(page) = pages.next().await? {
                    for row in page {
                        studies.insert(read_by_instance_ck(&row.ck).map_err(malformed)?.1);
                    }
                }
            }
            for study in studies {
                let key = StudyKey { tenant: self.tenant.clone(), study_instance_uid: study.to_string() };
                let leaf = leaf_of(&key.tenant, &key.study_instance_uid);
                if self.left == 0 || !self.leaves.contains(&leaf) {
                    continue;
                }
                let [a, b] = &self.rows;
                let a = a.studies(std::slice::from_ref(&key)).await?.pop().flatten().map(|row| row.now);
                let b = b.studies(std::slice::from_ref(&key)).await?.pop().flatten().map(|row| row.now);
                self.tell(leaf, &key, a.as_ref(), b.as_ref()).await?;
            }
        }
        Ok(())
    }

    async fn tell(
        &mut self,
        leaf: u8,
        key: &StudyKey,
        a: Option<&StudyState>,
        b: Option<&StudyState>,
    ) -> Result<(), Ended> {
        let sums = |state: Option<&StudyState>| {
            let leaf = state?.leaf(key);
            Some((leaf.events.to_bytes(), leaf.state.to_bytes()))
        };
        let (a, b) = (sums(a), sums(b));
        if a == b {
            return Ok(());
        }
        self.left = self.left.saturating_sub(1);
        let study_instance_uid = key.study_instance_uid.clone();
        self.answers.give(StudyDifference { study_instance_uid, leaf, a, b }).await
    }
}
