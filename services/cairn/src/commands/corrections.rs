//! `cairn correct` and `cairn corrections`: attributes that were wrong, and an operator's taking a correction back.

use super::{Failure, connection, events::read_at, index, ingest, query::parse_tag, table::Rows};
use crate::cli::{Output, ServerArgs};
use cairn_archive::{
    EventId, Position,
    correction::{self, check},
    envelope::rfc3339,
    events::{AttributesCorrected, Event},
};
use cairn_dicom::{Uid, dataset::DataSet, dictionary};
use cairn_service_api::{
    Index, Ingest,
    correction::{Correction, CorrectionRevocation},
    digests::FoldedEvent,
};
use clap::{Args, Subcommand};
use futures_util::TryStreamExt;

#[derive(Debug, Args)]
pub struct CorrectArgs {
    /// Study Instance UID
    pub study: String,
    /// An attribute of patient or study and its right value, as PatientName=DOE^JANE; without a value it is taken away
    #[arg(required = true, value_name = "KEYWORD=VALUE")]
    pub attributes: Vec<String>,
    /// Why
    #[arg(long)]
    pub why: String,
    /// Only instances of this series
    #[arg(long, value_name = "UID")]
    pub series: Option<String>,
    /// Only this instance
    #[arg(long, value_name = "UID")]
    pub instance: Option<String>,
    /// Who decides
    #[arg(long, env = "USER", default_value = "operator")]
    pub by: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct CorrectionsArgs {
    #[command(subcommand)]
    pub action: CorrectionsAction,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub enum CorrectionsAction {
    /// Corrections of a study, a line each; values are shown by `show`
    List {
        /// Study Instance UID
        study: String,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Corrections of a study with their values, a line for each attribute
    Show {
        /// Study Instance UID
        study: String,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Take corrections back: as if they had never been made
    Revoke {
        /// Where each stands, as `list` says: site/incarnation/partition/offset
        #[arg(required = true)]
        positions: Vec<Position>,
        /// Why
        #[arg(long)]
        why: String,
        /// Who decides
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
    },
}

pub async fn correct(args: CorrectArgs) -> Result<(), Failure> {
    let uid = |text: &String| text.parse::<Uid>().map_err(Failure::usage);
    let elements = elements(&args.attributes)?;
    check(&elements).map_err(Failure::usage)?;
    let correction = Correction {
        tenant: args.server.tenant.clone(),
        study: uid(&args.study)?,
        series: args.series.as_ref().map(uid).transpose()?,
        instance: args.instance.as_ref().map(uid).transpose()?,
        elements,
        by: args.by,
        reason: args.why,
    };
    let position = ingest(&args.server)?.correct(correction).await?;
    println!("corrected at {position}");
    Ok(())
}

/// Attributes with their values.
pub fn elements(attributes: &[String]) -> Result<DataSet, Failure> {
    let mut elements = DataSet::new();
    for attribute in attributes {
        let (name, value) =
            attribute.split_once('=').ok_or_else(|| Failure::usage("an attribute is given as KEYWORD=VALUE"))?;
        let tag = parse_tag(name)?;
        if elements.get(tag).is_some() {
            return Err(Failure::usage(format!("{name} is given twice")));
        }
        if dictionary::vr_of(tag).is_some_and(cairn_dicom::Vr::is_text) && !value.is_empty() {
            elements.put_text(tag, value);
        } else {
            elements.put_empty(tag);
        }
    }
    Ok(elements)
}

pub async fn run(args: CorrectionsArgs) -> Result<(), Failure> {
    match args.action {
        CorrectionsAction::List { study, output } => {
            list(&args.server, &study.parse().map_err(Failure::usage)?, output).await
        }
        CorrectionsAction::Show { study, output } => {
            show(&args.server, &study.parse().map_err(Failure::usage)?, output).await
        }
        CorrectionsAction::Revoke { positions, why, by } => {
            for position in positions {
                let revocation =
                    CorrectionRevocation { position: position.clone(), by: by.clone(), reason: why.clone() };
                let at = ingest(&args.server)?.revoke_correction(revocation).await?;
                println!("{position} counts as never made from {at} on");
            }
            Ok(())
        }
    }
}

/// A correction as the log has it.
struct Said {
    folded: FoldedEvent,
    position: Position,
    event: AttributesCorrected,
    elements: DataSet,
    reason: String,
    is_revoked: bool,
}

impl Said {
    fn scope(&self) -> String {
        let scope = [&self.event.sop_instance_uid, &self.event.series_instance_uid];
        scope.into_iter().find(|uid| !uid.is_empty()).cloned().unwrap_or_else(|| "study".to_owned())
    }

    fn counts(&self) -> String {
        if self.is_revoked { "revoked" } else { "yes" }.to_owned()
    }
}

/// Corrections of a study in the order in which they were made.
async fn said_of(server: &ServerArgs, study: &Uid) -> Result<Vec<Said>, Failure> {
    let index = index(server)?;
    let kinds = [Event::AttributesCorrected(Box::default()).kind(), Event::CorrectionRevoked(Box::default()).kind()];
    let folded: Vec<_> = index.study_events(&server.tenant, study, Vec::new()).await?.try_collect().await?;
    let is_one = |folded: &&FoldedEvent| kinds.contains(&folded.kind.as_str());
    let ids: Vec<EventId> = folded.iter().filter(is_one).map(|folded| folded.event).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let (mut log, mut said, mut revoked) = (connection(server)?.event_log()?, Vec::new(), Vec::new());
    for folded in index.study_events(&server.tenant, study, ids).await?.try_collect::<Vec<_>>().await? {
        let missing = || Failure::failed(format!("event {} is not where it was folded", folded.event));
        let position = folded.position.clone().ok_or_else(missing)?;
        let read = read_at(&mut log, &position).await?;
        match Event::decode(&folded.kind, read.payload).map_err(Failure::failed)? {
            Event::AttributesCorrected(event) => {
                let (elements, reason) = correction::said(&event).unwrap_or_default();
                said.push(Said { folded, position, event: *event, elements, reason, is_revoked: false });
            }
            Event::CorrectionRevoked(event) => revoked.extend(event.correction_event_ids),
            _ => {}
        }
    }
    for said in &mut said {
        said.is_revoked = revoked.iter().any(|id| id[..] == said.folded.event.as_bytes()[..]);
    }
    said.sort_by_key(|said| (said.folded.happened_at_ms, said.folded.event));
    Ok(said)
}

async fn list(server: &ServerArgs, study: &Uid, output: Output) -> Result<(), Failure> {
    let columns = [("Time", 24), ("Position", 18), ("By", 12), ("Counts", 7), ("Of", 44), ("Attributes", 60)];
    let mut rows = Rows::new(output, &columns);
    for said in said_of(server, study).await? {
        rows.row(&[
            rfc3339(said.folded.happened_at_ms),
            said.position.to_string(),
            said.event.corrected_by.clone(),
            said.counts(),
            said.scope(),
            keywords(&said.elements),
        ])?;
    }
    rows.flush()
}

async fn show(server: &ServerArgs, study: &Uid, output: Output) -> Result<(), Failure> {
    let columns = [("Position", 18), ("Counts", 7), ("Of", 44), ("Attribute", 24), ("Value", 40), ("Why", 40)];
    let mut rows = Rows::new(output, &columns);
    for said in said_of(server, study).await? {
        for element in said.elements.elements() {
            rows.row(&[
                said.position.to_string(),
                said.counts(),
                said.scope(),
                name(element.tag),
                element.value.texts().join("\\"),
                said.reason.clone(),
            ])?;
        }
    }
    rows.flush()
}

fn name(tag: cairn_dicom::Tag) -> String {
    dictionary::keyword_of(tag).map_or_else(|| tag.to_string(), str::to_owned)
}

/// Which attributes there are.
pub fn keywords(elements: &DataSet) -> String {
    elements.elements().iter().map(|element| name(element.tag)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_dicom::tags;

    #[test]
    fn attributes_are_given_by_keyword_or_tag_with_a_value_or_none() {
        let given = ["PatientName=DOE^JANE=x", "00100020=P=1", "PatientSex="].map(str::to_owned);
        let elements = elements(&given).expect("usable");
        assert_eq!(elements.text(tags::PATIENT_NAME), Some("DOE^JANE=x"));
        assert_eq!(elements.text(tags::PATIENT_ID), Some("P=1"));
        assert!(elements.get(tags::PATIENT_SEX).is_some_and(|element| element.value.is_empty()));
        for bad in [vec!["PatientName"], vec!["Name=x"], vec!["PatientID=1", "PatientID=2"]] {
            let given: Vec<String> = bad.iter().map(|text| (*text).to_owned()).collect();
            assert!(super::elements(&given).is_err(), "{bad:?}");
        }
    }
}
