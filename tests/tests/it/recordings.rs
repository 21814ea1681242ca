//! What a terminal showed, recorded by a real node and seen again.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::command::{run, wait_for};
use tests::node::binary;

use super::theatre::{Theatre, code, id, in_terminal, sum, type_into, until};

/// A shell with a terminal: recorded, sealed, found by its text, played in a terminal, as text, as a
/// page, as a file. Then the broker is killed in the middle of another, and what was seen is there.
#[test]
fn a_terminal_is_seen_again_also_after_the_broker_was_killed() -> Result<()> {
    let theatre = Theatre::new("recordings")?;
    let typed = "stty size; printf '\\033]0;title\\007\\033]52;c;ZXZpbA==\\007'; echo \"seen-$((40+2))\"; sleep 4; exit 5\n";
    let ran = theatre.device.ssh("stage", "-tt").stdin(typed).go()?;
    ensure!(ran.code() == 5, "{ran:?}");
    ensure!(
        ran.text().contains("What this terminal shows is recorded") || ran.complaint().contains("recorded"),
        "{ran:?}"
    );
    let recording = theatre.found("seen-42", 1)?.remove(0);
    let session = id(&recording)?;
    let sealed = theatre.recorded(&["session_recorded", &session, "\"outcome\":\"whole\""])?;
    let hash = sealed["unmapped"]["sha256"].as_str().context("no hash")?.to_owned();

    let text = theatre.sekisho(&format!("play {session} --text"))?;
    ensure!(text.contains("seen-42") && !text.contains('\u{1b}'), "{text:?}");
    let (cast, page) = (theatre.dir.join("s.cast"), theatre.dir.join("s.html"));
    theatre.device.sekisho(&format!("play {session} --cast"))?.arg(&cast).go()?.ok()?;
    ensure!(sum(&cast)? == hash, "another recording than the log has sealed");
    theatre.device.sekisho(&format!("play {session} --idle 1 --out"))?.arg(&page).go()?.ok()?;
    let page = fs::read_to_string(&page)?;
    ensure!(page.contains(&hash) && page.contains("Content-Security-Policy"), "no page");
    // In a terminal: four seconds of nothing are played in less, and q ends it.
    let words = format!("play {session} --idle 0.2 --speed 4");
    let mut player = in_terminal(&theatre.device, &words)?;
    let shown = until(&mut player, "seen-42")?;
    type_into(&mut player, "\x1b[Dq")?;
    ensure!(code(&mut player)? == Some(0), "the player did not end well");
    // The line that was typed is there, as letters; what it wrote is not.
    ensure!(!shown.contains("\u{1b}]") && !shown.contains('\u{7}'), "a command came through: {shown:?}");
    theatre.recorded(&["recording_played", &session, &hash, "u:admin"])?;

    // The broker is killed while a terminal goes on.
    let mut ticking =
        theatre.device.ssh("stage", "-tt").arg("while :; do echo tick-$((6*7)); sleep 0.1; done");
    ticking = ticking.within(Duration::from_secs(60));
    let mut client = ticking.command().spawn()?;
    wait_for("something is on the disk", Duration::from_secs(20), || {
        let mut open = fs::read_dir(theatre.folder()).ok()?.flatten();
        open.find(|file| {
            file.path().extension().is_some_and(|e| e == "open")
                && file.metadata().is_ok_and(|m| m.len() > 1_000)
        })
    })?;
    theatre.kill_broker()?;
    client.kill().ok();
    client.wait()?;
    let left = theatre.found("tick-42", 1)?.remove(0);
    ensure!(left["outcome"] == "interrupted", "{left}");
    let session = id(&left)?;
    let text = theatre.sekisho(&format!("play {session} --text"))?;
    ensure!(text.contains("tick-42"), "{text}");
    theatre.recorded(&["session_recorded", &session, "interrupted"])?;
    theatre.end()
}

/// In strict mode a session ends when the disk of recordings is full, and is told why.
#[test]
fn needs_root_a_full_disk_of_recordings_ends_a_strict_session() -> Result<()> {
    let theatre = Theatre::new("recordings-full")?;
    let folder = theatre.folder();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&folder)?);
    let options = format!("size=256k,mode=0700,uid={owner}");
    mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))?;
    let told = (|| {
        // What is left of a full disk may hold a few words more: only a flood is sure to find it full.
        let flood = "head -c 4000000 /dev/urandom | base64";
        let ran = theatre.device.ssh("stage", "-tt").arg(format!("{flood}; sleep 30")).go()?;
        ensure!(ran.code() == 69 || ran.code() == 255, "{}", ran.code());
        let said = format!("{}{}", ran.text(), ran.complaint());
        ensure!(
            said.contains("Sessions of this study are recorded"),
            "{:?}",
            &said[said.len().saturating_sub(500)..]
        );
        theatre.recorded(&["recording_degraded", "strict"])?;
        theatre.recorded(&["session_ended", "recording-failed"])?;
        // Where the study says so, it goes on, and that is on record.
        theatre.sekisho("study recording stage --mode best-effort")?;
        let ran = theatre.device.ssh("stage", "-tt").arg(format!("{flood}; echo on-$((1+1))")).go()?;
        let said = ran.text();
        ensure!(said.contains("on-2"), "{:?}", &said[said.len().saturating_sub(500)..]);
        theatre.recorded(&["recording_degraded", "best-effort"])?;
        Ok(())
    })();
    umount2(&folder, MntFlags::MNT_DETACH)?;
    told?;
    theatre.end()
}

/// A recording that has left the broker: found, and the same bytes come back from three of five
/// institutions, whatever was killed on the way; and without any broker, with the key of recordings.
#[test]
fn a_recording_comes_back_from_the_shares_of_the_institutions_that_are_left() -> Result<()> {
    let theatre = Theatre::with("recordings-vault", "\n[recordings]\nlocal_days = 0\nlagging_secs = 60\n")?;
    let typed = "echo \"kept-$((40+2)) 研究\"; seq 1 3000; exit\n";
    theatre.device.ssh("stage", "-tt").stdin(typed).go()?.ok()?;
    // Killed while the recording is on its way, or a moment before or after.
    theatre.kill_broker()?;
    let recording = theatre.found("kept-42 研究", 1)?.remove(0);
    let session = id(&recording)?;
    let name = session.trim_start_matches("sess:").to_owned();
    let sealed = theatre.recorded(&["session_recorded", &session])?;
    let hash = sealed["unmapped"]["sha256"].as_str().context("no hash")?.to_owned();
    wait_for("it has left", Duration::from_secs(30), || {
        let listed = theatre.json("recordings").ok()?;
        let here = theatre.folder().join(format!("{name}.cast")).exists();
        (listed["recordings"][0]["lies"] == "vault" && !here).then_some(())
    })
    .with_context(|| theatre.node.logs())?;
    ensure!(theatre.folder().join(format!("{name}.text")).exists(), "its lines are gone");
    let of_it = |code: &str| {
        let all = theatre.node.events().unwrap_or_default();
        let of_it = |event: &&serde_json::Value| {
            event["metadata"]["event_code"] == code
                && event["metadata"]["correlation_uid"] == session.as_str()
        };
        all.iter().filter(of_it).count()
    };
    wait_for("it was kept and moved once", Duration::from_secs(5), || {
        ((of_it("record_kept"), of_it("record_moved")) == (1, 1)).then_some(())
    })?;

    // Two of five institutions burn down, and a third is away for a while.
    let cast = theatre.dir.join("back.cast");
    let play = |to: &PathBuf| theatre.device.sekisho(&format!("play {session} --cast"))?.arg(to).go();
    play(&cast)?.ok()?;
    ensure!(sum(&cast)? == hash, "another recording came back");
    let backend = |name: &str| theatre.node.backend(name);
    for lost in ["hokkaido", "kansai"] {
        fs::remove_dir_all(backend(lost))?;
        fs::create_dir(backend(lost))?;
    }
    let again = theatre.dir.join("again.cast");
    play(&again)?.ok()?;
    ensure!(fs::read(&again)? == fs::read(&cast)?, "other bytes came back");
    ensure!(theatre.sekisho(&format!("play {session} --text"))?.contains("kept-42 研究"));
    // The folder of the log shows what a checkpoint covers.
    wait_for("it is on record that it was had back", Duration::from_secs(5), || {
        (of_it("record_fetched") == 3).then_some(())
    })?;
    let away = theatre.dir.join("away");
    fs::rename(backend("kyushu"), &away)?;
    fs::create_dir(backend("kyushu"))?;
    let failed = play(&theatre.dir.join("none.cast"))?;
    ensure!(failed.code() != 0 && failed.complaint().contains("vault"), "{failed:?}");
    fs::remove_dir(backend("kyushu"))?;
    fs::rename(&away, backend("kyushu"))?;

    // No node is left: three folders, the root that was written down, and the key of recordings.
    let kept = theatre.json("audit kept")?;
    let of_it = |row: &&serde_json::Value| row["session"] == session.as_str();
    let row = kept["recordings"].as_array().and_then(|rows| rows.iter().find(of_it)).context("not listed")?;
    let root = row["file"]["manifest_root"].as_str().context("no root")?.to_owned();
    let backends: Vec<PathBuf> = ["tohoku", "kanto", "kyushu"].map(backend).to_vec();
    let (dir, key) = (theatre.dir.clone(), theatre.node.dir.join("broker/recordings.key"));
    theatre.node.stop()?;
    let rebuilt = dir.join("rebuilt.sealed");
    let mut combine = run(binary("sekisho-shard")?).args("combine --root").arg(&root).arg("-o").arg(&rebuilt);
    for backend in &backends {
        combine = combine.arg(backend);
    }
    combine.go()?.ok()?;
    // The shares alone yield a sealed file.
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    ensure!(!holds(&fs::read(&rebuilt)?, "kept-42") && holds(&fs::read(&cast)?, "kept-42"));
    let opened = dir.join("opened.cast");
    let open = run(binary("sekisho")?).args("play --sealed").arg(&rebuilt).arg("--key").arg(&key);
    let said = open.arg("--cast").arg(&opened).go()?.ok()?;
    ensure!(sum(&opened)? == hash && said.complaint().contains(&hash), "another recording was opened");
    fs::remove_dir_all(&dir)?;
    Ok(())
}
