//! Deciding about sites: who has authority, who gives it up, who takes no instances, which are gone for good.

use crate::service::ReplicationService;
use bytes::Bytes;
use cairn_archive::{
    EventId, PositionVector, SiteId,
    authority::{Authority, Promotion},
    events::{Event, OriginEnd, SendersConfigured, SiteDeclaredDead, SiteDemoted, SitePromoted, SiteReadOnlySet},
};
use cairn_service_api::{
    Error, ErrorKind,
    replication::Link,
    site::{Decision, Grounds, Promoted, SiteStatus},
};
use futures_util::future::join_all;
use tokio::sync::MutexGuard;

fn conflict(message: String) -> Error {
    Error::new(ErrorKind::Conflict, message)
}

impl ReplicationService {
    /// Decides something; see `Replication::decide`.
    pub(crate) async fn decided(&self, decision: Decision, grounds: Grounds) -> Result<SiteStatus, Error> {
        match decision {
            Decision::Promote { force } => self.promote(force, grounds).await?,
            Decision::TakeOver => self.take_over(grounds).await?,
            Decision::Demote => drop(self.give_up("", grounds).await?),
            Decision::SetReadOnly { site, read_only } => self.set_read_only(site, read_only, grounds).await?,
            Decision::DeclareDead { site, dead } => self.declare_dead(site, dead, grounds).await?,
        }
        Ok(self.site_status())
    }

    /// What is known of sites.
    pub(crate) fn site_status(&self) -> SiteStatus {
        let (site, at_ms) = (self.own(), self.here.clock.unix_ms());
        self.sites.ask(|authority| SiteStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            at_ms,
            epoch: authority.epoch(),
            primary: authority.primary().cloned(),
            read_only: authority.is_read_only(site),
            dead: authority.dead(),
            promotions: authority.promotions().take(SiteStatus::PROMOTIONS_MAX).map(promoted).collect(),
            senders: authority.senders().map(|(_, senders)| senders.clone()).collect(),
            site: site.clone(),
        })
    }

    fn own(&self) -> &SiteId {
        self.here.log.site()
    }

    /// To decide something. A log that was restored from a backup has other events in places that peers hold: what it says
    /// that it holds would be believed of those.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>, Error> {
        match self.here.standing.why_strayed() {
            Some(why) => Err(conflict(why)),
            None => self.sites.deciding().await,
        }
    }

    async fn promote(&self, force: bool, grounds: Grounds) -> Result<(), Error> {
        let turn = self.turn().await?;
        let own = self.own();
        let primary = self.sites.ask(|authority| authority.primary().cloned());
        if primary.as_ref() == Some(own) {
            return Ok(());
        }
        let link = primary.as_ref().filter(|_| !force).and_then(|primary| Some(self.peers.get(primary)?.link()));
        let primary = primary.as_ref().map(SiteId::as_str).unwrap_or_default();
        match link {
            Some(Link::Up) => {
                let message = format!("{primary} has authority and answers: it is taken over in order, or by force");
                return Err(conflict(message));
            }
            Some(Link::Connecting) => {
                let message = format!("whether {primary}, which has authority, answers is not known yet: try again");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            _ => {}
        }
        self.append_promotion(&turn, grounds).await
    }

    async fn append_promotion(&self, turn: &MutexGuard<'_, ()>, grounds: Grounds) -> Result<(), Error> {
        let holds = self.held().await?;
        let Grounds { decided_by, reason, drill } = grounds;
        let promoted = SitePromoted {
            site: self.own().to_string(),
            epoch: self.sites.ask(Authority::epoch).saturating_add(1),
            holds: ends(&holds),
            decided_by,
            reason,
            drill,
        };
        tracing::warn!(site = promoted.site, epoch = promoted.epoch, "this site takes authority");
        self.sites.append(turn, Event::SitePromoted(promoted)).await
    }

    /// Everything that this site's log has now, by origin.
    async fn held(&self) -> Result<PositionVector, Error> {
        let mut held = PositionVector::default();
        for followed in self.here.followed.iter() {
            followed.wait_for(self.here.log.end(followed.place.partition).await?).await;
            for ((site, incarnation), (end, _)) in &followed.reached().origins {
                held.0.insert((site.clone(), *incarnation, followed.place.partition), *end);
            }
        }
        Ok(held)
    }

    /// The other site gives authority up; what it held then comes here; this one takes authority.
    async fn take_over(&self, grounds: Grounds) -> Result<(), Error> {
        let turn = self.turn().await?;
        let Some(current) = self.sites.ask(|authority| authority.current().cloned()) else {
            return self.append_promotion(&turn, grounds).await;
        };
        if current.site == *self.own() {
            let given_up = self.sites.ask(|authority| authority.successor(&current).is_some());
            return if given_up { self.append_promotion(&turn, grounds).await } else { Ok(()) };
        }
        let from = self.sending(&current.site)?;
        let holds = from.step_down(self.own(), grounds.clone()).await?;
        let (followed, take_over_timeout) = (&self.here.followed, self.here.config.take_over_timeout);
        let coming = join_all(holds.0.into_iter().filter_map(|((site, incarnation, partition), end)| {
            let followed = followed.get(usize::from(partition.0))?;
            Some(async move { followed.wait_for_origin(&(site, incarnation), end).await })
        }));
        if tokio::time::timeout(take_over_timeout, coming).await.is_err() {
            let message = format!(
                "{} has given authority up, but not all that it holds has come within {take_over_timeout:?}: try again",
                current.site
            );
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        self.append_promotion(&turn, grounds).await
    }

    /// Gives authority up; see `Peer::step_down`.
    pub(crate) async fn give_up(&self, successor: &str, grounds: Grounds) -> Result<PositionVector, Error> {
        let turn = self.turn().await?;
        let own = self.own();
        let current = self.sites.ask(|authority| authority.current().cloned());
        let Some(current) = current.filter(|current| current.site == *own) else {
            return Err(conflict(format!("{own} has no authority to give up")));
        };
        match self.sites.ask(|authority| authority.successor(&current).map(ToOwned::to_owned)) {
            Some(known) if known == successor => {}
            Some(_) => return Err(conflict(format!("{own} has given its authority up"))),
            None => {
                let Grounds { decided_by, reason, drill } = grounds;
                let demoted = SiteDemoted {
                    site: own.to_string(),
                    promotion_event_id: id(&current.id),
                    successor: successor.to_owned(),
                    decided_by,
                    reason,
                    drill,
                };
                tracing::warn!(site = %own, epoch = current.epoch, successor, "this site gives its authority up");
                self.sites.append(&turn, Event::SiteDemoted(demoted)).await?;
            }
        }
        self.held().await
    }

    /// Who has authority, and the promotion under which something is decided now.
    fn primary_and_promotion(&self) -> (Option<SiteId>, Bytes) {
        self.sites.ask(|authority| {
            let under = authority.current().map(|current| id(&current.id)).unwrap_or_default();
            (authority.primary().cloned(), under)
        })
    }

    async fn declare_dead(&self, site: SiteId, dead: bool, grounds: Grounds) -> Result<(), Error> {
        let turn = self.turn().await?;
        let own = self.own();
        let (primary, promotion_event_id) = self.primary_and_promotion();
        if primary.as_ref() != Some(own) {
            return Err(conflict(format!("{own} has no authority: whether a site is dead is decided at the primary")));
        }
        if site == *own {
            return Err(conflict(format!("{own} has authority, and is not dead")));
        }
        // One that is gone may not be configured any more; but a name that nobody ever heard of is a mistake.
        if self.sending(&site).is_err() && !self.held().await?.0.keys().any(|(known, ..)| *known == site) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{site} is no peer of this site, and nothing here is of it"),
            ));
        }
        if dead && self.peers.get(&site).is_some_and(|peer| peer.link() == Link::Up) {
            return Err(conflict(format!("{site} answers: it is not dead")));
        }
        let Grounds { decided_by, reason, .. } = grounds;
        let site = site.to_string();
        tracing::warn!(site, dead, "whether a site is gone for good is decided");
        let said = SiteDeclaredDead { site, dead, promotion_event_id, decided_by, reason };
        self.sites.append(&turn, Event::SiteDeclaredDead(said)).await
    }

    async fn set_read_only(&self, site: SiteId, read_only: bool, grounds: Grounds) -> Result<(), Error> {
        let turn = self.turn().await?;
        let own = self.own();
        let (primary, under) = self.primary_and_promotion();
        if site != *own {
            self.sending(&site)?;
            if primary.as_ref() != Some(own) {
                let message = format!("{own} has no authority over {site}: it is decided there, or at the primary");
                return Err(conflict(message));
            }
        }
        let Grounds { decided_by, reason, .. } = grounds;
        let (site, promotion_event_id) = (site.to_string(), under);
        tracing::warn!(site, read_only, "whether a site takes instances is set");
        let set = SiteReadOnlySet { site, read_only, promotion_event_id, decided_by, reason };
        self.sites.append(&turn, Event::SiteReadOnlySet(set)).await
    }

    /// Says what this site knows of its senders, if that is not what it said last.
    ///
    /// # Errors
    /// The log's.
    pub async fn declare(&self, senders: SendersConfigured) -> Result<(), Error> {
        let turn = self.sites.deciding().await?;
        let own = self.own();
        let is_known =
            self.sites.ask(|authority| authority.senders().any(|(site, known)| site == own && *known == senders));
        if is_known { Ok(()) } else { self.sites.append(&turn, Event::SendersConfigured(senders)).await }
    }
}

fn id(id: &EventId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn ends(vector: &PositionVector) -> Vec<OriginEnd> {
    let ends = vector.0.iter().map(|((site, incarnation, partition), end)| OriginEnd {
        site: site.to_string(),
        incarnation: incarnation.0,
        partition: partition.0.into(),
        end: end.0,
    });
    ends.collect()
}

fn promoted(promotion: &Promotion) -> Promoted {
    let Promotion { id, site, epoch, at_ms, decided_by, reason, drill, is_void, .. } = promotion.clone();
    Promoted { event: id, site, epoch, at_ms, decided_by, reason, drill, is_void }
}
