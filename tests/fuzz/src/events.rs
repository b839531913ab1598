//! What the log holds.

use crate::bytes_of::split_at_choice;
use bytes::Bytes;
use cairn_archive::events::{EVENT_TYPES, Event};

/// An event that can be read is written and read as the same.
pub(crate) fn event(data: &[u8]) {
    let Some(([kind], data)) = split_at_choice(data) else { return };
    let kind = EVENT_TYPES[usize::from(kind) % EVENT_TYPES.len()];
    let Ok(event) = Event::decode(kind, Bytes::copy_from_slice(data)) else { return };
    let written = event.encode();
    let again = Event::decode(kind, written.clone()).expect("what was written can be read");
    assert_eq!(again.encode(), written, "stable");
    let _ = (event.study_instance_uid(), event.tenant());
}
