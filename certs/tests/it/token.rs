use certs::token::{Token, TokenError, TokenKind, WrongAuthority};
use model::SeededEntropy;
use proptest::prelude::*;

use crate::{authority, leaf};
use certs::x509::KeyPair;

fn token() -> Token {
    Token::issue(TokenKind::Person, authority(1).certificate(), &SeededEntropy::new(30)).unwrap()
}

#[test]
fn the_text_survives_and_looks_as_documented() {
    let text = token().to_text();
    let parts: Vec<&str> = text.split('.').collect();
    assert_eq!((parts[0], parts[1], parts[2].len(), parts[3].len()), ("skt1", "person", 32, 52));
    assert_eq!(text.parse::<Token>(), Ok(token()));
    assert_eq!(format!(" {}\n", *text).parse::<Token>(), Ok(token()), "as pasted");
    assert!(!format!("{:?}", token()).contains(parts[2]));
}

#[test]
fn the_hash_is_of_kind_and_secret() {
    let person = token();
    let agent: Token = person.to_text().replace("person", "agent").parse().unwrap();
    assert_ne!(person.hash(), agent.hash());
    assert_eq!(person.hash(), token().hash());
}

#[test]
fn the_pin_finds_the_authority_and_no_other() {
    let ca = authority(1);
    let key = KeyPair::generate(&SeededEntropy::new(2)).unwrap();
    let leaf = leaf(&ca, "broker/main", &key);
    let presented = [leaf.clone(), ca.certificate().der().clone()];
    assert_eq!(token().pinned_authority(&presented).as_ref(), Ok(ca.certificate()));
    assert_eq!(token().pinned_authority(&presented[..1]), Err(WrongAuthority));
    assert_eq!(
        token().pinned_authority(&[leaf, authority(2).certificate().der().clone()]),
        Err(WrongAuthority)
    );
}

#[test]
fn texts_that_are_no_token_are_refused() {
    let good = token().to_text();
    let upper = good.to_ascii_uppercase();
    let short = &good[..good.len() - 1];
    let more = format!("{}.x", *good);
    let kind = good.replace("person", "broker");
    for bad in ["", "skt1", "skt1.person..", &upper, short, &more, &kind, &good.replace("skt1", "skt2")] {
        assert_eq!(bad.parse::<Token>(), Err(TokenError), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_text_breaks_it(text in "(skt1\\.)?(person\\.|agent\\.)?[a-z2-7.]{0,100}") {
        if let Ok(token) = text.parse::<Token>() {
            prop_assert_eq!(token.to_text().to_string(), text);
        }
    }

    #[test]
    fn each_character_counts(at in any::<prop::sample::Index>(), to in "[a-z2-7]") {
        let text = token().to_text();
        let at = at.index(text.len());
        let mut other = text.to_string();
        other.replace_range(at..=at, &to);
        if other != *text {
            prop_assert_ne!(other.parse::<Token>(), Ok(token()));
        }
    }
}
