//! Conditions of data use against purposes.

use policy::disease::{Diseases, TableError};
use policy::duo::{ConditionError, ConditionSet, Modifier, Permission, Purpose, Verdict, admits};
use policy::{Decision, Denial, Facts, PolicySet, StudyFacts, decide};
use proptest::prelude::*;

use crate::world::*;

/// cancer, breast cancer, breast carcinoma, heart disorder.
const CANCER: &str = "DS:MONDO:0004992";
const BREAST: &str = "DS:MONDO:0007254";
const HEART: &str = "DS:MONDO:0005267";
const UNKNOWN: &str = "DS:MONDO:9999999";

fn verdict(sets: &[&[&str]], asked: &str) -> &'static str {
    match admits(&conditions(sets), &[purpose(asked)], Diseases::builtin()) {
        Verdict::Permitted => "yes",
        Verdict::Review(_) => "people",
        Verdict::Refused => "no",
    }
}

#[test]
fn permissions_against_purposes() {
    // Columns: a disease, HMB, POA, GRU, MDS.
    let asked = [BREAST, "HMB", "POA", "GRU", "MDS"];
    for (permission, answers) in [
        ("NRES", ["yes", "yes", "yes", "yes", "yes"]),
        ("GRU", ["yes", "yes", "yes", "yes", "yes"]),
        ("HMB", ["yes", "yes", "no", "no", "yes"]),
        (CANCER, ["yes", "no", "no", "no", "yes"]),
        ("POA", ["no", "no", "yes", "no", "yes"]),
    ] {
        let found: Vec<&str> = asked.iter().map(|a| verdict(&[&[permission]], a)).collect();
        assert_eq!(found, answers, "{permission}");
    }
}

#[test]
fn diseases_match_themselves_and_what_they_fall_under() {
    assert_eq!(verdict(&[&[BREAST]], BREAST), "yes");
    assert_eq!(verdict(&[&[CANCER]], BREAST), "yes");
    assert_eq!(verdict(&[&[BREAST]], CANCER), "no");
    assert_eq!(verdict(&[&[HEART]], BREAST), "no");
    assert_eq!(verdict(&[&[UNKNOWN]], UNKNOWN), "yes");
    assert_eq!(verdict(&[&[CANCER]], UNKNOWN), "people");
    assert_eq!(verdict(&[&[UNKNOWN]], BREAST), "people");
}

#[test]
fn modifiers_go_to_people_unless_the_purpose_settles_them() {
    for code in [
        "RS",
        "GSO",
        "NPUNCU",
        "PUB",
        "COL",
        "IRB",
        "GS",
        "MOR",
        "TS",
        "US",
        "PS",
        "IS",
        "RTN",
        "CC",
        "NPU",
        "NCU",
        "DUO:0000045",
        "XYZ",
        "DUO:0000099",
        "GS:JP",
    ] {
        assert_eq!(verdict(&[&["GRU", code]], BREAST), "people", "{code}");
        assert_eq!(verdict(&[&["NRES", code]], "GRU"), "people", "{code}");
    }
    for (code, methods, ancestry, disease, general) in
        [("NMDS", "no", "yes", "yes", "people"), ("NPOA", "yes", "no", "yes", "people")]
    {
        assert_eq!(verdict(&[&["GRU", code]], "MDS"), methods);
        assert_eq!(verdict(&[&["GRU", code]], "POA"), ancestry);
        assert_eq!(verdict(&[&["GRU", code]], BREAST), disease);
        assert_eq!(verdict(&[&["GRU", code]], "GRU"), general);
    }
    // What is refused anyway needs nobody's judgement.
    assert_eq!(verdict(&[&["HMB", "IRB"]], "POA"), "no");
}

#[test]
fn one_alternative_is_enough_and_every_purpose_needs_one() {
    assert_eq!(verdict(&[&["POA"], &["HMB"]], BREAST), "yes");
    assert_eq!(verdict(&[&["HMB", "IRB"], &["HMB"]], BREAST), "yes");
    assert_eq!(verdict(&[&["HMB", "IRB"], &["POA"]], BREAST), "people");
    let diseases = Diseases::builtin();
    let sets = conditions(&[&["HMB"]]);
    assert_eq!(admits(&sets, &[purpose("HMB"), purpose("POA")], diseases), Verdict::Refused);
    assert!(matches!(admits(&sets, &[], diseases), Verdict::Review(_)));
    assert!(matches!(admits(&[], &[purpose("HMB")], diseases), Verdict::Review(_)));
}

#[test]
fn codes_are_read_in_every_spelling_and_nonsense_is_refused() {
    let parse = |codes: &[&str]| ConditionSet::parse(codes);
    assert_eq!(parse(&["DUO:0000042"]), parse(&["gru"]));
    assert_eq!(parse(&["DUO:0000007:MONDO:0007254"]), parse(&[BREAST]));
    let set = parse(&["NPU", "HMB", "NPU"]).unwrap();
    assert_eq!((set.permission(), set.modifiers()), (&Permission::Hmb, &[Modifier::Npu][..]));
    assert_eq!(set.to_string(), "HMB with NPU");
    assert_eq!(parse(&[]), Err(ConditionError::Count));
    assert_eq!(parse(&["IRB"]), Err(ConditionError::NoPermission));
    assert_eq!(parse(&["GRU", "HMB"]), Err(ConditionError::SeveralPermissions));
    assert_eq!(parse(&["DS"]), Err(ConditionError::Disease));
    assert_eq!(parse(&["DS:MONDO:12"]), Err(ConditionError::Disease));
    assert_eq!(parse(&["GRU", ""]), Err(ConditionError::Code));
    assert_eq!(parse(&["GRU", "a b"]), Err(ConditionError::Code));
    assert_eq!(parse(&["GRU", &"x".repeat(65)]), Err(ConditionError::Code));
    assert!("DS:MONDO:0004992".parse::<Purpose>().is_ok());
    assert!("NRES".parse::<Purpose>().is_err());
}

#[test]
fn the_table_that_comes_with_the_product_is_sound() {
    let table = Diseases::parse(include_str!("../../data/diseases.tsv")).unwrap();
    assert!(table.ids().count() > 300);
    assert_eq!(Diseases::builtin().ids().count(), table.ids().count());
    assert_eq!(table.name(&"MONDO:0007254".parse().unwrap()), Some("breast cancer"));
}

#[test]
fn tables_that_contradict_themselves_are_refused() {
    let parse = |text: &str| Diseases::parse(text).map(drop);
    let id = |text: &str| text.parse().unwrap();
    assert_eq!(parse("MONDO:0000001\ta"), Err(TableError::Line(1)));
    assert_eq!(parse("# x\n\nMONDO:1\ta\t"), Err(TableError::Line(3)));
    assert_eq!(parse("MONDO:0000001\ta\t\nMONDO:0000001\ta\t"), Err(TableError::Twice(id("MONDO:0000001"))));
    let (child, parent) = (id("MONDO:0000001"), id("MONDO:0000002"));
    assert_eq!(parse("MONDO:0000001\ta\tMONDO:0000002"), Err(TableError::Parent { child, parent }));
    let chain: String = (1..2_000).map(|i| format!("MONDO:{i:07}\tx\tMONDO:{:07}\n", i + 1)).collect();
    assert!(matches!(parse(&chain), Err(TableError::TooDeep(_))));
    let circle = "MONDO:0000001\ta\tMONDO:0000002\nMONDO:0000002\tb\tMONDO:0000001";
    assert!(matches!(parse(circle), Err(TableError::Circle(_))));
}

#[test]
fn decisions_follow_the_conditions() {
    let set = PolicySet::build(
        1,
        &[member("alice", "brca", "researcher")],
        &[grant("g1", researchers(), "brca", "wgs")],
    )
    .unwrap();
    let ask = |sets: &[&[&str]], of_study: &[&str], asked: Option<&str>| {
        let purposes = of_study.iter().map(|p| purpose(p)).collect();
        let study = Some(StudyFacts {
            active: true,
            until: at(1_000),
            purposes,
            channels: policy::ChannelRules::default(),
            recording: policy::RecordingRule::default(),
            supervision: policy::SupervisionRule::default(),
        });
        let facts = Facts { study, conditions: conditions(sets), ..facts() };
        let request = policy::Request { purpose: asked.map(purpose), ..read("alice", "brca", "wgs") };
        decide(&request, &set, &facts)
    };
    assert_eq!(code(&ask(&[&[CANCER]], &[BREAST], None)), "permit");
    assert_eq!(code(&ask(&[&[CANCER]], &[BREAST, HEART], None)), "purpose-not-allowed");
    assert_eq!(code(&ask(&[&[CANCER]], &[BREAST, HEART], Some(BREAST))), "permit");
    assert_eq!(code(&ask(&[&[CANCER]], &[HEART], Some(BREAST))), "purpose-not-of-study");
    let decision = ask(&[&[CANCER, "IRB"]], &[BREAST], None);
    assert_eq!(decision, Decision::Manual(Denial::NeedsReview { codes: vec!["IRB".to_owned()] }));
    let Decision::Deny(Denial::PurposeNotAllowed { asked, allowed, .. }) =
        ask(&[&[CANCER]], &[BREAST, HEART], None)
    else {
        panic!()
    };
    assert_eq!((asked, allowed), (purpose(HEART), conditions(&[&[CANCER]])));
}

proptest! {
    #[test]
    fn foreign_text_never_panics_and_what_parses_prints_back(text in ".{0,80}") {
        let _ = Diseases::parse(&text);
        if let Ok(purpose) = text.parse::<Purpose>() {
            prop_assert_eq!(purpose.to_string().parse::<Purpose>(), Ok(purpose));
        }
        let _ = ConditionSet::parse(&[&text]);
    }

    #[test]
    fn a_set_with_an_unknown_code_never_permits(code in "[A-Z]{5,9}", asked in 0..5_usize) {
        prop_assume!(code != "NPUNCU");
        let asked = [BREAST, "HMB", "POA", "GRU", "MDS"][asked];
        prop_assert_eq!(verdict(&[&["NRES", &code]], asked), "people");
    }
}
