//! The port's clauses, on the machine's disk and on the simulated one.
// A trial fails by panicking.
#![allow(clippy::unwrap_used)]

mod backend;

use cairn_conformance::object_store::trials;

fn main() {
    let mut all = trials("volumes", || Box::new(backend::OnDisk::new()));
    all.extend(trials("volumes_on_simulated_disk", || Box::new(backend::Simulated::new())));
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), all).exit();
}
