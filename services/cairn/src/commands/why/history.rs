//! The events of a study as its log has them, and what they come to.

use crate::{
    cli::ServerArgs,
    commands::{Failure, connection, events::read_at},
};
use cairn_archive::{
    Envelope, EventId, Position,
    events::Event,
    fold::{EventOrder, Identity, InstanceState, Loaded, Stamp, StudyFold, StudyKey},
};
use cairn_dicom::Uid;
use cairn_service_api::{Index, digests::FoldedEvent};
use cairn_service_grpc::client::IndexClient;
use futures_util::TryStreamExt;
use std::collections::HashMap;

/// What of a study is asked for.
#[derive(Clone, Debug)]
pub enum About {
    /// All of it.
    Everything,
    /// A series.
    Series(Uid),
    /// An instance.
    Instance(Uid),
}

impl About {
    /// Whether something of this series and instance, where they are not empty, is asked for.
    fn may_mean(&self, series: &str, instance: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Series(uid) => series.is_empty() || uid.as_str() == series,
            Self::Instance(uid) => instance.is_empty() || uid.as_str() == instance,
        }
    }

    fn means(&self, series: &str, instance: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Series(uid) => uid.as_str() == series,
            Self::Instance(uid) => uid.as_str() == instance,
        }
    }
}

/// An event.
pub struct Told {
    pub order: EventOrder,
    pub position: Position,
    pub event: Event,
    /// What was asked for is one instance.
    about: Option<(Uid, Uid)>,
}

impl Told {
    /// The instance that it is about, where it is about one.
    pub fn instance(&self) -> Option<&Uid> {
        self.about.as_ref().map(|(_, instance)| instance)
    }

    /// Whether it is about what is asked for. What is about no instance in particular is about the study.
    pub fn is_about(&self, asked: &About) -> bool {
        match &self.event {
            Event::InstancesRejected(event) => {
                let named = |series: &str, instance: &str| asked.means(series, instance);
                event.series.iter().any(|series| {
                    let uid = &series.series_instance_uid;
                    series.instances.iter().any(|instance| named(uid, &instance.sop_instance_uid))
                })
            }
            Event::RejectionRevoked(event) => event
                .series
                .iter()
                .any(|series| series.sop_instance_uids.iter().any(|uid| asked.means(&series.series_instance_uid, uid))),
            Event::AttributesCorrected(event) => asked.may_mean(&event.series_instance_uid, &event.sop_instance_uid),
            Event::CorrectionRevoked(_) => true,
            Event::InstanceReceivedAgain(event) => asked.means(&event.series_instance_uid, &event.sop_instance_uid),
            _ => match &self.about {
                Some((series, instance)) => asked.means(series.as_str(), instance.as_str()),
                None => matches!(asked, About::Everything),
            },
        }
    }
}

/// A study's events in their order, and its instances as the fold has them.
pub struct History {
    pub events: Vec<Told>,
    pub instances: HashMap<Identity, InstanceState>,
}

impl History {
    pub async fn read(server: &ServerArgs, index: &IndexClient, study: &Uid) -> Result<Self, Failure> {
        let folded: Vec<FoldedEvent> =
            index.study_events(&server.tenant, study, Vec::new()).await?.try_collect().await?;
        let ids: Vec<EventId> = folded.iter().map(|folded| folded.event).collect();
        let folded: Vec<FoldedEvent> = match ids.is_empty() {
            true => Vec::new(),
            false => index.study_events(&server.tenant, study, ids).await?.try_collect().await?,
        };
        let mut log = connection(server)?.event_log()?;
        let mut events = Vec::with_capacity(folded.len());
        for folded in folded {
            let missing = || Failure::failed(format!("event {} is not in the log where it was folded", folded.event));
            let position = folded.position.ok_or_else(missing)?;
            let read = read_at(&mut log, &position).await?;
            let header = |name: &str| read.headers.get(name).map(String::as_str);
            let envelope = Envelope::from_headers(header).map_err(Failure::failed)?;
            let event = Event::decode(&folded.kind, read.payload).map_err(Failure::failed)?;
            events.push(Told { order: EventOrder::of(&envelope), position, event, about: folded.about });
        }
        events.sort_by(|a, b| a.order.cmp(&b.order));
        let instances = fold(&server.tenant, study, &events)?;
        Ok(Self { events, instances })
    }

    /// What is known of an instance.
    pub fn instance(&self, series: &str, instance: &str) -> Option<&InstanceState> {
        let identity = Identity { series: series.parse().ok()?, instance: instance.parse().ok()? };
        self.instances.get(&identity)
    }
}

/// The same fold that made the index what it is.
fn fold(tenant: &str, study: &Uid, events: &[Told]) -> Result<HashMap<Identity, InstanceState>, Failure> {
    let key = StudyKey { tenant: tenant.to_owned(), study_instance_uid: study.to_string() };
    let mut fold = StudyFold::new(key, Loaded::default());
    for told in events {
        fold.apply(told.order.clone(), Stamp::default(), told.event.clone()).map_err(Failure::failed)?;
    }
    let instances = fold.finish().map(|change| change.instances).unwrap_or_default();
    Ok(instances.into_iter().map(|change| (change.identity, change.state)).collect())
}
