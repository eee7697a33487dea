//! The oracle behind the boundary, so that whole models run on it through their own loader.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

use crate::backend::{Backend, BackendError, Capabilities, Control, Executable, Lane, Report, Ticket};
use crate::oracle::{self, Memory};
use crate::program::{BufferDecl, BufferId, Dtype, Program};

#[derive(Default)]
struct State {
    memory: Memory,
    declared: HashMap<BufferId, BufferDecl>,
    /// Weights as uploaded; decoded at the first run.
    uploaded: BTreeMap<BufferId, Vec<u8>>,
    programs: Vec<Program>,
    reports: HashMap<Ticket, Report>,
    tickets: u64,
}

#[derive(Default)]
pub(super) struct Referee(Mutex<State>);

impl Referee {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Backend for Referee {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "oracle", level: "f64".into(), dynamic_rows: true, kernel_revision: 0 }
    }

    fn alloc(&self, id: BufferId, decl: &BufferDecl) -> Result<(), BackendError> {
        let mut state = self.state();
        state.memory.alloc(id, decl);
        state.declared.insert(id, decl.clone());
        Ok(())
    }

    fn upload(&self, id: BufferId, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        let mut state = self.state();
        let size = state.declared[&id].bytes();
        let all = state.uploaded.entry(id).or_insert_with(|| vec![0; size]);
        all[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn compile(&self, program: &Program) -> Result<Executable, BackendError> {
        let mut state = self.state();
        state.programs.push(program.clone());
        Ok(Executable(state.programs.len() as u32 - 1))
    }

    fn submit(&self, executable: Executable, control: &Control, _: Lane) -> Result<Ticket, BackendError> {
        let mut state = self.state();
        let state = &mut *state;
        for (id, bytes) in std::mem::take(&mut state.uploaded) {
            state.memory.load(id, &bytes);
        }
        let report = oracle::run(&state.programs[executable.0 as usize], &mut state.memory, control);
        state.tickets += 1;
        state.reports.insert(Ticket(state.tickets), report);
        Ok(Ticket(state.tickets))
    }

    fn progress(&self) -> u64 {
        self.state().tickets
    }

    fn wait(&self, ticket: Ticket) -> Result<Report, BackendError> {
        let unknown = || BackendError::Misuse(format!("ticket {} is unknown or taken", ticket.0));
        self.state().reports.remove(&ticket).ok_or_else(unknown)
    }

    fn write_port(&self, id: BufferId, bytes: &[u8]) -> Result<(), BackendError> {
        self.state().memory.load(id, bytes);
        Ok(())
    }

    fn read_port(&self, id: BufferId, bytes: &mut [u8]) -> Result<(), BackendError> {
        let state = self.state();
        let whole = state.declared[&id].dtype == Dtype::U32;
        for (bytes, &value) in bytes.chunks_exact_mut(4).zip(state.memory.values(id)) {
            let encoded = if whole { (value as u32).to_le_bytes() } else { (value as f32).to_le_bytes() };
            bytes.copy_from_slice(&encoded);
        }
        Ok(())
    }
}
