//! The port's clauses, on real brokers.

mod backend;

use cairn_conformance::event_log::trials;

fn main() {
    let all = trials("kafka", || Box::new(backend::Topic::new()));
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), all).exit();
}
