//! Any text as a reference: what parses displays as something that parses to the same.
#![no_main]

use layerstone::ImageRef;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<ImageRef>() {
        assert_eq!(reference.to_string().parse::<ImageRef>().ok(), Some(reference));
    }
});
