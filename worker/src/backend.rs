//! The boundary to devices: declare buffers, upload weights, compile programs, run them.
//!
//! Never sees a request, a peer or a clock; `submit` never waits on the network.

mod check;
#[cfg(test)]
mod conformance;
mod control;
pub mod cpu;
mod refusals;
pub mod scripted;
pub mod strict;

use std::sync::Arc;

use crate::engine::request::{SampledToken, SamplingParams};
use crate::program::{BufferDecl, BufferId, Program};
use crate::sampling::TokenCounts;

/// Slots of one cache block, and keys of one attention tile.
pub const KV_BLOCK: usize = 64;

/// What a backend can do and how it rounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `cpu`, `strict`, later `cuda` and `wgpu`.
    pub name: &'static str,
    /// Instruction level or device class, such as `avx512`.
    pub level: String,
    /// Whether one program serves any number of rows up to its bucket at no extra cost.
    pub dynamic_rows: bool,
    /// Raised when the bits of any kernel change; part of the numerics id.
    pub kernel_revision: u32,
}

/// Why a backend could not do what it was asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BackendError {
    /// The device has no room.
    #[error("no room for buffer {name} of {bytes} bytes")]
    OutOfMemory {
        /// The buffer.
        name: String,
        /// Its size.
        bytes: usize,
    },
    /// A program asks for what this backend refuses.
    #[error("backend {backend} cannot run {op}: {reason}")]
    Unsupported {
        /// Who refuses.
        backend: &'static str,
        /// Which op.
        op: &'static str,
        /// Why, naming what is allowed.
        reason: String,
    },
    /// A buffer, executable or ticket is used against its declaration.
    #[error("{0}")]
    Misuse(String),
    /// The device failed; the worker cannot go on.
    #[error("device lost: {0}")]
    DeviceLost(String),
}

/// A compiled program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Executable(pub u32);

/// A run under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Who asks: work of the expert lane goes first at each op boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Own sequences; waits for peers between segments.
    Step,
    /// Serves peers; never waits for them.
    Expert,
}

/// Where a row's token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// This id.
    Host(u32),
    /// What the last `sample` on this lane chose as its sample of this index.
    Sampled(u32),
}

/// One row whose next token is wanted.
#[derive(Debug, Clone)]
pub struct SampleRow {
    /// Index among the rows of the run.
    pub row: u32,
    /// How to choose.
    pub params: SamplingParams,
    /// Tokens seen so far, for penalties.
    pub history: Arc<TokenCounts>,
    /// How many tokens of the answer exist already; counts the random stream.
    pub output_index: u64,
    /// How many of the most likely tokens to report.
    pub top_logprobs: u32,
}

/// What the host writes before a run. All vectors over rows have `rows` entries.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Live rows; a run never has more than its bucket.
    pub rows: usize,
    /// Token of each row.
    pub tokens: Vec<TokenSource>,
    /// Absolute position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Cache slot of each row, block · 64 + offset; −1 writes nothing (padding).
    pub kv_slots: Vec<i64>,
    /// Row range of sequence s is `sequence_starts[s]..sequence_starts[s + 1]`; one more entry than sequences.
    pub sequence_starts: Vec<u32>,
    /// Cache blocks of each sequence, in order of position.
    pub block_tables: Vec<Vec<u32>>,
    /// Rows to sample, ascending by row.
    pub samples: Vec<SampleRow>,
}

/// A row that met a number that is not finite; the first place only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonFinite {
    /// Row of the run.
    pub row: u32,
    /// Decoder layer.
    pub layer: u32,
    /// Op that checked.
    pub op: &'static str,
}

/// What a run leaves for the host besides its ports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// One per entry of `Control::samples`; `None` where the logits are not finite.
    pub samples: Vec<Option<SampledToken>>,
    /// First fault of each faulty row.
    pub non_finite: Vec<NonFinite>,
    /// (row, expert) pairs computed by this run.
    pub expert_pairs: u64,
    /// Experts whose weights this run read, counted anew in each layer.
    pub experts_read: u64,
}

/// A device, or the CPU's pool. Shared by the two lanes; every method may be called from any thread.
pub trait Backend: Send + Sync {
    /// What it can do and how it rounds.
    fn capabilities(&self) -> Capabilities;

    /// Makes a buffer under the number that the recipe gave it. Weight and KV buffers start as zeros.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`], or [`BackendError::Misuse`] for a number in use.
    fn alloc(&self, id: BufferId, decl: &BufferDecl) -> Result<(), BackendError>;

    /// Writes `bytes` of a weight buffer at `offset`; called for consecutive pieces as they are read.
    ///
    /// # Errors
    /// [`BackendError::Misuse`] outside the buffer, or when it is not a weight.
    fn upload(&self, id: BufferId, offset: usize, bytes: &[u8]) -> Result<(), BackendError>;

    /// Checks a program against its buffers and the refusal table; after the first call weights are read only.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] or [`BackendError::Misuse`], naming the op.
    fn compile(&self, program: &Program) -> Result<Executable, BackendError>;

    /// Queues a run behind earlier ones of the same lane. At most one run per lane is under way.
    ///
    /// # Errors
    /// [`BackendError::Misuse`] when the control does not fit the program.
    fn submit(&self, executable: Executable, control: &Control, lane: Lane) -> Result<Ticket, BackendError>;

    /// Rises while a run of any lane is under way: who waits for it learns that it is slow, not hung. Never waits.
    fn progress(&self) -> u64;

    /// Waits for a run and takes its report; each ticket once.
    ///
    /// # Errors
    /// [`BackendError::DeviceLost`], or [`BackendError::Misuse`] for an unknown ticket.
    fn wait(&self, ticket: Ticket) -> Result<Report, BackendError>;

    /// Writes the first `bytes.len()` bytes of a port-in buffer. Only between runs of the lane that reads it.
    ///
    /// # Errors
    /// [`BackendError::Misuse`] when it is not a port-in or is smaller.
    fn write_port(&self, id: BufferId, bytes: &[u8]) -> Result<(), BackendError>;

    /// Reads the first `bytes.len()` bytes of a port-out buffer. Only after `wait` of the run that wrote it.
    ///
    /// # Errors
    /// [`BackendError::Misuse`] when it is not a port-out or is smaller.
    fn read_port(&self, id: BufferId, bytes: &mut [u8]) -> Result<(), BackendError>;
}
