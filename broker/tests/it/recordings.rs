//! Sessions are recorded, and only who may see recordings does.

use std::process::Stdio;
use std::time::Duration;

use data_encoding::HEXLOWER;
use recording::cast::{Event, Reader};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::house::House;

async fn rule(house: &House, change: Value) -> Value {
    let path = "/v1/studies/study:brca/recording";
    let (status, answer) = house.call(Some(&house.admin), "POST", path, change.to_string().as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// The recordings, once there are so many.
async fn recordings(house: &House, count: usize) -> Vec<Value> {
    for _ in 0..200 {
        let (status, answer) = house.call(Some(&house.admin), "GET", "/v1/recordings", b"").await;
        assert_eq!(status, 200, "{answer}");
        let list = answer["recordings"].as_array().unwrap().clone();
        assert!(list.len() <= count, "{list:?}");
        if list.len() == count {
            return list;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("there are not {count} recordings");
}

fn session(recording: &Value) -> &str {
    recording["session"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_recorded_sealed_found_and_played() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let mut child = alice
        .ssh(&[
            "-tt",
            "brca@127.0.0.1",
            "printf 'Password: '; read x; printf '\\033[1mresult 42\\033[m\\r\\n'; exit 3",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"hunter2\n").await.unwrap();
    let output =
        tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("What this terminal shows is recorded."), "{said}");
    // A command without a terminal is not, as a study begins.
    assert_eq!(alice.run(&["brca@127.0.0.1", "echo alone"]).await.0, 0);

    let list = recordings(&house, 1).await;
    let (id, sha256) = (session(&list[0]).to_owned(), list[0]["sha256"].as_str().unwrap().to_owned());
    assert_eq!((&list[0]["person"], &list[0]["outcome"]), (&json!("u:alice"), &json!("whole")));
    assert!(house.recorded(&["session_recorded", &id, &sha256, "u:alice"]).await);
    assert!(
        house
            .recorded(&["session_opened", &id, "\"recording\":\"strict\"", "\"recording_input\":false"])
            .await
    );
    let records = house.records();
    let of = |kind: &str| {
        records.iter().position(|r| r.contains(&format!("\"{kind}\"")) && r.contains(&id)).unwrap()
    };
    assert!(of("session_recorded") < of("session_closed"), "the last record of a session is its last");

    // Nothing of it lies there in the clear.
    let folder = house.dir.path().join("recordings");
    let file = folder.join(format!("{}.cast", id.trim_start_matches("sess:")));
    let stored = std::fs::read(&file).unwrap();
    assert_eq!(list[0]["stored_sha256"], HEXLOWER.encode(&crate::sha2(&stored)));
    for clear in [&b"result"[..], b"Password", b"version"] {
        assert!(!stored.windows(clear.len()).any(|window| window == clear));
    }

    let (status, head, cast) = house.fetch(Some(&house.admin), &format!("/v1/recordings/{id}")).await;
    assert_eq!(status, 200);
    assert!(head.contains(&sha256) && HEXLOWER.encode(&crate::sha2(&cast)) == sha256, "{head}");
    let events = Reader::new().push(&cast).unwrap();
    let shown: String = events
        .iter()
        .filter_map(|at| match &at.event {
            Event::Output(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert!(shown.contains("Password: ") && shown.contains("\u{1b}[1mresult 42"), "{shown:?}");
    assert!(!String::from_utf8_lossy(&cast).contains("hunter2"), "what is typed is not recorded");
    assert_eq!(events.last().unwrap().event, Event::Exit(3));
    assert!(
        house.recorded(&["recording_played", &id, &sha256, "u:admin", "role:security/play-recording"]).await
    );

    for (text, count) in [("RESULT%2042", 1), ("hunter2", 0)] {
        let path = format!("/v1/recordings?text={text}&study=study:brca");
        let (status, found) = house.call(Some(&house.admin), "GET", &path, b"").await;
        assert_eq!(status, 200, "{found}");
        assert_eq!(found["recordings"].as_array().unwrap().len(), count, "{found}");
    }
    assert!(house.recorded(&["recordings_searched", "hunter2", "u:admin"]).await);

    // Who may not, does not, and that is on record too.
    for path in
        ["/v1/recordings".to_owned(), "/v1/recordings?text=result".to_owned(), format!("/v1/recordings/{id}")]
    {
        let (status, answer) = house.call(Some(&alice.tls), "GET", &path, b"").await;
        assert_eq!((status, &answer["error"]["code"]), (403, &json!("role-missing")), "{path}: {answer}");
    }
    assert!(house.recorded(&["admin_refused", "play-recording", "u:alice"]).await);

    // A file that was changed is not shown.
    let mut altered = stored.clone();
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(&file, altered).unwrap();
    let (status, answer) = house.call(Some(&house.admin), "GET", &format!("/v1/recordings/{id}"), b"").await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("recording-altered")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_what_the_study_says() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let told = rule(&house, json!({"input": true, "commands": true})).await;
    assert_eq!(
        (&told["mode"], &told["input"], &told["commands"]),
        (&json!("strict"), &json!(true), &json!(true))
    );
    assert!(house.recorded(&["record_changed", "study:brca input all commands yes"]).await);
    let mut child =
        alice.ssh(&["brca@127.0.0.1", "cat; echo err >&2"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed by hand\n").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap().success());
    let list = recordings(&house, 1).await;
    assert_eq!(list[0]["command"], "cat; echo err >&2");
    let (_, _, cast) =
        house.fetch(Some(&house.admin), &format!("/v1/recordings/{}", session(&list[0]))).await;
    let events = Reader::new().push(&cast).unwrap();
    assert!(events.iter().any(|at| at.event == Event::Input("typed by hand\n".to_owned())), "{events:?}");
    assert!(events.iter().any(|at| at.event == Event::Output("err\n".to_owned())), "{events:?}");

    rule(&house, json!({"mode": "off"})).await;
    assert_eq!(alice.run(&["-tt", "brca@127.0.0.1", "echo unseen"]).await.0, 0);
    assert!(house.recorded(&["session_opened", "echo unseen", "\"recording\":\"off\""]).await);
    recordings(&house, 1).await;
    for wrong in [json!({"mode": "on"}), json!({"colour": 1})] {
        let path = "/v1/studies/study:brca/recording";
        let (status, _) = house.call(Some(&house.admin), "POST", path, wrong.to_string().as_bytes()).await;
        assert_eq!(status, 400);
    }
    let (status, _) =
        house.call(Some(&alice.tls), "POST", "/v1/studies/study:brca/recording", b"{\"mode\":\"off\"}").await;
    assert_eq!(status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_recorded_ends_or_goes_on_as_the_study_says() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let (folder, away) = (house.dir.path().join("recordings"), house.dir.path().join("away"));
    std::fs::rename(&folder, &away).unwrap();
    let (code, out, said) = alice.run(&["-tt", "brca@127.0.0.1", "echo secret"]).await;
    let said = format!("{said}{}", String::from_utf8_lossy(&out));
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("this one cannot be at the moment") && !said.contains("secret\r"), "{said}");
    assert!(house.recorded(&["recording_degraded", "strict", "u:alice"]).await);
    assert!(house.recorded(&["session_ended", "recording-failed"]).await);

    rule(&house, json!({"mode": "best-effort"})).await;
    let (code, out, _) = alice.run(&["-tt", "brca@127.0.0.1", "echo seen"]).await;
    assert_eq!((code, String::from_utf8_lossy(&out).contains("seen")), (0, true));
    assert!(house.recorded(&["recording_degraded", "best-effort", "u:alice"]).await);
    std::fs::rename(&away, &folder).unwrap();
    rule(&house, json!({"mode": "strict"})).await;
    assert_eq!(alice.run(&["-tt", "brca@127.0.0.1", "echo again"]).await.0, 0);
    recordings(&house, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_cut_in_the_recording_and_not_on_the_screen() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    rule(&house, json!({"limit_mib": 1})).await;
    let (code, out, said) =
        alice.run(&["-tt", "brca@127.0.0.1", "head -c 5000000 /dev/zero | tr '\\0' x"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(out.iter().filter(|b| **b == b'x').count() >= 5_000_000);
    let list = recordings(&house, 1).await;
    let elided = list[0]["elided"].as_u64().unwrap();
    // What is around each piece counts as well.
    let kept = 5_000_000 - elided;
    assert!((1_000_000..=1 << 20).contains(&kept), "{kept} bytes were kept: {list:?}");
    assert!(house.recorded(&["session_recorded", &format!("\"elided_bytes\":{elided}")]).await);
    let (_, _, cast) =
        house.fetch(Some(&house.admin), &format!("/v1/recordings/{}", session(&list[0]))).await;
    let left = vec![b'x'; usize::try_from(elided).unwrap()];
    let marker =
        format!("{elided} bytes of output left out here, SHA-256 {}", HEXLOWER.encode(&crate::sha2(&left)));
    assert!(String::from_utf8(cast).unwrap().contains(&marker), "{marker}");
}

/// What a broker that is gone left behind is sealed by the next one, before the session is closed.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_open_is_sealed_as_interrupted() {
    let mut house = House::new().await;
    house.agent_comes().await;
    let alice = house.alice(None).await;
    let mut child =
        alice.ssh(&["-tt", "brca@127.0.0.1", "echo before; cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let folder = house.dir.path().join("recordings");
    let open = || {
        let mut files = std::fs::read_dir(&folder).unwrap().flatten().map(|file| file.path());
        files.find(|path| path.extension().is_some_and(|extension| extension == "open"))
    };
    // Its head is there at once, and what was shown a second later.
    let mut first = None;
    let open = loop {
        if let Some(path) = open() {
            let size = path.metadata().unwrap().len();
            if size > 200 && size > *first.get_or_insert(size) {
                break path;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // As it is at this instant, with half a chunk behind it, and the session still open.
    let mut torn = std::fs::read(&open).unwrap();
    torn.extend_from_slice(&[0, 0, 1, 0, 7, 7, 7]);
    let records = house.dir.path().join("records.sqlite");
    let copy = |to: &str| {
        let to = house.dir.path().join(to);
        std::fs::create_dir_all(to.join("recordings")).unwrap();
        to
    };
    let next = copy("next");
    for name in ["records.sqlite", "records.sqlite-wal", "records.sqlite-shm"] {
        let from = records.with_file_name(name);
        if from.exists() {
            std::fs::copy(&from, next.join(name)).unwrap();
        }
    }
    std::fs::copy(house.dir.path().join("recordings.key"), next.join("recordings.key")).unwrap();
    std::fs::write(next.join("recordings").join(open.file_name().unwrap()), &torn).unwrap();
    std::fs::write(next.join("recordings/rubbish.open"), b"not a recording").unwrap();
    let text = std::fs::read_to_string(house.dir.path().join("config.toml")).unwrap();
    std::fs::write(next.join("config.toml"), text.replace("signer.sock", "../signer.sock")).unwrap();
    let node = crate::house::start(&next).await.unwrap();
    let id = format!("sess:{}", open.file_stem().unwrap().to_str().unwrap());
    let log = node.services().gate.log().clone();
    let entries: Vec<String> =
        log.read(0, 1000).unwrap().into_iter().map(|(_, e)| String::from_utf8(e).unwrap()).collect();
    let at = |kind: &str| entries.iter().position(|e| e.contains(kind) && e.contains(&id)).unwrap();
    let sealed = &entries[at("session_recorded")];
    assert!(
        sealed.contains("interrupted") && sealed.contains(&HEXLOWER.encode(&crate::sha2(&torn))),
        "{sealed}"
    );
    assert!(at("session_recorded") < at("session_closed"));
    assert!(
        next.join("recordings")
            .join(format!("{}.cast", open.file_stem().unwrap().to_str().unwrap()))
            .exists()
    );
    assert!(next.join("recordings/rubbish.unreadable").exists());
    node.stop("a test").await;
    child.kill().await.unwrap();
}
