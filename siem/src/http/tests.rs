use proptest::prelude::*;

use super::*;

const BULK: Dialect = Dialect::Elasticsearch { index: String::new() };

fn hec_dialect(indexer_ack: bool) -> Dialect {
    Dialect::SplunkHec { index: Some("sec".to_owned()), indexer_ack }
}

fn events(count: u64) -> Vec<Indexed> {
    (0..count).map(|i| (i, json!({ "time": 1_790_000_000_007_u64, "message": "研究" }))).collect()
}

#[test]
fn bodies_read_like_this() {
    let body = Body::new(&hec_dialect(false), "gate", "o/audit", &events(1), 1 << 20);
    assert_eq!(
        std::str::from_utf8(body.bytes()).unwrap(),
        concat!(
            r#"{"event":{"message":"研究","time":1790000000007},"fields":{"log_index":"0"},"host":"gate","#,
            r#""index":"sec","source":"o/audit","sourcetype":"sekisho:ocsf","time":"1790000000.007"}"#,
            "\n"
        )
    );
    let dialect = Dialect::Elasticsearch { index: "logs-sekisho".to_owned() };
    let body = Body::new(&dialect, "gate", "o/audit", &events(1), 1 << 20);
    assert_eq!(
        std::str::from_utf8(body.bytes()).unwrap(),
        concat!(
            r#"{"create":{"_id":"o/audit/0","_index":"logs-sekisho"}}"#,
            "\n",
            r#"{"@timestamp":1790000000007,"message":"研究","time":1790000000007}"#,
            "\n"
        )
    );
}

#[test]
fn a_body_is_bounded_but_never_empty() {
    let body = Body::new(&BULK, "gate", "o", &events(100), 1000);
    assert!(body.bytes().len() <= 1000 && (2..100).contains(&body.count()));
    assert_eq!(Body::new(&BULK, "gate", "o", &events(3), 1).count(), 1);
}

#[test]
fn answers_of_bulk_are_taken_one_by_one() {
    let read = |body: &str, count| parse_answer(&BULK, 200, body.as_bytes(), count);
    let items =
        r#"[{"create":{"status":201}},{"create":{"status":409,"error":{"type":"version_conflict"}}}]"#;
    assert_eq!(read(&format!(r#"{{"errors":true,"items":{items}}}"#), 2), Ok((Answer::Taken, None)));
    let senseless = Err(AnswerError::Senseless("it speaks of another number of events"));
    assert_eq!(read(&format!(r#"{{"errors":false,"items":{items}}}"#), 3), senseless);
    let items = r#"[{"create":{"status":429}},{"create":{"status":201}},{"create":{"status":400,"error":{"type":"mapper","reason":"no\n"}}}]"#;
    let parts = Answer::Parts { again: vec![0], rejected: vec![(2, "mapper: no ".to_owned())] };
    assert_eq!(read(&format!(r#"{{"errors":true,"items":{items}}}"#), 3), Ok((parts, None)));
    assert!(matches!(
        read(&format!(r#"{{"errors":false,"items":{items}}}"#), 3),
        Err(AnswerError::Senseless(_))
    ));
    // Nothing is dropped because a stream is missing.
    let items = r#"[{"create":{"status":404,"error":{"type":"index_not_found_exception"}}}]"#;
    assert!(matches!(
        read(&format!(r#"{{"errors":true,"items":{items}}}"#), 1),
        Err(AnswerError::Status { .. })
    ));
    assert!(matches!(read("<html>", 1), Err(AnswerError::Senseless(_))));
}

#[test]
fn answers_of_hec_are_not_taken_for_more_than_they_are() {
    let read = |ack, status: u16, body: &str| parse_answer(&hec_dialect(ack), status, body.as_bytes(), 3);
    assert_eq!(read(false, 200, r#"{"text":"Success","code":0}"#), Ok((Answer::Taken, None)));
    assert_eq!(read(true, 200, r#"{"text":"Success","code":0,"ackId":7}"#), Ok((Answer::Taken, Some(7))));
    assert!(read(true, 200, r#"{"text":"Success","code":0}"#).is_err());
    assert!(read(false, 200, r#"{"text":"No data","code":5}"#).is_err());
    assert!(read(false, 503, r#"{"text":"Server is busy","code":9}"#).is_err());
    assert_eq!(read(false, 403, ""), Err(AnswerError::Forbidden(StatusCode::FORBIDDEN)));
    assert_eq!(read(false, 413, ""), Ok((Answer::TooLarge, None)));
    let parts = Answer::Parts { again: vec![0, 2], rejected: vec![(1, "Invalid data format".to_owned())] };
    let said = r#"{"text":"Invalid data format","code":6,"invalid-event-number":1}"#;
    assert_eq!(read(false, 400, said), Ok((parts, None)));
    assert!(read(false, 400, &said.replace(":1}", ":3}")).is_err());
    assert!(acknowledged(StatusCode::OK, br#"{"acks":{"7":true}}"#, 7));
    assert!(!acknowledged(StatusCode::OK, br#"{"acks":{"7":false}}"#, 7));
    assert!(!acknowledged(StatusCode::OK, br#"{"acks":{"8":true}}"#, 7));
}

proptest! {
    #[test]
    fn whatever_a_collector_answers_is_bounded_and_about_what_was_sent(
        status in 100_u16..1000, body: Vec<u8>, near in r#"\{"errors":true,"items":\[(\{"create":\{"status":[0-9]{3}\}\},?){0,4}\]\}"#,
        invalid: usize, count in 1_usize..5,
    ) {
        let invalid = format!(r#"{{"text":"","code":6,"invalid-event-number":{invalid}}}"#);
        for dialect in [BULK, hec_dialect(true), hec_dialect(false)] {
            for body in [&body[..], near.as_bytes(), invalid.as_bytes()] {
                let read = parse_answer(&dialect, status, body, count);
                if let Ok((Answer::Parts { again, rejected }, _)) = read {
                    let places: std::collections::BTreeSet<_> =
                        again.iter().chain(rejected.iter().map(|(place, _)| place)).collect();
                    prop_assert!(places.iter().all(|place| **place < count));
                    prop_assert_eq!(places.len(), again.len() + rejected.len());
                }
            }
        }
    }
}
