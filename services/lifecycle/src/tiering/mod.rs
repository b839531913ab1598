//! Tiering: studies whose objects are moved between a hot store and a cold one.

mod queue;
mod service;
#[cfg(test)]
mod tests;
mod work;

pub use service::TieringService;
pub(crate) use service::With;
