//! One suite per storage port, and one for the services' traits. Each clause of a port is at least one trial, named after it; an adapter's test file
//! makes a backend and runs the suite:
//!
//! ```ignore
//! fn main() {
//!     let trials = cairn_conformance::event_log::trials("embedded", || Box::new(MyBackend::new()));
//!     libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials).exit();
//! }
//! ```
//!
//! Each trial gets a backend of its own, with nothing in it, so that all run at once. What a backend can't be made to
//! suffer (a machine's crash, a full disk) it declares; those trials show as ignored.
#![forbid(unsafe_code)]
// A suite fails by panicking with what it expected.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod event_log;
pub mod index_store;
pub mod key_store;
pub mod object_store;
pub mod services;

use libtest_mimic::{Failed, Trial};
use std::{future::Future, time::Duration};

/// A trial that hangs fails after this time.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(120);

/// A trial that runs on a runtime of its own.
pub(crate) fn trial<F: Future<Output = ()>>(name: String, run: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let ended = runtime.block_on(async { tokio::time::timeout(TRIAL_TIME_MAX, run()).await });
        ended.map_err(|_| Failed::from(format!("not ended after {TRIAL_TIME_MAX:?}")))
    })
}
