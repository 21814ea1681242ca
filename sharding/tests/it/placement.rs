//! No institution holds enough to read, whatever its backends are called.

use std::sync::Arc;

use model::BackendId;
use object_store::memory::InMemory;
use proptest::prelude::*;
use sharding::codec::Threshold;
use sharding::vault::{Backend, IfFewer, Options, Placement, PlacementError, Vault, VaultError};

fn backends(institutions: &[&str]) -> Vec<Backend> {
    let backend = |(at, institution): (usize, &&str)| Backend {
        id: BackendId::from_name(&format!("b{}", at + 1)).unwrap(),
        institution: (*institution).to_owned(),
        store: Arc::new(InMemory::new()),
    };
    institutions.iter().enumerate().map(backend).collect()
}

fn vault(institutions: &[&str], k: u8, placement: Placement) -> Result<Vault, VaultError> {
    Vault::new(backends(institutions), k, Options { placement, ..Options::default() })
}

#[test]
fn an_institution_that_could_read_alone_makes_no_vault() {
    let refused = vault(&["A", "B", "A", "C", "A"], 3, Placement::default()).err().unwrap();
    let VaultError::Placement(PlacementError::ReadsAlone { institution, holds: 3, backends, k: 3, n: 5 }) =
        &refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!((institution.as_str(), backends.len()), ("A", 3));
    let words = refused.to_string();
    for word in ["A would hold 3 of 5", "at most 2", "backend:b1, backend:b3, backend:b5", "raise k"] {
        assert!(words.contains(word), "{words}");
    }
    // Reading what lies badly must stay possible.
    Vault::reading(self::backends(&["A", "A", "A"]), Options::default());
}

#[test]
fn spelling_is_no_way_around() {
    for other in ["kyoto university", " Kyoto  University ", "KYOTO UNIVERSITY", "Kyoto\u{3000}University"] {
        let refused = vault(&["Kyoto University", other, "B"], 2, Placement::default()).err().unwrap();
        assert!(matches!(refused, VaultError::Placement(PlacementError::ReadsAlone { .. })), "{other}");
    }
    let nameless = vault(&["A", " ", "B"], 2, Placement::default()).err().unwrap();
    assert!(nameless.to_string().contains("backend:b2 names no institution"), "{nameless}");
}

#[test]
fn an_institution_that_cannot_be_done_without_is_told_or_refused() {
    // Without A, 3 of 5 are left: enough for k = 3, not for one spare.
    let institutions = ["A", "A", "B", "C", "D"];
    assert!(vault(&institutions, 3, Placement::default()).unwrap().placement().is_empty());
    let wish = |if_fewer| Placement { spare: 1, if_fewer };
    let told = vault(&institutions, 3, wish(IfFewer::Warn)).unwrap();
    let [short] = told.placement() else { panic!("{:?}", told.placement()) };
    assert_eq!((short.institution.as_str(), short.holds, short.left, short.wanted), ("A", 2, 3, 4));
    let refused = vault(&institutions, 3, wish(IfFewer::Refuse)).err().unwrap().to_string();
    assert!(refused.contains("without A") && refused.contains("more institutions"), "{refused}");
    // Each its own: nobody's loss costs more than one share.
    vault(&["A", "B", "C", "D", "E"], 3, wish(IfFewer::Refuse)).unwrap();
}

proptest! {
    /// A vault is made exactly if no institution holds k, and the shortfalls are those counted by hand.
    #[test]
    fn shares_are_counted_by_institution(
        at in prop::collection::vec(0_usize..5, 2..12),
        k in 2_u8..12,
        spare in 0_u8..4,
    ) {
        let names = ["A", "B", "C", "D", "E"];
        let institutions: Vec<&str> = at.iter().map(|at| names[*at]).collect();
        let n = institutions.len();
        prop_assume!(usize::from(k) <= n);
        let holds = |name: &str| institutions.iter().filter(|institution| **institution == name).count();
        let alone = names.iter().any(|name| holds(name) >= usize::from(k));
        let threshold = Threshold::new(k, n as u8).unwrap();
        let placement = Placement { spare, if_fewer: IfFewer::Warn };
        let checked = placement.check(threshold, &backends(&institutions));
        prop_assert_eq!(alone, checked.is_err());
        let Ok(short) = checked else { return Ok(()) };
        let lacking = |name: &&&str| holds(name) > 0 && n - holds(name) < usize::from(k + spare);
        prop_assert_eq!(short.len(), names.iter().filter(lacking).count());
        let strict = Placement { spare, if_fewer: IfFewer::Refuse };
        prop_assert_eq!(strict.check(threshold, &backends(&institutions)).is_err(), !short.is_empty());
    }
}
