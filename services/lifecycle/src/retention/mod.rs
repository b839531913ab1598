//! Retention: what is held, what is erased and when, and the destruction of what was (I6).

mod destroy;
mod follow;
mod keys;
mod known;
mod report;
mod service;
mod study;
mod work;
mod worked;

pub(crate) use follow::Turn;
pub(crate) use known::Known;
pub use service::RetentionService;
pub(crate) use service::{TEXT_BYTES_MAX, With};
#[cfg(test)]
pub(crate) mod tests;
