//! The port's clauses, on real brokers.

mod backend;

use cairn_conformance::event_log::trials;

fn main() {
    let mut all = trials("kafka", || Box::new(backend::Topic::new()));
    // Where a broker may be harmed, those that need it; the others would show the same again.
    let own = trials("kafka_own_broker", || Box::new(backend::own::OwnBroker::new()));
    all.extend(own.into_iter().filter(|trial| {
        let needs =
            ["EL-01_acknowledged_records_survive_a_crash", "EL-03_", "EL-05_", "EL-12_", "EL-15_a_life_survives"];
        needs.iter().any(|need| trial.name().contains(need))
    }));
    let conclusion = libtest_mimic::run(&libtest_mimic::Arguments::from_args(), all);
    backend::own::wipe();
    conclusion.exit();
}
