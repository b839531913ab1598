//! What some process of the index has to do once: compare a generation that is being filled with the serving one, let it
//! take over, remove what nobody needs. Each step is one change of the pointer, so of several that try one does it.
//!
//! A generation is filled in rounds. A round goes up to where the serving one is when it begins, and at its end both have
//! digests at the same position. What came meanwhile is the next, shorter round; from the last one it goes on to take over.

use crate::{
    pointer::{Entry, Pointer},
    project::Project,
    service::{Shared, stopped, summed},
};
use cairn_archive::{Offset, digest::FOLD_VERSION};
use cairn_service_api::{
    Error,
    index::{Certificate, Role, Then},
};
use cairn_store_api::Generation;
use std::sync::Arc;

/// With so few events between, a generation takes over without another round.
const LAST_ROUND_EVENTS: u64 = 5_000;
/// Steps taken in a row.
const STEPS_MAX: usize = 16;
/// Polls that a process without the first partition leaves to others what there is to do.
const PATIENCE_POLLS: u32 = 5;

/// Looks at the pointer and does what there is to do, `at_once` or when nobody else seems to.
pub(crate) async fn run(shared: &Arc<Shared>, at_once: bool) -> Result<(), Error> {
    for _ in 0..STEPS_MAX {
        let pointer = shared.look().await?;
        let (found, patient) = {
            let seen = shared.looking.lock().await;
            let patience = shared.config.pointer_poll * PATIENCE_POLLS;
            (seen.bytes.clone(), seen.since.is_some_and(|since| since.elapsed() < patience))
        };
        measure(shared, &pointer).await?;
        if patient && !at_once && !shared.keeping().is_first() {
            return Ok(());
        }
        let mut after = pointer.clone();
        if !step(shared, &mut after).await? {
            return Ok(());
        }
        after.replace(&found, &*shared.store).await?;
    }
    Ok(())
}

/// Remembers how far generations are that are being filled.
async fn measure(shared: &Shared, pointer: &Pointer) -> Result<(), Error> {
    let filled = |entry: &&Entry| matches!(entry.role, Role::Filling | Role::Frozen) && !entry.paused;
    for entry in pointer.entries.iter().filter(filled) {
        let Some(project) = shared.keeping().get(entry.generation) else { continue };
        if entry.role == Role::Filling || !project.is_filled() {
            let ends = project.refresh(false).await?;
            project.sample(ends.iter().map(|end| end.0).sum());
        }
    }
    Ok(())
}

/// The next change of the pointer, if there is one to be made.
async fn step(shared: &Arc<Shared>, pointer: &mut Pointer) -> Result<bool, Error> {
    let now = shared.clock.unix_ms();
    if remove_dropped(shared, pointer).await? {
        return Ok(true);
    }
    let keep_ms = u64::try_from(shared.config.keep_previous.as_millis()).unwrap_or(u64::MAX);
    let expired = |entry: &&mut Entry| entry.role == Role::Kept && entry.since_ms.saturating_add(keep_ms) <= now;
    if let Some(kept) = pointer.entries.iter_mut().find(expired) {
        kept.become_(Role::Dropping, now);
        return Ok(true);
    }
    let filling = pointer.with_role(Role::Filling).map(|entry| entry.generation);
    match filling {
        Some(generation) => fill(shared, pointer, generation, now).await,
        None => Ok(begin_upgrade(shared, pointer, now)),
    }
}

/// Removes a generation that was dropped long enough ago.
async fn remove_dropped(shared: &Shared, pointer: &mut Pointer) -> Result<bool, Error> {
    let due: Vec<Generation> = {
        let seen = shared.looking.lock().await;
        let due = seen.dropping.iter().filter(|(_, since)| since.elapsed() >= shared.config.drop_grace);
        due.map(|(generation, _)| *generation).collect()
    };
    let Some(generation) = due.into_iter().find(|generation| shared.keeping().is_idle(*generation)) else {
        return Ok(false);
    };
    if let Err(error) = shared.store.drop_generation(generation).await {
        // Nothing else has to wait for it.
        tracing::warn!(generation = generation.0, %error, "a generation can't be removed yet");
        return Ok(false);
    }
    tracing::info!(generation = generation.0, "a generation of the index is removed");
    pointer.entries.retain(|entry| entry.generation != generation);
    Ok(true)
}

/// A serving generation of an earlier fold is not gone on with: another one is filled, and takes its place.
fn begin_upgrade(shared: &Shared, pointer: &mut Pointer, now: u64) -> bool {
    if pointer.serving().is_none_or(|serving| serving.fold_version >= FOLD_VERSION) {
        return false;
    }
    let own = shared.log.incarnation();
    let generation = pointer.add(|generation| {
        let mut entry = Entry::new(generation, Role::Filling, own, now);
        (entry.then, entry.accepted) = (Then::Serve, true);
        entry
    });
    tracing::warn!(generation = generation.0, "the index is of an earlier fold and is filled anew");
    true
}

/// The next step of a generation that is being filled.
async fn fill(shared: &Arc<Shared>, pointer: &mut Pointer, generation: Generation, now: u64) -> Result<bool, Error> {
    let Some(project) = shared.keeping().get(generation) else { return Ok(false) };
    let entry = pointer.live_mut(generation)?;
    if !entry.is_followed(shared.log.incarnation()) {
        return Ok(false);
    }
    if entry.closing {
        let covers = covers_serving(shared, &project).await?;
        if covers {
            pointer.serve(generation, now);
            tracing::info!(generation = generation.0, "another generation of the index serves");
        }
        return Ok(covers);
    }
    if entry.goal.is_some() { end_round(shared, &project, entry, now).await } else { begin_round(shared, entry).await }
}

/// Whether a generation has folded what the serving one has.
pub(crate) async fn covers_serving(shared: &Shared, project: &Project) -> Result<bool, Error> {
    let serving = shared.serving();
    serving.refresh(false).await?;
    let reached = serving.look(|parts| serving.positions(parts, false));
    let ends = project.refresh(false).await?;
    Ok(!project.missing(&reached, &ends).any)
}

/// Goes on up to where the serving generation is now.
async fn begin_round(shared: &Shared, entry: &mut Entry) -> Result<bool, Error> {
    let hurries = entry.certificate.is_none() || (entry.then == Then::Serve && entry.may_serve());
    let compared = shared.looking.lock().await.compared;
    if !hurries && compared.is_some_and(|compared| compared.elapsed() < shared.config.compare_every) {
        return Ok(false);
    }
    let (expected, position) = summed(&shared.serving(), false).await?;
    shared.looking.lock().await.compared = Some(tokio::time::Instant::now());
    if entry.certificate.as_ref().is_some_and(|certificate| certificate.position == position) {
        entry.closing = entry.then == Then::Serve && entry.may_serve();
        return Ok(entry.closing);
    }
    (entry.goal, entry.expected) = (Some(position), Some(expected));
    Ok(true)
}

/// Compares both once the goal is reached.
async fn end_round(shared: &Shared, project: &Project, entry: &mut Entry, now: u64) -> Result<bool, Error> {
    let (Some(goal), Some(serving)) = (entry.goal.clone(), entry.expected) else { return Ok(false) };
    let ends = project.refresh(false).await?;
    if project.missing(&goal, &ends).any {
        return Ok(false);
    }
    let (own, position) = summed(project, false).await?;
    if project.missing(&goal, &[]).any {
        // The store has a commit that its follower here is about to tell of.
        return Ok(false);
    }
    (entry.goal, entry.expected) = (None, None);
    if position != goal {
        // Another round compares them.
        tracing::info!(generation = entry.generation.0, "a generation is not where it was to be compared");
        return Ok(true);
    }
    let certificate = Certificate { position: goal, serving, own };
    match certificate.is_equal() {
        true => tracing::info!(generation = entry.generation.0, "a generation is equal to the serving one"),
        false => tracing::error!(generation = entry.generation.0, "a generation is not equal to the serving one"),
    }
    let compared: u64 = certificate.position.0.values().map(|end| end.0).sum();
    entry.certificate = Some(certificate);
    match entry.then {
        Then::Drop => entry.become_(Role::Dropping, now),
        Then::Serve if entry.may_serve() => {
            let reached: u64 = shared.serving().refresh(false).await?.iter().map(|end: &Offset| end.0).sum();
            entry.closing = reached.saturating_sub(compared) <= LAST_ROUND_EVENTS;
        }
        Then::Serve | Then::Wait => {}
    }
    Ok(true)
}

/// Does what there is to do until a generation serves.
pub(crate) async fn until_serving(shared: &Arc<Shared>, generation: Generation) -> Result<(), Error> {
    loop {
        run(shared, true).await?;
        if shared.serving().rows.generation == generation {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(shared.config.elsewhere_poll) => {}
            error = stopped(shared) => return Err(error),
        }
    }
}
