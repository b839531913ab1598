//! The port's clauses, on the machine's disk and on the simulated one.
// A trial fails by panicking.
#![allow(clippy::unwrap_used)]

mod backend;

use cairn_conformance::key_store::trials;

fn main() {
    let mut all = trials("embedded", || Box::new(backend::OnDisk::new()));
    all.extend(trials("embedded_on_simulated_disk", || Box::new(backend::Simulated::new())));
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), all).exit();
}
