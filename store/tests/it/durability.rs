//! A call that returned is on disk, whatever happens to the process afterwards.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use model::{DatasetId, Timestamp};
use store::{Dataset, Store};

/// Set for the child: the file to write rows into.
const CHILD: &str = "SEKISHO_STORE_DURABILITY_CHILD";

fn dataset(i: u64) -> Dataset {
    let id = DatasetId::from_name(&format!("d{i}")).unwrap();
    Dataset { id, title: Timestamp::from_secs(0).to_string(), conditions: Vec::new() }
}

/// Not a test by itself: what the child of the test below does.
#[tokio::test]
async fn child_writes_rows_and_says_so() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = Store::open(Path::new(&path)).await.unwrap();
    let mut out = std::io::stdout();
    for i in 0.. {
        let epoch = store.create_dataset(&dataset(i)).await.unwrap();
        // One write, so that no line is torn by the kill.
        out.write_all(format!("\nacknowledged {i} {epoch}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_row_survives_a_kill() {
    for rows_before_the_kill in [1, 7, 40] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.sqlite");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "durability::child_writes_rows_and_says_so"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let note = |line: String, acknowledged: &mut Vec<(u64, u64)>| {
            if let Some((i, epoch)) = line.strip_prefix("acknowledged ").and_then(|l| l.split_once(' ')) {
                acknowledged.push((i.parse().unwrap(), epoch.parse().unwrap()));
            }
        };
        while acknowledged.len() < rows_before_the_kill {
            note(lines.next().expect("the child ended by itself").unwrap(), &mut acknowledged);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts as well.
        for line in lines {
            note(line.unwrap(), &mut acknowledged);
        }

        let store = Store::open(&path).await.unwrap();
        let found = store.datasets().await.unwrap();
        let (_, last_epoch) = *acknowledged.last().unwrap();
        for (i, _) in &acknowledged {
            assert!(found.contains(&dataset(*i)), "row {i} of {} is gone", acknowledged.len());
        }
        // At most the row that was under way is there besides, and the epoch counted every one.
        assert!(found.len() <= acknowledged.len() + 1);
        let first = last_epoch - acknowledged.len() as u64;
        assert_eq!(store.policy_epoch().await.unwrap(), first + found.len() as u64);
    }
}
