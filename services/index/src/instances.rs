//! Where instances are: the records that retrieval and ingest ask for.

use crate::{
    answering::{Answers, Ended, answering},
    people::{People, PeopleOfStudy},
    project::HeaderReader,
    query::{Seen, Studies, Walk},
    rows::{Rows, malformed},
    service::Shared,
};
use cairn_archive::{
    events::InstanceStoredSide,
    fold::{
        Corrections, Identity, InstanceState, PatientIdentity, Stamp, StoredObject, StudyKey, StudyState, TablesAt,
        Version, applied,
    },
    index_rows::{
        RowError, VERSION_TABLES,
        access::{Kind, Token, exact},
        study_pk,
    },
    plan::{Lists, Plan, Way},
    rejection::Titles,
};
use cairn_dicom::{
    Tag, Uid,
    dataset::DataSet,
    matching::{Key, Test},
    tags,
};
use cairn_service_api::{
    AnswerStream, Error, ErrorKind, Reason,
    index::{Detail, InstanceRecord, Selection},
};
use cairn_store_api::ObjectRef;
use prost::Message;
use std::{collections::BTreeSet, sync::Arc};

/// Gives the instances of a selection.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    selection: Selection,
    detail: Detail,
) -> Result<AnswerStream<InstanceRecord>, Error> {
    let mut plan = plan(&selection)?;
    let place = shared.place().await?;
    let shared = shared.clone();
    Ok(answering(shared.config.answers_ahead_max, Some(place), move |answers| async move {
        let pinned = shared.pinned(None).await?;
        let people = Arc::new(People::open(&pinned.rows, &selection.tenant).await?);
        let same = same_patients(&people, &selection).await?;
        if let (Way::Lists(_), Some((id, _))) = (&plan.way, &selection.patient) {
            plan.way =
                Way::Lists(Lists::of_patients(same.iter().map(|patient| patient.id.as_str()).chain([id.as_str()])));
        }
        let from = (pinned.rows.clone(), selection.tenant.clone());
        let mut walk = Walk::new(people, from, plan, sees_rejected(&selection), &shared);
        let mut studies: Studies = walk.begin(1).await?;
        while let Some((key, state)) = studies.next().await? {
            // Whose it is, what is seen of it says; which instances are seen, their own facts do.
            let study = match selection.patient {
                Some(_) => walk.see(key, state).await?.filter(|study| is_of_patient(&study.state, &selection, &same)),
                None => Some(Seen::as_rows_say(key, state)),
            };
            if let Some(mut study) = study {
                study.people = match selection.as_stored {
                    true => PeopleOfStudy::default(),
                    false => walk.people.of_study(&study.state).await?,
                };
                of_study(&walk, &study, &selection, detail, &answers).await?;
            }
        }
        Ok(shared.was_there(&pinned).await?)
    }))
}

/// Whoever asks for versions sees them, whatever they are rejected under.
fn sees_rejected(selection: &Selection) -> Titles {
    if selection.all_versions || selection.version.is_some() { Titles::ALL } else { selection.sees_rejected }
}

/// The way to a selection's studies, by its most selective list.
fn plan(selection: &Selection) -> Result<Plan, Error> {
    let mut identifier = DataSet::new();
    let mut list = |tag, uids: &[Uid]| {
        if !uids.is_empty() {
            let texts: Vec<&str> = uids.iter().map(Uid::as_str).collect();
            identifier.put_text(tag, &texts.join("\\"));
        }
    };
    list(tags::STUDY_INSTANCE_UID, &selection.studies);
    list(tags::SERIES_INSTANCE_UID, &selection.series);
    list(tags::SOP_INSTANCE_UID, &selection.instances);
    let unusable = |_| Error::because(ErrorKind::Invalid, Reason::UnusableKey, "selection can't be used");
    let mut plan = cairn_archive::plan::plan(&identifier, &Default::default()).map_err(unusable)?;
    if let (true, Some((id, _))) = (plan.way.is_everything(), &selection.patient) {
        if exact(id).is_empty() {
            return Err(Error::because(ErrorKind::Invalid, Reason::UnusableKey, "patient id is empty"));
        }
        plan.way = Way::Lists(Lists::One { token: Token::new(Kind::PatientId, exact(id)), from: None, to: None });
    }
    Ok(plan)
}

/// Everybody who is the patient that a selection names, where facts say so.
async fn same_patients(people: &People, selection: &Selection) -> Result<BTreeSet<PatientIdentity>, Error> {
    match &selection.patient {
        Some((id, issuer)) => people.named(id, issuer.as_deref()).await,
        None => Ok(BTreeSet::new()),
    }
}

/// Whether some instance of the study names the patient, or somebody who is the same; without an issuer asked for, any issuer's.
fn is_of_patient(state: &StudyState, selection: &Selection, same: &BTreeSet<PatientIdentity>) -> bool {
    let Some((id, issuer)) = &selection.patient else { return true };
    let key = Key {
        tag: tags::PATIENT_ID,
        vr: cairn_dicom::Vr::LO,
        test: Test::Exact(id.trim_matches([' ', '\0']).to_owned()),
    };
    state.patients().iter().any(|patient| {
        same.contains(&patient.trimmed())
            || key.matches_texts(&[&patient.id]) && issuer.as_ref().is_none_or(|issuer| *issuer == patient.issuer)
    })
}

async fn of_study(
    walk: &Walk,
    study: &Seen,
    selection: &Selection,
    detail: Detail,
    answers: &Answers<InstanceRecord>,
) -> Result<(), Ended> {
    let mut after = None;
    loop {
        let (series, more) = walk.series(study, after.as_ref(), walk.sort_max).await?;
        for (entry, _) in &series {
            of_series(walk, study, &entry.uid, selection, detail, answers).await?;
        }
        match series.last() {
            Some((last, _)) if more => after = Some(last.clone()),
            _ => return Ok(()),
        }
    }
}

async fn of_series(
    walk: &Walk,
    study: &Seen,
    series: &Uid,
    selection: &Selection,
    detail: Detail,
    answers: &Answers<InstanceRecord>,
) -> Result<(), Ended> {
    let key = &study.key;
    let corrections = if selection.as_stored { Corrections::default() } else { study.state.corrections.clone() };
    let headers = walk.headers(key);
    let (rows, people) = (walk.rows.clone(), study.people.clone());
    let cold_until = walk.cold_until(&study.state);
    let mut reader = Reader { rows, headers, key: key.clone(), detail, corrections, people, cold_until };
    let mut after = None;
    loop {
        let (found, more) = walk.instances(key, series, after.as_ref()).await?;
        for (entry, state) in &found {
            let identity = Identity { series: series.clone(), instance: entry.uid.clone() };
            for version in chosen(state, selection) {
                answers.give(reader.record(&identity, version, state).await?).await?;
            }
        }
        match found.last() {
            Some((last, _)) if more => after = Some(last.clone()),
            _ => return Ok(()),
        }
    }
}

/// The versions that a selection means: those of a digest, all, or the one that is seen.
fn chosen<'a>(state: &'a InstanceState, selection: &Selection) -> Vec<&'a Version> {
    match selection.version {
        // Of several with the same bytes one is enough, the one shown before others.
        Some(digest) => {
            let same = |version: &&Version| version.object.digest == digest;
            state.shown().filter(same).or_else(|| state.versions().iter().find(same)).into_iter().collect()
        }
        None if selection.all_versions => state.versions().iter().collect(),
        None => state.shown_to(selection.sees_rejected).into_iter().collect(),
    }
}

/// Makes records.
pub(crate) struct Reader {
    rows: Rows,
    headers: HeaderReader,
    key: StudyKey,
    detail: Detail,
    corrections: Corrections,
    people: PeopleOfStudy,
    /// What came before is in the site's cold object store.
    cold_until: Option<Stamp>,
}

fn object(object: &StoredObject) -> ObjectRef {
    ObjectRef { key: object.key, length: object.length, digest: object.digest }
}

impl Reader {
    async fn record(
        &mut self,
        identity: &Identity,
        version: &Version,
        state: &InstanceState,
    ) -> Result<InstanceRecord, Error> {
        let uid = |text: &str| text.parse::<Uid>().map_err(|_| malformed(RowError::Malformed("facts")));
        let (mut tables, mut header) = (InstanceStoredSide::default(), bytes::Bytes::new());
        if self.detail != Detail::Location {
            tables = self.tables(version).await?;
        }
        // Of whom something is said, an instance's header says whether it is that one's.
        if self.detail == Detail::Header || !self.people.is_empty() {
            header = self.headers.header(&identity.series, version).await?;
        }
        let corrections = self.people.in_force(&self.corrections, identity, version, &header);
        header = match self.detail {
            Detail::Header => applied(version, header, &corrections),
            _ => bytes::Bytes::new(),
        };
        let is_corrected = |path: &[u32]| matches!(path, [tag] if corrections.iter().any(|one| one.is_of(Tag(*tag))));
        tables.bulk_data.retain(|entry| !is_corrected(&entry.path));
        Ok(InstanceRecord {
            study_instance_uid: uid(&self.key.study_instance_uid)?,
            series_instance_uid: identity.series.clone(),
            sop_instance_uid: identity.instance.clone(),
            sop_class_uid: uid(&version.sop_class_uid)?,
            transfer_syntax_uid: uid(&version.transfer_syntax_uid)?,
            store_event: version.order.id,
            object: object(&version.object),
            data_set_offset: version.data_set_offset,
            pixel_data_offset: version.pixel_data_offset,
            shown: state.shown().is_some_and(|shown| shown.order == version.order),
            rejected: state.titles(version),
            damaged: state.is_damaged(version),
            is_to_be_erased: state.is_to_be_erased(version.order.id),
            is_cold: self.cold_until.is_some_and(|until| version.stamp < until),
            frames: version.frames,
            frame_table: tables.frame_table,
            bulk_data: tables.bulk_data,
            header,
            side_object: version.side_object.as_ref().map(object),
            default_character_set: version.default_character_set.clone(),
            issuer_of_patient_id: version.issuer_of_patient_id.clone(),
            corrections,
            corrected_length: None,
        })
    }

    async fn tables(&self, version: &Version) -> Result<InstanceStoredSide, Error> {
        let bytes = match &version.tables {
            TablesAt::Nowhere => return Ok(InstanceStoredSide::default()),
            TablesAt::Here(bytes) => bytes.clone(),
            TablesAt::Apart => {
                let row = self.rows.get(VERSION_TABLES, &study_pk(&self.key), version.said_by().as_bytes()).await?;
                row.ok_or(RowError::Malformed("version_tables")).map_err(malformed)?
            }
        };
        InstanceStoredSide::decode(bytes).map_err(|_| malformed(RowError::Malformed("version_tables")))
    }
}
