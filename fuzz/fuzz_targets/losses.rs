#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    layerstone_fuzz::losses::check(bytes);
});
