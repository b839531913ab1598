//! `cairn`: one executable that holds all roles. Commands that ask a running archive talk to it over gRPC.
#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub, reason = "an executable: nothing outside sees its items")]

mod cli;
mod commands;
mod config;
mod endpoints;
mod health;
mod http;
mod late;
mod peers;
mod process;
mod reporter;
mod roles;
mod senders;
mod services;
mod signing;
mod stores;
mod telemetry;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command, IndexArgs, ReplicationArgs};
use commands::Failure;
use roles::Roles;
use std::{process::ExitCode, time::Duration};

/// Largest block that is taken from memory freed before; about twice as much freed memory stays in each thread's arena.
const FREED_BYTES_KEPT: usize = 4 << 20;

/// Lets freed memory stay with the process, within a bound: two thirds of the page faults of storing were of buffers whose
/// memory had gone back to the machine. The GNU allocator learns it from the first large block that is freed
/// (mallopt(3), `M_MMAP_THRESHOLD`, which moves `M_TRIM_THRESHOLD` along); others are left as they are.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(FREED_BYTES_KEPT)));
}

fn main() -> ExitCode {
    keep_freed_memory();
    // Libraries that speak TLS would each choose their own, or panic; an error means that one is chosen already.
    let _chosen = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = Cli::parse().command;
    let server = command.server().map(commands::server_address);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cairn: could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(command));
    // A read that never ends (a file on a device that is gone) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match (&failure, server) {
                (Failure::Unreachable(_), Some(server)) => eprintln!("cairn: {server}: {failure}"),
                _ => eprintln!("cairn: {failure}"),
            }
            failure.exit_code()
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => process::run(commands::load(&args.source)?.config, Roles::ALL).await,
        Command::Ingest(args) => process::run(commands::load(&args.source)?.config, Roles::ingest(&args.doors)).await,
        Command::Retrieval(args) => {
            process::run(commands::load(&args.source)?.config, Roles::retrieval(&args.doors)).await
        }
        Command::Gateway(args) => process::run(commands::load(&args.source)?.config, Roles::gateway(&args.doors)).await,
        Command::Stores(args) => commands::stores::run(args).await,
        Command::Config(args) => commands::config::run(args),
        Command::Import(args) => commands::import::run(*args).await,
        Command::Replay(args) => commands::replay::run(*args).await,
        Command::Receipts(args) => commands::receipts::run(args.action).await,
        Command::Reconcile(args) => commands::reconcile::run(*args).await,
        Command::Query(args) => commands::query::run(args).await,
        Command::Events(args) => commands::events::run(args).await,
        Command::Conflicts(args) => commands::conflicts::run(args).await,
        Command::Rejections(args) => commands::rejections::run(args).await,
        Command::Correct(args) => commands::corrections::correct(args).await,
        Command::Corrections(args) => commands::corrections::run(args).await,
        Command::Patient(args) => commands::patient::run(args).await,
        Command::Why(args) => commands::why::run(args).await,
        Command::Parked(args) => commands::parked::run(args).await,
        Command::Quarantine(args) => commands::quarantine::run(args).await,
        Command::Index(IndexArgs { action: Some(action), .. }) => commands::index::run(action).await,
        Command::Index(args) => process::run(commands::load(&args.role)?.config, Roles::index()).await,
        Command::Replication(ReplicationArgs { action: Some(action), .. }) => commands::replication::run(action).await,
        Command::Replication(args) => process::run(commands::load(&args.role)?.config, Roles::replication()).await,
        Command::Lifecycle(args) => process::run(commands::load(&args.source)?.config, Roles::lifecycle()).await,
        Command::Fixity(args) => commands::fixity::run(args.action).await,
        Command::Orphans(args) => commands::orphans::run(args.action).await,
        Command::Audit(args) => commands::audit::run(args.action).await,
        Command::Log(args) => commands::log::run(args.action).await,
        Command::Commitments(args) => commands::commitments::run(args.action).await,
        Command::Hold(args) => commands::retention::hold(args.action).await,
        Command::Policy(args) => commands::policy::run(args.action).await,
        Command::Tier(args) => commands::tier::run(args.action).await,
        Command::Erasure(args) => commands::retention::erasure(args.action).await,
        Command::Keys(args) => commands::keys::run(args.action).await,
        Command::Site(args) => commands::site::run(args.action).await,
        Command::Drill(args) => Box::pin(commands::drill::run(args.action)).await,
        Command::Doctor(args) => commands::doctor::run(args).await,
        Command::Demo(args) => commands::demo::run(args).await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "cairn", &mut std::io::stdout());
            Ok(())
        }
    }
}
