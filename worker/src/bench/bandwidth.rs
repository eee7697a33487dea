//! How fast the compute threads can read memory: the roofline of a step that reads its weights once.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::time::Instant;

use super::BenchError;

/// Bytes read in one pass; more than any cache holds.
const BYTES: usize = 1 << 30;
/// The median of so many passes counts; together they read more than 4 GB.
const PASSES: usize = 5;

/// Gigabytes (10⁹ bytes) a second that `threads` threads read together, the median of five passes over 1 GiB.
///
/// # Errors
/// When there is no room for the bytes.
pub(super) fn read(threads: NonZeroUsize) -> Result<f64, BenchError> {
    let words = BYTES / size_of::<u64>();
    let mut memory: Vec<u64> = Vec::new();
    let no_room = |_| BenchError::System {
        what: "1 GiB to measure the memory's speed",
        source: std::io::ErrorKind::OutOfMemory.into(),
    };
    memory.try_reserve_exact(words).map_err(no_room)?;
    // Written once, so that every page is there; not zero, which the system might keep in one page.
    memory.resize(words, 1);
    let share = words.div_ceil(threads.get());
    let start = Barrier::new(threads.get() + 1);
    let finish = Barrier::new(threads.get() + 1);
    let mut seconds = Vec::with_capacity(PASSES);
    std::thread::scope(|scope| {
        for part in 0..threads.get() {
            let mine = memory.chunks(share).nth(part).unwrap_or(&[]);
            let (start, finish) = (&start, &finish);
            scope.spawn(move || {
                for _ in 0..PASSES {
                    start.wait();
                    black_box(sum(black_box(mine)));
                    finish.wait();
                }
            });
        }
        for _ in 0..PASSES {
            start.wait();
            let begun = Instant::now();
            finish.wait();
            seconds.push(begun.elapsed().as_secs_f64());
        }
    });
    seconds.sort_by(f64::total_cmp);
    Ok(BYTES as f64 / seconds[PASSES / 2] / 1e9)
}

/// Several sums side by side: one alone would wait for its own additions, not for memory.
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0_u64; 32];
    for block in words.chunks_exact(32) {
        for (sum, word) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
