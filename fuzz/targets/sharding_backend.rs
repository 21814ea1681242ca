//! A backend's URL: what is taken is shown without a secret and taken again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharding::vault::{BackendUrl, Endpoint};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap().to_string(), endpoint.to_string());
    }
    match text.parse::<BackendUrl>() {
        Ok(BackendUrl::Folder(_)) | Err(_) => {}
        Ok(url) => assert_eq!(url.to_string().parse(), Ok(url)),
    }
});
