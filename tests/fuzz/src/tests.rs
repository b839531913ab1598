//! Seeds, blind mutations of them, and everything ever found: quick and the same each time.

use crate::TARGETS;
use cairn_synthetic::Random;
use std::{fs, path::Path};

/// Mutations of each seed.
const MUTATIONS: u64 = 40;

#[test]
fn seeds_and_their_mutations_hold() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        (target.run)(&[]);
        for (number, seed) in seeds.iter().enumerate() {
            (target.run)(seed);
            let mut random = Random::new(number as u64);
            for _ in 0..MUTATIONS {
                (target.run)(&mutated(seed, &mut random));
            }
        }
    }
}

#[test]
fn what_was_found_stays_fixed() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    for target in TARGETS {
        let Ok(inputs) = fs::read_dir(found.join(target.name)) else { continue };
        for input in inputs {
            (target.run)(&fs::read(input.unwrap().path()).unwrap());
        }
    }
}

fn mutated(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..=random.below(4) {
        if data.is_empty() {
            break;
        }
        let at = random.below(data.len() as u64) as usize;
        match random.below(6) {
            0 => data[at] = random.next() as u8,
            1 => data[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6) as usize],
            2 => drop(data.remove(at)),
            3 => data.insert(at, random.next() as u8),
            4 => data.truncate(at),
            _ => {
                let end = (at + 1 + random.below(16) as usize).min(data.len());
                let copied = data[at..end].to_vec();
                data.splice(at..at, copied);
            }
        }
    }
    data
}
