use super::{
    Connection, Wire, answers,
    peers::{
        Again::{Safe, Unsent},
        Peers, call,
    },
};
use crate::{
    convert::{copied, event_id},
    lifecycle_proto::{self as pb, retention_service_client::RetentionServiceClient},
    retention as convert,
};
use async_trait::async_trait;
use cairn_archive::{EventId, HoldId};
use cairn_service_api::{
    AnswerStream, Error, Retention,
    retention::{ErasureGrounds, ErasureReport, ErasureScope, ErasureStatus, HoldInForce, NewHold},
};

/// A [`Retention`] somewhere else.
#[derive(Clone)]
pub struct RetentionClient(Peers<RetentionServiceClient<Wire>>);

impl RetentionClient {
    /// Calls the process at the other end of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| RetentionServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self(Peers::new(connection, client)?))
    }
}

#[async_trait]
impl Retention for RetentionClient {
    async fn place_hold(&self, hold: NewHold) -> Result<HoldId, Error> {
        let request = pb::PlaceHoldRequest { hold: Some(convert::hold_to(hold)) };
        convert::hold_id(&call!(self.0, Unsent, place_hold, request)?.hold_id)
    }

    async fn release_hold(&self, id: HoldId, grounds: ErasureGrounds) -> Result<(), Error> {
        let grounds = Some(convert::grounds_to(grounds));
        let request = pb::ReleaseHoldRequest { hold_id: copied(id.as_bytes()), grounds };
        call!(self.0, Unsent, release_hold, request)?;
        Ok(())
    }

    async fn holds(&self) -> Result<AnswerStream<HoldInForce>, Error> {
        let found = call!(self.0, Safe, holds, pb::HoldsRequest {})?;
        Ok(answers(found, convert::in_force_from))
    }

    async fn request_erasure(
        &self,
        scope: ErasureScope,
        delay_ms: u64,
        grounds: ErasureGrounds,
    ) -> Result<Vec<EventId>, Error> {
        let texts = |uids: &[cairn_dicom::Uid]| uids.iter().map(ToString::to_string).collect();
        let request = pb::RequestErasureRequest {
            study_instance_uid: scope.study.to_string(),
            series_instance_uids: texts(&scope.series),
            sop_instance_uids: texts(&scope.instances),
            tenant: scope.tenant,
            delay_ms,
            grounds: Some(convert::grounds_to(grounds)),
        };
        let asked = call!(self.0, Unsent, request_erasure, request)?;
        asked.erasure_event_ids.iter().map(|id| event_id(id)).collect()
    }

    async fn withdraw_erasure(&self, id: EventId, grounds: ErasureGrounds) -> Result<(), Error> {
        let grounds = Some(convert::grounds_to(grounds));
        let request = pb::WithdrawErasureRequest { erasure_event_id: copied(id.as_bytes()), grounds };
        call!(self.0, Unsent, withdraw_erasure, request)?;
        Ok(())
    }

    async fn erasures(&self) -> Result<AnswerStream<ErasureStatus>, Error> {
        let found = call!(self.0, Safe, erasures, pb::ErasuresRequest {})?;
        Ok(answers(found, convert::status_from))
    }

    async fn erasure_report(&self, id: EventId) -> Result<ErasureReport, Error> {
        let request = pb::ErasureReportRequest { erasure_event_id: copied(id.as_bytes()) };
        convert::report_from(call!(self.0, Safe, erasure_report, request)?)
    }
}
