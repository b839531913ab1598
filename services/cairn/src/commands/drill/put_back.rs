//! What a drill has changed is put back: links go on, and authority goes back to the site that had it. It asks the sites how
//! far things are, so that it ends a drill wherever that was cut short, and doing it again changes nothing.

use super::{
    journal::Journal,
    report::{millis, seconds},
    sides::Side,
};
use crate::commands::Failure;
use cairn_service_api::{
    Error, ErrorKind, Replication,
    site::{Decision, Grounds, SiteStatus},
};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(100);

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    /// Links that go on.
    pub resumed: usize,
    /// Whether authority had to go back.
    pub took_over: bool,
}

/// Tries again until the deadline: sites may be away, or learn of something late.
async fn until<T, F: Future<Output = Result<Option<T>, Error>>>(
    deadline: Instant,
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failure> {
    loop {
        let answer = attempt().await;
        let late = Instant::now() >= deadline;
        match answer {
            Ok(Some(done)) => return Ok(done),
            Ok(None) if late => return Err(Failure::failed(format!("{what}: not in time"))),
            Err(error) if late || matches!(error.kind, ErrorKind::Denied | ErrorKind::Invalid) => {
                return Err(Failure::failed(format!("{what}: {error}")));
            }
            Ok(None) | Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Lets links go on that the drill paused.
pub async fn resume(sides: [&Side; 2], journal: &Journal, deadline: Instant) -> Result<usize, Failure> {
    for pause in &journal.paused {
        let (at, to) = (Journal::site(&pause.at)?, Journal::site(&pause.to)?);
        let side = sides.into_iter().find(|side| side.name == at);
        let side = side.ok_or_else(|| Failure::failed(format!("{at} in the journal is none of the two sites")))?;
        let (to, what) = (&to, format!("{at} sends to {to} again"));
        let attempt = || async move {
            match side.replication.set_paused(to, false).await {
                // A peer that is configured no more is not sent to in any case.
                Err(error) if error.kind == ErrorKind::NotFound => Ok(Some(())),
                other => other.map(Some),
            }
        };
        until(deadline, &what, attempt).await?;
    }
    Ok(journal.paused.len())
}

/// Whether the last promotion is the standby site's own, by this drill.
fn is_of_drill(site: &SiteStatus, standby: &Side, journal: &Journal) -> bool {
    site.promotions.first().is_some_and(|last| last.drill == journal.drill && last.site == standby.name)
}

/// Gives authority back, if the drill took it.
pub async fn fail_back(original: &Side, standby: &Side, journal: &Journal, deadline: Instant) -> Result<bool, Failure> {
    let what = format!("what {} knows of sites", standby.name);
    let there = until(deadline, &what, || async { standby.replication.site().await.map(Some) }).await?;
    let by_drill = there.promotions.iter().any(|promotion| promotion.drill == journal.drill);
    if !by_drill {
        return Ok(false);
    }
    let took_over = is_of_drill(&there, standby, journal);
    if took_over {
        let what = format!("{} knows that {} was promoted", original.name, standby.name);
        until(deadline, &what, || async {
            let here = original.replication.site().await?;
            Ok((here.epoch >= there.epoch).then_some(()))
        })
        .await?;
        let grounds = Grounds {
            decided_by: journal.decided_by.clone(),
            reason: journal.reason.clone(),
            drill: journal.drill.clone(),
        };
        let what = format!("{} takes authority back", original.name);
        until(deadline, &what, || async {
            original.replication.decide(Decision::TakeOver, grounds.clone()).await.map(Some)
        })
        .await?;
    }
    let what = format!("both sites know that {} has authority", original.name);
    until(deadline, &what, || async {
        let (here, there) = (original.replication.site().await?, standby.replication.site().await?);
        Ok((here.primary == there.primary && here.epoch == there.epoch).then_some(()))
    })
    .await?;
    Ok(took_over)
}

/// Waits until each has what the other had a moment ago.
pub async fn catch_up(original: &Side, standby: &Side, deadline: Instant) -> Result<(), Failure> {
    for (from, to) in [(original, standby), (standby, original)] {
        let what = format!("{} has what {} holds", to.name, from.name);
        let mut since = None;
        loop {
            let asked = from.risk(&to.name).await;
            if let Ok((at_ms, risk)) = &asked {
                // By the clock of the site that has it: later events may be on their way for ever.
                let since = *since.get_or_insert(*at_ms);
                if risk.oldest_ms.is_none_or(|oldest| oldest > since) {
                    break;
                }
            }
            if Instant::now() >= deadline {
                return Err(Failure::failed(match asked {
                    Ok((_, risk)) => format!("{what}: {} events are still at risk", risk.events),
                    Err(error) => format!("{what}: {error}"),
                }));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// All of it, in order; the journal is ended.
pub async fn all(
    original: &Side,
    standby: &Side,
    journal: &mut Journal,
    within: Duration,
    begun: Instant,
) -> Result<Done, Failure> {
    let deadline = Instant::now() + within;
    let resumed = resume([original, standby], journal, deadline).await?;
    say(begun, &format!("{resumed} links go on"));
    let took_over = fail_back(original, standby, journal, deadline).await?;
    if took_over {
        say(begun, &format!("{} has authority again", original.name));
    }
    journal.ended = true;
    journal.write()?;
    Ok(Done { resumed, took_over })
}

/// Progress, for who waits.
pub fn say(begun: Instant, what: &str) {
    eprintln!("{:>9}  {what}", seconds(millis(begun.elapsed())));
}
