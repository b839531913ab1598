//! The projector: one task per partition of the log reads events, folds them per study, and commits rows and offset.

mod batch;
mod partition;
mod write;

pub(crate) use batch::HeaderReader;
pub(crate) use partition::{Generations, Project, Start, next_bucket};
