//! A question how a process is: however little of it has come, the answer does not change later, and no
//! head is waited for without end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vitals::request::{Answer, HEAD_MAX, parse};

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    for cut in 0..data.len() {
        match parse(&data[..cut]) {
            Ok(None) => {}
            // What is decided stays decided.
            Ok(Some(request)) => assert_eq!(whole, Ok(Some(request))),
            Err(_) => assert!(!matches!(whole, Ok(Some(_)))),
        }
    }
    match whole {
        Ok(None) => assert!(data.len() < HEAD_MAX),
        Ok(Some(_)) => {}
        Err(fault) => assert!(Answer::from(fault).to_bytes(false).starts_with(b"HTTP/1.1 4")),
    }
});
