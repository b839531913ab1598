//! What is decided about sites, as messages and back.

use crate::{
    convert::{copied, event_id},
    error::malformed,
    replication::site,
    replication_proto::{self as pb, decide_request::Decision as Kind},
};
use cairn_archive::{authority::DeadSite, events::SendersConfigured};
use cairn_service_api::{
    Error,
    site::{Decision, Grounds, Promoted, SiteStatus},
};
use prost::Message;

pub(crate) fn grounds_to(grounds: &Grounds) -> pb::Grounds {
    let Grounds { decided_by, reason, drill } = grounds.clone();
    pb::Grounds { decided_by, reason, drill }
}

pub(crate) fn grounds_from(grounds: Option<pb::Grounds>) -> Grounds {
    let pb::Grounds { decided_by, reason, drill } = grounds.unwrap_or_default();
    Grounds { decided_by, reason, drill }
}

pub(crate) fn decision_to(decision: &Decision) -> Kind {
    match decision {
        Decision::Promote { force } => Kind::Promote(pb::Promote { force: *force }),
        Decision::TakeOver => Kind::TakeOver(pb::TakeOver {}),
        Decision::Demote => Kind::Demote(pb::Demote {}),
        Decision::SetReadOnly { site, read_only } => {
            Kind::SetReadOnly(pb::SetReadOnly { site: site.to_string(), read_only: *read_only })
        }
        Decision::DeclareDead { site, dead } => {
            Kind::DeclareDead(pb::DeclareDead { site: site.to_string(), dead: *dead })
        }
    }
}

/// Never read as some other decision when it is not there.
pub(crate) fn decision_from(decision: Option<Kind>) -> Result<Decision, Error> {
    Ok(match decision.ok_or_else(|| malformed("decision"))? {
        Kind::Promote(promote) => Decision::Promote { force: promote.force },
        Kind::TakeOver(_) => Decision::TakeOver,
        Kind::Demote(_) => Decision::Demote,
        Kind::SetReadOnly(set) => Decision::SetReadOnly { site: site(&set.site)?, read_only: set.read_only },
        Kind::DeclareDead(said) => Decision::DeclareDead { site: site(&said.site)?, dead: said.dead },
    })
}

fn dead_to(dead: &DeadSite) -> pb::DeadSite {
    let DeadSite { site, declared, at_ms } = dead;
    pb::DeadSite { site: site.to_string(), declared_event_id: copied(declared.as_bytes()), at_ms: *at_ms }
}

fn dead_from(dead: pb::DeadSite) -> Result<DeadSite, Error> {
    Ok(DeadSite { site: site(&dead.site)?, declared: event_id(&dead.declared_event_id)?, at_ms: dead.at_ms })
}

fn promoted_to(promoted: &Promoted) -> pb::Promoted {
    let Promoted { event, site, epoch, at_ms, decided_by, reason, drill, is_void } = promoted.clone();
    let grounds = Some(pb::Grounds { decided_by, reason, drill });
    pb::Promoted { event_id: copied(event.as_bytes()), site: site.to_string(), epoch, at_ms, grounds, is_void }
}

fn promoted_from(promoted: pb::Promoted) -> Result<Promoted, Error> {
    let pb::Promoted { event_id: id, site: name, epoch, at_ms, grounds, is_void } = promoted;
    let Grounds { decided_by, reason, drill } = grounds_from(grounds);
    Ok(Promoted { event: event_id(&id)?, site: site(&name)?, epoch, at_ms, decided_by, reason, drill, is_void })
}

pub(crate) fn site_to(status: &SiteStatus) -> pb::SiteResponse {
    pb::SiteResponse {
        site: status.site.to_string(),
        version: status.version.clone(),
        at_ms: status.at_ms,
        epoch: status.epoch,
        primary: status.primary.as_ref().map(ToString::to_string).unwrap_or_default(),
        read_only: status.read_only,
        dead: status.dead.iter().map(dead_to).collect(),
        promotions: status.promotions.iter().map(promoted_to).collect(),
        senders: status.senders.iter().map(|senders| senders.encode_to_vec().into()).collect(),
    }
}

pub(crate) fn site_from(response: pb::SiteResponse) -> Result<SiteStatus, Error> {
    let senders = |encoded| SendersConfigured::decode(encoded).map_err(|_| malformed("senders"));
    Ok(SiteStatus {
        site: site(&response.site)?,
        version: response.version,
        at_ms: response.at_ms,
        epoch: response.epoch,
        primary: (!response.primary.is_empty()).then(|| site(&response.primary)).transpose()?,
        read_only: response.read_only,
        dead: response.dead.into_iter().map(dead_from).collect::<Result<_, _>>()?,
        promotions: response.promotions.into_iter().map(promoted_from).collect::<Result<_, _>>()?,
        senders: response.senders.into_iter().map(senders).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_or_a_status_that_is_malformed_is_refused() {
        assert!(decision_from(None).is_err());
        let set = |site: &str| Some(Kind::SetReadOnly(pb::SetReadOnly { site: site.into(), read_only: true }));
        assert!(decision_from(set("west")).is_ok());
        assert!(decision_from(set("")).is_err());
        let response = pb::SiteResponse { site: "west".into(), ..pb::SiteResponse::default() };
        assert!(site_from(response.clone()).is_ok());
        assert!(site_from(pb::SiteResponse { primary: "no/rth".into(), ..response.clone() }).is_err());
        let senders = vec![bytes::Bytes::from_static(b"\xff")];
        assert!(site_from(pb::SiteResponse { senders, ..response.clone() }).is_err());
        let promotions = vec![pb::Promoted { site: "west".into(), ..pb::Promoted::default() }];
        assert!(site_from(pb::SiteResponse { promotions, ..response }).is_err());
    }
}
