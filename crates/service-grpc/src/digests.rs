//! State digests as messages and back.

use crate::{
    convert::{copied, event_id, position_from, position_to, vector_from, vector_to},
    error::malformed,
    index_proto as pb,
    replication::site,
};
use cairn_archive::{
    EventId,
    digest::{HashSum, LEAVES, Leaf, Leaves},
};
use cairn_dicom::Uid;
use cairn_service_api::{
    Error,
    digests::{DigestTree, FoldedEvent, Of, StudyDigest},
};

fn sum(bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| malformed("digest"))
}

fn uid(text: &str) -> Result<Uid, Error> {
    text.parse().map_err(|_| malformed("UID"))
}

fn leaf_to(leaf: &Leaf) -> pb::Leaf {
    pb::Leaf {
        events: copied(&leaf.events.to_bytes()),
        state: copied(&leaf.state.to_bytes()),
        studies: leaf.studies,
        series: leaf.series,
        instances: leaf.instances,
    }
}

fn leaf_from(leaf: &pb::Leaf) -> Result<Leaf, Error> {
    Ok(Leaf {
        events: HashSum::from_bytes(&sum(&leaf.events)?),
        state: HashSum::from_bytes(&sum(&leaf.state)?),
        studies: leaf.studies,
        series: leaf.series,
        instances: leaf.instances,
    })
}

pub(crate) fn tree_to(tree: &DigestTree) -> pb::DigestTreeResponse {
    pb::DigestTreeResponse {
        site: tree.site.to_string(),
        fold_version: tree.fold_version,
        folded: Some(vector_to(&tree.folded)),
        leaves: (0..=u8::MAX).map(|leaf| leaf_to(tree.leaves.get(leaf))).collect(),
    }
}

pub(crate) fn tree_from(tree: pb::DigestTreeResponse) -> Result<DigestTree, Error> {
    if tree.leaves.len() != LEAVES {
        return Err(malformed("digest tree"));
    }
    let mut leaves = Leaves::default();
    for (number, leaf) in (0..=u8::MAX).zip(&tree.leaves) {
        *leaves.get_mut(number) = leaf_from(leaf)?;
    }
    let folded = vector_from(tree.folded.unwrap_or_default())?;
    Ok(DigestTree { site: site(&tree.site)?, fold_version: tree.fold_version, folded, leaves })
}

pub(crate) fn digests_to(tenant: &str, of: Of) -> pb::StudyDigestsRequest {
    let (leaves, studies) = match of {
        Of::Leaves(leaves) => (leaves.into_iter().map(u32::from).collect(), Vec::new()),
        Of::Studies(studies) => (Vec::new(), studies.iter().map(Uid::to_string).collect()),
    };
    pb::StudyDigestsRequest { tenant: tenant.to_owned(), leaves, study_instance_uids: studies }
}

pub(crate) fn digests_from(request: pb::StudyDigestsRequest) -> Result<(String, Of), Error> {
    let leaf = |leaf: u32| u8::try_from(leaf).map_err(|_| malformed("leaf"));
    let of = match (request.leaves.is_empty(), request.study_instance_uids.is_empty()) {
        (_, true) => Of::Leaves(request.leaves.into_iter().map(leaf).collect::<Result<_, _>>()?),
        (true, false) => {
            Of::Studies(request.study_instance_uids.iter().map(|text| uid(text)).collect::<Result<_, _>>()?)
        }
        (false, false) => return Err(malformed("choice of studies")),
    };
    Ok((request.tenant, of))
}

pub(crate) fn digest_to(digest: &StudyDigest) -> pb::StudyDigestsResponse {
    let StudyDigest { study_instance_uid, events, state } = digest;
    let study_instance_uid = study_instance_uid.to_string();
    pb::StudyDigestsResponse { study_instance_uid, events: copied(events), state: copied(state) }
}

pub(crate) fn digest_from(response: pb::StudyDigestsResponse) -> Result<StudyDigest, Error> {
    let study_instance_uid = uid(&response.study_instance_uid)?;
    Ok(StudyDigest { study_instance_uid, events: sum(&response.events)?, state: sum(&response.state)? })
}

pub(crate) fn events_to(tenant: &str, study: &Uid, only: &[EventId]) -> pb::StudyEventsRequest {
    let only = only.iter().map(|id| copied(id.as_bytes())).collect();
    pb::StudyEventsRequest { tenant: tenant.to_owned(), study_instance_uid: study.to_string(), only }
}

pub(crate) fn events_from(request: &pb::StudyEventsRequest) -> Result<(Uid, Vec<EventId>), Error> {
    let only = request.only.iter().map(|id| event_id(id)).collect::<Result<_, _>>()?;
    Ok((uid(&request.study_instance_uid)?, only))
}

pub(crate) fn event_to(event: FoldedEvent) -> pb::StudyEventsResponse {
    let (series, instance) = event.about.map(|(series, instance)| (series.to_string(), instance.to_string())).unzip();
    pb::StudyEventsResponse {
        series_instance_uid: series.unwrap_or_default(),
        sop_instance_uid: instance.unwrap_or_default(),
        event_id: copied(event.event.as_bytes()),
        kind: event.kind,
        site: event.site.to_string(),
        happened_at_ms: event.happened_at_ms,
        origin: event.origin.as_ref().map(position_to),
        position: event.position.as_ref().map(position_to),
    }
}

pub(crate) fn event_from(response: pb::StudyEventsResponse) -> Result<FoldedEvent, Error> {
    let about = match (response.series_instance_uid.as_str(), response.sop_instance_uid.as_str()) {
        ("", "") => None,
        (series, instance) => Some((uid(series)?, uid(instance)?)),
    };
    Ok(FoldedEvent {
        about,
        event: event_id(&response.event_id)?,
        kind: response.kind,
        site: site(&response.site)?,
        happened_at_ms: response.happened_at_ms,
        origin: response.origin.map(position_from).transpose()?,
        position: response.position.map(position_from).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use cairn_service_api::ErrorKind;

    fn refuses<T: std::fmt::Debug>(result: Result<T, Error>, what: &str) {
        let error = result.expect_err(what);
        assert_eq!(error.kind, ErrorKind::Invalid, "{what}");
        assert!(error.message.contains(what), "{error}, not {what}");
    }

    #[test]
    fn malformed_digests_are_refused() {
        let mut leaves = Leaves::default();
        leaves.get_mut(255).studies = 7;
        let site = "a".parse().expect("a site");
        let tree = DigestTree { site, fold_version: 2, folded: Default::default(), leaves };
        let message = tree_to(&tree);
        assert_eq!(tree_from(message.clone()).expect("as it was"), tree);
        let cut = pb::DigestTreeResponse { leaves: message.leaves[..255].to_vec(), ..message.clone() };
        refuses(tree_from(cut), "digest tree");
        let mut short = message;
        short.leaves[3].state = Bytes::from_static(b"short");
        refuses(tree_from(short), "digest");
        let request =
            pb::StudyDigestsRequest { tenant: "t".into(), leaves: vec![256], study_instance_uids: Vec::new() };
        refuses(digests_from(request), "leaf");
        let request =
            pb::StudyDigestsRequest { tenant: "t".into(), leaves: vec![1], study_instance_uids: vec!["1.2".into()] };
        refuses(digests_from(request), "choice of studies");
        let response = pb::StudyEventsResponse { series_instance_uid: "1.2".into(), ..Default::default() };
        refuses(event_from(response), "UID");
    }
}
