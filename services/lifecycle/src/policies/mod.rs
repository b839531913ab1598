//! Policies: which studies are meant, what would become of them, and asking for it when it is time.

mod clock;
mod forecast;
mod run;
mod service;
#[cfg(test)]
mod tests;

pub use service::PolicyService;
pub(crate) use service::With;
