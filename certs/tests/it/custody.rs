use certs::custody::{CustodyError, Quorum, SealedBox, Share, seal};
use model::SeededEntropy;
use proptest::prelude::*;

const SECRET: &[u8] = b"the keys of the gate";

fn sealed(k: u8, n: u8) -> (SealedBox, Vec<Share>) {
    seal(SECRET, Quorum::new(k, n).unwrap(), &SeededEntropy::new(50)).unwrap()
}

#[test]
fn any_two_of_three_unseal_and_one_does_not() {
    let (sealed, shares) = sealed(2, 3);
    for pair in [[0, 1], [0, 2], [2, 1]] {
        let pair = pair.map(|i| shares[i].clone());
        assert_eq!(sealed.unseal(&pair).unwrap().as_slice(), SECRET);
    }
    assert_eq!(sealed.unseal(&shares).unwrap().as_slice(), SECRET);
    let one = [shares[1].clone(), shares[1].clone()];
    assert_eq!(sealed.unseal(&one), Err(CustodyError::NotEnough { have: 1, need: 2 }));
    assert_eq!(sealed.unseal(&[]), Err(CustodyError::NotEnough { have: 0, need: 2 }));
}

#[test]
fn a_share_survives_as_text_and_hides_in_debug() {
    let (sealed, shares) = sealed(2, 3);
    let again: Vec<Share> = shares.iter().map(|s| s.to_text().parse().unwrap()).collect();
    assert_eq!(sealed.unseal(&again[1..]).unwrap().as_slice(), SECRET);
    assert_eq!(format!("{:?}", shares[0]), "Share(1, secret)");
    for bad in ["", "sks1", "sks1.1", "sks1.0.aaaa", "sks1.1.aaaa", "sks2.1.x", "sks1.x.y"] {
        assert!(bad.parse::<Share>().is_err(), "{bad}");
    }
}

#[test]
fn damaged_and_foreign_shares_are_named() {
    let (ours, shares) = sealed(2, 3);
    let (_, foreign) = seal(SECRET, Quorum::new(2, 3).unwrap(), &SeededEntropy::new(51)).unwrap();
    let mixed = [shares[0].clone(), foreign[1].clone()];
    assert_eq!(ours.unseal(&mixed), Err(CustodyError::WrongShare(2)));
    let text = shares[2].to_text();
    let flipped = if text.ends_with('a') { "q" } else { "a" };
    let damaged = format!("{}{flipped}", &text[..text.len() - 1]).parse::<Share>();
    if let Ok(damaged) = damaged {
        assert_eq!(ours.unseal(&[shares[0].clone(), damaged]), Err(CustodyError::WrongShare(3)));
    }
}

#[test]
fn a_changed_box_does_not_open() {
    let (sealed, shares) = sealed(2, 3);
    let good = postcard::to_stdvec(&sealed).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        if let Ok((bad, [])) = postcard::take_from_bytes::<SealedBox>(&bad) {
            assert!(bad.unseal(&shares).is_err(), "byte {at}");
        }
    }
}

#[test]
fn quorums_and_sizes_are_bounded() {
    for (k, n) in [(0, 0), (1, 1), (1, 3), (4, 3), (2, 17)] {
        assert_eq!(Quorum::new(k, n), Err(CustodyError::Quorum));
    }
    let quorum = Quorum::new(2, 2).unwrap();
    assert_eq!(seal(&[], quorum, &SeededEntropy::new(1)).err(), Some(CustodyError::Size));
    assert_eq!(seal(&vec![0; 65_537], quorum, &SeededEntropy::new(1)).err(), Some(CustodyError::Size));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_k_of_n_unseal(
        k in 2u8..6,
        more in 0u8..6,
        secret in prop::collection::vec(any::<u8>(), 1..200),
        seed in any::<u64>(),
        rotate in 0usize..11,
    ) {
        let n = k + more;
        let (sealed, mut shares) = seal(&secret, Quorum::new(k, n).unwrap(), &SeededEntropy::new(seed)).unwrap();
        shares.rotate_left(rotate % usize::from(n));
        let enough = &shares[..usize::from(k)];
        prop_assert_eq!(sealed.unseal(enough).unwrap().to_vec(), secret);
        prop_assert!(sealed.unseal(&enough[1..]).is_err());
    }

    #[test]
    fn no_text_breaks_a_share(text in "(sks1\\.)?[0-9]{0,4}\\.?[a-z2-7]{0,60}") {
        let _ = text.parse::<Share>();
    }
}
