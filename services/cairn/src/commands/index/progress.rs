//! Watching a generation being filled.

use super::Failure;
use cairn_service_api::{
    ErrorKind, Index,
    index::{GenerationStatus, Role},
};
use cairn_service_grpc::client::IndexClient;
use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// First and longest pause between two looks.
const LOOK_AFTER: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the archive may be away: what was begun goes on once it is back.
const AWAY_MAX: Duration = Duration::from_secs(120);

/// How much of it is filled.
pub fn filled(status: &GenerationStatus) -> String {
    if status.role == Role::Dropping {
        return "-".into();
    }
    // Never "100%" before it is.
    let share = if status.total == 0 { 100.0 } else { status.events as f64 * 100.0 / status.total as f64 };
    format!("{:.1}%", (share * 10.0).floor() / 10.0)
}

/// Waits until a generation is as wanted, and shows how far it is on a terminal.
pub async fn until(
    index: &IndexClient,
    generation: u32,
    wanted: impl Fn(&GenerationStatus) -> bool,
) -> Result<GenerationStatus, Failure> {
    let terminal = std::io::stderr().is_terminal();
    let (mut away, mut pause): (Option<Instant>, _) = (None, LOOK_AFTER);
    loop {
        match index.generations().await {
            Ok(all) => {
                away = None;
                let status = all.into_iter().find(|status| status.generation == generation);
                let gone = || Failure::failed(format!("generation {generation} was dropped"));
                let status = status.ok_or_else(gone)?;
                if terminal {
                    tell(&status);
                }
                if wanted(&status) {
                    if terminal {
                        eprintln!();
                    }
                    return Ok(status);
                }
                if status.role == Role::Dropping {
                    return Err(gone());
                }
            }
            Err(error) if error.kind == ErrorKind::Unavailable => {
                if away.get_or_insert_with(Instant::now).elapsed() > AWAY_MAX {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

fn tell(status: &GenerationStatus) {
    let (events, total) = (status.events, status.total);
    eprint!("\rgeneration {}: {events} of {total} events, {}", status.generation, filled(status));
    if let Some(speed) = status.events_per_second {
        eprint!(", {speed:.0} a second");
    }
    if let Some(left) = status.seconds_left() {
        eprint!(", {left:.0} s left");
    }
    if status.paused {
        eprint!(", halted");
    }
    eprint!("   ");
    let _shown = std::io::stderr().flush();
}
