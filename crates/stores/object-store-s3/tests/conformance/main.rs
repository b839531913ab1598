//! The port's clauses on a real S3 store, directly and through a proxy that makes it suffer; then faults of S3's own kind.
// A trial fails by panicking.
#![allow(clippy::unwrap_used)]

mod backend;
mod faults;
mod proxy;

use cairn_conformance::object_store::trials;

fn main() {
    // Before anything else takes memory.
    let arguments = libtest_mimic::Arguments::from_args();
    if !arguments.list && arguments.filter.is_none() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(faults::memory_is_bounded_whatever_the_length());
    }
    let mut all = trials("s3", || Box::new(backend::Bucket::new(false)));
    all.extend(trials("s3_through_faults", || Box::new(backend::Bucket::new(true))));
    all.extend(faults::trials());
    libtest_mimic::run(&arguments, all).exit();
}
