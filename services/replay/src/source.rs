//! What another archive has: by C-FIND or QIDO-RS, for reconciliation and for import.

use crate::{Destination, Patience, Stopped};
use cairn_dicom::{Tag, Uid, dataset::DataSet, dictionary, tags};
use cairn_dicomweb::agent::{Agent, AgentError, Found};
use cairn_dimse::{
    AssociationError,
    scu::{QueryScu, Remote, ScuError},
};
use std::collections::BTreeSet;

/// Answers of one page of QIDO-RS.
const PAGE: usize = 1000;

/// An instance that another archive says it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub instance: Uid,
    /// SOP Class UID, where it is told.
    pub sop_class: Option<Uid>,
    /// Transfer Syntax UID, where it is told.
    pub transfer_syntax: Option<Uid>,
}

/// Asks another archive what it has.
pub enum Remotes {
    /// By C-FIND.
    Dimse(Box<QueryScu>),
    /// By QIDO-RS.
    Web(Agent),
}

/// Why it did not say.
#[derive(Debug)]
pub(crate) enum Silent {
    /// The same may succeed later.
    Passing(String),
    /// It answered this question with a failure; others it may answer.
    Failed(String),
    /// It answers no such question.
    Refused(String),
}

impl From<ScuError> for Silent {
    fn from(error: ScuError) -> Self {
        let is_passing = error.is_of_the_connection()
            || matches!(&error, ScuError::Failed(_, status) if status.0 & 0xFF00 == 0xA700)
            || matches!(&error, ScuError::Association(AssociationError::Timeout(_)));
        match error {
            error if is_passing => Self::Passing(error.to_string()),
            ScuError::Failed(..) | ScuError::Unusable(_) => Self::Failed(error.to_string()),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<AgentError> for Silent {
    fn from(error: AgentError) -> Self {
        match error {
            error if error.is_passing() => Self::Passing(error.to_string()),
            AgentError::Status(401 | 403) | AgentError::Config(_) => Self::Refused(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Remotes {
    /// Asks over DIMSE.
    pub fn dimse(remote: Remote) -> Self {
        Self::Dimse(Box::new(QueryScu::new(remote)))
    }

    /// Asks over DICOMweb.
    pub fn web(agent: Agent) -> Self {
        Self::Web(agent)
    }

    /// Asks a destination; `None`: there is none.
    pub(crate) fn of(destination: &Destination) -> Option<Self> {
        match destination {
            Destination::Dimse(remote) => Some(Self::dimse((**remote).clone())),
            Destination::Web(agent) => Some(Self::Web(agent.clone())),
            Destination::Nowhere => None,
        }
    }

    /// The studies that match `keys`, each as it is found.
    pub(crate) async fn studies(
        &mut self,
        keys: &DataSet,
        mut each: impl FnMut(Uid) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let mut stopped = None;
        let outcome = match self {
            Self::Dimse(query) => {
                let mut keys = keys.clone();
                keys.put_text(tags::QUERY_RETRIEVE_LEVEL, "STUDY");
                if keys.get(tags::STUDY_INSTANCE_UID).is_none() {
                    keys.put_empty(tags::STUDY_INSTANCE_UID);
                }
                let found = query.find(&keys, |answer| {
                    let study = answer.uid(tags::STUDY_INSTANCE_UID);
                    let study = study.ok_or(ScuError::Unusable("an answer has no Study Instance UID"))?;
                    each(study).map_err(|error| {
                        stopped = Some(error);
                        ScuError::Unusable("a study could not be noted down")
                    })
                });
                found.await.map_err(Silent::from)
            }
            Self::Web(agent) => {
                let resource = format!("/studies?{}", query_of(keys));
                pages(agent, &resource, |found| {
                    let study = found.uid(tags::STUDY_INSTANCE_UID);
                    let study = study.ok_or(AgentError::Unusable("an answer has no Study Instance UID"))?;
                    each(study).map_err(|error| {
                        stopped = Some(error);
                        AgentError::Unusable("a study could not be noted down")
                    })
                })
                .await
                .map_err(Silent::from)
            }
        };
        match (outcome, stopped) {
            (_, Some(stopped)) => Err(stopped),
            (Ok(()), None) => Ok(()),
            (Err(Silent::Passing(what)), None) => Err(Stopped::Unreachable(what)),
            (Err(Silent::Refused(what) | Silent::Failed(what)), None) => Err(Stopped::Refused(what)),
        }
    }

    /// The instances of a study, or why the archive does not say; tried again while that may help.
    ///
    /// # Errors
    /// `Unreachable` after all attempts; `Refused`: it will not answer for another study either.
    pub(crate) async fn study_patiently(
        &mut self,
        study: &Uid,
        patience: Patience,
    ) -> Result<Result<Vec<Listed>, String>, Stopped> {
        let mut attempt = 0;
        loop {
            match self.study(study).await {
                Ok(listed) => return Ok(Ok(listed)),
                Err(Silent::Failed(what)) => return Ok(Err(what)),
                Err(Silent::Refused(what)) => return Err(Stopped::Refused(what)),
                Err(Silent::Passing(what)) if !patience.wait(&mut attempt).await => {
                    return Err(Stopped::Unreachable(what));
                }
                Err(Silent::Passing(_)) => {}
            }
        }
    }

    async fn study(&mut self, study: &Uid) -> Result<Vec<Listed>, Silent> {
        let mut listed = Vec::new();
        match self {
            Self::Web(agent) => {
                let include = format!("includefield={:08X}", tags::AVAILABLE_TRANSFER_SYNTAX_UID.0);
                pages(agent, &format!("/studies/{study}/instances?{include}"), |found| {
                    let uids = found.uid(tags::SERIES_INSTANCE_UID).zip(found.uid(tags::SOP_INSTANCE_UID));
                    let (series, instance) = uids.ok_or(AgentError::Unusable("an answer lacks its UIDs"))?;
                    let sop_class = found.uid(tags::SOP_CLASS_UID);
                    let transfer_syntax = found.uid(tags::AVAILABLE_TRANSFER_SYNTAX_UID);
                    listed.push(Listed { series, instance, sop_class, transfer_syntax });
                    Ok(())
                })
                .await?;
            }
            Self::Dimse(query) => {
                let mut keys = DataSet::new();
                keys.put_text(tags::QUERY_RETRIEVE_LEVEL, "SERIES");
                keys.put_text(tags::STUDY_INSTANCE_UID, study.as_str());
                keys.put_empty(tags::SERIES_INSTANCE_UID);
                let mut series = BTreeSet::new();
                query
                    .find(&keys, |answer| {
                        series.extend(answer.uid(tags::SERIES_INSTANCE_UID));
                        Ok(())
                    })
                    .await?;
                for series in series {
                    instances_of(query, study, &series, &mut listed).await?;
                }
            }
        }
        Ok(listed)
    }

    pub(crate) async fn close(&mut self) {
        if let Self::Dimse(query) = self {
            query.release().await;
        }
    }
}

async fn instances_of(query: &mut QueryScu, study: &Uid, series: &Uid, listed: &mut Vec<Listed>) -> Result<(), Silent> {
    let mut keys = DataSet::new();
    keys.put_text(tags::QUERY_RETRIEVE_LEVEL, "IMAGE");
    keys.put_text(tags::STUDY_INSTANCE_UID, study.as_str());
    keys.put_text(tags::SERIES_INSTANCE_UID, series.as_str());
    for asked in [tags::SOP_INSTANCE_UID, tags::SOP_CLASS_UID, tags::AVAILABLE_TRANSFER_SYNTAX_UID] {
        keys.put_empty(asked);
    }
    let each = |answer: DataSet| {
        let instance = answer.uid(tags::SOP_INSTANCE_UID);
        let instance = instance.ok_or(ScuError::Unusable("an answer has no SOP Instance UID"))?;
        let (sop_class, syntax) = (answer.uid(tags::SOP_CLASS_UID), answer.uid(tags::AVAILABLE_TRANSFER_SYNTAX_UID));
        listed.push(Listed { series: series.clone(), instance, sop_class, transfer_syntax: syntax });
        Ok(())
    };
    Ok(query.find(&keys, each).await?)
}

/// Asks page by page until one is empty: a server may give fewer answers than it was asked for.
async fn pages(
    agent: &Agent,
    resource: &str,
    mut each: impl FnMut(Found) -> Result<(), AgentError>,
) -> Result<(), AgentError> {
    let mut offset = 0;
    let mut first_before = None;
    loop {
        let page = agent.search(&format!("{resource}&limit={PAGE}&offset={offset}")).await?;
        // A server that does not know `offset` gives the same page for ever.
        if page.is_empty() || first_before.as_ref() == page.first() {
            return Ok(());
        }
        first_before = page.first().cloned();
        offset += page.len();
        for found in page {
            each(found)?;
        }
    }
}

/// Matching keys as a query of QIDO-RS.
fn query_of(keys: &DataSet) -> String {
    let mut query = String::new();
    for element in keys.elements() {
        let name = name_of(element.tag);
        let value = element.value.texts().join(",");
        query.push_str(&format!("{name}={}&", percent_encoded(&value)));
    }
    query.trim_end_matches('&').to_owned()
}

fn name_of(tag: Tag) -> String {
    dictionary::keyword_of(tag).map_or_else(|| format!("{:08X}", tag.0), str::to_owned)
}

/// RFC 3986 section 2.3: what is not unreserved is encoded; `*` and `,` may stand in a query.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'*' | b',' => {
                encoded.push(char::from(byte))
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_a_query() {
        let mut keys = DataSet::new();
        keys.put_text(tags::STUDY_DATE, "20260101-20260131");
        keys.put_text(tags::PATIENT_NAME, "Ö*^A");
        assert_eq!(query_of(&keys), "StudyDate=20260101-20260131&PatientName=%C3%96*%5EA");
    }
}
