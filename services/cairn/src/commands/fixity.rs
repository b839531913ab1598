//! `cairn fixity`: whether what was stored is still what it was.

use super::{
    Failure, connection,
    table::{Cell, Rows, one},
};
use crate::cli::{Common, FixityAction, ServerArgs};
use cairn_archive::{
    envelope::rfc3339,
    events::{Damage, DamageFoundBy},
};
use cairn_service_api::{
    Lifecycle,
    lifecycle::{DamagedObject, FixityStatus, Round, SecondCopies},
};
use cairn_service_grpc::client::LifecycleClient;
use futures_util::TryStreamExt;
use std::time::Duration;

pub async fn run(action: FixityAction) -> Result<(), Failure> {
    match action {
        FixityAction::Status { common } => status(&common).await,
        FixityAction::Report { common } => report(&common).await,
        FixityAction::Scrub { common, no_wait, poll } => scrub(&common, no_wait, poll).await,
    }
}

fn client(server: &ServerArgs) -> Result<LifecycleClient, Failure> {
    Ok(LifecycleClient::new(&connection(server)?)?)
}

async fn status(common: &Common) -> Result<(), Failure> {
    let status = client(&common.server)?.fixity().await?;
    show(common, &status)?;
    judge(&status)
}

fn show(common: &Common, status: &FixityStatus) -> Result<(), Failure> {
    let of = |round: &Option<Round>, what: fn(&Round) -> Cell| round.as_ref().map_or(Cell::Absent, what);
    let copies = |what: fn(&SecondCopies) -> Cell| status.copies.as_ref().map_or(Cell::Absent, what);
    let ended = |round: &Round| round.ended_at_ms.map_or(Cell::Absent, |at| rfc3339(at).into());
    let progress = |round: &Round| match round.events_total {
        0 => Cell::Decimal(100.0),
        total => Cell::Decimal(round.events as f64 * 100.0 / total as f64),
    };
    one(
        common.output,
        &[
            ("Site", status.site.to_string().into()),
            ("DamagedObjects", status.damaged.into()),
            ("PeriodMs", status.period.into()),
            ("PeriodIsKept", if status.period_is_kept { "yes" } else { "no" }.into()),
            ("BytesPerSecond", Cell::Size(status.bytes_per_second)),
            ("Round", of(&status.round, |round| round.number.into())),
            ("RoundBegan", of(&status.round, |round| rfc3339(round.began_at_ms).into())),
            ("RoundEnded", of(&status.round, ended)),
            ("RoundPercent", of(&status.round, progress)),
            ("RoundObjects", of(&status.round, |round| round.objects.into())),
            ("RoundBytes", of(&status.round, |round| Cell::Size(round.bytes))),
            ("RoundDamaged", of(&status.round, |round| round.damaged.into())),
            ("RoundRepaired", of(&status.round, |round| round.repaired.into())),
            ("LastWholeRound", of(&status.last_whole, |round| round.number.into())),
            ("LastWholeRoundBegan", of(&status.last_whole, |round| rfc3339(round.began_at_ms).into())),
            ("LastWholeRoundObjects", of(&status.last_whole, |round| round.objects.into())),
            ("CopiesBehindEvents", copies(|copies| copies.behind_events.into())),
            ("CopiesMadeAnew", copies(|copies| copies.made_anew.into())),
            ("CopiesAreAway", copies(|copies| if copies.is_away { "yes" } else { "no" }.into())),
        ],
    )
}

fn judge(status: &FixityStatus) -> Result<(), Failure> {
    match (status.damaged, status.period_is_kept) {
        (0, true) => Ok(()),
        (0, false) => Err(Failure::Objective("not everything is read within the period".into())),
        (damaged, _) => Err(Failure::Differs(format!("{damaged} objects are damaged or gone"))),
    }
}

async fn report(common: &Common) -> Result<(), Failure> {
    let mut damaged = client(&common.server)?.damaged().await?;
    let columns = [
        ("Object", 36),
        ("Bytes", 10),
        ("Damage", 8),
        ("FoundBy", 10),
        ("Found", 24),
        ("StudyInstanceUID", 44),
        ("SOPInstanceUID", 44),
        ("Event", 36),
        ("Tried", 24),
        ("Why", 40),
    ];
    let mut rows = Rows::new(common.output, &columns);
    let mut count = 0_u64;
    while let Some(one) = damaged.try_next().await? {
        count += 1;
        rows.cells(&row(one))?;
    }
    rows.flush()?;
    match count {
        0 => Ok(()),
        count => Err(Failure::Differs(format!("{count} objects are damaged or gone"))),
    }
}

fn row(damaged: DamagedObject) -> Vec<Cell> {
    let text = |text: String| if text.is_empty() { Cell::Absent } else { text.into() };
    let damage = match damaged.damage {
        Damage::Bytes => "bytes",
        Damage::Gone => "gone",
        Damage::Unspecified => "?",
    };
    let found_by = match damaged.found_by {
        DamageFoundBy::Scrub => "scrub",
        DamageFoundBy::Retrieval => "retrieval",
        DamageFoundBy::Commitment => "commitment",
        DamageFoundBy::Unspecified => "?",
    };
    let (tried_at_ms, why) = damaged.tried.unzip();
    vec![
        damaged.named.object.key.to_string().into(),
        Cell::Size(damaged.named.object.length),
        damage.into(),
        found_by.into(),
        rfc3339(damaged.found_at_ms).into(),
        text(damaged.named.study_instance_uid),
        text(damaged.named.sop_instance_uid),
        damaged.event.to_string().into(),
        tried_at_ms.map_or(Cell::Absent, |at| rfc3339(at).into()),
        why.map_or(Cell::Absent, Cell::from),
    ]
}

async fn scrub(common: &Common, no_wait: bool, poll: Duration) -> Result<(), Failure> {
    let client = client(&common.server)?;
    let before = client.fixity().await?;
    client.scrub().await?;
    if no_wait {
        return Ok(());
    }
    // One that is under way goes on, faster; what it has read already, it has read.
    let under_way = before.round.filter(|round| round.ended_at_ms.is_none());
    let wanted = under_way.map_or_else(|| before.last_whole.map_or(1, |round| round.number + 1), |round| round.number);
    loop {
        let status = client.fixity().await?;
        if status.last_whole.is_some_and(|round| round.number >= wanted) {
            show(common, &status)?;
            return judge(&status);
        }
        tokio::time::sleep(poll).await;
    }
}
