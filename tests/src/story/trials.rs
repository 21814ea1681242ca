//! Chapters 7 and 8: backends fail, the log is attacked.

use super::*;

/// The published schema's validator, with what it needs, as infra/setup prepared it.
const VALIDATOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/siem/validate-ocsf");

impl Story {
    pub(super) fn fail(&mut self) -> Result<()> {
        // Fresh objects: nothing of them is in any cache.
        let liars = ["tohoku", "kanto", "kansai"];
        let lied = |liar: &str| format!("{liar}-lies.bam");
        let names = liars.iter().map(|liar| lied(liar)).chain(
            ["two-gone-0.bam", "two-gone-1.bam", "two-gone-2.bam", "two-gone-3.bam", "three-gone.bam"]
                .map(str::to_owned),
        );
        for name in names {
            self.admin
                .sekisho(&format!("put --dataset na12878 --name {name}"))?
                .arg(self.file(BAM))
                .go()?
                .ok()?;
        }
        let node = self.node()?;
        let original = self.bytes(BAM)?;
        let read = |name: &str| self.alice.ssh("brca", "").arg(format!("cat /data/na12878/{name}")).go();
        let away = |institution: &str| {
            let from = node.backend(institution);
            fs::rename(&from, from.with_extension("away"))
        };
        let back = |institution: &str| {
            let to = node.backend(institution);
            fs::rename(to.with_extension("away"), &to)
        };
        // Those whom the log names with a fault, from this event on. A read asks three backends,
        // the fastest first, so a fault of one that was not asked is not seen by it.
        let named = |from: usize, kind: &str| -> Result<Vec<&str>> {
            let events = node.events()?;
            let faults = events[from..].iter().filter(|event| has(event, "read_fault") && has(event, kind));
            let faults: Vec<&Value> = faults.collect();
            Ok(INSTITUTIONS.into_iter().filter(|name| faults.iter().any(|fault| has(fault, name))).collect())
        };

        // Which three a read asks depends on how fast they were; pairs go until one is missed.
        let pairs =
            [["hokkaido", "kanto"], ["tohoku", "kansai"], ["kyushu", "hokkaido"], ["kanto", "tohoku"]];
        let mut missed = Vec::new();
        for (number, pair) in pairs.into_iter().enumerate() {
            if number >= 2 && !missed.is_empty() {
                break;
            }
            let before = node.events()?.len();
            for institution in pair {
                away(institution)?;
            }
            let ran = read(&format!("two-gone-{number}.bam"))?.ok()?;
            ensure!(ran.stdout == original, "wrong bytes with {pair:?} gone");
            let seen = wait_for("a fault is recorded", Duration::from_secs(2), || {
                named(before, "missing").ok().filter(|named| !named.is_empty())
            });
            let seen = seen.unwrap_or_default();
            ensure!(seen.iter().all(|name| pair.contains(name)), "{seen:?} named while {pair:?} were gone");
            missed.extend(seen);
            for institution in pair {
                back(institution)?;
            }
        }
        ensure!(!missed.is_empty(), "no backend that was gone is named");
        held(&format!(
            "two backends gone, one pair after another: every read succeeds, and the log names {}",
            missed.join(", ")
        ));

        away("hokkaido")?;
        let mut caught = Vec::new();
        for liar in liars {
            let before = node.events()?.len();
            corrupt(&node.backend(liar))?;
            let ran = read(&lied(liar))?.ok()?;
            ensure!(ran.stdout == original, "wrong bytes while {liar} lies");
            let seen = wait_for("the liar is named", Duration::from_secs(2), || {
                named(before, "corrupt").ok().filter(|named| !named.is_empty())
            });
            // Done twice, it is undone: the institution has put its copy right.
            corrupt(&node.backend(liar))?;
            let seen = seen.unwrap_or_default();
            ensure!(seen.iter().all(|name| *name == liar), "{seen:?} named while {liar} lied");
            caught.extend(seen);
        }
        ensure!(caught.len() >= 2, "of three liars only {caught:?} were named");
        held(&format!(
            "one gone and one corrupting: every read succeeds, and the log names the liar: {}",
            caught.join(", ")
        ));

        away("kansai")?;
        away("kyushu")?;
        let began = Instant::now();
        let ran = read("three-gone.bam")?.refused("Input/output error")?;
        ensure!(began.elapsed() < Duration::from_secs(15), "it hung for {:?}", began.elapsed());
        node.event("the failed read is recorded", |event| has(event, "read_failed"))?;
        held(&format!(
            "too few left: a clear error after {} ms: {}",
            ran.took.as_millis(),
            ran.complaint().lines().last().unwrap_or_default()
        ));
        for institution in ["hokkaido", "kansai", "kyushu"] {
            back(institution)?;
        }
        let ran =
            wait_for("reads work again", Duration::from_secs(40), || read("three-gone.bam").ok()?.ok().ok())?;
        ensure!(ran.stdout == original, "wrong bytes after the backends came back");
        held("the backends back, reads work again");
        Ok(())
    }

    pub(super) fn remember(&mut self) -> Result<()> {
        let verify = |dir: &Path| run(binary("sekisho")?).args("audit verify --dir").arg(dir).go();
        let audit = self.node()?.audit();
        // The checkpoint follows the last record within a second.
        std::thread::sleep(Duration::from_millis(1200));
        let ran = verify(&audit)?.ok()?;
        for line in ran.text().lines() {
            say(line);
        }
        held("the log is proved: every byte, every hash, the signed checkpoint");

        let size = self.arrived("every event arrives")?;
        let received = self.collector.as_ref().context("no collector")?.received()?;
        let events = self.node()?.events()?;
        let mut seen = std::collections::BTreeMap::new();
        for (index, event) in &received {
            seen.entry(*index).or_insert(event);
        }
        for index in 0..size {
            let at = usize::try_from(index)?;
            let theirs = seen.get(&index).with_context(|| format!("event {index} is missing in the SIEM"))?;
            let uid = |event: &Value| event["metadata"]["uid"].clone();
            ensure!(
                uid(theirs) == uid(&events[at]) || **theirs == events[at],
                "event {index} differs in the SIEM:\n{theirs}\n{}",
                events[at]
            );
        }
        held(&format!(
            "the SIEM's file holds each of the {size} events ({} arrived twice and are known by their index)",
            received.len().saturating_sub(seen.len())
        ));

        let lines: String = events.iter().chain(received.iter().map(|(_, event)| event)).fold(
            String::new(),
            |mut lines, event| {
                lines.push_str(&event.to_string());
                lines.push('\n');
                lines
            },
        );
        let exported = self.dir.join("events.jsonl");
        fs::write(&exported, lines)?;
        let ran = run(VALIDATOR).arg(&exported).go()?;
        ensure!(ran.status.success(), "not OCSF 1.8:\n{}\n{}", ran.text(), ran.complaint());
        held("every event, in the log and at the SIEM, is valid by the published schema of OCSF 1.8");

        let copy = self.dir.join("audit-copy");
        run("cp").arg("-a").arg(&audit).arg(&copy).go()?.ok()?;
        verify(&copy)?.ok()?;
        let mut files = Vec::new();
        walk(&copy, &mut files)?;
        let mut flips = 0;
        for round in 0..FLIPS {
            let file = &files[usize::try_from(round)? % files.len()];
            let clean = fs::read(file)?;
            if clean.is_empty() {
                continue;
            }
            let at = usize::try_from((round.wrapping_mul(0x9e37_79b9) + 7) % clean.len() as u64)?;
            let mut dirty = clean.clone();
            dirty[at] ^= 1 << (round % 8);
            fs::write(file, &dirty)?;
            let ran = verify(&copy)?;
            ensure!(!ran.status.success(), "byte {at} of {} flipped and not found", file.display());
            fs::write(file, &clean)?;
            flips += 1;
        }
        verify(&copy)?.ok()?;
        held(&format!(
            "each of {flips} single flipped bits, in each of the log's {} files, is found",
            files.len()
        ));
        Ok(())
    }
}

/// Flips bits all over every share file below `backend`; done twice, it undoes itself.
fn corrupt(backend: &Path) -> Result<()> {
    let mut files = Vec::new();
    walk(backend, &mut files)?;
    for file in files {
        let mut bytes = fs::read(&file)?;
        for at in (0..bytes.len()).step_by(1021) {
            bytes[at] ^= 0x40;
        }
        fs::write(&file, bytes)?;
    }
    Ok(())
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, into)?;
        } else if path.is_file() {
            into.push(path);
        }
    }
    Ok(())
}
