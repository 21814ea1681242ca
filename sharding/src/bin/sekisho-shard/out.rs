//! What is shown: results on standard output, everything else on standard error.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sharding::vault::{Fault, FaultKind};

use crate::say;
use crate::words::{Key, Lang, Message};

/// How results are shown.
#[derive(Clone)]
pub struct Out {
    /// The language of words.
    pub lang: Lang,
    /// One JSON object instead of words.
    pub json: bool,
    quiet: bool,
    bars: MultiProgress,
    seen: Seen,
}

/// Faults that were met, by folder and kind: how many, and the first.
type Seen = Arc<Mutex<BTreeMap<(String, FaultKind), (u64, Fault)>>>;

impl Out {
    /// Shows nothing yet.
    pub fn new(lang: Lang, json: bool, quiet: bool) -> Out {
        Out { lang, json, quiet, bars: MultiProgress::new(), seen: Seen::default() }
    }

    /// The words of a message.
    pub fn text(&self, message: &Message) -> String {
        message.text(self.lang)
    }

    /// A size for people.
    pub fn size(&self, bytes: u64) -> String {
        crate::units::size(bytes, self.lang)
    }

    /// The result, for people or for programs. That nobody reads it any more (`… | head`) is no
    /// fault of what was done.
    pub fn result(&self, lines: &[Message], value: &Value) {
        let mut to = std::io::stdout().lock();
        if self.json {
            let _ = writeln!(to, "{value}");
        } else {
            for line in lines {
                let _ = writeln!(to, "{}", self.text(line));
            }
        }
        let _ = to.flush();
    }

    /// The same on standard error, where standard output has the data.
    pub fn beside_data(&self, lines: &[Message], value: &Value) {
        if self.json {
            self.error_line(&value.to_string());
        } else {
            lines.iter().for_each(|line| self.note(line));
        }
    }

    /// Advice.
    pub fn note(&self, message: &Message) {
        if !self.quiet && !self.json {
            self.error_line(&self.text(message));
        }
    }

    /// A line on standard error, above the progress.
    pub fn error_line(&self, text: &str) {
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    /// Hears of a backend's fault: the first of its kind is shown at once, the others are counted.
    pub fn fault(&self, fault: Fault) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match seen.get_mut(&(fault.institution.clone(), fault.kind)) {
            Some((count, _)) => {
                *count += 1;
                false
            }
            None => {
                seen.insert((fault.institution.clone(), fault.kind), (1, fault.clone()));
                true
            }
        };
        drop(seen);
        if first && !self.json && !self.quiet {
            self.error_line(&format!("sekisho-shard: {}", self.fault_text(&fault)));
        }
    }

    /// Tells how often faults were met that were shown once.
    pub fn faults_in_all(&self) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for ((folder, kind), (count, _)) in seen.iter().filter(|(_, (count, _))| *count > 1) {
            self.note(&say!(
                FaultsMore,
                folder = folder,
                kind = kind_key(*kind).text(self.lang),
                count = count
            ));
        }
    }

    /// The faults that were met, for programs.
    pub fn faults_json(&self) -> Value {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |((folder, kind), (count, first)): (&(String, FaultKind), &(u64, Fault))| {
            json!({"folder": folder, "kind": kind.code(), "count": count,
                "first": {"block": first.block, "detail": first.detail}})
        };
        seen.iter().map(one).collect()
    }

    /// A fault in words.
    pub fn fault_text(&self, fault: &Fault) -> String {
        let place = fault.block.map(|block| self.text(&say!(InBlock, block = block))).unwrap_or_default();
        // That it is not there says everything.
        let plain = fault.detail.is_empty() || fault.kind == FaultKind::Missing;
        let detail = if plain { String::new() } else { format!(" ({})", fault.detail) };
        let (folder, kind) = (&fault.institution, kind_key(fault.kind).text(self.lang));
        self.text(&say!(FaultSeen, folder = folder, kind = kind, place = place, detail = detail))
    }

    /// Progress over `size` bytes, or over as many as come. Shown on a terminal only.
    pub fn bar(&self, what: Key, size: Option<u64>) -> Bar {
        if self.quiet || self.json {
            return Bar(ProgressBar::hidden());
        }
        let (bar, template) = match size {
            Some(size) => {
                (ProgressBar::new(size), "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta}")
            }
            None => (ProgressBar::no_length(), "{msg} {spinner} {bytes} {bytes_per_sec}, {elapsed}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let bar = self.bars.add(bar);
        bar.set_message(what.text(self.lang));
        Bar(bar)
    }
}

/// A fault for programs.
pub fn fault_json(fault: &Fault) -> Value {
    json!({"folder": fault.institution, "kind": fault.kind.code(), "block": fault.block,
        "detail": fault.detail})
}

fn kind_key(kind: FaultKind) -> Key {
    match kind {
        FaultKind::Missing => Key::KindMissing,
        FaultKind::Corrupt => Key::KindCorrupt,
        FaultKind::Short => Key::KindShort,
        FaultKind::Unreachable => Key::KindUnreachable,
        FaultKind::Timeout => Key::KindTimeout,
    }
}

/// Progress, which goes when it is dropped.
pub struct Bar(ProgressBar);

impl Bar {
    /// So many bytes are done.
    pub fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
