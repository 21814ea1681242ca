//! A full part of the log, 65 536 entries, packed for the vault and unpacked again, in one thread, beside
//! compressing and decompressing the same text and nothing else.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::{
    Event, EventKind, Log, LogKey, Options, SegmentRange, SegmentReader, prepare_folder, write_bundle,
};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use model::ambient::SystemClock;
use model::{AgentId, Clock, PersonId, SeededEntropy, SessionId, StudyId, WorkspaceId};
use serde_json::json;

const ENTRIES: u64 = 65_536;
const ROUNDS: usize = 3;

type Failure = Box<dyn Error + Send + Sync>;

/// What a busy house records: sessions that come and go, and what programs do in them.
fn event(n: u64) -> Result<Event, Failure> {
    let session = SessionId::from_name(&format!("s{:08x}", n / 16))?;
    let person = PersonId::from_name(&format!("researcher{}", n % 97))?;
    let kind = match n % 4 {
        0 => EventKind::WorkspaceStarted {
            workspace: WorkspaceId::from_name(&format!("w{:06x}", n % 6007))?,
            agent: AgentId::from_name("main")?,
            cold_ms: n % 977,
        },
        1 => EventKind::SessionRefused {
            code: "no-grant".to_owned(),
            reason: format!("the study has no grant for dataset {}", n % 311),
        },
        2 => EventKind::AuditRead { what: format!("tile/entries/{:03}", n % 1000) },
        _ => EventKind::SinkRecovered { sink: format!("soc{}", n % 7) },
    };
    Ok(Event {
        person: Some(person),
        session: Some(session),
        study: Some(StudyId::from_name("brca")?),
        peer: Some(format!("192.0.2.{}:{}", n % 250, 1024 + n % 60_000)),
        ..Event::new(SystemClock.now(), kind)
    })
}

fn main() -> Result<(), Failure> {
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let key = LogKey::generate("bench.test/audit", &SeededEntropy::new(1))?;
    let log = Log::open(&dir.path().join("log"), key, Arc::new(SystemClock), Options::default())?;
    runtime.block_on(async {
        let mut appending = tokio::task::JoinSet::new();
        for n in 0..ENTRIES {
            let (log, event) = (log.clone(), event(n)?);
            appending.spawn(async move { log.append(&event).await });
        }
        while let Some(appended) = appending.join_next().await {
            appended??;
        }
        while log.checkpoint_size() < ENTRIES {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<(), Failure>(())
    })?;
    let range = SegmentRange::new(0, ENTRIES).ok_or("no such part")?;
    let (reader, note, path) = (log.reader(), log.checkpoint(), dir.path().join("part.jsonl.gz"));
    let mut text = Vec::new();
    let (mut pack, mut zip, mut unpack, mut unzip) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        pack.push(timed(|| {
            reader.pack(range, &note, &mut File::create(&path)?)?;
            Ok(())
        })?);
        unzip.push(timed(|| {
            text.clear();
            GzDecoder::new(File::open(&path)?).read_to_end(&mut text)?;
            Ok(())
        })?);
        zip.push(timed(|| {
            let mut to = GzEncoder::new(File::create(dir.path().join("zipped"))?, Compression::new(6));
            to.write_all(&text)?;
            to.finish()?;
            Ok(())
        })?);
        let out = dir.path().join(format!("out{round}"));
        unpack.push(timed(|| {
            let mut segment = SegmentReader::open(File::open(&path)?, reader.key())?;
            prepare_folder(&out, segment.header())?;
            while let Some(bundle) = segment.next_bundle()? {
                write_bundle(&out, &bundle)?;
            }
            Ok(())
        })?);
    }
    let packed = std::fs::metadata(&path)?.len();
    eprintln!(
        "{ENTRIES} entries, {} MB of text, {:.1} MB packed",
        text.len() / 1_000_000,
        packed as f64 / 1e6
    );
    let rate = |mut times: Vec<Duration>| {
        times.sort_unstable();
        ENTRIES as f64 / times[ROUNDS / 2].as_secs_f64()
    };
    for (name, ours, peer, theirs) in [
        ("audit/segment/pack", pack, "gzip -6 of the same text (flate2)", zip),
        (
            "audit/segment/unpack",
            unpack,
            "gunzip of the same text (flate2), nothing checked or written",
            unzip,
        ),
    ] {
        report(name, rate(ours), peer, rate(theirs))?;
    }
    runtime.block_on(log.close());
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

/// Prints a figure, and adds it to the file that `make bench` names.
fn report(name: &str, value: f64, peer: &str, peer_value: f64) -> Result<(), Failure> {
    let figure = json!({
        "name": name, "value": value, "unit": "events/s", "peer": peer, "peer_value": peer_value,
        "ratio": value / peer_value,
    });
    println!("{figure}");
    if let Some(path) = std::env::var_os("SEKISHO_BENCH_OUT") {
        let mut out = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(out, "{figure}")?;
    }
    Ok(())
}
