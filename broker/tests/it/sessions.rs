//! Sessions that go on, and those who watch over them.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use crate::house::{House, Person};

async fn post(house: &House, path: &str, body: Value) -> (u16, Value) {
    house.call(Some(&house.admin), "POST", path, body.to_string().as_bytes()).await
}

/// The session that goes on, once there is one.
async fn session(house: &House) -> Value {
    for _ in 0..500 {
        let (status, answer) = house.call(Some(&house.admin), "GET", "/v1/sessions", b"").await;
        assert_eq!(status, 200, "{answer}");
        if let Some(session) = answer["sessions"].as_array().unwrap().first() {
            return session.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no session goes on");
}

fn id(session: &Value) -> String {
    session["session"].as_str().unwrap().to_owned()
}

/// A client with a terminal, everything piped.
fn open(person: &Person, args: &[&str]) -> Child {
    person.ssh(args).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

async fn until(child: &mut Child, words: &str) -> String {
    let out = child.stdout.as_mut().unwrap();
    let (mut all, mut piece) = (String::new(), [0; 4096]);
    while !all.contains(words) {
        let n = tokio::time::timeout(Duration::from_secs(20), out.read(&mut piece)).await;
        let n = n.unwrap_or_else(|_| panic!("no {words:?} in {all:?}")).unwrap();
        assert!(n > 0, "it ended before {words:?}: {all:?}");
        all += &String::from_utf8_lossy(&piece[..n]);
    }
    all
}

async fn typed(child: &mut Child, text: &str) {
    child.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
}

/// How it ends, its input left open.
async fn code(child: &mut Child) -> Option<i32> {
    let _open = child.stdin.take();
    tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap().code()
}

/// A house where alice works and carol may watch.
async fn watched() -> (House, Person, Person) {
    let mut house = House::new().await;
    house.agent_comes().await;
    let new = json!({"person": "u:carol", "name": "Carol", "roles": ["role:moderator"]});
    assert_eq!(post(&house, "/v1/people", new).await.0, 200);
    let alice = house.alice(None).await;
    let carol = house.beside(&alice, "carol");
    (house, alice, carol)
}

/// With a terminal, a word of the broker comes on standard error; here both are one.
const HELLO: &str = "exec 2>&1; printf '\\033]52;c;ZXZpbA==\\007hello 42\\r\\n'; exec cat";

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_watched_by_whom_may_and_its_person_is_told() {
    let (house, alice, carol) = watched().await;
    let mut working = alice.ssh(&["-tt", "brca@127.0.0.1", HELLO]);
    let mut working = working.stdin(Stdio::piped()).spawn().unwrap();
    until(&mut working, "hello 42").await;
    let one = session(&house).await;
    let id = id(&one);
    assert_eq!(
        (&one["person"], &one["terminal"], &one["recorded"]),
        (&json!("u:alice"), &json!(true), &json!("strict"))
    );

    let (status, answer) = house.call(Some(&alice.tls), "GET", "/v1/sessions", b"").await;
    assert_eq!(status, 403, "{answer}");
    let (status, said, text) = alice.run(&["-tt", &format!("watch:{id}@127.0.0.1")]).await;
    let text = format!("{text}{}", String::from_utf8_lossy(&said));
    assert_eq!(status, 77, "{text}");
    assert!(house.recorded(&["admin_refused", "watch-session", "u:alice"]).await);

    let mut watching = open(&carol, &["-tt", &format!("watch:{id}@127.0.0.1")]);
    let seen = until(&mut watching, "hello 42").await;
    // Its line at the bottom names the command, as letters; what the command wrote is not there.
    assert!(!seen.contains("\u{1b}]") && !seen.contains('\u{7}'), "{seen:?}");
    let mut told = String::new();
    let err = working.stderr.as_mut().unwrap();
    let mut piece = [0; 1024];
    while !told.contains("u:carol watches this session.") {
        let n = tokio::time::timeout(Duration::from_secs(20), err.read(&mut piece)).await.unwrap().unwrap();
        assert!(n > 0, "{told}");
        told += &String::from_utf8_lossy(&piece[..n]);
    }
    assert!(house.recorded(&["session_watched", &id, "u:carol", "u:alice", "\"told\":true"]).await);
    assert_eq!(session(&house).await["watchers"], json!([{"person": "u:carol", "joined": false}]));
    // What happens is seen as it happens; what a watcher types goes nowhere.
    typed(&mut watching, "x").await;
    typed(&mut working, "later 43\n").await;
    until(&mut watching, "later 43").await;
    typed(&mut watching, "q").await;
    assert_eq!(code(&mut watching).await, Some(0));
    drop(working.stdin.take());
    assert_eq!(code(&mut working).await, Some(0));
    let (status, _, _) = carol.run(&["-tt", &format!("watch:{id}@127.0.0.1")]).await;
    assert_eq!(status, 77, "it is over");
    // What she may look at opens nothing else.
    let (status, _, _) = carol.run(&[&format!("watch:{id}@127.0.0.1"), "id"]).await;
    assert_ne!(status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_types_only_if_the_person_lets_them() {
    let (house, alice, carol) = watched().await;
    let mut working = open(&alice, &["-tt", "brca@127.0.0.1", HELLO]);
    until(&mut working, "hello 42").await;
    let id = id(&session(&house).await);
    let user = format!("join:{id}@127.0.0.1");
    for (answer, lets) in [("n", false), ("y", true)] {
        let mut joining = open(&carol, &["-tt", &user]);
        let stage = house.node().services().stages.all().remove(0);
        // The question is asked before it can be answered.
        for _ in 0..500 {
            if stage.is_asked() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        typed(&mut working, answer).await;
        if lets {
            until(&mut joining, "hello 42").await;
            assert!(house.recorded(&["session_joined", &id, "u:carol", "\"consented\":true"]).await);
            typed(&mut joining, "by carol\n").await;
            until(&mut working, "by carol").await;
            until(&mut joining, "by carol").await;
            typed(&mut joining, "\u{1d}").await;
            assert_eq!(code(&mut joining).await, Some(0));
        } else {
            assert_eq!(code(&mut joining).await, Some(77));
            assert!(house.recorded(&["admin_refused", "joining-declined", "u:carol"]).await);
        }
    }
    let path = "/v1/studies/study:brca/supervision";
    assert_eq!(post(&house, path, json!({"joining": "never"})).await.0, 200);
    let (status, out, said) = carol.run(&["-tt", &user]).await;
    let said = format!("{said}{}", String::from_utf8_lossy(&out));
    assert!(status == 77 && said.contains("nobody types in somebody else's session"), "{said}");
    assert_eq!(post(&house, path, json!({"joining": "always", "told": false})).await.0, 200);
    let mut joining = open(&carol, &["-tt", &user]);
    until(&mut joining, "by carol").await;
    assert!(house.recorded(&["session_joined", &id, "\"consented\":false"]).await);
    drop(working.stdin.take());
    working.kill().await.unwrap();
    assert_eq!(code(&mut joining).await, Some(0), "the session is over, and so is the visit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_spoken_to_and_ended() {
    let (house, alice, carol) = watched().await;
    let mut working = alice.ssh(&["-tt", "brca@127.0.0.1", HELLO]);
    let mut working = working.stdin(Stdio::piped()).spawn().unwrap();
    until(&mut working, "hello 42").await;
    let id = id(&session(&house).await);
    let path = format!("/v1/sessions/{id}/message");
    let body = json!({"text": "lunch?\u{1b}[2J"}).to_string();
    let (status, answer) = house.call(Some(&carol.tls), "POST", &path, body.as_bytes()).await;
    assert_eq!((status, &answer["said"]), (200, &json!(true)), "{answer}");
    let kill = format!("/v1/sessions/{id}/kill");
    let body = json!({"reason": "it is late"}).to_string();
    let (status, answer) = house.call(Some(&carol.tls), "POST", &kill, body.as_bytes()).await;
    assert_eq!(status, 403, "{answer}");
    let (status, answer) = post(&house, &kill, json!({"reason": ""})).await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer) = post(&house, &kill, json!({"reason": "it is late"})).await;
    assert_eq!(status, 200, "{answer}");
    let output =
        tokio::time::timeout(Duration::from_secs(5), working.wait_with_output()).await.unwrap().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("u:carol: lunch? [2J") && said.contains("ended by u:admin: it is late"), "{said}");
    assert!(house.recorded(&["session_message", &id, "u:carol", "lunch?"]).await);
    assert!(house.recorded(&["session_killed", &id, "u:admin", "it is late"]).await);
    assert!(house.recorded(&["session_ended", &id, "\"killed\""]).await);
    let (status, _) = post(&house, &kill, json!({"reason": "again"})).await;
    assert_eq!(status, 404);
}

/// It holds for every kind of session, and for files as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_moderated_session_starts_and_ends_with_its_second_person() {
    let (house, alice, carol) = watched().await;
    let path = "/v1/studies/study:brca/supervision";
    assert_eq!(post(&house, path, json!({"moderated": true})).await.0, 200);
    let mut working = open(&alice, &["brca@127.0.0.1", "echo started; exec cat"]);
    let one = session(&house).await;
    let waits = house.node().services().stages.all().remove(0);
    for _ in 0..500 {
        if waits.waits() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(waits.waits() && waits.bytes().1 == 0, "it started alone: {one}");
    // One's own eyes are not a second pair, whatever one may do.
    let user = format!("watch:{}@127.0.0.1", id(&one));
    let mut watching = open(&carol, &["-tt", &user]);
    until(&mut working, "started").await;
    typed(&mut watching, "q").await;
    assert_eq!(code(&mut watching).await, Some(0));
    assert_eq!(code(&mut working).await, Some(77));
    assert!(house.recorded(&["moderator_left", &id(&one)]).await);
    assert!(house.recorded(&["session_ended", "moderator-left", &id(&one)]).await);

    let mut files = open(&alice, &["-s", "brca@127.0.0.1", "sftp"]);
    let one = session(&house).await;
    assert_eq!(one["what"], "sftp");
    typed(&mut files, "\0\0\0\u{5}\u{1}\0\0\0\u{3}").await;
    let waits = house.node().services().stages.of(&id(&one).parse().unwrap()).unwrap();
    for _ in 0..100 {
        assert_eq!(waits.bytes(), (0, 0), "files went alone");
        if waits.waits() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(waits.waits());
    let mut watching = open(&carol, &["-tt", &format!("watch:{}@127.0.0.1", id(&one))]);
    let mut first = [0; 5];
    let out = files.stdout.as_mut().unwrap();
    tokio::time::timeout(Duration::from_secs(20), out.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(first[4], 2, "the server of files answers now");
    watching.kill().await.unwrap();
    assert_eq!(code(&mut files).await, Some(77));
}
