//! WADO-RS: retrieving instances, metadata, frames and bulk data (PS3.18 section 10.4, edition 2025c).

mod bulk;
mod convert;
mod form;
mod frames;
mod instances;
mod metadata;
mod parts;
mod versions;

pub(crate) use bulk::{bulk_data, pixel_data};
pub(crate) use frames::frames;
pub(crate) use instances::instances;
pub(crate) use metadata::metadata;
pub(crate) use versions::{version, versions};

use crate::{door::Door, problem::Problem, request::Call};
use cairn_service_api::index::{Detail, InstanceRecord, Selection};

/// The one shown instance that the path names.
async fn record(door: &Door, call: &Call, detail: Detail) -> Result<InstanceRecord, Problem> {
    only(door, door.selection(call), detail).await
}

async fn only(door: &Door, selection: Selection, detail: Detail) -> Result<InstanceRecord, Problem> {
    let found = door.first(door.services.index.instances(selection, detail)).await?;
    found.map(|(record, _)| record).ok_or_else(Problem::not_found)
}

/// Reads a list of frames, for fuzzing.
#[cfg(feature = "fuzzing")]
pub(crate) fn read_frame_numbers(list: &str, most: usize) {
    let _ = frames::frame_numbers(list, most);
}
