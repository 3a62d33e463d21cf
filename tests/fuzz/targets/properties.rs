//! Runs one property of the library on what libFuzzer makes up; `PORTCULLIS_PROPERTY` names it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portcullis::properties;

static PROPERTY: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("PORTCULLIS_PROPERTY").unwrap_or_default();
    let property = properties::ALL.iter().find(|property| property.name == name);
    property.unwrap_or_else(|| panic!("PORTCULLIS_PROPERTY={name} names no property")).check
});

fuzz_target!(|input: &[u8]| PROPERTY(input));
