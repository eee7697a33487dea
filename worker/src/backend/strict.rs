//! The CPU backend under the strictest reading of the boundary, for tests: what a device would do later, it does now.
//!
//! Scratch and padding rows are NaN before each run; every run is padded to its bucket; ports are held while a run that
//! touches them is under way; the lanes interleave op by op as a seed says. It gives the same bits as `cpu`.
//! Never for production: it is slow on purpose.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::check::check;
use super::cpu::{CpuBackend, CpuOptions, Order};
use super::{Backend, BackendError, Capabilities, Control, Executable, Lane, Report, Ticket, TokenSource};
use crate::program::{BufferDecl, BufferId, BufferKind, Program};

/// How to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrictOptions {
    /// Of the backend inside.
    pub cpu: CpuOptions,
    /// Chooses the interleaving of the lanes.
    pub seed: u64,
}

#[derive(Default)]
struct Ports {
    declared: HashMap<BufferId, BufferDecl>,
    /// Rows of the bucket and ports touched, by executable.
    compiled: HashMap<Executable, (usize, HashSet<BufferId>)>,
    /// Ports touched by each run under way.
    held: HashMap<Ticket, HashSet<BufferId>>,
}

/// The CPU, strictly.
pub struct StrictBackend {
    cpu: CpuBackend,
    ports: Mutex<Ports>,
}

impl StrictBackend {
    /// Starts the backend inside.
    ///
    /// # Errors
    /// As [`CpuBackend::new`].
    pub fn new(options: StrictOptions) -> Result<Self, BackendError> {
        let cpu = CpuBackend::named("strict", options.cpu, Order::Seeded(options.seed))?;
        Ok(Self { cpu, ports: Mutex::new(Ports::default()) })
    }

    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`BackendError::Misuse`] while a run under way touches the port.
    fn check_free(&self, id: BufferId) -> Result<(), BackendError> {
        let ports = self.ports();
        let Some((ticket, _)) = ports.held.iter().find(|(_, held)| held.contains(&id)) else {
            return Ok(());
        };
        let name = ports.declared.get(&id).map_or("a port", |decl| decl.name.as_str());
        Err(BackendError::Misuse(format!("{name} is touched before run {} was waited for", ticket.0)))
    }
}

/// The control with padding rows up to `rows`; a control that contradicts itself is left to the check.
fn pad(control: &Control, rows: usize) -> Control {
    let mut padded = control.clone();
    if padded.rows < rows {
        let missing = rows - padded.rows;
        padded.rows = rows;
        padded.tokens.extend(vec![TokenSource::Host(0); missing]);
        padded.positions.extend(vec![0; missing]);
        padded.kv_slots.extend(vec![-1; missing]);
    }
    padded
}

impl Backend for StrictBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities { dynamic_rows: false, ..self.cpu.capabilities() }
    }

    fn alloc(&self, id: BufferId, decl: &BufferDecl) -> Result<(), BackendError> {
        self.cpu.alloc(id, decl)?;
        self.ports().declared.insert(id, decl.clone());
        Ok(())
    }

    fn upload(&self, id: BufferId, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        self.cpu.upload(id, offset, bytes)
    }

    fn compile(&self, program: &Program) -> Result<Executable, BackendError> {
        let executable = self.cpu.compile(program)?;
        let mut ports = self.ports();
        let checked = check("strict", program, &ports.declared)?;
        let is_port = |id: &BufferId| {
            let kind = ports.declared.get(id).map(|decl| decl.kind);
            matches!(kind, Some(BufferKind::PortIn | BufferKind::PortOut))
        };
        let touched = checked.buffers.iter().copied().filter(is_port).collect();
        ports.compiled.insert(executable, (program.bucket.rows, touched));
        Ok(executable)
    }

    fn submit(&self, executable: Executable, control: &Control, lane: Lane) -> Result<Ticket, BackendError> {
        let mut ports = self.ports();
        let (rows, touched) = ports.compiled.get(&executable).cloned().unwrap_or_default();
        let ticket = self.cpu.enqueue(executable, &pad(control, rows), lane, true)?;
        ports.held.insert(ticket, touched);
        Ok(ticket)
    }

    fn progress(&self) -> u64 {
        self.cpu.progress()
    }

    fn wait(&self, ticket: Ticket) -> Result<Report, BackendError> {
        let report = self.cpu.wait(ticket);
        self.ports().held.remove(&ticket);
        report
    }

    fn write_port(&self, id: BufferId, bytes: &[u8]) -> Result<(), BackendError> {
        self.check_free(id)?;
        self.cpu.write_port(id, bytes)
    }

    fn read_port(&self, id: BufferId, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.check_free(id)?;
        self.cpu.read_port(id, bytes)
    }
}
