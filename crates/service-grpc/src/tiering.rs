//! Messages of tiering.

use crate::{convert::uid, error::malformed, lifecycle_proto as pb};
use cairn_service_api::{
    Error,
    tiering::{NewMoves, QueuedMove, TierStatus, TieringStatus},
};
use cairn_store_api::{StoreSpace, Tier};

fn tier_to(tier: Tier) -> pb::Tier {
    match tier {
        Tier::Hot => pb::Tier::Hot,
        Tier::Cold => pb::Tier::Cold,
    }
}

fn tier_from(tier: pb::Tier) -> Result<Tier, Error> {
    match tier {
        pb::Tier::Hot => Ok(Tier::Hot),
        pb::Tier::Cold => Ok(Tier::Cold),
        pb::Tier::Unspecified => Err(malformed("tier")),
    }
}

pub(crate) fn moves_to(moves: NewMoves) -> pb::MoveStudiesRequest {
    pb::MoveStudiesRequest {
        tenant: moves.tenant,
        study_instance_uids: moves.studies.iter().map(ToString::to_string).collect(),
        to: tier_to(moves.to).into(),
        asked_by: moves.by,
    }
}

pub(crate) fn moves_from(request: pb::MoveStudiesRequest) -> Result<NewMoves, Error> {
    let to = tier_from(request.to())?;
    let studies = request.study_instance_uids.iter().map(|study| uid(study)).collect::<Result<_, _>>()?;
    Ok(NewMoves { tenant: request.tenant, studies, to, by: request.asked_by })
}

pub(crate) fn queued_to(queued: QueuedMove) -> pb::QueuedMove {
    pb::QueuedMove {
        place: queued.place,
        tenant: queued.tenant,
        study_instance_uid: queued.study_instance_uid.to_string(),
        to: tier_to(queued.to).into(),
        asked_by: queued.by,
        asked_at_ms: queued.asked_at_ms,
        is_under_way: queued.is_under_way,
        failure: queued.failure,
    }
}

pub(crate) fn queued_from(queued: pb::QueuedMove) -> Result<QueuedMove, Error> {
    Ok(QueuedMove {
        to: tier_from(queued.to())?,
        place: queued.place,
        tenant: queued.tenant,
        study_instance_uid: uid(&queued.study_instance_uid)?,
        by: queued.asked_by,
        asked_at_ms: queued.asked_at_ms,
        is_under_way: queued.is_under_way,
        failure: queued.failure,
    })
}

pub(crate) fn status_to(status: TieringStatus) -> pb::TieringResponse {
    use pb::tier_status::Found;
    let tier = |TierStatus { tier, space }: TierStatus| {
        let found = match space {
            Ok(StoreSpace { available, used }) => Found::Space(pb::TierSpace { available, used }),
            Err(away) => Found::Away(away),
        };
        pb::TierStatus { tier: tier_to(tier).into(), found: Some(found) }
    };
    pb::TieringResponse {
        tiers: status.tiers.into_iter().map(tier).collect(),
        to_cold: status.to_cold,
        to_hot: status.to_hot,
        studies_moved: status.studies_moved,
        objects_moved: status.objects_moved,
        bytes_moved: status.bytes_moved,
    }
}

pub(crate) fn status_from(status: pb::TieringResponse) -> Result<TieringStatus, Error> {
    use pb::tier_status::Found;
    let tier = |status: pb::TierStatus| {
        let tier = tier_from(status.tier())?;
        let space = match status.found.ok_or_else(|| malformed("found"))? {
            Found::Space(pb::TierSpace { available, used }) => Ok(StoreSpace { available, used }),
            Found::Away(away) => Err(away),
        };
        Ok::<_, Error>(TierStatus { tier, space })
    };
    Ok(TieringStatus {
        tiers: status.tiers.into_iter().map(tier).collect::<Result<_, _>>()?,
        to_cold: status.to_cold,
        to_hot: status.to_hot,
        studies_moved: status.studies_moved,
        objects_moved: status.objects_moved,
        bytes_moved: status.bytes_moved,
    })
}
