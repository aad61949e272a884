//! The libFuzzer target of one parser: `make fuzz` builds it with coverage for each name in [`polyglot_fuzz::TARGETS`], which
//! `FUZZ_TARGET` chooses from.
#![no_main]

use std::sync::LazyLock;

use polyglot_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET is set");
    TARGETS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("there is no FUZZ_TARGET {name:?}")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    TARGET(data);
});
