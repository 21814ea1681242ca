//! The story: one researcher reads one real genome through one brokered session. Every step is
//! asserted; a step that does not hold ends the story with what was seen.

mod refusals;
mod trials;
mod work;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::collector::Collector;
use crate::command::{Ran, Run, run, wait_for};
use crate::node::{Device, INSTITUTIONS, Node, Ports, binary, cgroups};
use crate::plaintext::{Plaintext, search};

/// How many flipped bytes of the log are tried.
const FLIPS: u64 = 48;
/// The files of the genome, as they lie in `tests/data`.
const FILES: [&str; 6] = [
    "NA12878.chr22.tiny.bam",
    "NA12878.chr22.tiny.bam.bai",
    "q.fa",
    "q.fa.fai",
    "q.vcf.gz",
    "NA12878.chr22.tiny.giab.vcf",
];
const BAM: &str = "NA12878.chr22.tiny.bam";
const VCF: &str = "NA12878.chr22.tiny.giab.vcf";

type Chapter = fn(&mut Story) -> Result<()>;

/// The story as it is told: what has been set up so far.
pub struct Story {
    dir: PathBuf,
    data: PathBuf,
    ports: Ports,
    began: SystemTime,
    cgroups: BTreeSet<String>,
    /// The node, once it is up.
    pub node: Option<Node>,
    /// The collector, once it listens.
    pub collector: Option<Collector>,
    admin: Device,
    /// The researcher's device.
    pub alice: Device,
    bob: Device,
    grant: String,
    /// A device whose certificate is left to expire, and since when it has it.
    late: Option<(Device, Instant)>,
}

fn say(line: &str) {
    println!("   {line}");
}

fn held(what: &str) {
    println!("   \u{2713} {what}");
}

impl Story {
    /// A story in the empty folder `dir`, on the data in `data`.
    pub fn new(dir: &Path, data: &Path) -> Result<Story> {
        let ports = Ports::free()?;
        Ok(Story {
            dir: dir.to_owned(),
            data: data.to_owned(),
            ports,
            began: SystemTime::UNIX_EPOCH + filetime(dir)?,
            cgroups: cgroups()?,
            node: None,
            collector: None,
            admin: Device::new(&dir.join("admin"), ports),
            alice: Device::new(&dir.join("alice"), ports),
            bob: Device::new(&dir.join("bob"), ports),
            grant: String::new(),
            late: None,
        })
    }

    /// Tells all of it.
    pub fn tell(&mut self) -> Result<()> {
        let chapters: [(&str, Chapter); 8] = [
            ("A node rises from an empty folder, and a SIEM listens", Story::rise),
            ("A genome is deposited and exists whole nowhere", Story::deposit),
            ("A study is granted the dataset, a researcher gets a certificate of minutes", Story::admit),
            ("The researcher works as if the data lay there", Story::work),
            ("The workspace is a closed room", Story::confine),
            ("Whoever may not, does not, and learns why", Story::refuse),
            ("Backends fail and lie", Story::fail),
            ("The log remembers, and cannot be made to forget", Story::remember),
        ];
        for (number, (title, chapter)) in chapters.into_iter().enumerate() {
            let number = number + 1;
            println!("\n{number}. {title}");
            let began = Instant::now();
            chapter(self).with_context(|| format!("chapter {number}, {title}")).inspect_err(|_| {
                if let Some(node) = &self.node {
                    eprintln!("{}", node.logs());
                }
            })?;
            say(&format!("({:.1} s)", began.elapsed().as_secs_f64()));
        }
        Ok(())
    }

    fn node(&self) -> Result<&Node> {
        self.node.as_ref().context("the node is not up")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.file(name)).with_context(|| format!("{name} cannot be read"))
    }

    /// What to try, once the story is told.
    pub fn commands(&self) -> Result<String> {
        let sekisho = binary("sekisho")?;
        let config = self.alice.home.join("ssh_config");
        let (sekisho, config) = (sekisho.display(), config.display());
        let (admin, alice, dir) = (self.admin.home.display(), self.alice.home.display(), self.dir.display());
        Ok(format!(
            "The node stays up until Ctrl-C. To try:\n\n\
             \x20 {sekisho} --home {alice} ssh brca\n\
             \x20 ssh -F {config} brca@gate samtools view -c /data/na12878/{BAM} q:1000-9000\n\
             \x20 {sekisho} --home {admin} grant list\n\
             \x20 {sekisho} --home {admin} grant revoke {} --reason 'I changed my mind'\n\
             \x20 {sekisho} audit tail --follow --dir {dir}/node/broker/audit\n\
             \x20 tail -f {dir}/collector/received.jsonl\n",
            self.grant
        ))
    }

    /// Ends everything and looks for what was left behind.
    pub fn end(mut self) -> Result<()> {
        let node = self.node.take().context("the node is not up")?;
        let dir = node.dir.clone();
        node.stop()?;
        drop(self.collector.take());
        let mut left = crate::node::left_behind(&dir)?;
        left.extend(cgroups()?.difference(&self.cgroups).cloned());
        ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        println!("   \u{2713} stopped: no process, mount, cgroup or namespace is left");
        Ok(())
    }
}

/// Whether an event has `word` as one of its values, at any depth.
fn has(event: &Value, word: &str) -> bool {
    match event {
        Value::String(text) => text == word || text.ends_with(&format!(":{word}")),
        Value::Array(all) => all.iter().any(|event| has(event, word)),
        Value::Object(all) => all.values().any(|event| has(event, word)),
        _ => false,
    }
}

/// The file system's own idea of now, which is what it will stamp later files with.
fn filetime(dir: &Path) -> Result<Duration> {
    let probe = dir.join(".began");
    fs::write(&probe, b"")?;
    let at = fs::metadata(&probe)?.modified()?.duration_since(SystemTime::UNIX_EPOCH)?;
    fs::remove_file(probe)?;
    Ok(at)
}
