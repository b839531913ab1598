#![allow(clippy::unwrap_used)]

mod commitment;
mod find;
mod retrieve;
mod store;

use crate::{
    Backends, Command, CommandField, Implementation, Limits, Status,
    door::Door,
    negotiate::Policy,
    testing::{RawPeer, Running, fakes::*, p_data, quick},
};
use cairn_service_api::{Commitments, Index, Ingest, Retrieval};
use std::{sync::Arc, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const PATIENT_FIND: &str = "1.2.840.10008.5.1.4.1.2.1.1";
const STUDY_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const STUDY_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
const STUDY_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";

#[derive(Default)]
struct Fakes {
    ingest: Arc<FakeIngest>,
    index: Arc<FakeIndex>,
    retrieval: Arc<FakeRetrieval>,
    commitments: Arc<FakeCommitments>,
}

impl Fakes {
    fn door(&self, policy: Policy, limits: Limits) -> Door {
        let backends = Backends {
            ingest: Some(self.ingest.clone() as Arc<dyn Ingest>),
            index: Some(self.index.clone() as Arc<dyn Index>),
            retrieval: Some(self.retrieval.clone() as Arc<dyn Retrieval>),
            commitments: Some(self.commitments.clone() as Arc<dyn Commitments>),
        };
        Door::new("default", policy, limits, Implementation::default(), backends)
    }

    async fn start(&self) -> Running {
        Running::start(self.door(Policy::default(), quick()), SECOND).await
    }
}

/// A request as the bytes of its PDUs: the command, then the data set in fragments of `fragment` bytes.
fn request(context_id: u8, command: &Command, data_set: &[u8], fragment: usize) -> Vec<u8> {
    let mut command = command.clone();
    command.has_data_set = true;
    let mut out = p_data(context_id, 3, &command.encode());
    let pieces: Vec<&[u8]> = data_set.chunks(fragment).collect();
    for (at, piece) in pieces.iter().enumerate() {
        out.extend(p_data(context_id, if at + 1 == pieces.len() { 2 } else { 0 }, piece));
    }
    out
}

fn cancel(message_id: u16) -> Vec<u8> {
    let mut command = Command::new(CommandField::C_CANCEL_RQ);
    command.message_id_responded_to = Some(message_id);
    p_data(1, 3, &command.encode())
}

async fn expect_status(peer: &mut RawPeer, status: Status) -> Command {
    let (_, response) = peer.read_command().await;
    assert_eq!(response.status, Some(status), "{response:?}");
    response
}
