//! The command line.

mod audit;
mod commitments;
mod drill;
mod fixity;
mod index;
mod keys;
mod log;
mod orphans;
mod policy;
mod receipts;
mod replay;
mod replication;
mod retention;
mod site;
mod tier;

pub use audit::{AuditAction, AuditArgs};
pub use commitments::{CommitmentState, CommitmentsAction, CommitmentsArgs};
pub use drill::{DrillAction, DrillArgs, RunArgs};
pub use fixity::{FixityAction, FixityArgs};
pub use index::{Common, IndexAction};
pub use keys::{KeysAction, KeysArgs};
pub use log::{LogAction, LogArgs};
pub use orphans::{OrphansAction, OrphansArgs};
pub use policy::{ActionName, PolicyAction, PolicyArgs};
pub use receipts::{ReceiptsAction, ReceiptsArgs, ReconcileArgs};
pub use replay::{RemoteAe, ReplayAction, ReplayArgs, ReplayRun, Selected, Talk};
pub use replication::{PlanArgs, ReplicationAction, ReplicationArgs};
pub use retention::{ErasureAction, ErasureArgs, GroundsArgs, HoldAction, HoldArgs, ReportForm};
pub use site::{DecidedArgs, SiteAction, SiteArgs, Switch};
pub use tier::{MovedArgs, TierAction, TierArgs};

use crate::{
    commands::{
        corrections::{CorrectArgs, CorrectionsArgs},
        parked::ParkedArgs,
        patient::PatientArgs,
        rejections::RejectionsArgs,
        why::WhyArgs,
    },
    config::Destination,
};
use cairn_dimse::pdu::AeTitle;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};

/// A Vendor Neutral Archive for medical imaging.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, after_help = EXIT_STATUSES, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUSES: &str = "Exit statuses: 0 done, 1 failed, 2 usage, 3 some items failed, 4 verification found a \
difference, 5 server or peer not reached, 7 an objective was missed, 64 configuration can't be used, 130 interrupted.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the archive: all roles and both doors in one process
    Serve(ServeArgs),
    /// Run a process that takes instances
    Ingest(RoleArgs),
    /// Run a process that gives instances back
    Retrieval(RoleArgs),
    /// Run the doors alone: they reach ingest, index and retrieval over gRPC, and there is no store here
    Gateway(GatewayArgs),
    /// Make what the shared stores of a cluster need, or check it
    Stores(StoresArgs),
    /// Check, show or describe the configuration
    Config(ConfigArgs),
    /// Store files, folders and DICOMDIRs into a running archive, or what another archive has
    Import(Box<ImportArgs>),
    /// What came in each association, STOW-RS request or import, and what became of it
    Receipts(ReceiptsArgs),
    /// Compare what another archive says it has with what is here
    Reconcile(Box<ReconcileArgs>),
    /// Send the log, or a part of it, to another archive, and compare what is there at the end
    Replay(Box<ReplayArgs>),
    /// Ask a running archive
    Query(QueryArgs),
    /// Read the event log
    Events(EventsArgs),
    /// Versions of an instance that contradict each other
    Conflicts(ConflictsArgs),
    /// Instances that rejection notes hide: list what notes said of a study, take it back
    Rejections(RejectionsArgs),
    /// Correct patient or study attributes: they are found and given out with other values, stored bytes stay as they are
    Correct(CorrectArgs),
    /// Corrections of attributes: list those of a study, show their values, take one back
    Corrections(CorrectionsArgs),
    /// Patients: merge one into another, link two, give a patient's attributes other values, and take that back
    Patient(PatientArgs),
    /// Every event that made a study, a series, an instance or a patient what it is, and what came of it
    Why(WhyArgs),
    /// Events that the index could not fold: list them, and say what they mean
    Parked(ParkedArgs),
    /// Inputs that were refused
    Quarantine(QuarantineArgs),
    /// Run a process that keeps the index and answers queries; or with a command: how far it is, rebuild, compare, switch
    Index(IndexArgs),
    /// Run a process that keeps other sites in step; or with a command: how far they are, what is at risk, compare
    Replication(ReplicationArgs),
    /// Run a process that looks whether what was stored is still what it was
    Lifecycle(ConfigSourceArgs),
    /// Whether what was stored is still what it was: how far reading everything is, what is damaged
    Fixity(FixityArgs),
    /// Objects that no event names: look for them, release those that are kept, have their bytes
    Orphans(OrphansArgs),
    /// Prove that history was not altered: sign what the log is, prove what is in it, verify
    Audit(AuditArgs),
    /// What of the event log is in the object store, too, from which it is read should the log lose it
    Log(LogArgs),
    /// Requests for storage commitment: who asked, what was decided, who was told
    Commitments(CommitmentsArgs),
    /// What is not erased while somebody needs it: place a hold, release it
    Hold(HoldArgs),
    /// What is erased: ask for it, withdraw that in time, see what came of it
    Erasure(ErasureArgs),
    /// What is erased by itself when it is time: adopt a policy, see what it would do, withdraw it
    Policy(PolicyArgs),
    /// What is in a hot and what in a cold object store: see it, move studies, recall them
    Tier(TierArgs),
    /// Keys that patient attributes in events are sealed under: count them, back them up, bring them back
    Keys(KeysArgs),
    /// Which site has authority: see it, give it, take it; a site that was restored from a backup
    Site(SiteArgs),
    /// Rehearse the loss of a site, and leave a signed report
    Drill(DrillArgs),
    /// Look for what is wrong with a configuration, a machine, and a running archive
    Doctor(DoctorArgs),
    /// Run an archive in a directory of its own, filled with synthetic studies
    Demo(DemoArgs),
    /// Print completions for a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Which running archive a command talks to, if it does.
    pub fn server(&self) -> Option<&ServerArgs> {
        match self {
            Self::Import(args) => Some(&args.server),
            Self::Replay(args) => Some(args.server()),
            Self::Receipts(args) => Some(args.action.server()),
            Self::Reconcile(args) => Some(&args.common.server),
            Self::Query(args) => Some(&args.server),
            Self::Events(args) => Some(&args.server),
            Self::Conflicts(args) => Some(&args.server),
            Self::Rejections(args) => Some(&args.server),
            Self::Correct(args) => Some(&args.server),
            Self::Corrections(args) => Some(&args.server),
            Self::Patient(args) => Some(&args.server),
            Self::Why(args) => Some(&args.server),
            Self::Parked(args) => Some(&args.server),
            Self::Quarantine(args) => Some(&args.server),
            Self::Index(args) => args.action.as_ref().map(IndexAction::server),
            Self::Replication(args) => args.action.as_ref().map(ReplicationAction::server),
            Self::Fixity(args) => Some(args.action.server()),
            Self::Orphans(args) => Some(args.action.server()),
            Self::Audit(args) => args.action.server(),
            Self::Log(args) => Some(args.action.server()),
            Self::Commitments(args) => Some(args.action.server()),
            Self::Hold(args) => Some(args.action.server()),
            Self::Erasure(args) => Some(args.action.server()),
            Self::Policy(args) => Some(args.action.server()),
            Self::Tier(args) => Some(args.action.server()),
            Self::Site(args) => args.action.server(),
            Self::Drill(args) => args.action.server(),
            Self::Serve(_)
            | Self::Ingest(_)
            | Self::Retrieval(_)
            | Self::Gateway(_)
            | Self::Lifecycle(_)
            | Self::Stores(_)
            | Self::Keys(_)
            | Self::Config(_)
            | Self::Doctor(_)
            | Self::Demo(_)
            | Self::Completion { .. } => None,
        }
    }
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigSource {
    /// Configuration file; files in conf.d beside it are read after it
    #[arg(long, value_name = "FILE", env = "CAIRN_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory of the embedded stores
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// DIMSE listener; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub dicom: Option<SocketAddr>,
    /// HTTP listener (DICOMweb, health, metrics); port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
    /// gRPC listener; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    pub grpc: Option<SocketAddr>,
    /// Our AE title
    #[arg(long, value_name = "TITLE")]
    pub ae_title: Option<String>,
    /// Where C-MOVE sends under an AE title (repeatable)
    #[arg(long, value_name = "AE=HOST:PORT")]
    pub destination: Vec<Destination>,
    /// Take calling AE titles without a section of their own, also beyond loopback
    #[arg(long)]
    pub accept_unknown_callers: bool,
    /// Serve HTTP to anyone who reaches it, also beyond loopback
    #[arg(long)]
    pub accept_any_http_client: bool,
}

#[derive(Debug, Args)]
pub struct ConfigSourceArgs {
    #[command(flatten)]
    pub source: ConfigSource,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub source: ConfigSource,
}

#[derive(Debug, Args)]
pub struct RoleArgs {
    #[command(flatten)]
    pub source: ConfigSource,
    /// Doors that this process has beside its role (joined by commas)
    #[arg(long, value_name = "DOORS", value_enum, value_delimiter = ',')]
    pub doors: Vec<DoorName>,
}

#[derive(Debug, Args)]
pub struct GatewayArgs {
    #[command(flatten)]
    pub source: ConfigSource,
    /// Doors that it has (joined by commas)
    #[arg(long, value_name = "DOORS", value_enum, value_delimiter = ',', default_values = ["dimse", "dicomweb"])]
    pub doors: Vec<DoorName>,
}

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoorName {
    /// C-STORE, C-FIND, C-MOVE, C-GET
    Dimse,
    /// STOW-RS, QIDO-RS, WADO-RS
    Dicomweb,
}

#[derive(Debug, Args)]
pub struct StoresArgs {
    #[command(subcommand)]
    pub action: StoresAction,
}

#[derive(Debug, Subcommand)]
pub enum StoresAction {
    /// Make topic, bucket and keyspace, before the first start and after an upgrade; what is there stays
    Create {
        #[command(flatten)]
        source: ConfigSource,
    },
    /// Open each as a process would
    Check {
        #[command(flatten)]
        source: ConfigSource,
    },
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Say whether the configuration can be used
    Check {
        #[command(flatten)]
        source: ConfigSource,
    },
    /// Print the effective configuration as TOML
    Show {
        #[command(flatten)]
        source: ConfigSource,
        /// Say where each value that is not a default came from
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
}

/// Which running archive to talk to.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// gRPC address of the archive, such as http://127.0.0.1:50051
    #[arg(long, value_name = "URL", env = "CAIRN_SERVER", global = true)]
    pub server: Option<String>,
    /// Data directory of an archive that runs on this machine, to find its gRPC address in
    #[arg(long, value_name = "DIR", default_value = "data", global = true)]
    pub data: PathBuf,
    /// Tenant to act for
    #[arg(long, default_value = cairn_service_api::DEFAULT_TENANT, global = true)]
    pub tenant: String,
    /// PEM file with our certificate, for a server that asks for one
    #[arg(long, value_name = "FILE", env = "CAIRN_TLS_CERTIFICATE", global = true)]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE", env = "CAIRN_TLS_KEY", global = true)]
    pub tls_key: Option<PathBuf>,
    /// PEM file with the certificates of the authority that the server must chain to
    #[arg(long, value_name = "FILE", env = "CAIRN_TLS_AUTHORITY", global = true)]
    pub tls_authority: Option<PathBuf>,
    /// Name that the server's certificate must have, when it is not the host
    #[arg(long, value_name = "NAME", env = "CAIRN_TLS_SERVER_NAME", global = true)]
    pub tls_server_name: Option<String>,
}

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns
    #[default]
    Table,
    /// One JSON object a line
    Json,
    /// Comma-separated values with a header line
    Csv,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("other").args(["from_dimse", "from_dicomweb"]))]
pub struct ImportArgs {
    /// Files, folders (taken whole) and DICOMDIRs
    #[arg(required_unless_present = "other", conflicts_with = "other")]
    pub paths: Vec<PathBuf>,
    /// Another archive: listed by C-FIND, fetched by C-GET
    #[arg(long, value_name = "AE@HOST:PORT")]
    pub from_dimse: Option<RemoteAe>,
    /// Fetch by C-MOVE to this AE title, which must be this archive's
    #[arg(long, value_name = "TITLE", value_parser = replay::title, requires = "from_dimse", conflicts_with = "from_dicomweb")]
    pub move_to: Option<AeTitle>,
    /// Another archive: listed by QIDO-RS, fetched by WADO-RS
    #[arg(long, value_name = "URL")]
    pub from_dicomweb: Option<String>,
    /// Study Instance UID (repeatable); without any of the following: every study
    #[arg(long, value_name = "UID", requires = "other")]
    pub study: Vec<String>,
    /// Study Date or range of them, such as 20260101-20260131 (repeatable: each is asked for by itself)
    #[arg(long, value_name = "DATES", requires = "other")]
    pub study_date: Vec<String>,
    /// Modality in the study (repeatable)
    #[arg(long, value_name = "CODE", requires = "other")]
    pub modality: Vec<String>,
    /// Further matching key of a study (repeatable): KEYWORD=VALUE
    #[arg(short, long = "key", value_name = "KEY=VALUE", requires = "other")]
    pub keys: Vec<String>,
    #[command(flatten)]
    pub talk: Talk,
    #[command(flatten)]
    pub server: ServerArgs,
    /// AE title that the instances count as sent by
    #[arg(long, value_name = "TITLE", default_value = "IMPORT", value_parser = ae_title)]
    pub ae: String,
    /// Issuer of Patient ID where a data set names none
    #[arg(long)]
    pub issuer: Option<String>,
    /// Instances under way at once; from another archive: studies
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub transfers: u16,
    /// Journal of what was stored: with it a later run goes on where this one stopped
    #[arg(long, visible_alias = "journal", value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Write a line per file (CSV) here; from another archive: a line per instance, into FILE.csv and FILE.json
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
    /// How the counts are written
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

fn ae_title(text: &str) -> Result<String, String> {
    crate::config::check_ae_title(text).map(|()| text.to_owned())
}

#[derive(Debug, Args)]
pub struct QueryArgs {
    /// What one answer stands for
    pub level: QueryLevel,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Matching key (repeatable): KEYWORD=VALUE, GGGGEEEE=VALUE or GGGG,EEEE=VALUE
    #[arg(short, long = "key", value_name = "KEY=VALUE")]
    pub keys: Vec<String>,
    /// Further attributes to show (repeatable)
    #[arg(short, long, value_name = "KEY")]
    pub include: Vec<String>,
    /// Match names fuzzily
    #[arg(long)]
    pub fuzzy: bool,
    /// Answers at most
    #[arg(long, default_value_t = 100)]
    pub limit: u64,
    /// Answers to pass over
    #[arg(long, default_value_t = 0)]
    pub offset: u64,
    /// Find what is rejected under a title alone too (repeatable): Code Value of a rejection note's title, such as 113001
    #[arg(long, value_name = "CODE")]
    pub sees_rejected: Vec<String>,
    /// Generation of the index to ask instead of the serving one: see `cairn index status`
    #[arg(long, value_name = "NUMBER")]
    pub generation: Option<u32>,
    /// How results are written
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QueryLevel {
    Patients,
    Studies,
    Series,
    Instances,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(subcommand)]
    pub action: EventsAction,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub enum EventsAction {
    /// Print events, and new ones as they are appended
    Tail {
        /// beginning, latest, @MILLISECONDS since the Unix epoch, or an offset
        #[arg(long, default_value = "latest")]
        from: String,
        /// Partition to read (repeatable); all by default
        #[arg(long)]
        partition: Vec<u32>,
        /// Only events about this study
        #[arg(long, value_name = "UID")]
        study: Option<String>,
        /// End at the end of the log
        #[arg(long)]
        no_follow: bool,
        /// Events at most; 0: all
        #[arg(long, default_value_t = 0)]
        limit: u64,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print one event whole. May show patient attributes
    Show {
        /// Where it stands: site/incarnation/partition/offset
        position: String,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub struct ConflictsArgs {
    #[command(subcommand)]
    pub action: ConflictsAction,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub enum ConflictsAction {
    /// All conflicts, a line each
    List {
        /// Show versions that differ in their encoding alone too
        #[arg(long)]
        all: bool,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// The versions of one SOP Instance
    Show {
        /// SOP Instance UID
        sop_instance_uid: String,
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Choose the version that is shown
    Choose {
        /// SOP Instance UID
        sop_instance_uid: String,
        /// Its version: BLAKE3 digest (a unique beginning is enough) or event id
        #[arg(id = "chosen", value_name = "VERSION")]
        version: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// Who chooses
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
    },
}

#[derive(Debug, Args)]
pub struct QuarantineArgs {
    #[command(subcommand)]
    pub action: QuarantineAction,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub enum QuarantineAction {
    /// What was refused, newest first
    List {
        /// How results are written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Write the kept bytes of one
    Get {
        /// Its id
        id: String,
        /// Where to write
        #[arg(short, long, value_name = "FILE")]
        to: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct IndexArgs {
    #[command(subcommand)]
    pub action: Option<IndexAction>,
    #[command(flatten)]
    pub role: ConfigSource,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub source: ConfigSource,
    /// How results are written
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub source: ConfigSource,
    /// Studies to make
    #[arg(long, default_value_t = 40)]
    pub studies: u32,
    /// Seed of the studies
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
