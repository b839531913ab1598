//! Facts about patients, and what operators take back of them.

use crate::{
    append::{Appender, Context},
    correction::{check_reason, invalid},
    service::Service,
};
use bytes::Bytes;
use cairn_archive::{
    Partition, Position, PositionVector,
    correction::encode,
    events::{Event, PatientFactRevoked, PatientProtected, PatientUpdated, PatientsLinked, PatientsMerged},
    fold::{EventOrder, PatientIdentity},
    patients::{PatientFact, Resolution, Said, Standing, check_identity, check_update, named},
};
use cairn_service_api::{
    Error, ErrorKind, Index,
    patients::{FactsOf, PatientChange, PatientRevocation, PatientStatement},
};
use futures_util::TryStreamExt;
use prost::Message;

/// Identities that are one patient at most: each is looked up whenever one of them is asked for.
const MEMBERS_MAX: usize = 1_000;

impl Service {
    /// Records what is said of patients.
    pub(crate) async fn say_of_patients(&self, statement: PatientStatement) -> Result<Position, Error> {
        self.appender.check_clock()?;
        check_reason(&statement.reason)?;
        check(&statement.change)?;
        if let (
            PatientChange::Merge { prior, surviving } | PatientChange::Link { one: prior, other: surviving },
            Some(index),
        ) = (&statement.change, &self.index)
        {
            let merges = matches!(statement.change, PatientChange::Merge { .. });
            self.check_ties(index.as_ref(), &statement.tenant, (prior, surviving), merges).await?;
        }
        Ok(self.appender.append(&event(statement), Context::default()).await?.position)
    }

    /// A merge that is known to be void is refused. One of which that is learnt later does not count.
    async fn check_ties(
        &self,
        index: &dyn Index,
        tenant: &str,
        (prior, surviving): (&PatientIdentity, &PatientIdentity),
        merges: bool,
    ) -> Result<(), Error> {
        let (prior, surviving) = (prior.trimmed(), surviving.trimmed());
        self.wait_for_patients(index).await?;
        let mut facts = Vec::new();
        for patient in [&prior, &surviving] {
            let mut found = index.patient_facts(tenant, FactsOf::Patient(patient.clone())).await?;
            while let Some(known) = found.try_next().await? {
                facts.push(known.fact());
            }
        }
        let resolution = Resolution::of(facts);
        let standing = if merges { resolution.may_merge(&prior, &surviving) } else { Standing::Counts };
        let conflict = |message: &str| Err(Error::new(ErrorKind::Conflict, message));
        match standing {
            Standing::MergedAlready => {
                return conflict("the prior patient was merged already: that is to be revoked first");
            }
            Standing::Cycle => {
                return conflict("the surviving patient was merged into the prior one: that is to be revoked first");
            }
            Standing::Counts | Standing::Revoked => {}
        }
        if resolution.members(&prior).len() + resolution.members(&surviving).len() > MEMBERS_MAX {
            return conflict("more identities would be one patient than can be");
        }
        Ok(())
    }

    /// Waits until everything is folded that the log has of patients.
    async fn wait_for_patients(&self, index: &dyn Index) -> Result<(), Error> {
        let log = self.appender.log();
        let partition = Partition::of_study("", log.partitions());
        let mut all = PositionVector::default();
        all.0.insert((log.site().clone(), log.incarnation(), partition), log.end(partition).await?);
        index.wait_for(&all, self.config.hint.rejection_timeout).await
    }
}

fn check(change: &PatientChange) -> Result<(), Error> {
    let two = |one: &PatientIdentity, other: &PatientIdentity| {
        [one, other].into_iter().try_for_each(|patient| check_identity(patient).map_err(invalid))?;
        match one.trimmed() == other.trimmed() {
            true => Err(Error::new(ErrorKind::Invalid, "both are the same patient")),
            false => Ok(()),
        }
    };
    match change {
        PatientChange::Merge { prior, surviving } => two(prior, surviving),
        PatientChange::Link { one, other } => two(one, other),
        PatientChange::Update { patient, elements } => {
            check_identity(patient).map_err(invalid)?;
            check_update(elements).map_err(invalid)
        }
    }
}

fn event(PatientStatement { tenant, change, by, reason }: PatientStatement) -> Event {
    let protected = |patients: &[&PatientIdentity], elements: Bytes| {
        let patients = patients.iter().map(|patient| named(patient)).collect();
        PatientProtected { patients, elements, reason: reason.clone() }.encode_to_vec().into()
    };
    let key_id = String::new();
    match &change {
        PatientChange::Merge { prior, surviving } => {
            let protected = protected(&[prior, surviving], Bytes::new());
            Event::PatientsMerged(PatientsMerged { tenant, protected, key_id, merged_by: by })
        }
        PatientChange::Link { one, other } => {
            let protected = protected(&[one, other], Bytes::new());
            Event::PatientsLinked(PatientsLinked { tenant, protected, key_id, linked_by: by })
        }
        PatientChange::Update { patient, elements } => {
            let protected = protected(&[patient], encode(elements));
            Event::PatientUpdated(PatientUpdated { tenant, protected, key_id, updated_by: by })
        }
    }
}

/// Takes back the fact that stands at a position of this site's log.
pub(crate) async fn revoke(appender: &Appender, revocation: PatientRevocation) -> Result<Position, Error> {
    appender.check_clock()?;
    check_reason(&revocation.reason)?;
    let nothing =
        || Error::new(ErrorKind::NotFound, format!("there is no fact about patients at {}", revocation.position));
    let Some((envelope, found)) = appender.fact_at(&revocation.position).await? else { return Err(nothing()) };
    let fact = PatientFact::read(EventOrder::of(&envelope), &found).ok_or_else(nothing)?;
    let fact = fact.map_err(|_| nothing())?;
    if matches!(fact.said, Said::Revoked { .. } | Said::Gone) {
        return Err(nothing());
    }
    let patients = fact.said.patients().into_iter().map(named).collect();
    let event = Event::PatientFactRevoked(PatientFactRevoked {
        tenant: found.tenant().to_owned(),
        fact_event_id: Bytes::copy_from_slice(envelope.id.as_bytes()),
        protected: PatientProtected { patients, elements: Bytes::new(), reason: revocation.reason }
            .encode_to_vec()
            .into(),
        key_id: String::new(),
        revoked_by: revocation.by,
    });
    let context = Context { causation: Some(envelope.id), ..Context::default() };
    Ok(appender.append(&event, context).await?.position)
}
