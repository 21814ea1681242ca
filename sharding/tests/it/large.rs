//! More than 2³² bytes: offsets, extents and manifests beyond every 32-bit edge.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream::BoxStream;
use model::{BackendId, ObjectId, SeededEntropy};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use sharding::format::{EXTENT, Mode};
use sharding::vault::{Backend, Options, Vault};
use tokio::io::{AsyncRead, ReadBuf};

/// Five gibibytes and three bytes.
const SIZE: u64 = (5 << 30) + 3;

/// Plaintext that is known at every place without being anywhere: the place, over and over.
struct Counting(u64);

fn byte(at: u64) -> u8 {
    (at >> (8 * (at % 8))) as u8
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let room = (buffer.remaining() as u64).min(SIZE - self.0).min(1 << 20) as usize;
        let from = self.0;
        let bytes = buffer.initialize_unfilled_to(room);
        // All but the bytes that are looked at later are zero: a sparse file.
        if is_kept(from / EXTENT) || is_kept((from + room as u64) / EXTENT) {
            for (at, byte_here) in (from..).zip(bytes.iter_mut()) {
                *byte_here = byte(at);
            }
        } else {
            bytes.fill(0);
        }
        buffer.advance(room);
        self.0 += room as u64;
        std::task::Poll::Ready(Ok(()))
    }
}

/// The extents that the test looks at: the first, those around 4 GiB, and the last.
fn is_kept(extent: u64) -> bool {
    [0, 1023, 1024, SIZE / EXTENT - 1, SIZE / EXTENT].contains(&extent)
}

/// Keeps what the test looks at, and only counts the rest.
#[derive(Debug)]
struct Selective {
    inner: InMemory,
    dropped: Mutex<u64>,
}

impl std::fmt::Display for Selective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a backend that keeps a part")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Selective {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let extent = path.filename().and_then(|name| u64::from_str_radix(name.get(..8)?, 16).ok());
        let is_extent = path.filename().is_some_and(|name| name.len() == 41);
        if is_extent && !extent.is_some_and(is_kept) {
            *self.dropped.lock().unwrap() += 1;
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_gibibytes_and_three_bytes_read_back_beyond_every_32_bit_edge() {
    for mode in [Mode::Shamir, Mode::Compact] {
        let stores: Vec<Arc<Selective>> =
            (0..2).map(|_| Arc::new(Selective { inner: InMemory::new(), dropped: Mutex::new(0) })).collect();
        let backends = stores.iter().enumerate().map(|(at, store)| Backend {
            id: BackendId::from_name(&format!("b{at}")).unwrap(),
            institution: format!("institution {at}"),
            store: store.clone(),
        });
        let vault = Vault::new(backends.collect(), 2, Options { mode, ..Options::default() }).unwrap();
        let object = ObjectId::from_name("large").unwrap();
        let last = Mutex::new(0);
        let progress = |done| *last.lock().unwrap() = done;
        let deposited = vault.deposit(&object, Counting(0), &SeededEntropy::new(1), progress).await.unwrap();
        assert_eq!((deposited.size, *last.lock().unwrap()), (SIZE, SIZE));
        assert_eq!(*stores[0].dropped.lock().unwrap(), SIZE / EXTENT + 1 - 5);
        let reader = vault.open(&object, &deposited.root).await.unwrap();
        assert_eq!(reader.size(), SIZE);
        let edge = 1 << 32;
        for (from, len) in [
            (0, 100),
            (edge - EXTENT, 10),
            (edge - 70_000, 140_000),
            (edge - 1, 2),
            (edge, EXTENT as usize),
            (SIZE - 4_000_000, 4_000_000),
            (SIZE - 1, 100),
            (SIZE, 1),
        ] {
            let read = reader.read_at(from, len).await.unwrap();
            let expected: Vec<u8> = (from..SIZE.min(from + len as u64)).map(byte).collect();
            assert!(*read == expected, "{mode} {from} {len}");
        }
        let streamed: Vec<u8> = reader
            .stream(edge - 100..edge + 100)
            .fold(Vec::new(), async |mut all, part| {
                all.extend_from_slice(&part.unwrap());
                all
            })
            .await;
        assert!(streamed == (edge - 100..edge + 100).map(byte).collect::<Vec<u8>>());
    }
}
