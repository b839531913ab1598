//! One target under libFuzzer: `CAIRN_FUZZ_TARGET` names it. With `CAIRN_FUZZ_SEEDS` set, writes its seeds there instead.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use std::sync::OnceLock;

fn target() -> fn(&[u8]) {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("CAIRN_FUZZ_TARGET").expect("CAIRN_FUZZ_TARGET names a target");
        let target = cairn_fuzz::TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
        if let Some(folder) = std::env::var_os("CAIRN_FUZZ_SEEDS") {
            for (number, seed) in (target.seeds)().into_iter().enumerate() {
                std::fs::write(std::path::Path::new(&folder).join(format!("seed-{number:03}")), seed).expect("writes");
            }
            // To exit here would be reported as a crash.
            return |_| {};
        }
        target.run
    })
}

fuzz_target!(|data: &[u8]| -> Corpus {
    target()(data);
    Corpus::Keep
});
