//! Enrolment tokens, names and other short texts that people paste.
#![no_main]

use certs::token::Token;
use certs::{SpiffeId, TrustDomain};
use libfuzzer_sys::fuzz_target;
use model::{PersonId, StudyId, Timestamp};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = text.parse::<Token>() {
        let again: Token = token.to_text().parse().expect("own text");
        assert!(again == token);
    }
    let domain: TrustDomain = "sekisho.test".parse().expect("a domain");
    if let Ok(id) = SpiffeId::parse_uri(text, &domain) {
        assert_eq!(id.uri(&domain), text);
    }
    if let Ok(domain) = text.parse::<TrustDomain>() {
        assert_eq!(domain.as_str(), text);
    }
    if let Ok(person) = text.parse::<PersonId>() {
        assert_eq!(person.as_str(), text);
    }
    // The user name of an SSH connection is a study's bare name.
    if let Ok(study) = StudyId::from_name(text) {
        assert_eq!((study.name(), study.as_str().parse()), (text, Ok(study.clone())));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        assert_eq!(at.to_string().parse::<Timestamp>().expect("own text"), at);
    }
});
