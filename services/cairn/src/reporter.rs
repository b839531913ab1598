//! Calling those who asked for storage commitment, at the addresses that the configuration has for their AE titles.

use crate::{config::Config, senders};
use async_trait::async_trait;
use cairn_dimse::{
    Destination, Implementation, Limits,
    pdu::AeTitle,
    scu::{Remote, report_commitment},
};
use cairn_service_api::{
    Error, ErrorKind,
    commitment::{Report, Reporter},
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Tells requesters by N-EVENT-REPORT.
pub struct CallingReporter {
    limits: Limits,
    /// Our AE title where the requester called by none.
    own_title: String,
    destinations: RwLock<Arc<HashMap<AeTitle, Destination>>>,
}

impl CallingReporter {
    pub fn new(config: &Config) -> Self {
        let this = Self {
            limits: config.dicom.limits.clone(),
            own_title: config.dicom.ae_title.clone(),
            destinations: RwLock::default(),
        };
        this.set_destinations(config);
        this
    }

    /// Other addresses from now on.
    pub fn set_destinations(&self, config: &Config) {
        let destinations = Arc::new(senders::partners(config).destinations);
        *self.destinations.write().unwrap_or_else(PoisonError::into_inner) = destinations;
    }

    fn remote(&self, report: &Report) -> Option<Remote> {
        let called = AeTitle::new(&report.transaction.requester)?;
        let own = if report.called_ae_title.is_empty() { &self.own_title } else { &report.called_ae_title };
        let calling = AeTitle::new(own)?;
        let destinations = self.destinations.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Destination { address } = destinations.get(&called)?.clone();
        Some(Remote {
            address,
            called,
            calling,
            limits: self.limits.clone(),
            implementation: Implementation::default(),
        })
    }
}

#[async_trait]
impl Reporter for CallingReporter {
    async fn report(&self, report: Report) -> Result<(), Error> {
        let unknown = || Error::new(ErrorKind::NotFound, "no address is configured for the requester's AE title");
        let remote = self.remote(&report).ok_or_else(unknown)?;
        match report_commitment(&remote, report).await {
            Ok(status) if status.is_done() => Ok(()),
            Ok(status) => Err(Error::new(ErrorKind::Denied, format!("the requester answered with status {status}"))),
            Err(error) => Err(Error::new(ErrorKind::Unavailable, error.to_string())),
        }
    }
}
