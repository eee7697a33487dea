//! The device thread and its two queues: it executes ops in order, and at each op boundary work of the expert lane goes
//! first. Nothing here waits for a peer.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::backend::{BackendError, Lane, Report, Ticket};
use crate::program::{BufferKind, Program};

use super::pool::SPIN;
use super::run::{Device, Run};

/// Runs of one lane that may be queued, under way or waiting to be claimed.
const DEPTH: usize = 4;

/// One run on its way.
pub(super) struct Job {
    pub(super) program: Arc<Program>,
    pub(super) run: Run,
    ticket: Ticket,
}

#[derive(Default)]
struct State {
    step: VecDeque<Job>,
    expert: VecDeque<Job>,
    /// `None` while queued or under way.
    results: HashMap<Ticket, (Lane, Option<Result<Report, BackendError>>)>,
    /// Entries of `results` by lane.
    unclaimed: [usize; 2],
    last_ticket: u64,
    lost: Option<String>,
    stop: bool,
}

/// Both queues, shared by the lanes and the device thread.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Queued jobs: step lane, expert lane.
    queued: [AtomicUsize; 2],
    finished: AtomicUsize,
    /// Ops begun.
    ops: AtomicU64,
    work: Condvar,
    done: Condvar,
}

fn index(lane: Lane) -> usize {
    match lane {
        Lane::Step => 0,
        Lane::Expert => 1,
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`BackendError::DeviceLost`], or [`BackendError::Misuse`] when the lane's queue is full.
    pub(super) fn submit(&self, program: Arc<Program>, run: Run, lane: Lane) -> Result<Ticket, BackendError> {
        let mut state = self.lock();
        if let Some(why) = &state.lost {
            return Err(BackendError::DeviceLost(why.clone()));
        }
        if state.unclaimed[index(lane)] == DEPTH {
            return Err(BackendError::Misuse(format!("lane {lane:?} has {DEPTH} unclaimed runs, which is the most")));
        }
        state.unclaimed[index(lane)] += 1;
        state.last_ticket += 1;
        let ticket = Ticket(state.last_ticket);
        state.results.insert(ticket, (lane, None));
        let queue = if lane == Lane::Step { &mut state.step } else { &mut state.expert };
        queue.push_back(Job { program, run, ticket });
        self.queued[index(lane)].fetch_add(1, Ordering::Release);
        drop(state);
        self.work.notify_one();
        Ok(ticket)
    }

    /// # Errors
    /// What the run met, or [`BackendError::Misuse`] for a ticket that is unknown or taken.
    pub(super) fn wait(&self, ticket: Ticket) -> Result<Report, BackendError> {
        let mut state = self.lock();
        loop {
            match state.results.get(&ticket) {
                None => return Err(BackendError::Misuse(format!("ticket {} is unknown or taken", ticket.0))),
                Some((_, Some(_))) => break,
                Some((_, None)) => {}
            }
            let seen = self.finished.load(Ordering::Acquire);
            drop(state);
            spin_while(|| self.finished.load(Ordering::Acquire) == seen);
            state = self.lock();
            if state.results.get(&ticket).is_some_and(|(_, result)| result.is_none()) {
                state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        let claimed = state.results.remove(&ticket);
        claimed.and_then(|(lane, result)| result.map(|result| (lane, result))).map_or_else(
            || Err(BackendError::Misuse(format!("ticket {} is taken", ticket.0))),
            |(lane, result)| {
                state.unclaimed[index(lane)] -= 1;
                result
            },
        )
    }

    /// How many ops were begun.
    pub(super) fn ops(&self) -> u64 {
        self.ops.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.work.notify_all();
    }

    fn take(&self, lane: Lane) -> Option<Job> {
        if self.queued[index(lane)].load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut state = self.lock();
        let queue = if lane == Lane::Step { &mut state.step } else { &mut state.expert };
        let job = queue.pop_front();
        if job.is_some() {
            self.queued[index(lane)].fetch_sub(1, Ordering::Relaxed);
        }
        job
    }

    /// Waits until a job is queued; false to stop.
    fn wait_for_work(&self) -> bool {
        let idle = || self.queued.iter().all(|queued| queued.load(Ordering::Acquire) == 0);
        spin_while(idle);
        let mut state = self.lock();
        while idle() {
            if state.stop {
                return false;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    fn finish(&self, ticket: Ticket, lane: Lane, result: Result<Report, BackendError>) {
        let mut state = self.lock();
        if let Err(BackendError::DeviceLost(why)) = &result {
            state.lost = Some(why.clone());
        }
        state.results.insert(ticket, (lane, Some(result)));
        self.finished.fetch_add(1, Ordering::Release);
        drop(state);
        self.done.notify_all();
    }

    /// The device thread: carries out one op after the other until [`Self::stop`].
    pub(super) fn serve(&self, mut device: Device, mut order: Order) {
        let mut active: [Option<Active>; 2] = [None, None];
        loop {
            for lane in [Lane::Step, Lane::Expert] {
                let slot = &mut active[index(lane)];
                if slot.is_none() {
                    *slot = self.take(lane).map(|job| Active { job, done: 0 });
                }
            }
            let lane = match &active {
                [None, None] if self.wait_for_work() => continue,
                [None, None] => return,
                [Some(_), None] => Lane::Step,
                [None, Some(_)] => Lane::Expert,
                [Some(_), Some(_)] => order.next(),
            };
            self.ops.fetch_add(1, Ordering::Relaxed);
            let slot = &mut active[index(lane)];
            if let Some(result) = slot.as_mut().and_then(|active| active.advance(&mut device))
                && let Some(finished) = slot.take()
            {
                self.finish(finished.job.ticket, lane, result.map(|()| finished.job.run.report));
            }
        }
    }
}

/// Which lane goes on at an op boundary when both have work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum Order {
    /// Peers are served first.
    ExpertFirst,
    /// Either, drawn from a counter: a test's way to meet many interleavings.
    Seeded(u64),
}

impl Order {
    fn next(&mut self) -> Lane {
        match self {
            Self::ExpertFirst => Lane::Expert,
            Self::Seeded(state) => {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if *state >> 63 == 0 { Lane::Step } else { Lane::Expert }
            }
        }
    }
}

/// A run under way.
struct Active {
    job: Job,
    /// Ops done.
    done: usize,
}

impl Active {
    /// Carries out the next op; the run's end, when it is reached.
    fn advance(&mut self, device: &mut Device) -> Option<Result<(), BackendError>> {
        let Job { program, run, .. } = &mut self.job;
        if self.done == 0 && run.poison {
            poison(run);
        }
        let Some(step) = program.steps.get(self.done) else {
            return Some(Ok(()));
        };
        self.done += 1;
        match catch_unwind(AssertUnwindSafe(|| run.step(device, step))) {
            Ok(Ok(())) => (self.done == program.steps.len()).then_some(Ok(())),
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => {
                let place = format!("{} of layer {}", step.op.name(), step.layer);
                Some(Err(BackendError::DeviceLost(format!("a kernel panicked in {place}"))))
            }
        }
    }
}

/// Fills all scratch with NaN (all bits set, for ids too).
fn poison(run: &Run) {
    for buffer in run.memory.buffers().filter(|buffer| buffer.decl.kind == BufferKind::Scratch) {
        buffer.write::<u8>().fill(0xff);
    }
}

/// Spins while `condition` holds, for a few microseconds at most.
fn spin_while(condition: impl Fn() -> bool) {
    let since = Instant::now();
    while condition() && since.elapsed() < SPIN {
        for _ in 0..16 {
            std::hint::spin_loop();
        }
    }
}
