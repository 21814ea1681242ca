//! Conditions of use and purposes, as people and other systems write them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::Grantee;
use policy::duo::{ConditionSet, Purpose};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let codes: Vec<&str> = text.split(',').collect();
    let _ = ConditionSet::parse(&codes);
    if let Ok(purpose) = text.parse::<Purpose>() {
        assert_eq!(purpose.to_string().parse::<Purpose>().expect("own text"), purpose);
    }
    let _ = text.parse::<Grantee>();
});
