//! What operators ask of generations.

use crate::{
    duties,
    pointer::{Entry, Pointer},
    service::{Shared, digest, total},
};
use cairn_archive::{Offset, Partition, PositionVector, digest::FOLD_VERSION};
use cairn_service_api::{
    Error, ErrorKind,
    index::{Change, Changed, GenerationStatus, Role, StateDigest, Then, Until},
};
use cairn_store_api::Generation;
use std::sync::Arc;

fn conflict(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Conflict, message)
}

/// All generations.
pub(crate) async fn generations(shared: &Arc<Shared>) -> Result<Vec<GenerationStatus>, Error> {
    let pointer = shared.look().await?;
    let mut log_total = 0;
    for partition in (0..shared.log.partitions()).map(Partition) {
        log_total += shared.log.end(partition).await?.0;
    }
    let mut all = Vec::with_capacity(pointer.entries.len());
    for entry in pointer.entries {
        all.push(status(shared, entry, log_total).await?);
    }
    all.sort_by_key(|status| status.generation);
    Ok(all)
}

async fn status(shared: &Shared, entry: Entry, log_total: u64) -> Result<GenerationStatus, Error> {
    let project = shared.keeping().get(entry.generation).filter(|_| entry.is_live());
    let until = entry.goal.filter(|_| entry.role == Role::Frozen);
    let mut status = GenerationStatus {
        generation: entry.generation.0,
        role: entry.role,
        fold_version: entry.fold_version,
        paused: entry.paused,
        then: entry.then,
        since_ms: entry.since_ms,
        folded: PositionVector::default(),
        total: until.as_ref().map_or(log_total, sum),
        until,
        events: 0,
        events_per_second: None,
        parked: 0,
        studies: 0,
        series: 0,
        instances: 0,
        digest: StateDigest { fold_version: entry.fold_version, events: [0; 32], state: [0; 32], studies: 0 },
        certificate: entry.certificate,
    };
    let Some(project) = project else { return Ok(status) };
    project.refresh(true).await?;
    project.look(|parts| {
        let total = total(parts.iter().map(|part| &part.leaves));
        (status.studies, status.series, status.instances) = (total.studies, total.series, total.instances);
        status.parked = parts.iter().map(|part| part.parked.events).sum();
        status.events = parts.iter().map(|part| part.end.0).sum();
        status.digest = digest(parts.iter().map(|part| &part.leaves));
        status.folded = project.positions(parts, true);
    });
    status.total = status.total.max(status.events);
    let is_filled = matches!(entry.role, Role::Filling | Role::Frozen) && !entry.paused;
    status.events_per_second = project.speed().filter(|_| is_filled);
    Ok(status)
}

fn sum(vector: &PositionVector) -> u64 {
    vector.0.values().map(|end| end.0).sum()
}

/// Makes a change.
pub(crate) async fn run(shared: &Arc<Shared>, change: Change) -> Result<Changed, Error> {
    let now = shared.clock.unix_ms();
    let changed = |generation: Generation| Changed { generation: generation.0, until: None, certificate: None };
    match change {
        Change::Rebuild { then } => {
            let entry = |generation| {
                let mut entry = Entry::new(generation, Role::Filling, shared.log.incarnation(), now);
                entry.then = then;
                entry
            };
            Ok(changed(add(shared, entry).await?))
        }
        Change::Freeze(until) => {
            let until = resolve(shared, until).await?;
            let entry = |generation| {
                let mut entry = Entry::new(generation, Role::Frozen, shared.log.incarnation(), now);
                entry.goal = Some(until.clone());
                entry
            };
            let generation = add(shared, entry).await?;
            Ok(Changed { until: Some(until), ..changed(generation) })
        }
        Change::Pause(number) => set_paused(shared, number, true).await,
        Change::Resume(number) => set_paused(shared, number, false).await,
        Change::Switch { generation, accept_difference } => switch(shared, generation, accept_difference).await,
        Change::Rollback => {
            let pointer = shared.look().await?;
            let kept = pointer.with_role(Role::Kept).map(|entry| entry.generation);
            serve_kept(shared, kept.ok_or_else(|| conflict("no generation that served before is kept"))?).await
        }
        Change::Drop(number) => {
            edit(shared, number, |entry| match entry.role {
                Role::Serving => Err(conflict("it serves")),
                _ => {
                    entry.become_(Role::Dropping, now);
                    Ok(())
                }
            })
            .await
        }
    }
}

/// Changes the pointer, and does at once what follows from it.
async fn change<T>(shared: &Arc<Shared>, change: impl Fn(&mut Pointer) -> Result<T, Error>) -> Result<T, Error> {
    let (done, _) = Pointer::change(&*shared.store, change).await?;
    // It is done, whatever comes of the rest, which is tried again.
    if let Err(error) = duties::run(shared, true).await {
        tracing::warn!(%error, "a change of generations takes effect later");
    }
    shared.told.notify_one();
    Ok(done)
}

async fn edit(
    shared: &Arc<Shared>,
    number: u32,
    edit: impl Fn(&mut Entry) -> Result<(), Error>,
) -> Result<Changed, Error> {
    change(shared, |pointer| edit(pointer.live_mut(Generation(number))?)).await?;
    Ok(Changed { generation: number, until: None, certificate: None })
}

async fn add(shared: &Arc<Shared>, entry: impl Fn(Generation) -> Entry) -> Result<Generation, Error> {
    let most = shared.config.generations_max;
    change(shared, |pointer| {
        let new = entry(Generation(pointer.next));
        if new.role == Role::Filling
            && let Some(other) = pointer.with_role(Role::Filling)
        {
            return Err(conflict(format!("generation {} is being filled", other.generation.0)));
        }
        if pointer.entries.iter().filter(|entry| entry.is_live()).count() >= most {
            return Err(conflict(format!("there are {most} generations, and index.generations_max allows no more")));
        }
        Ok(pointer.add(|_| new))
    })
    .await
}

/// Fills a generation that serves then, also where it differs: events that were parked are folded in it.
pub(crate) async fn fold_again(shared: &Arc<Shared>) -> Result<(), Error> {
    let now = shared.clock.unix_ms();
    let entry = |generation| {
        let mut entry = Entry::new(generation, Role::Filling, shared.log.incarnation(), now);
        (entry.then, entry.accepted) = (Then::Serve, true);
        entry
    };
    add(shared, entry).await.map(|_| ())
}

async fn set_paused(shared: &Arc<Shared>, number: u32, paused: bool) -> Result<Changed, Error> {
    edit(shared, number, |entry| {
        if !matches!(entry.role, Role::Filling | Role::Frozen) {
            return Err(conflict("it is not being filled"));
        }
        entry.paused = paused;
        Ok(())
    })
    .await
}

async fn switch(shared: &Arc<Shared>, number: u32, accept_difference: bool) -> Result<Changed, Error> {
    let generation = Generation(number);
    let pointer = shared.look().await?;
    let entry = pointer.get(generation).filter(|entry| entry.is_live());
    let role = entry.map(|entry| entry.role);
    let role = role.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no generation {number}")))?;
    match role {
        Role::Serving => {
            let certificate = entry.and_then(|entry| entry.certificate.clone());
            return Ok(Changed { generation: number, until: None, certificate });
        }
        Role::Kept => return serve_kept(shared, generation).await,
        Role::Filling => {}
        _ => return Err(conflict("it is not filled to serve")),
    }
    edit(shared, number, |entry| {
        // Others may have switched meanwhile.
        if entry.role == Role::Serving {
            return Ok(());
        }
        if entry.fold_version != FOLD_VERSION {
            return Err(conflict("it is of another version of the fold than this build's"));
        }
        let Some(certificate) = &entry.certificate else {
            return Err(conflict("it is still being filled, and was not compared with the serving generation yet"));
        };
        if !certificate.is_equal() && !accept_difference && !entry.accepted {
            return Err(conflict("it differs from the serving generation, which nobody has accepted"));
        }
        (entry.then, entry.paused, entry.accepted) = (Then::Serve, false, entry.accepted || accept_difference);
        Ok(())
    })
    .await?;
    let until = tokio::time::timeout(shared.config.wait_max / 2, duties::until_serving(shared, generation));
    until.await.map_err(|_| late())??;
    let pointer = shared.look().await?;
    let certificate = pointer.get(generation).and_then(|entry| entry.certificate.clone());
    Ok(Changed { generation: number, until: None, certificate })
}

fn late() -> Error {
    Error::new(ErrorKind::Unavailable, "it has not caught up in time; it goes on by itself")
}

/// Lets one serve again that is kept up.
async fn serve_kept(shared: &Arc<Shared>, generation: Generation) -> Result<Changed, Error> {
    let project = shared.keeping().get(generation).ok_or_else(late)?;
    let caught_up = async {
        while !duties::covers_serving(shared, &project).await? {
            tokio::time::sleep(shared.config.elsewhere_poll).await;
        }
        Ok::<_, Error>(())
    };
    tokio::time::timeout(shared.config.wait_max / 2, caught_up).await.map_err(|_| late())??;
    let now = shared.clock.unix_ms();
    change(shared, |pointer| {
        if pointer.live_mut(generation)?.role != Role::Kept {
            return Err(conflict("it is not kept any more"));
        }
        pointer.serve(generation, now);
        Ok(())
    })
    .await?;
    Ok(Changed { generation: generation.0, until: None, certificate: None })
}

/// The position vector that is meant, within this log.
async fn resolve(shared: &Shared, until: Until) -> Result<PositionVector, Error> {
    let (log, serving) = (&shared.log, shared.serving());
    let mut vector = PositionVector::default();
    let invalid = |message: &str| Error::new(ErrorKind::Invalid, message);
    if let Until::Position(wanted) = &until {
        let own = |(site, life, of): &(_, _, Partition)| {
            site == log.site() && *life == log.incarnation() && of.0 < log.partitions()
        };
        if !wanted.0.keys().all(own) {
            return Err(invalid("the positions are not all of this site's log in its present life"));
        }
    }
    for partition in (0..log.partitions()).map(Partition) {
        let end = log.end(partition).await?;
        let at = match &until {
            Until::Time(unix_ms) => log.offset_at(partition, *unix_ms).await?.min(end),
            Until::Position(wanted) => wanted.0.get(&serving.key(partition)).copied().unwrap_or_default(),
        };
        if at > end {
            return Err(invalid("a position is beyond the end of the log"));
        }
        if at > Offset(0) {
            vector.0.insert(serving.key(partition), at);
        }
    }
    Ok(vector)
}
