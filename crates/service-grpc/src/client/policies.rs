use super::{
    Connection, Wire, answers,
    peers::{
        Again::{Safe, Unsent},
        Peers, call,
    },
};
use crate::{
    lifecycle_proto::{self as pb, policy_service_client::PolicyServiceClient},
    policies as convert,
    retention::grounds_to,
};
use async_trait::async_trait;
use cairn_service_api::{
    AnswerStream, Error, Policies,
    policies::{Forecast, NewPolicy, PolicyStatus, WhatIf},
    retention::ErasureGrounds,
};

/// [`Policies`] somewhere else.
#[derive(Clone)]
pub struct PoliciesClient(Peers<PolicyServiceClient<Wire>>);

impl PoliciesClient {
    /// Calls the process at the other end of `connection`.
    ///
    /// # Errors
    /// `Invalid` when an address or the certificates can't be used, or there is no address.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let client = |wire| PolicyServiceClient::new(wire).max_decoding_message_size(connection.message_bytes_max);
        Ok(Self(Peers::new(connection, client)?))
    }
}

#[async_trait]
impl Policies for PoliciesClient {
    async fn adopt_policy(&self, policy: NewPolicy) -> Result<u32, Error> {
        Ok(call!(self.0, Unsent, adopt_policy, convert::policy_to(policy))?.version)
    }

    async fn withdraw_policy(&self, tenant: &str, name: &str, grounds: ErasureGrounds) -> Result<(), Error> {
        let (tenant, name, grounds) = (tenant.to_owned(), name.to_owned(), Some(grounds_to(grounds)));
        call!(self.0, Unsent, withdraw_policy, pb::WithdrawPolicyRequest { tenant, name, grounds })?;
        Ok(())
    }

    async fn policies(&self) -> Result<AnswerStream<PolicyStatus>, Error> {
        let found = call!(self.0, Safe, policies, pb::PoliciesRequest {})?;
        Ok(answers(found, convert::status_from))
    }

    async fn what_if(&self, of: WhatIf, studies_max: u64) -> Result<AnswerStream<Forecast>, Error> {
        let found = call!(self.0, Safe, what_if, convert::what_if_to(of, studies_max))?;
        Ok(answers(found, convert::forecast_from))
    }

    async fn accept_clock(&self, grounds: ErasureGrounds) -> Result<(), Error> {
        call!(self.0, Unsent, accept_clock, pb::AcceptClockRequest { grounds: Some(grounds_to(grounds)) })?;
        Ok(())
    }
}
