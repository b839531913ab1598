//! Fetching one study.

use super::{Import, Outcomes, Source};
use crate::{Listed, Stopped};
use async_trait::async_trait;
use bytes::Bytes;
use cairn_dicom::{Uid, dataset::DataSet, tags};
use cairn_dicomweb::agent::{AgentError, Parts};
use cairn_dimse::scu::{GetScu, QueryScu, ScuError, Taker};
use cairn_service_api::{
    Error, ErrorKind,
    index::{Detail, Selection},
    ingest::{Body, InstanceOffer, OfferedForm, StoreOutcome, Stored},
};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};

/// SOP Classes that are asked for where the archive does not say what it has.
const COMMON_CLASSES: [&str; 25] = [
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.2",
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.3.1",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.12.1",
    "1.2.840.10008.5.1.4.1.1.12.2",
    "1.2.840.10008.5.1.4.1.1.20",
    "1.2.840.10008.5.1.4.1.1.128",
    "1.2.840.10008.5.1.4.1.1.88.11",
    "1.2.840.10008.5.1.4.1.1.88.22",
    "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.5.1.4.1.1.88.59",
    "1.2.840.10008.5.1.4.1.1.11.1",
    "1.2.840.10008.5.1.4.1.1.104.1",
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.481.1",
    "1.2.840.10008.5.1.4.1.1.481.2",
    "1.2.840.10008.5.1.4.1.1.481.3",
    "1.2.840.10008.5.1.4.1.1.481.5",
];

/// What came of a study, by SOP Instance UID.
type Came = BTreeMap<String, (&'static str, String)>;

/// Why fetching broke off.
enum Broke {
    /// It may succeed when it is tried again.
    Passing(Stopped),
    /// It will not; what did not come is missing, for this reason.
    Refused(String),
}

impl From<ScuError> for Broke {
    fn from(error: ScuError) -> Self {
        match error.is_of_the_connection() {
            true => Self::Passing(Stopped::Unreachable(error.to_string())),
            false => Self::Refused(error.to_string()),
        }
    }
}

impl From<AgentError> for Broke {
    fn from(error: AgentError) -> Self {
        match error.is_passing() {
            true => Self::Passing(Stopped::Unreachable(error.to_string())),
            false => Self::Refused(error.to_string()),
        }
    }
}

impl Import {
    /// Fetches one study.
    pub(super) async fn study(&self, study: &Uid) -> Result<Outcomes, Stopped> {
        let mut remotes = self.source.remotes();
        let listed = remotes.study_patiently(study, self.patience).await?;
        remotes.close().await;
        let listed = match listed {
            Ok(listed) if !listed.is_empty() => listed,
            // It stands for what is not known of the study.
            Ok(_) => return Ok(vec![nameless("the source lists no instance of the study")]),
            Err(why) => return Ok(vec![nameless(&format!("the source does not say what is in the study: {why}"))]),
        };
        let mut came = Came::new();
        let mut attempt = 0;
        let why = loop {
            match self.fetch(study, &listed, &mut came).await {
                Ok(()) => break String::new(),
                Err(Broke::Refused(why)) => break why,
                Err(Broke::Passing(stopped)) if !self.patience.wait(&mut attempt).await => return Err(stopped),
                Err(Broke::Passing(_)) => {}
            }
        };
        if listed.iter().any(|listed| !came.contains_key(listed.instance.as_str())) {
            for instance in self.present(study).await? {
                came.entry(instance).or_insert(("stored", String::new()));
            }
        }
        let outcome = |listed: &Listed| {
            let (result, detail) = came.get(listed.instance.as_str()).cloned().unwrap_or(("missing", why.clone()));
            (listed.series.to_string(), listed.instance.to_string(), result.to_owned(), detail)
        };
        Ok(listed.iter().map(outcome).collect())
    }

    async fn fetch(&self, study: &Uid, listed: &[Listed], came: &mut Came) -> Result<(), Broke> {
        let mut keys = DataSet::new();
        keys.put_text(tags::QUERY_RETRIEVE_LEVEL, "STUDY");
        keys.put_text(tags::STUDY_INSTANCE_UID, study.as_str());
        match &self.source {
            Source::Get(remote) => {
                let mut taking = Taking { import: self, came, away: None };
                let given = GetScu::new((**remote).clone()).get(&keys, &classes_of(listed), &mut taking).await;
                if let Some(away) = taking.away {
                    return Err(Broke::Passing(away.into()));
                }
                let given = given?;
                match given.status.is_done() {
                    true => Ok(()),
                    false => Err(Broke::Refused(format!("C-GET ended with status {}", given.status))),
                }
            }
            Source::Move(remote, to) => {
                self.pace.instances(listed.len() as u64).await;
                let mut query = QueryScu::new((**remote).clone());
                let moved = query.move_to(&keys, to).await?;
                query.release().await;
                match moved.status.is_done() && moved.counts.failed == 0 {
                    true => Ok(()),
                    false => Err(Broke::Refused(format!("C-MOVE ended with status {}", moved.status))),
                }
            }
            Source::Web(agent) => {
                let mut taking = Taking { import: self, came, away: None };
                taking.take_parts(agent.retrieve(&format!("/studies/{study}")).await, None).await?;
                // One by one, so that what fails has a name.
                for listed in listed {
                    if !taking.came.contains_key(listed.instance.as_str()) {
                        let (series, instance) = (&listed.series, &listed.instance);
                        let resource = format!("/studies/{study}/series/{series}/instances/{instance}");
                        taking.take_parts(agent.retrieve(&resource).await, Some(instance)).await?;
                    }
                }
                Ok(())
            }
        }
    }

    /// SOP Instance UIDs of a study that are here, once the index has all that the log has.
    async fn present(&self, study: &Uid) -> Result<BTreeSet<String>, Stopped> {
        let end = self.index.status().await?.log_end;
        self.index.wait_for(&end, self.index_timeout).await?;
        let selection = Selection { tenant: self.tenant.clone(), studies: vec![study.clone()], ..Selection::default() };
        let mut records = self.index.instances(selection, Detail::Location).await?;
        let mut present = BTreeSet::new();
        while let Some(record) = records.next().await.transpose()? {
            present.insert(record.sop_instance_uid.to_string());
        }
        Ok(present)
    }
}

fn nameless(why: &str) -> (String, String, String, String) {
    (String::new(), String::new(), "missing".to_owned(), why.to_owned())
}

/// SOP Classes of a list with the syntaxes that they are in, as far as it says.
fn classes_of(listed: &[Listed]) -> Vec<(Uid, Vec<Uid>)> {
    let mut classes: BTreeMap<Uid, BTreeSet<Uid>> = BTreeMap::new();
    for listed in listed {
        if let Some(class) = &listed.sop_class {
            classes.entry(class.clone()).or_default().extend(listed.transfer_syntax.clone());
        }
    }
    if listed.iter().any(|listed| listed.sop_class.is_none()) {
        for class in COMMON_CLASSES.iter().filter_map(|text| text.parse().ok()) {
            classes.entry(class).or_default();
        }
    }
    classes.into_iter().map(|(class, syntaxes)| (class, syntaxes.into_iter().collect())).collect()
}

/// Hands what comes to ingest, and notes down what became of it.
struct Taking<'a> {
    import: &'a Import,
    came: &'a mut Came,
    /// This archive can't take instances now.
    away: Option<Error>,
}

impl Taking<'_> {
    async fn store(&mut self, offer: InstanceOffer, body: Body<'_>, named: Option<&str>) -> Result<Stored, Error> {
        let import = self.import;
        import.pace.instances(1).await;
        let pace = &import.pace;
        let body: Body<'_> = Box::pin(body.then(async |piece| {
            if let Ok(piece) = &piece {
                pace.bytes(piece.len()).await;
            }
            piece
        }));
        let stored = import.ingest.store(import.receipt, offer, body).await;
        match &stored {
            Ok(stored) => {
                let result = match stored.outcome {
                    StoreOutcome::New => "stored",
                    StoreOutcome::Repeat => "repeated",
                    StoreOutcome::Conflict { .. } | StoreOutcome::ElsewhereToo => "conflict",
                };
                // Tried again, what was stored is a repeat: what it was first counts.
                self.came.entry(stored.sop_instance_uid.to_string()).or_insert((result, String::new()));
            }
            Err(error) if error.kind.is_retryable() => self.away = Some(error.clone()),
            Err(error) if error.kind == ErrorKind::Aborted => {}
            Err(error) => {
                if let Some(named) = named {
                    self.came.entry(named.to_owned()).or_insert(("refused", error.message.clone()));
                }
            }
        }
        stored
    }

    /// Takes the parts of an answer. `named` is the only one that there should be.
    async fn take_parts(&mut self, parts: Result<Parts, AgentError>, named: Option<&Uid>) -> Result<(), Broke> {
        let mut parts = match parts {
            Ok(parts) => parts,
            Err(error) if error.is_passing() => return Err(error.into()),
            // What was listed and is not given is missing, and others may be given.
            Err(error) => {
                if let Some(named) = named {
                    self.came.entry(named.to_string()).or_insert(("missing", error.to_string()));
                }
                return Ok(());
            }
        };
        while parts.next().await? {
            let offer = InstanceOffer { form: OfferedForm::File, length_hint: None, study_instance_uid: None };
            let mut failure = None;
            let _noted = self.store(offer, body_of(&mut parts, &mut failure), named.map(Uid::as_str)).await;
            if let Some(error) = failure {
                return Err(error.into());
            }
            if let Some(away) = self.away.take() {
                return Err(Broke::Passing(away.into()));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Taker for Taking<'_> {
    async fn take(&mut self, offer: InstanceOffer, body: Body<'_>) -> Result<Stored, Error> {
        let named = match &offer.form {
            OfferedForm::DataSet { sop_instance_uid, .. } => Some(sop_instance_uid.to_string()),
            OfferedForm::File => None,
        };
        self.store(offer, body, named.as_deref()).await
    }
}

/// A part as it comes. `failure` is set when it breaks off.
fn body_of<'a>(parts: &'a mut Parts, failure: &'a mut Option<AgentError>) -> Body<'a> {
    Box::pin(stream::unfold(Some((parts, failure)), |source| async {
        let (parts, failure) = source?;
        match parts.chunk().await {
            Ok(Some(piece)) => Some((Ok(piece), Some((parts, failure)))),
            Ok(None) => None,
            Err(error) => {
                *failure = Some(error);
                Some((Err::<Bytes, _>(Error::new(ErrorKind::Aborted, "the answer ended early")), None))
            }
        }
    }))
}
