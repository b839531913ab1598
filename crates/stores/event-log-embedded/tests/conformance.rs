//! The port's clauses, on the machine's disk and on the simulated one.

mod backend;

use cairn_conformance::event_log::trials;

fn main() {
    let mut all = trials("embedded", || Box::new(backend::OnDisk::new()));
    all.extend(trials("embedded_on_simulated_disk", || Box::new(backend::Simulated::new())));
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), all).exit();
}
