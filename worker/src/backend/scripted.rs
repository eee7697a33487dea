//! A model without numbers, for tests of everything above the boundary and for load on the front: the next token is a
//! hash of all tokens so far, which it reads back through the cache and the block tables of each run.
//!
//! So a wrong block, slot, position or order of tokens shows as a wrong answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::control::{Bounds, sequence_of_rows};
use super::{Backend, BackendError, Capabilities, Control, Executable, KV_BLOCK, Lane, Report, Ticket, TokenSource};
use crate::engine::request::SampledToken;
use crate::model::loaded::{LoadedModel, ModelInfo, Programs, Reads, StagePorts};
use crate::program::{Bucket, BufferDecl, BufferId, Program};

/// How large a scripted model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    /// Token ids are below this; at least 1.
    pub vocabulary: u32,
    /// Most tokens of a sequence.
    pub context: u32,
    /// Blocks of the cache.
    pub kv_blocks: u32,
    /// Worst case of one run.
    pub bucket: Bucket,
}

impl Script {
    /// The token that follows these.
    #[must_use]
    pub fn next(&self, tokens: &[u32]) -> u32 {
        // FNV-1a.
        let step = |hash: u32, token: &u32| (hash ^ token).wrapping_mul(16_777_619);
        tokens.iter().fold(2_166_136_261, step) % self.vocabulary
    }

    /// The model, ready to be served.
    #[must_use]
    pub fn load(self) -> LoadedModel {
        let bounds = Bounds {
            bucket: self.bucket,
            vocabulary: Some(self.vocabulary as usize),
            sampled: None,
            slots: Some(self.kv_blocks as usize * KV_BLOCK),
        };
        let cache = vec![None; self.kv_blocks as usize * KV_BLOCK];
        let state = Mutex::new(State { cache, reports: HashMap::new(), runs: 0 });
        let info = ModelInfo {
            architecture: "Scripted".to_owned(),
            hidden: 1,
            vocabulary: self.vocabulary,
            max_context: self.context,
            layers: 0,
            reads: Reads::default(),
            mixture_layers: 0,
            experts: 1,
            top_k: 1,
            model_digest: [0; 32],
            dense_digest: [0; 32],
            weight_bytes: 0,
            numerics_id: "scripted".to_owned(),
            kv_blocks: self.kv_blocks,
        };
        LoadedModel {
            backend: Arc::new(ScriptedModel { script: self, bounds, state }),
            info,
            bucket: self.bucket,
            programs: Programs::Whole(Executable(0)),
            peers: vec![None],
            serve: None,
            stage: StagePorts::default(),
        }
    }
}

struct ScriptedModel {
    script: Script,
    bounds: Bounds,
    state: Mutex<State>,
}

struct State {
    /// The token whose keys and values would be here.
    cache: Vec<Option<u32>>,
    reports: HashMap<Ticket, Report>,
    runs: u64,
}

impl ScriptedModel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that a row's attention would read, itself included.
fn read(
    cache: &[Option<u32>],
    control: &Control,
    row: usize,
    sequence: Option<usize>,
) -> Result<Vec<u32>, BackendError> {
    let table = sequence.map_or(&[][..], |sequence| &control.block_tables[sequence]);
    let token = |position: usize| {
        let block = table.get(position / KV_BLOCK).copied();
        let slot = block.map(|block| block as usize * KV_BLOCK + position % KV_BLOCK);
        slot.and_then(|slot| cache[slot]).ok_or_else(|| {
            BackendError::Misuse(format!("row {row} reads position {position}, which nobody has written"))
        })
    };
    (0..=control.positions[row] as usize).map(token).collect()
}

impl Backend for ScriptedModel {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "scripted", level: "none".to_owned(), dynamic_rows: true, kernel_revision: 0 }
    }

    fn alloc(&self, _: BufferId, _: &BufferDecl) -> Result<(), BackendError> {
        Ok(())
    }

    fn upload(&self, _: BufferId, _: usize, _: &[u8]) -> Result<(), BackendError> {
        Ok(())
    }

    fn compile(&self, _: &Program) -> Result<Executable, BackendError> {
        Ok(Executable(0))
    }

    fn submit(&self, _: Executable, control: &Control, _: Lane) -> Result<Ticket, BackendError> {
        self.bounds.check(control)?;
        let mut state = self.state();
        for (token, &slot) in control.tokens.iter().zip(&control.kv_slots) {
            if let (TokenSource::Host(id), Ok(slot)) = (token, usize::try_from(slot)) {
                state.cache[slot] = Some(*id);
            }
        }
        let sequences = sequence_of_rows(control);
        let sample = |row: u32| {
            let row = row as usize;
            let id = self.script.next(&read(&state.cache, control, row, sequences[row])?);
            Ok(Some(SampledToken { id, logprob: -1.0, top: Vec::new() }))
        };
        let samples = control.samples.iter().map(|wanted| sample(wanted.row)).collect::<Result<_, BackendError>>()?;
        let ticket = Ticket(state.runs);
        state.runs += 1;
        state.reports.insert(ticket, Report { samples, ..Report::default() });
        Ok(ticket)
    }

    fn progress(&self) -> u64 {
        self.state().runs
    }

    fn wait(&self, ticket: Ticket) -> Result<Report, BackendError> {
        let report = self.state().reports.remove(&ticket);
        report.ok_or_else(|| BackendError::Misuse(format!("run {} is unknown", ticket.0)))
    }

    fn write_port(&self, _: BufferId, _: &[u8]) -> Result<(), BackendError> {
        Err(BackendError::Misuse("a scripted model has no ports".to_owned()))
    }

    fn read_port(&self, _: BufferId, _: &mut [u8]) -> Result<(), BackendError> {
        Err(BackendError::Misuse("a scripted model has no ports".to_owned()))
    }
}
