//! Storage commitment: requests are facts before they are answered, and are worked on over any restart until their
//! requester knows the decision.

mod decide;
mod history;
mod judge;
mod ledger;
mod look;
mod measure;
mod record;
mod report;
mod service;

pub(crate) use measure::UnderWay;
pub(crate) use service::{Committing, With};
