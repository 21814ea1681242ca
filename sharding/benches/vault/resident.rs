//! The memory of a large deposit: a process of its own shares out more than the machine would hold,
//! one backend four times slower than the others, and tells the most it had resident.
//!
//! The backends swallow what they get, because five folders would not have the room.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::BoxStream;
use model::{BackendId, ObjectId, SeededEntropy};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use sharding::format::Mode;
use sharding::vault::{Backend, Options, Vault};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::{mib, tell};

/// The argument that makes this programme the depositor.
pub const CHILD: &str = "--deposit-and-tell";
/// What is promised, in MiB.
const LIMIT: f64 = 256.0;

pub fn measure() {
    let size = mib("SEKISHO_BENCH_RESIDENT_MIB", 16 << 10);
    for mode in [Mode::Shamir, Mode::Compact] {
        let this = std::env::current_exe().expect("this programme");
        let out = Command::new(this).args([CHILD, &mode.to_string(), &size.to_string()]).output();
        let out = out.expect("the depositor");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let peak: f64 = String::from_utf8_lossy(&out.stdout).trim().parse().expect("a figure");
        let name = match mode {
            Mode::Shamir => "deposit/resident",
            Mode::Compact => "deposit/resident/compact",
        };
        tell(name, peak, "MiB", "limit", LIMIT, LIMIT / peak);
    }
}

/// Deposits and prints the most MiB that were resident.
pub fn child(mut args: impl Iterator<Item = String>) {
    let mode: Mode = args.next().and_then(|text| text.parse().ok()).expect("a mode");
    let size: u64 = args.next().and_then(|text| text.parse().ok()).expect("a size");
    let backends = (1..=5u32).map(|at| Backend {
        id: BackendId::from_name(&format!("b{at}")).expect("an id"),
        institution: format!("institution {at}"),
        store: Arc::new(Swallows { pause: Duration::from_millis(if at == 5 { 8 } else { 2 }) }),
    });
    let options = Options { mode, ..Options::default() };
    let vault = Vault::new(backends.collect(), 3, options).expect("a threshold");
    let object = ObjectId::from_name("genome").expect("an id");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let deposited = runtime.block_on(async {
        vault.deposit(&object, Same.take(size << 20), &SeededEntropy::new(1), |_| {}).await
    });
    assert_eq!(deposited.expect("a deposit").size, size << 20);
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    let kib: f64 = peak.trim().trim_end_matches(" kB").parse().expect("a figure");
    println!("{}", kib / 1024.0);
}

/// The same byte again and again.
struct Same;

impl AsyncRead for Same {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining().min(1 << 20);
        buffer.initialize_unfilled_to(room).fill(b'A');
        buffer.advance(room);
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug)]
struct Swallows {
    pause: Duration,
}

impl std::fmt::Display for Swallows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a backend that keeps nothing")
    }
}

fn nothing(path: &Path) -> Error {
    Error::NotFound { path: path.to_string(), source: "it keeps nothing".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Swallows {
    async fn put_opts(&self, _: &Path, payload: PutPayload, _: PutOptions) -> Result<PutResult> {
        tokio::time::sleep(self.pause).await;
        drop(payload);
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(nothing(path))
    }

    async fn get_opts(&self, path: &Path, _: GetOptions) -> Result<GetResult> {
        Err(nothing(path))
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        paths
    }

    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        Box::pin(futures::stream::empty())
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Ok(ListResult { common_prefixes: vec![], objects: vec![], extensions: Default::default() })
    }

    async fn copy_opts(&self, from: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(nothing(from))
    }
}
