//! What retrieval promises, against an object store and an index in memory.

mod frames;
mod instances;
mod recalls;
mod support;
