//! Retention: what is held, what is erased and when, and the destruction of what was (I6).

mod destroy;
mod follow;
mod known;
mod report;
mod service;
mod study;
mod work;
mod worked;

pub use service::RetentionService;
pub(crate) use service::With;
#[cfg(test)]
mod tests;
