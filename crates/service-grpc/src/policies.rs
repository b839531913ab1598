//! Messages of policies, and the types that they carry.

use crate::{
    convert::{copied, event_id},
    error::malformed,
    lifecycle_proto as pb,
    replication::site,
    retention::{grounds_from, grounds_to, hold_id},
    survey::{found_from, found_to},
};
use cairn_archive::{
    holds::HeldBy,
    policies::{Action, Policy, State},
};
use cairn_service_api::{
    Error,
    policies::{Fate, Forecast, ForecastStudy, Halted, NewPolicy, PolicyRun, PolicyStatus, Sums, WhatIf},
};

fn action_to(action: Action) -> pb::PolicyAction {
    match action {
        Action::Erase => pb::PolicyAction::Erase,
        Action::Move => pb::PolicyAction::Move,
    }
}

/// Who does not say erases, as before there was anything else to do.
fn action_from(action: i32) -> Result<Action, Error> {
    match pb::PolicyAction::try_from(action) {
        Ok(pb::PolicyAction::Unspecified | pb::PolicyAction::Erase) => Ok(Action::Erase),
        Ok(pb::PolicyAction::Move) => Ok(Action::Move),
        Err(_) => Err(malformed("action")),
    }
}

pub(crate) fn policy_to(policy: NewPolicy) -> pb::AdoptPolicyRequest {
    pb::AdoptPolicyRequest {
        tenant: policy.tenant,
        name: policy.name,
        expression: policy.expression,
        delay_ms: policy.delay_ms,
        studies_max: policy.studies_max,
        grounds: Some(grounds_to(policy.grounds)),
        action: action_to(policy.action).into(),
    }
}

pub(crate) fn policy_from(request: pb::AdoptPolicyRequest) -> Result<NewPolicy, Error> {
    Ok(NewPolicy {
        tenant: request.tenant,
        name: request.name,
        action: action_from(request.action)?,
        expression: request.expression,
        delay_ms: request.delay_ms,
        studies_max: request.studies_max,
        grounds: grounds_from(request.grounds)?,
    })
}

pub(crate) fn status_to(status: PolicyStatus) -> pb::PolicyStatus {
    let PolicyStatus { policy, state, last_run } = status;
    let (state, withdrawn_by) = match state {
        State::InForce => (pb::PolicyState::InForce, String::new()),
        State::Replaced => (pb::PolicyState::Replaced, String::new()),
        State::Withdrawn(by) => (pb::PolicyState::Withdrawn, by),
        State::Void => (pb::PolicyState::Void, String::new()),
    };
    pb::PolicyStatus {
        event_id: copied(policy.event.as_bytes()),
        tenant: policy.tenant,
        name: policy.name,
        version: policy.version,
        action: i32::from(action_to(policy.action)).unsigned_abs(),
        delay_ms: policy.delay_ms,
        studies_max: policy.studies_max,
        expression: policy.expression,
        reason: policy.reason,
        adopted_by: policy.by,
        site: policy.site.to_string(),
        adopted_at_ms: policy.at_ms,
        state: state.into(),
        withdrawn_by,
        last_run: last_run.map(run_to),
    }
}

pub(crate) fn status_from(status: pb::PolicyStatus) -> Result<PolicyStatus, Error> {
    let state = match status.state() {
        pb::PolicyState::InForce => State::InForce,
        pb::PolicyState::Replaced => State::Replaced,
        pb::PolicyState::Withdrawn => State::Withdrawn(status.withdrawn_by),
        pb::PolicyState::Void => State::Void,
        pb::PolicyState::Unspecified => return Err(malformed("state")),
    };
    let policy = Policy {
        event: event_id(&status.event_id)?,
        tenant: status.tenant,
        name: status.name,
        version: status.version,
        action: action_from(i32::try_from(status.action).map_err(|_| malformed("action"))?)?,
        delay_ms: status.delay_ms,
        studies_max: status.studies_max,
        expression: status.expression,
        reason: status.reason,
        by: status.adopted_by,
        site: site(&status.site)?,
        at_ms: status.adopted_at_ms,
    };
    Ok(PolicyStatus { policy, state, last_run: status.last_run.map(run_from).transpose()? })
}

const HALTED: [(Option<Halted>, pb::PolicyHalted); 7] = [
    (None, pb::PolicyHalted::Unspecified),
    (Some(Halted::TooMany), pb::PolicyHalted::TooMany),
    (Some(Halted::Clock), pb::PolicyHalted::Clock),
    (Some(Halted::NoAuthority), pb::PolicyHalted::NoAuthority),
    (Some(Halted::Unreadable), pb::PolicyHalted::Unreadable),
    (Some(Halted::Index), pb::PolicyHalted::Index),
    (Some(Halted::NoColdStore), pb::PolicyHalted::NoColdStore),
];

fn run_to(run: PolicyRun) -> pb::PolicyRun {
    let halted = HALTED.into_iter().find(|(halted, _)| *halted == run.halted);
    pb::PolicyRun {
        version: run.version,
        at_ms: run.at_ms,
        halted: halted.map_or(pb::PolicyHalted::Unspecified, |(_, halted)| halted).into(),
        sums: Some(sums_to(run.sums)),
        asked: run.asked,
        taken_back: run.taken_back,
    }
}

fn run_from(run: pb::PolicyRun) -> Result<PolicyRun, Error> {
    let halted = HALTED.into_iter().find(|(_, halted)| i32::from(*halted) == run.halted);
    Ok(PolicyRun {
        version: run.version,
        at_ms: run.at_ms,
        halted: halted.ok_or_else(|| malformed("halted"))?.0,
        sums: sums_from(run.sums)?,
        asked: run.asked,
        taken_back: run.taken_back,
    })
}

fn sums_to(sums: Sums) -> pb::PolicySums {
    let Sums { studies, undecided, matching, due, due_bytes, held, under_way, left_alone } = sums;
    pb::PolicySums { studies, undecided, matching, due, due_bytes, held, under_way, left_alone }
}

fn sums_from(sums: Option<pb::PolicySums>) -> Result<Sums, Error> {
    let sums = sums.ok_or_else(|| malformed("sums"))?;
    let pb::PolicySums { studies, undecided, matching, due, due_bytes, held, under_way, left_alone } = sums;
    Ok(Sums { studies, undecided, matching, due, due_bytes, held, under_way, left_alone })
}

pub(crate) fn what_if_to(of: WhatIf, studies_max: u64) -> pb::WhatIfRequest {
    use pb::what_if_request::Of;
    let (tenant, of, action) = match of {
        WhatIf::Named { tenant, name } => (tenant, Of::Name(name), pb::PolicyAction::Unspecified),
        WhatIf::Expression { tenant, expression, action } => (tenant, Of::Expression(expression), action_to(action)),
    };
    pb::WhatIfRequest { tenant, of: Some(of), studies_max, action: action.into() }
}

pub(crate) fn what_if_from(request: pb::WhatIfRequest) -> Result<(WhatIf, u64), Error> {
    use pb::what_if_request::Of;
    let pb::WhatIfRequest { tenant, of, studies_max, action } = request;
    let of = match of.ok_or_else(|| malformed("of"))? {
        Of::Name(name) => WhatIf::Named { tenant, name },
        Of::Expression(expression) => WhatIf::Expression { tenant, expression, action: action_from(action)? },
    };
    Ok((of, studies_max))
}

pub(crate) fn forecast_to(forecast: Forecast) -> pb::Forecast {
    use pb::forecast_study::Otherwise;
    let study = |ForecastStudy { study, fate }| {
        let otherwise = match fate {
            Fate::Due => None,
            Fate::Held(HeldBy::Hold(id)) => Some(Otherwise::HeldBy(copied(id.as_bytes()))),
            Fate::Held(HeldBy::Unreadable(id)) => Some(Otherwise::HeldByUnreadable(copied(id.as_bytes()))),
            Fate::UnderWay(id) => Some(Otherwise::UnderWay(copied(id.as_bytes()))),
            Fate::LeftAlone(id) => Some(Otherwise::LeftAlone(copied(id.as_bytes()))),
            Fate::Waiting => Some(Otherwise::Waiting(true)),
            Fate::Recalled => Some(Otherwise::Recalled(true)),
        };
        pb::ForecastStudy { study: Some(found_to(study)), otherwise }
    };
    pb::Forecast { sums: Some(sums_to(forecast.sums)), studies: forecast.studies.into_iter().map(study).collect() }
}

pub(crate) fn forecast_from(forecast: pb::Forecast) -> Result<Forecast, Error> {
    use pb::forecast_study::Otherwise;
    let study = |pb::ForecastStudy { study, otherwise }| {
        let fate = match otherwise {
            None => Fate::Due,
            Some(Otherwise::HeldBy(id)) => Fate::Held(HeldBy::Hold(hold_id(&id)?)),
            Some(Otherwise::HeldByUnreadable(id)) => Fate::Held(HeldBy::Unreadable(event_id(&id)?)),
            Some(Otherwise::UnderWay(id)) => Fate::UnderWay(event_id(&id)?),
            Some(Otherwise::LeftAlone(id)) => Fate::LeftAlone(event_id(&id)?),
            Some(Otherwise::Waiting(_)) => Fate::Waiting,
            Some(Otherwise::Recalled(_)) => Fate::Recalled,
        };
        Ok::<_, Error>(ForecastStudy { study: found_from(study.ok_or_else(|| malformed("study"))?)?, fate })
    };
    let studies = forecast.studies.into_iter().map(study).collect::<Result<_, _>>()?;
    Ok(Forecast { sums: sums_from(forecast.sums)?, studies })
}
