//! The projector: one task per partition of the log reads events, folds them per study, and commits rows and offset.

mod alone;
mod batch;
mod parking;
mod partition;
mod write;

pub(crate) use batch::{BUILD, HeaderReader};
pub(crate) use parking::{ParkedCount, is_repaired, partition_pk};
pub(crate) use partition::{Generations, Project, Start, next_bucket};
