//! Helper threads for one caller: fork and join in well under a microsecond while they are awake.
//!
//! Helpers spin for at most 20 µs after their last work, then park. A helper that comes late to a job is not waited
//! for. Which thread runs which piece never matters to a result.
#![expect(unsafe_code, reason = "a borrowed closure is lent to threads that live longer")]

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Multiply-adds of a piece: less than the progress deadline of a group on any machine that serves.
const LONGEST: usize = 1 << 30;

/// How long a thread spins before it parks.
pub(super) const SPIN: Duration = Duration::from_micros(20);

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;
const EPOCH: u64 = 1 << 32;

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// epoch (32 bits) ‖ open (1) ‖ helpers inside (31).
    gate: AtomicU64,
    next: AtomicUsize,
    pieces: AtomicUsize,
    /// Pieces begun, of all jobs.
    begun: Arc<AtomicU64>,
    job: UnsafeCell<Option<Job>>,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `job` is written only while the gate is closed and nobody is inside, and read only inside.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Threads that help their owner; `threads − 1` of them.
pub(super) struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Counts in `begun` every piece of every job when it begins.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(super) fn new(threads: usize, begun: Arc<AtomicU64>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            pieces: AtomicUsize::new(0),
            begun,
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut pool = Self { shared, helpers: Vec::new() };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = std::thread::Builder::new().name(format!("cpu-{index}"));
            pool.helpers.push(builder.spawn(move || help(&shared))?);
        }
        Ok(pool)
    }

    /// Threads that work, the caller included.
    pub(super) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Pieces worth making of `work` multiply-adds that can be cut in at most `most`.
    pub(super) fn pieces(&self, work: usize, most: usize) -> usize {
        const WORTH_SHARING: usize = 1 << 16;
        let shared = if self.helpers.is_empty() { 1 } else { (work / WORTH_SHARING).min(self.threads() * 4) };
        shared.max(work / LONGEST).min(most).max(1)
    }

    /// Calls `job` once for each of `0..pieces`, on any thread; returns when all are done.
    ///
    /// # Panics
    /// When a piece did.
    pub(super) fn run(&mut self, pieces: usize, job: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        if pieces <= 1 || self.helpers.is_empty() {
            for piece in 0..pieces {
                shared.begun.fetch_add(1, Ordering::Relaxed);
                job(piece);
            }
            return;
        }
        // SAFETY: only the lifetime changes. The gate is closed below, and everyone has left, before this returns.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(job) };
        // SAFETY: the gate is closed and empty: `&mut self`, and every run leaves it so.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        shared.pieces.store(pieces, Ordering::Relaxed);
        let epoch = (shared.gate.load(Ordering::Relaxed) & !(EPOCH - 1)).wrapping_add(EPOCH);
        shared.gate.store(epoch | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            drop(shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
            shared.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(shared, job)));
        shared.gate.fetch_and(!OPEN, Ordering::AcqRel);
        leave_together(shared);
        assert!(own.is_ok() && !shared.panicked.swap(false, Ordering::Relaxed), "a kernel panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wake.notify_all();
        for helper in self.helpers.drain(..) {
            // A helper catches its panics, so there is nothing to learn here.
            let _ = helper.join();
        }
    }
}

/// Waits until no helper is inside. One that lost its core gets it back sooner when this thread yields its own.
fn leave_together(shared: &Shared) {
    let since = Instant::now();
    while shared.gate.load(Ordering::Acquire) & INSIDE != 0 {
        if since.elapsed() < SPIN {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

fn work(shared: &Shared, job: Job) {
    loop {
        let piece = shared.next.fetch_add(1, Ordering::Relaxed);
        if piece >= shared.pieces.load(Ordering::Relaxed) {
            return;
        }
        shared.begun.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the owner waits for everyone inside before the closure's borrow ends.
        unsafe { (*job)(piece) };
    }
}

fn help(shared: &Shared) {
    let mut done = 0;
    while let Some(gate) = next_job(shared, done) {
        // Enter only while the gate is still open for the same job.
        if shared.gate.compare_exchange(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            std::hint::spin_loop();
            continue;
        }
        done = gate / EPOCH;
        // SAFETY: inside; the owner wrote it before it opened the gate.
        if let Some(job) = unsafe { *shared.job.get() }
            && catch_unwind(AssertUnwindSafe(|| work(shared, job))).is_err()
        {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.gate.fetch_sub(1, Ordering::Release);
    }
}

/// The gate when it stands open for a job after `done`; `None` when the pool stops.
fn next_job(shared: &Shared, done: u64) -> Option<u64> {
    let is_new = |gate: u64| gate & OPEN != 0 && gate / EPOCH != done;
    let since = Instant::now();
    loop {
        for _ in 0..64 {
            let gate = shared.gate.load(Ordering::Acquire);
            if is_new(gate) {
                return Some(gate);
            }
            std::hint::spin_loop();
        }
        if shared.stop.load(Ordering::Relaxed) {
            return None;
        }
        if since.elapsed() > SPIN {
            break;
        }
    }
    let mut guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
    shared.sleepers.fetch_add(1, Ordering::SeqCst);
    let found = loop {
        let gate = shared.gate.load(Ordering::SeqCst);
        if is_new(gate) {
            break Some(gate);
        }
        if shared.stop.load(Ordering::SeqCst) {
            break None;
        }
        guard = shared.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
    };
    shared.sleepers.fetch_sub(1, Ordering::SeqCst);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_exactly_once_however_many_threads_there_are() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads, Arc::default()).unwrap();
            for pieces in [0, 1, 2, 7, 100] {
                for _ in 0..50 {
                    let hits: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                    pool.run(pieces, &|piece| {
                        hits[piece].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(hits.iter().all(|hit| hit.load(Ordering::Relaxed) == 1));
                }
            }
        }
    }

    #[test]
    fn long_work_is_cut_even_for_one_thread_and_whoever_waits_sees_each_piece_begin() {
        for threads in [1, 2] {
            let begun = Arc::new(AtomicU64::new(0));
            let mut pool = Pool::new(threads, Arc::clone(&begun)).unwrap();
            assert_eq!(pool.pieces(LONGEST - 1, usize::MAX), if threads == 1 { 1 } else { 8 });
            let pieces = pool.pieces(40 * LONGEST, usize::MAX);
            assert_eq!((pieces, pool.pieces(40 * LONGEST, 7)), (40, 7));
            // The thread's own count may be behind others' when there are others.
            let seen: Vec<AtomicU64> = (0..pieces).map(|_| AtomicU64::new(0)).collect();
            pool.run(pieces, &|piece| seen[piece].store(begun.load(Ordering::Relaxed), Ordering::Relaxed));
            assert!(seen.iter().enumerate().all(|(piece, seen)| seen.load(Ordering::Relaxed) > piece as u64 / 2));
            assert_eq!(begun.load(Ordering::Relaxed), 40);
        }
    }

    #[test]
    fn a_panic_in_a_piece_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(3, Arc::default()).unwrap();
        let failed = catch_unwind(AssertUnwindSafe(|| pool.run(20, &|piece| assert!(piece != 13))));
        assert!(failed.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(10, &|piece| {
            sum.fetch_add(piece, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }
}
