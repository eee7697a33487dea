//! The CPU backend: one device thread and its pool walk the ops of both lanes.
//!
//! A row's bits depend on its own request only: not on the number of rows, on chunking, threads, sharding or level.
//! Never reads the environment, never waits for a peer.

mod attend;
mod cache;
mod dense;
mod encoded;
mod epilogue;
mod experts;
mod head;
mod lanes;
mod level;
mod lists;
mod math;
mod matmul;
mod memory;
mod pool;
mod queue;
mod route;
mod run;
mod runs;
mod tree;

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

pub use level::Level;

use super::check::check;
use super::control::{Bounds, sequence_of_rows};
use super::{Backend, BackendError, Capabilities, Control, Executable, Lane, Report, Ticket};
use crate::program::{BufferDecl, BufferId, BufferKind, Program, Segment};

use level::Available;
use memory::{Buffer, Memory};
use pool::Pool;
pub(in crate::backend) use queue::Order;
use queue::Queue;
use run::{Device, Run};

/// Raised when the bits of any kernel change.
const KERNEL_REVISION: u32 = 1;

/// How to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads that compute.
    pub threads: NonZeroUsize,
    /// Instruction level; `None` takes the highest of this machine.
    pub level: Option<Level>,
}

/// A compiled program.
#[derive(Clone)]
struct Compiled {
    program: Arc<Program>,
    memory: Memory,
    bounds: Bounds,
}

#[derive(Default)]
struct Loaded {
    memory: Memory,
    compiled: Vec<Compiled>,
    /// Buffers written by segments of each lane, ports aside: no buffer may be in both.
    written: [HashSet<BufferId>; 2],
}

/// The CPU as a device.
pub struct CpuBackend {
    name: &'static str,
    level: Level,
    loaded: Mutex<Loaded>,
    queue: Arc<Queue>,
    /// Pieces of ops begun.
    begun: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl CpuBackend {
    /// Starts the device thread and its pool.
    ///
    /// # Errors
    /// [`BackendError::Misuse`] for a level that this machine lacks, [`BackendError::DeviceLost`] without threads.
    pub fn new(options: CpuOptions) -> Result<Self, BackendError> {
        Self::named("cpu", options, Order::ExpertFirst)
    }

    pub(super) fn named(name: &'static str, options: CpuOptions, order: Order) -> Result<Self, BackendError> {
        let level = Available::check(options.level.unwrap_or_else(Level::detect))?;
        let no_thread = |error: std::io::Error| BackendError::DeviceLost(format!("cannot start a thread: {error}"));
        let begun = Arc::new(AtomicU64::new(0));
        let device = Device { pool: Pool::new(options.threads.get(), Arc::clone(&begun)).map_err(no_thread)?, level };
        let queue = Arc::new(Queue::default());
        let served = Arc::clone(&queue);
        let builder = std::thread::Builder::new().name("cpu-0".into());
        let thread = builder.spawn(move || served.serve(device, order)).map_err(no_thread)?;
        let loaded = Mutex::new(Loaded::default());
        Ok(Self { name, level: level.level(), loaded, queue, begun, thread: Some(thread) })
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buffer(&self, id: BufferId, kind: BufferKind, end: usize) -> Result<Arc<Buffer>, BackendError> {
        let loaded = self.loaded();
        let misuse = |message: String| Err(BackendError::Misuse(message));
        let Some(buffer) = loaded.memory.find(id) else {
            return misuse(format!("buffer {} is not allocated", id.0));
        };
        let decl = &buffer.decl;
        if decl.kind != kind {
            return misuse(format!("{} is of kind {:?}; needed: {kind:?}", decl.name, decl.kind));
        }
        if end > decl.bytes() {
            return misuse(format!("{} has {} bytes; {end} were named", decl.name, decl.bytes()));
        }
        Ok(Arc::clone(buffer))
    }

    /// As [`Backend::submit`]; with `poison`, scratch and padding rows are NaN before the run.
    pub(super) fn enqueue(
        &self,
        executable: Executable,
        control: &Control,
        lane: Lane,
        poison: bool,
    ) -> Result<Ticket, BackendError> {
        let compiled = self.loaded().compiled.get(executable.0 as usize).cloned();
        let Some(Compiled { program, memory, bounds }) = compiled else {
            return Err(BackendError::Misuse(format!("executable {} is unknown", executable.0)));
        };
        if lane != lane_of(program.segment) {
            return Err(BackendError::Misuse(format!("{:?} does not run on lane {lane:?}", program.segment)));
        }
        bounds.check(control)?;
        let control = control.clone();
        let sequences = sequence_of_rows(&control);
        self.queue.submit(program, Run { memory, control, sequences, poison, report: Report::default() }, lane)
    }
}

/// The lane that a segment runs on.
fn lane_of(segment: Segment) -> Lane {
    match segment {
        Segment::Serve(_) => Lane::Expert,
        Segment::Whole | Segment::Front(_) | Segment::Local(_) => Lane::Step,
    }
}

impl Backend for CpuBackend {
    fn capabilities(&self) -> Capabilities {
        let level = self.level.name().to_owned();
        Capabilities { name: self.name, level, dynamic_rows: true, kernel_revision: KERNEL_REVISION }
    }

    fn alloc(&self, id: BufferId, decl: &BufferDecl) -> Result<(), BackendError> {
        if self.loaded().memory.find(id).is_some() {
            return Err(BackendError::Misuse(format!("buffer {} ({}) exists already", id.0, decl.name)));
        }
        let buffer = Arc::new(Buffer::new(decl)?);
        self.loaded().memory.insert(id, buffer);
        Ok(())
    }

    fn upload(&self, id: BufferId, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        let end = offset.saturating_add(bytes.len());
        let buffer = self.buffer(id, BufferKind::Weight, end)?;
        if !self.loaded().compiled.is_empty() {
            return Err(BackendError::Misuse(format!("{} is read only since the first compile", buffer.decl.name)));
        }
        buffer.write::<u8>()[offset..end].copy_from_slice(bytes);
        Ok(())
    }

    fn compile(&self, program: &Program) -> Result<Executable, BackendError> {
        let mut loaded = self.loaded();
        let checked = check(self.name, program, &loaded.memory.declarations())?;
        let lane = usize::from(lane_of(program.segment) == Lane::Expert);
        if let Some(shared) = checked.written.intersection(&loaded.written[1 - lane]).next() {
            let name = &loaded.memory.get(*shared).decl.name;
            return Err(BackendError::Misuse(format!("{name} is written by segments of both lanes")));
        }
        let mut memory = Memory::default();
        for &id in &checked.buffers {
            if let Some(buffer) = loaded.memory.find(id) {
                memory.insert(id, Arc::clone(buffer));
            }
        }
        loaded.written[lane].extend(checked.written);
        let executable = Executable(loaded.compiled.len() as u32);
        loaded.compiled.push(Compiled { program: Arc::new(program.clone()), memory, bounds: checked.bounds });
        Ok(executable)
    }

    fn submit(&self, executable: Executable, control: &Control, lane: Lane) -> Result<Ticket, BackendError> {
        self.enqueue(executable, control, lane, false)
    }

    fn progress(&self) -> u64 {
        self.queue.ops() + self.begun.load(Ordering::Relaxed)
    }

    fn wait(&self, ticket: Ticket) -> Result<Report, BackendError> {
        self.queue.wait(ticket)
    }

    fn write_port(&self, id: BufferId, bytes: &[u8]) -> Result<(), BackendError> {
        let buffer = self.buffer(id, BufferKind::PortIn, bytes.len())?;
        buffer.write::<u8>()[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_port(&self, id: BufferId, bytes: &mut [u8]) -> Result<(), BackendError> {
        let buffer = self.buffer(id, BufferKind::PortOut, bytes.len())?;
        bytes.copy_from_slice(&buffer.read::<u8>()[..bytes.len()]);
        Ok(())
    }
}

impl Drop for CpuBackend {
    fn drop(&mut self) {
        self.queue.stop();
        if let Some(thread) = self.thread.take() {
            // The thread catches the panics of kernels; there is nothing to learn here.
            let _ = thread.join();
        }
    }
}
