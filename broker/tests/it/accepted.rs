//! A broker of another version than the one that things were declared for.

use std::time::Duration;

use certs::x509::Identity;
use serde_json::{Value, json};

use crate::house::{self, House};

/// The check `declared` of the broker, and the state that can be accepted, as an operator sees it.
async fn declared(house: &House, operator: &Identity) -> (String, String, String) {
    let (status, rows) = house.call(Some(operator), "GET", "/v1/diagnostics", b"").await;
    assert_eq!(status, 200, "{rows}");
    let of = |name: &str| {
        let rows = rows.as_array().unwrap();
        let row = rows.iter().find(|row| row["process"] == "broker" && row["check"] == name).unwrap();
        (row["state"].clone(), row["detail"].as_str().unwrap().to_owned())
    };
    let (state, detail) = of("declared");
    (state.as_str().unwrap().to_owned(), detail, of("declared_state").1)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_told_and_accepted_by_whoever_may() {
    let mut house = House::new().await;
    assert!(house.recorded(&["broker_diagnosed", "as it was declared"]).await);
    house.node.take().unwrap().stop("a test").await;
    let file = house.dir.path().join("declared.json");
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    kept["version"] = json!("0.0.9");
    kept["sums"]["program"] = json!("another");
    std::fs::write(&file, kept.to_string()).unwrap();
    house.node = Some(house::start(house.dir.path()).await.unwrap());
    let new = json!({ "person": "u:olga", "name": "Olga", "roles": ["role:operator"] });
    let (status, answer) =
        house.call(Some(&house.admin), "POST", "/v1/people", new.to_string().as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    let operator = house.ca.leaf("person/olga".parse().unwrap());

    assert!(house.recorded(&["broker_diagnosed", "upgraded from 0.0.9"]).await);
    let (state, detail, digits) = declared(&house, &operator).await;
    assert_eq!(state, "warning", "{detail}");
    assert!(detail.ends_with(&format!("diagnostics accept broker {digits}`: program")), "{detail}");
    // An upgrade alone makes no node ill.
    let (_, health) = house.call(None, "GET", "/v1/health", b"").await;
    assert!(!health.to_string().contains("not as they should be"), "{health}");

    let accept = async |by, process: &str, state: &str| {
        let body = json!({ "state": state }).to_string();
        house.call(by, "POST", &format!("/v1/diagnostics/{process}/accept"), body.as_bytes()).await
    };
    let alice = house.alice(None).await;
    let (status, answer) = house.call(Some(&alice.tls), "GET", "/v1/diagnostics", b"").await;
    assert_eq!((status, answer["error"]["code"].as_str()), (403, Some("role-missing")), "{answer}");
    // Who answers for hosts need not be let into the log.
    assert_eq!(house.fetch(Some(&operator), "/log/tile/entries/000").await.0, 403);
    let (status, answer) = accept(Some(&alice.tls), "broker", &digits).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (403, Some("role-missing")), "{answer}");
    for (process, digits) in [("broker", "0123456789abcdef"), ("agent:nobody", digits.as_str())] {
        let (status, answer) = accept(Some(&operator), process, digits).await;
        assert_eq!(status, 409, "{answer}");
        assert!(answer.to_string().contains("look again"), "{answer}");
    }
    assert_eq!(declared(&house, &operator).await.0, "warning");

    let (status, answer) = accept(Some(&operator), "broker", &digits).await;
    assert_eq!(status, 200, "{answer}");
    assert!(house.recorded(&["record_changed", "declaration", &digits, "u:olga"]).await);
    assert!(house.recorded(&["broker_diagnosed", "declared: ok, was warning"]).await);
    tokio::time::timeout(Duration::from_secs(5), async {
        while declared(&house, &operator).await.0 != "ok" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["version"], env!("CARGO_PKG_VERSION"));
}
