//! The libFuzzer target: `make fuzz` builds it with coverage and runs it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    polyglot_fuzz::decode(data);
});
