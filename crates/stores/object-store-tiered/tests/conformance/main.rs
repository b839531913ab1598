//! The port's clauses, with objects in the hot store and with all of them in the cold one; and what holds of moves.
// A trial fails by panicking.
#![allow(clippy::unwrap_used)]

mod backend;
mod moved;
mod moves;
mod put_away;

use cairn_conformance::object_store::trials;

fn main() {
    let mut all = trials("tiered", || Box::new(backend::Simulated::new(false)));
    all.extend(trials("tiered_all_moved", || Box::new(backend::Simulated::new(true))));
    all.extend(moves::trials());
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), all).exit();
}
