//! `cairn tier`: what is in which of two object stores.

use super::{
    Failure, connection,
    retention::found,
    table::{Cell, Rows, one},
};
use crate::cli::{Common, MovedArgs, ServerArgs, TierAction};
use cairn_archive::envelope::rfc3339;
use cairn_service_api::{Tiering, tiering::NewMoves};
use cairn_service_grpc::client::TieringClient;
use cairn_store_api::Tier;
use futures_util::TryStreamExt;

pub async fn run(action: TierAction) -> Result<(), Failure> {
    match action {
        TierAction::Status { common } => status(&common).await,
        TierAction::Move(moved) => ask(moved, Tier::Cold).await,
        TierAction::Recall(moved) => ask(moved, Tier::Hot).await,
        TierAction::Queue { common } => queue(&common).await,
    }
}

fn client(server: &ServerArgs) -> Result<TieringClient, Failure> {
    Ok(TieringClient::new(&connection(server)?)?)
}

fn name(tier: Tier) -> &'static str {
    match tier {
        Tier::Hot => "hot",
        Tier::Cold => "cold",
    }
}

async fn ask(moved: MovedArgs, to: Tier) -> Result<(), Failure> {
    let MovedArgs { mut studies, query, by, common } = moved;
    if !query.is_empty() {
        studies.extend(found(&common.server, &query).await?);
        if studies.is_empty() {
            return Err(Failure::failed("no study matches"));
        }
    }
    let moves = NewMoves { tenant: common.server.tenant.clone(), studies, to, by };
    println!("{}", client(&common.server)?.move_studies(moves).await?);
    Ok(())
}

async fn status(common: &Common) -> Result<(), Failure> {
    let status = client(&common.server)?.tiering().await?;
    let columns = [("Tier", 6), ("State", 10), ("UsedBytes", 12), ("AvailableBytes", 14), ("Waiting", 8), ("Why", 40)];
    let mut rows = Rows::new(common.output, &columns);
    let mut is_whole = true;
    for tier in &status.tiers {
        let waiting = if tier.tier == Tier::Hot { status.to_hot } else { status.to_cold };
        let (state, used, available, why) = match &tier.space {
            Ok(space) => {
                ("reachable", Cell::Size(space.used), space.available.map_or(Cell::Absent, Cell::Size), Cell::Absent)
            }
            Err(why) => ("away", Cell::Absent, Cell::Absent, why.as_str().into()),
        };
        is_whole &= tier.space.is_ok();
        rows.cells(&[name(tier.tier).into(), state.into(), used, available, waiting.into(), why])?;
    }
    rows.flush()?;
    one(
        common.output,
        &[
            ("StudiesMoved", Cell::from(status.studies_moved)),
            ("ObjectsMoved", status.objects_moved.into()),
            ("BytesMoved", Cell::Size(status.bytes_moved)),
        ],
    )?;
    match is_whole {
        true => Ok(()),
        false => Err(Failure::Differs("a store can't be reached".to_owned())),
    }
}

async fn queue(common: &Common) -> Result<(), Failure> {
    let columns =
        [("Place", 6), ("StudyInstanceUID", 44), ("To", 5), ("State", 10), ("Asked", 24), ("By", 12), ("Failure", 40)];
    let mut rows = Rows::new(common.output, &columns);
    let mut moves = client(&common.server)?.moves().await?;
    while let Some(queued) = moves.try_next().await? {
        let state = match (queued.is_under_way, queued.failure.is_empty()) {
            (true, _) => "under-way",
            (false, true) => "waiting",
            (false, false) => "failed",
        };
        rows.cells(&[
            queued.place.into(),
            queued.study_instance_uid.to_string().into(),
            name(queued.to).into(),
            state.into(),
            rfc3339(queued.asked_at_ms).into(),
            queued.by.into(),
            if queued.failure.is_empty() { Cell::Absent } else { queued.failure.into() },
        ])?;
    }
    rows.flush()
}
