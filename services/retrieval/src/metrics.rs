//! What retrieval counts. Label values come from closed sets.

use metrics::counter;

/// Bytes on their way out, by what was asked for.
pub(crate) fn opened(what: &'static str, bytes: u64) {
    counter!("cairn_retrieval_requests_total", "what" => what).increment(1);
    counter!("cairn_retrieval_bytes_total", "what" => what).increment(bytes);
}

/// Studies that wait to be recalled because something of them was read, or could not be.
pub(crate) fn recalled(studies: u64) {
    counter!("cairn_retrieval_recalls_asked_total").increment(studies);
}

/// An object whose bytes are not those that were stored, or that is gone.
pub(crate) fn corrupt() {
    counter!("cairn_retrieval_corrupt_objects_total").increment(1);
}
