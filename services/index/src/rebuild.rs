//! Rebuilding: a new generation beside the serving one, compared with it at one position, then switched to.

use crate::{
    generation::Pointer,
    project::Project,
    service::{Serving, Shared, answering, digest},
};
use cairn_archive::Offset;
use cairn_service_api::{
    AnswerStream, Error, ErrorKind,
    index::{RebuildOutcome, RebuildProgress},
};
use cairn_store_api::Generation;
use std::{sync::Arc, time::Duration};

/// Time between two steps told.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Fills a new generation from the log up to where the serving one is now, compares their digests there, and switches
/// if asked to, once the new one has caught up. Dropping the stream stops the filling; what was filled is removed at the
/// next start or rebuild.
///
/// A new generation is what the log says, so it serves even where it differs; both digests are told.
pub(crate) fn run(shared: Arc<Shared>, switch: bool) -> AnswerStream<RebuildProgress> {
    answering(1, None, move |answers| async move {
        let alone = shared.rebuilding.clone().try_lock_owned();
        let alone = alone.map_err(|_| Error::new(ErrorKind::Conflict, "another rebuild is under way"))?;
        let pointer = Pointer::read_or_create(&*shared.store).await?;
        drop_waste(&shared, pointer).await?;
        let (generation, pointer) = pointer.take_next(&*shared.store).await?;
        let progress = |events, total, done| RebuildProgress { generation: generation.0, events, total, done };
        let (before, target) = shared.serving().project.look(|folded| (digest(&folded.leaves), folded.ends.clone()));
        let total: u64 = target.iter().map(|end| end.0).sum();
        let filling = fill(&shared, generation, Some(target)).await?;
        let mut ticks = tokio::time::interval(TELL_EVERY);
        {
            let mut run_out = std::pin::pin!(filling.run_out());
            loop {
                tokio::select! {
                    () = &mut run_out => break,
                    _ = ticks.tick() => {
                        let events = filling.project.look(|folded| folded.ends.iter().map(|end| end.0).sum());
                        answers.give(progress(events, total, None)).await?;
                    }
                    () = stopped(&shared) => return Err(closing().into()),
                }
            }
        }
        let after = filling.project.look(|folded| digest(&folded.leaves));
        drop(filling);
        if before != after {
            tracing::error!("the index and its rebuilt generation have different digests at the same position");
        }
        if switch {
            // In a task of its own: once begun it is not left half-way, also if nobody listens any more.
            let shared = shared.clone();
            let taken = tokio::spawn(async move {
                let _alone = alone;
                take_over(&shared, pointer, generation).await
            });
            taken.await.map_err(|_| closing())??;
        } else {
            shared.store.drop_generation(generation).await?;
        }
        let outcome = RebuildOutcome { before, after, switched: switch };
        answers.give(progress(total, total, Some(outcome))).await
    })
}

/// Catches up with the serving generation, takes its place, and removes it once its last query has ended.
async fn take_over(shared: &Arc<Shared>, pointer: Pointer, generation: Generation) -> Result<(), Error> {
    let new = fill(shared, generation, None).await?;
    loop {
        let mut commits = new.project.commits();
        let serving = shared.serving();
        let reached = serving.project.look(|folded| serving.project.positions(folded));
        if new.project.covers(&reached) {
            break;
        }
        tokio::select! {
            _ = commits.changed() => {}
            () = stopped(shared) => return Err(closing()),
        }
    }
    pointer.serve(generation, &*shared.store).await?;
    let old = shared.switch(new);
    old.stop().await;
    old.project.wake();
    let waste = old.project.rows.generation;
    let gone = old.gone();
    drop(old);
    let store = shared.store.clone();
    tokio::spawn(async move {
        if let Some(mut gone) = gone {
            gone.recv().await;
        }
        if let Err(error) = store.drop_generation(waste).await {
            tracing::warn!(%error, "the generation that served before was not removed");
        }
    });
    Ok(())
}

fn closing() -> Error {
    Error::new(ErrorKind::Unavailable, "the index is closing")
}

async fn stopped(shared: &Shared) {
    let mut stop = shared.stop.subscribe();
    // An index that is gone has stopped too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Generations that neither serve nor are being filled.
async fn drop_waste(shared: &Shared, pointer: Pointer) -> Result<(), Error> {
    let serving = shared.serving().project.rows.generation;
    for waste in (1..pointer.next.0).map(Generation) {
        if waste != serving && waste != pointer.serving && !shared.store.offsets(waste).await?.is_empty() {
            shared.store.drop_generation(waste).await?;
        }
    }
    Ok(())
}

async fn fill(shared: &Shared, generation: Generation, to: Option<Vec<Offset>>) -> Result<Arc<Serving>, Error> {
    let rows = shared.rows(generation);
    let start = Project::start(shared.log.clone(), rows, shared.config.clone(), to, &shared.generations).await?;
    Serving::new(start).ok_or_else(|| Error::new(ErrorKind::Internal, "a new generation is not of this log"))
}
