use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use model::Timestamp;
use serde::Serialize;

const FILE: &str = "journal.jsonl";

/// What was asked of the signer and what it did, a line of JSON each, appended and flushed to disk
/// before the answer leaves. It is for the hour after a break-in: which certificates exist.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    /// The last line may be there in part only.
    torn: bool,
}

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    pub at: Timestamp,
    /// The user id of the process that asked.
    pub uid: u32,
    /// `ssh_user`, `ssh_host` or `x509`.
    pub what: &'static str,
    /// Who the certificate speaks for.
    pub subject: &'a str,
    /// SHA-256 of the certificate (X.509) or the fingerprint of its key (OpenSSH).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<u64>,
    pub lifetime_secs: u64,
    /// Why it was refused; issued if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<&'a str>,
}

impl Journal {
    /// Opens the journal in the current folder.
    pub(crate) fn open() -> anyhow::Result<Journal> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(FILE)
            .context("the journal cannot be opened")?;
        let torn = is_torn(&mut file).context("the journal cannot be continued")?;
        crate::files::sync_folder(".".as_ref()).context("the journal's name cannot be flushed")?;
        Ok(Journal { file, torn })
    }

    /// Appends a line and waits until it is on disk.
    pub(crate) fn append(&mut self, line: &Line<'_>) -> io::Result<()> {
        let mut text = Vec::new();
        if self.torn {
            // What a crash or a full disk cut short gets its end, so that this line stands alone.
            text.push(b'\n');
        }
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
        self.torn = true;
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.torn = false;
        Ok(())
    }
}

fn is_torn(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
