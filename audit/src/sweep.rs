//! Work on many numbered pieces on all processors, and its results in order.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

/// How many pieces are taken at once.
const CHUNK: u64 = 32;
/// More threads would wait for the disk.
const THREADS_MAX: usize = 8;

/// Does `work` for each number below `count`, and hands the results to `take` in the order of the
/// numbers. It ends at the first error in that order.
pub(crate) fn sweep<T: Send, E: Send>(
    count: u64,
    work: impl Fn(u64) -> Result<T, E> + Sync,
    mut take: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    if count <= CHUNK {
        return (0..count).try_for_each(|n| take(work(n)?));
    }
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (done, results) = sync_channel(2 * threads);
    thread::scope(|scope| {
        for _ in 0..threads {
            let (done, next, over, work) = (done.clone(), &next, &over, &work);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let chunk = next.fetch_add(1, Ordering::Relaxed);
                    let from = chunk.saturating_mul(CHUNK);
                    if from >= count {
                        return;
                    }
                    let pieces: Vec<Result<T, E>> = (from..count.min(from + CHUNK)).map(work).collect();
                    // Nobody takes it any more: an error came before it.
                    if done.send((chunk, pieces)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut waiting = BTreeMap::new();
        let mut due = 0;
        let outcome = (|| {
            for (chunk, pieces) in &results {
                waiting.insert(chunk, pieces);
                while let Some(pieces) = waiting.remove(&due) {
                    due += 1;
                    pieces.into_iter().try_for_each(|piece| take(piece?))?;
                }
            }
            Ok(())
        })();
        over.store(true, Ordering::Relaxed);
        // Who waits to hand something over is released.
        drop(results);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_end_at_the_first_error() {
        for count in [0, 1, 31, 32, 33, 5000] {
            let mut seen = Vec::new();
            let all = sweep(count, Ok::<u64, u64>, |n| {
                seen.push(n);
                Ok(())
            });
            assert_eq!((all, seen), (Ok(()), (0..count).collect()));
        }
        let mut seen = 0;
        let faulty = |n| if n >= 777 { Err(n) } else { Ok(n) };
        let end = sweep(1_000_000, faulty, |_| {
            seen += 1;
            Ok(())
        });
        assert_eq!((end, seen), (Err(777), 777));
        assert_eq!(sweep(1000, Ok::<u64, u64>, |n| if n == 40 { Err(n) } else { Ok(()) }), Err(40));
    }
}
