//! See `tdxsim::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(finding) = tdxsim::fuzz::run("explain", bytes) {
        panic!("{finding}");
    }
});
