//! The projector: one task per followed partition of the log reads events, folds them per study, and commits rows and
//! offset.

mod alone;
mod batch;
mod follow;
mod generation;
mod parking;
mod patients;
mod write;

pub(crate) use batch::{BUILD, HeaderReader};
pub(crate) use follow::{Ended, Task, next_bucket};
pub(crate) use generation::{Generations, Opened, Part, Project};
pub(crate) use parking::{ParkedCount, is_repaired, partition_pk};
