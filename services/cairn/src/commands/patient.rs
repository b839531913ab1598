//! `cairn patient`: who was merged into whom, who is linked with whom, what a patient's attributes are, and taking that back.

use super::{
    Failure, connection, corrections::elements, corrections::keywords, events::read_at, index, ingest, table::Rows,
};
use crate::cli::{Output, ServerArgs};
use cairn_archive::{
    EventId, Position, correction,
    envelope::rfc3339,
    events::Event,
    fold::PatientIdentity,
    patients::{Resolution, Said, Standing, check_identity, reason},
};
use cairn_service_api::{
    Index, Ingest,
    patients::{FactsOf, KnownFact, PatientChange, PatientRevocation, PatientStatement},
};
use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use std::collections::HashMap;

#[derive(Debug, Args)]
pub struct PatientArgs {
    #[command(subcommand)]
    pub action: PatientAction,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct Decided {
    /// Why
    #[arg(long)]
    pub why: String,
    /// Who decides
    #[arg(long, env = "USER", default_value = "operator")]
    pub by: String,
}

#[derive(Debug, Subcommand)]
pub enum PatientAction {
    /// Merge a patient into another: its studies are found and given out as the other's, stored bytes stay as they are
    Merge {
        /// Who is no patient of its own any more, as ISSUER|ID
        prior: String,
        /// Whose its studies are from now on, as ISSUER|ID
        surviving: String,
        #[command(flatten)]
        decided: Decided,
    },
    /// Say that two patients are one person; both stay, and whoever asks for the one finds the other's studies too
    Link {
        /// The one, as ISSUER|ID
        one: String,
        /// The other, as ISSUER|ID
        other: String,
        #[command(flatten)]
        decided: Decided,
    },
    /// Give a patient's attributes other values, in all its studies, those that come later too
    Update {
        /// The patient, as ISSUER|ID
        patient: String,
        /// An attribute of the patient and its right value, as PatientName=DOE^JANE; without a value it is taken away
        #[arg(required = true, value_name = "KEYWORD=VALUE")]
        attributes: Vec<String>,
        #[command(flatten)]
        decided: Decided,
    },
    /// What was said of all patients, a line each; whom it is about is shown by `show`
    List {
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// What was said of a patient and of all that are tied to it
    Show {
        /// The patient, as ISSUER|ID
        patient: String,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Take back what was said: as if it had never been
    Revoke {
        /// Where each stands, as `list` says: site/incarnation/partition/offset
        #[arg(required = true)]
        positions: Vec<Position>,
        #[command(flatten)]
        decided: Decided,
    },
}

pub async fn run(args: PatientArgs) -> Result<(), Failure> {
    let server = &args.server;
    match args.action {
        PatientAction::Merge { prior, surviving, decided } => {
            let change = PatientChange::Merge { prior: patient(&prior)?, surviving: patient(&surviving)? };
            say(server, change, decided, "merged").await
        }
        PatientAction::Link { one, other, decided } => {
            let change = PatientChange::Link { one: patient(&one)?, other: patient(&other)? };
            say(server, change, decided, "linked").await
        }
        PatientAction::Update { patient: of, attributes, decided } => {
            let change = PatientChange::Update { patient: patient(&of)?, elements: elements(&attributes)? };
            say(server, change, decided, "updated").await
        }
        PatientAction::List { output } => list(server, output).await,
        PatientAction::Show { patient: of, output } => show(server, patient(&of)?, output).await,
        PatientAction::Revoke { positions, decided } => {
            for position in positions {
                let (by, reason) = (decided.by.clone(), decided.why.clone());
                let revocation = PatientRevocation { position: position.clone(), by, reason };
                let at = ingest(server)?.revoke_patient_fact(revocation).await?;
                println!("{position} counts as never said from {at} on");
            }
            Ok(())
        }
    }
}

/// A patient as ISSUER|ID; an ID alone is of no issuer.
fn patient(text: &str) -> Result<PatientIdentity, Failure> {
    let (issuer, id) = text.split_once('|').unwrap_or(("", text));
    let patient = PatientIdentity { issuer: issuer.to_owned(), id: id.to_owned() };
    check_identity(&patient).map_err(Failure::usage)?;
    Ok(patient)
}

async fn say(server: &ServerArgs, change: PatientChange, decided: Decided, done: &str) -> Result<(), Failure> {
    let Decided { why: reason, by } = decided;
    let statement = PatientStatement { tenant: server.tenant.clone(), change, by, reason };
    let position = ingest(server)?.say_of_patients(statement).await?;
    println!("{done} at {position}");
    Ok(())
}

/// Facts in the order of events, each with whether it counts.
pub struct Facts(Vec<(KnownFact, Standing)>);

impl Facts {
    /// Reads facts.
    pub async fn read(server: &ServerArgs, of: FactsOf) -> Result<Self, Failure> {
        let found: Vec<KnownFact> = index(server)?.patient_facts(&server.tenant, of).await?.try_collect().await?;
        let resolution = Resolution::of(found.iter().map(KnownFact::fact));
        let mut known: HashMap<EventId, KnownFact> = found.into_iter().map(|fact| (fact.order.id, fact)).collect();
        let placed = resolution.facts().iter();
        Ok(Self(placed.filter_map(|(fact, standing)| Some((known.remove(&fact.order.id)?, *standing))).collect()))
    }

    /// Each with what the log has of it.
    pub async fn told(self, server: &ServerArgs) -> Result<Vec<Told>, Failure> {
        let mut log = connection(server)?.event_log()?;
        let mut told = Vec::with_capacity(self.0.len());
        for (fact, standing) in self.0 {
            let missing = || Failure::failed(format!("event {} is not where it was folded", fact.order.id));
            let position = fact.position.clone().ok_or_else(missing)?;
            let read = read_at(&mut log, &position).await?;
            let kind = read.headers.get("ce_type").cloned().unwrap_or_default();
            let event = Event::decode(&kind, read.payload).map_err(Failure::failed)?;
            told.push(Told { fact, standing, position, event });
        }
        Ok(told)
    }
}

/// A fact as the log has it.
pub struct Told {
    pub fact: KnownFact,
    standing: Standing,
    pub position: Position,
    event: Event,
}

impl Told {
    fn by(&self) -> &str {
        match &self.event {
            Event::PatientsMerged(event) => &event.merged_by,
            Event::PatientsLinked(event) => &event.linked_by,
            Event::PatientUpdated(event) => &event.updated_by,
            Event::PatientFactRevoked(event) => &event.revoked_by,
            _ => "",
        }
    }

    /// What was said, in words: without whom it is about.
    fn what(&self) -> String {
        match &self.fact.said {
            Said::Merged { .. } => "merged".to_owned(),
            Said::Linked { .. } => "linked".to_owned(),
            Said::Updated { elements, .. } => {
                format!("updated {}", keywords(&correction::decode(elements).unwrap_or_default()))
            }
            Said::Revoked { fact, .. } => format!("took back event {fact}"),
            Said::Gone => "gone with its key".to_owned(),
        }
    }

    fn counts(&self) -> &'static str {
        match self.standing {
            Standing::Counts => "yes",
            Standing::Revoked => "revoked",
            Standing::MergedAlready => "void: merged already",
            Standing::Cycle => "void: cycle",
        }
    }

    /// What was said of whom and why, in words.
    pub fn words(&self) -> String {
        let whom = |patient: &PatientIdentity| format!("{}|{}", patient.issuer, patient.id);
        let what = match &self.fact.said {
            Said::Merged { prior, surviving } => format!("merged {} into {}", whom(prior), whom(surviving)),
            Said::Linked { one, other } => format!("linked {} with {}", whom(one), whom(other)),
            Said::Updated { patient, .. } => format!("{} of {}", self.what(), whom(patient)),
            Said::Revoked { .. } | Said::Gone => self.what(),
        };
        let counts = if self.standing == Standing::Counts { String::new() } else { format!("; {}", self.counts()) };
        format!("{} {what}: {}{counts}", self.by(), reason(&self.event))
    }
}

async fn list(server: &ServerArgs, output: Output) -> Result<(), Failure> {
    let columns = [("Time", 24), ("Position", 18), ("By", 12), ("Counts", 20), ("What", 60)];
    let mut rows = Rows::new(output, &columns);
    for told in Facts::read(server, FactsOf::Everybody).await?.told(server).await? {
        rows.row(&[
            rfc3339(told.fact.order.hlc.wall_ms),
            told.position.to_string(),
            told.by().to_owned(),
            told.counts().to_owned(),
            told.what(),
        ])?;
    }
    rows.flush()
}

async fn show(server: &ServerArgs, patient: PatientIdentity, output: Output) -> Result<(), Failure> {
    let columns = [("Time", 24), ("Position", 18), ("Counts", 20), ("What", 100)];
    let mut rows = Rows::new(output, &columns);
    for told in Facts::read(server, FactsOf::Patient(patient)).await?.told(server).await? {
        rows.row(&[
            rfc3339(told.fact.order.hlc.wall_ms),
            told.position.to_string(),
            told.counts().to_owned(),
            told.words(),
        ])?;
    }
    rows.flush()
}
