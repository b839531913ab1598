use super::{SOON, Site, all, of_study, open, store};
use cairn_archive::{EventId, Partition, Position, PositionVector};
use cairn_service_api::{
    ErrorKind,
    index::Detail,
    parked::{ParkedSelection, Repair, RepairRemedy},
};
use cairn_store_api::Record;
use std::sync::Arc;

/// Stores an instance, and appends its event once more under an id of its own, with a payload that is none. Gives what
/// stands in the log, and where the poison does.
async fn poisoned(site: &dyn Site) -> (Record, Position) {
    let (receipt, made) = (open(site).await, cairn_synthetic::one_study(3, 1).remove(0));
    let Position { site: own, incarnation, partition, offset } =
        store(site, receipt, &made.file).await.unwrap().position;
    let log = site.log();
    let good = log.read(partition, offset, 1, 1).await.unwrap().records.remove(0).record;
    let mut poison = good.clone();
    poison.envelope.id = EventId(uuid::Uuid::now_v7());
    poison.payload = vec![0xFF; 16].into();
    let offset = log.append(partition, vec![poison]).await.unwrap();
    let position = Position { site: own, incarnation, partition, offset };
    seen(site, &position).await;
    (good, position)
}

async fn seen(site: &dyn Site, position: &Position) {
    let mut after = PositionVector::default();
    after.include(position);
    site.index().wait_for(&after, SOON).await.unwrap();
}

fn repair(position: &Position, remedy: RepairRemedy) -> Repair {
    Repair { position: position.clone(), remedy, by: "trial".into(), reason: "it was cut short".into() }
}

pub(super) async fn poison_is_parked_until_its_repair(site: Arc<dyn Site>) {
    let (good, position) = poisoned(&*site).await;
    let study = good.envelope.study_instance_uid.clone();
    let parked = all(site.index().parked(ParkedSelection::default()).await.unwrap()).await;
    let [one] = parked.as_slice() else { panic!("one, not {parked:?}") };
    assert_eq!((&one.position, one.reason.as_str(), &one.study_instance_uid), (&position, "undecodable", &study));
    let selection = |study: &str| ParkedSelection { study: Some((good.envelope.tenant.clone(), study.into())) };
    assert_eq!(all(site.index().parked(selection(&study)).await.unwrap()).await, parked);
    assert!(all(site.index().parked(selection("1.2.3")).await.unwrap()).await.is_empty());
    let status = site.index().status().await.unwrap();
    assert_eq!((status.parked, status.incomplete_studies), (1, 1));

    let again = site.ingest().repair(repair(&position, RepairRemedy::FoldAgain)).await.unwrap();
    seen(&*site, &again).await;
    assert_eq!(all(site.index().parked(ParkedSelection::default()).await.unwrap()).await, parked, "it is what it is");
    let event_type = good.envelope.kind.to_string();
    let remedy = RepairRemedy::Replace { event_type, payload: good.payload.clone() };
    let repaired = site.ingest().repair(repair(&position, remedy)).await.unwrap();
    seen(&*site, &repaired).await;
    assert!(all(site.index().parked(ParkedSelection::default()).await.unwrap()).await.is_empty());
    let status = site.index().status().await.unwrap();
    assert_eq!((status.parked, status.incomplete_studies), (0, 0));
    let mut selection = of_study(&study.parse().unwrap());
    selection.all_versions = true;
    let found = all(site.index().instances(selection, Detail::Header).await.unwrap()).await;
    assert!(found.len() == 2 && found.iter().any(|record| record.store_event == one.event), "in its place");
    assert!(found.iter().all(|record| !record.header.is_empty() && record.header == found[0].header));
    // The objects that it names are in the log for those who can't read it.
    let read = site.log().read(repaired.partition, repaired.offset, 1, 1).await.unwrap().records.remove(0);
    assert_eq!(read.record.envelope.object_keys, good.envelope.object_keys);
    assert_eq!(read.record.envelope.causation_id, Some(one.event));
}

pub(super) async fn a_repair_that_says_nothing_is_refused(site: Arc<dyn Site>) {
    let (good, position) = poisoned(&*site).await;
    let end = site.log().end(position.partition).await.unwrap();
    let other = |event_type: &str, payload: &[u8]| {
        repair(&position, RepairRemedy::Replace { event_type: event_type.into(), payload: payload.to_vec().into() })
    };
    for bad in [other("cairn.instance.stored.v1", &[0xFF; 4]), other("cairn.instance.dreamt.v9", &good.payload)] {
        assert_eq!(site.ingest().repair(bad).await.unwrap_err().kind, ErrorKind::Invalid);
    }
    for nowhere in [
        Position { offset: end, ..position.clone() },
        Position { partition: Partition(u16::MAX), ..position.clone() },
        Position { site: "elsewhere".parse().unwrap(), ..position.clone() },
    ] {
        let refused = site.ingest().repair(repair(&nowhere, RepairRemedy::Dismiss)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::NotFound);
    }
    assert_eq!(site.log().end(position.partition).await.unwrap(), end, "nothing was appended");
}
