//! Any text as a reference and as names: what parses displays as something that parses to the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use layerstone::name::MAX_NAME_BYTES;
use layerstone::{ImageRef, ProjectName, TagName};

pub fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let reference = parsed::<ImageRef>(text);
    for name in [parsed::<TagName>(text).is_some(), parsed::<ProjectName>(text).is_some()] {
        assert!(!name || (text.is_ascii() && (1..=MAX_NAME_BYTES).contains(&text.len())), "{text:?}");
    }
    if let Some(ImageRef::Oci(oci)) = &reference {
        let parts = [oci.scheme(), Some(oci.name()), oci.tag(), oci.digest()];
        assert!(
            parts.into_iter().flatten().all(|part| text.contains(part)),
            "nothing is normalised: {oci:?}"
        );
    }
    reference.is_some()
}

fn parsed<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    match text.parse::<T>() {
        Ok(value) => {
            let again = value.to_string().parse::<T>().ok();
            assert_eq!(again.as_ref(), Some(&value));
            Some(value)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal says why");
            None
        }
    }
}
