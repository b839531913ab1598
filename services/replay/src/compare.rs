//! What another archive says it has, beside what is here: instance by instance, sending nothing.

use crate::{Listed, Patience, Remotes, Stopped};
use cairn_dicom::{Uid, dataset::DataSet, tags};
use cairn_service_api::{
    Error, Index,
    index::{Detail, Level, Query, QueryOptions, Returning, Selection},
};
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};

/// An instance, or what is known of a study as a whole, that the two do not have alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The other archive has it, and it is not here.
    MissingHere {
        /// Study Instance UID.
        study: Uid,
        /// Series Instance UID.
        series: Uid,
        /// SOP Instance UID.
        instance: Uid,
    },
    /// It is here, and the other archive does not say that it has it.
    MissingThere {
        /// Study Instance UID.
        study: Uid,
        /// Series Instance UID.
        series: Uid,
        /// SOP Instance UID.
        instance: Uid,
    },
    /// The other archive does not say what it has of a study.
    Unanswered {
        /// Study Instance UID.
        study: Uid,
        /// What it said.
        why: String,
    },
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Studies.
    pub studies: u64,
    /// Instances that both have.
    pub both: u64,
    /// Instances that are not here.
    pub missing_here: u64,
    /// Instances that are not there.
    pub missing_there: u64,
    /// Studies of which the other archive does not say what it has.
    pub unanswered: u64,
}

impl Compared {
    /// Whether both have the same.
    pub fn is_equal(&self) -> bool {
        (self.missing_here, self.missing_there, self.unanswered) == (0, 0, 0)
    }
}

/// This archive, and which of its studies are meant.
pub struct Here<'a> {
    /// Its index.
    pub index: &'a dyn Index,
    /// Whose instances.
    pub tenant: String,
    /// Whether studies that the other archive does not list are compared too.
    pub both_ways: bool,
}

/// Compares the studies that match `keys`, and tells `each` difference as it is found. Study Instance UIDs are held in
/// memory, and the instances of one study.
///
/// # Errors
/// As [`Stopped`] says; what was told is so.
pub async fn compare(
    there: &mut Remotes,
    here: &Here<'_>,
    keys: &DataSet,
    patience: Patience,
    mut each: impl FnMut(Difference) -> Result<(), Stopped>,
) -> Result<Compared, Stopped> {
    let mut studies = BTreeSet::new();
    there
        .studies(keys, |study| {
            studies.insert(study);
            Ok(())
        })
        .await?;
    let mut compared = Compared::default();
    for study in &studies {
        compared.studies += 1;
        match there.study_patiently(study, patience).await? {
            Ok(listed) => here.study(study, listed, &mut compared, &mut each).await?,
            Err(why) => {
                compared.unanswered += 1;
                each(Difference::Unanswered { study: study.clone(), why })?;
            }
        }
    }
    if here.both_ways {
        for study in here.studies_beside(&studies, keys).await? {
            compared.studies += 1;
            here.study(&study, Vec::new(), &mut compared, &mut each).await?;
        }
    }
    there.close().await;
    Ok(compared)
}

fn away(error: Error) -> Stopped {
    Stopped::Away(error.to_string())
}

impl Here<'_> {
    async fn study(
        &self,
        study: &Uid,
        listed: Vec<Listed>,
        compared: &mut Compared,
        each: &mut impl FnMut(Difference) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let mut there: BTreeMap<Uid, Uid> = listed.into_iter().map(|one| (one.instance, one.series)).collect();
        let selection = Selection { tenant: self.tenant.clone(), studies: vec![study.clone()], ..Selection::default() };
        let mut here = self.index.instances(selection, Detail::Location).await.map_err(away)?;
        while let Some(record) = here.try_next().await.map_err(away)? {
            let (series, instance) = (record.series_instance_uid, record.sop_instance_uid);
            match there.remove(&instance) {
                Some(_) => compared.both += 1,
                None => {
                    compared.missing_there += 1;
                    each(Difference::MissingThere { study: study.clone(), series, instance })?;
                }
            }
        }
        for (instance, series) in there {
            compared.missing_here += 1;
            each(Difference::MissingHere { study: study.clone(), series, instance })?;
        }
        Ok(())
    }

    /// Studies that match and are not among those.
    async fn studies_beside(&self, listed: &BTreeSet<Uid>, keys: &DataSet) -> Result<Vec<Uid>, Stopped> {
        let mut identifier = keys.clone();
        if identifier.get(tags::STUDY_INSTANCE_UID).is_none() {
            identifier.put_empty(tags::STUDY_INSTANCE_UID);
        }
        let query = Query {
            tenant: self.tenant.clone(),
            level: Level::Study,
            identifier,
            options: QueryOptions::default(),
            returning: Returning::Keys,
            offset: 0,
            limit: None,
            generation: None,
            sees_rejected: Default::default(),
        };
        let mut answers = self.index.query(query).await.map_err(away)?;
        let mut beside = Vec::new();
        while let Some(answer) = answers.try_next().await.map_err(away)? {
            beside.extend(answer.uid(tags::STUDY_INSTANCE_UID).filter(|study| !listed.contains(study)));
        }
        Ok(beside)
    }
}
