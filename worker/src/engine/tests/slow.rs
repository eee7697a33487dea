//! A stage that computes for longer than the progress deadline is slow, and waited for; one that does not compute is lost,
//! though its heartbeats go on.

use std::sync::atomic::AtomicBool;

use pretty_assertions::assert_eq;

use super::*;
use crate::backend::{BackendError, Capabilities, Control, Executable, Lane, Report, Ticket};
use crate::engine::request::FinishReason;
use crate::program::{BufferDecl, BufferId, Program};

/// Several progress deadlines of these tests.
const PAUSE: Duration = Duration::from_secs(4);
/// One op of a slow device.
const OP: Duration = Duration::from_millis(100);

/// A device whose next run takes [`PAUSE`] once it is told to.
struct Slow {
    cpu: CpuBackend,
    told: AtomicBool,
    /// Whether it carries out ops in that time.
    computes: bool,
    ops: AtomicU64,
}

impl Slow {
    fn new(computes: bool) -> Self {
        let cpu = CpuBackend::new(CpuOptions { threads: NonZeroUsize::MIN, level: None }).unwrap();
        Self { cpu, told: AtomicBool::new(false), computes, ops: AtomicU64::new(0) }
    }
}

impl Backend for Slow {
    fn capabilities(&self) -> Capabilities {
        self.cpu.capabilities()
    }

    fn alloc(&self, id: BufferId, decl: &BufferDecl) -> Result<(), BackendError> {
        self.cpu.alloc(id, decl)
    }

    fn upload(&self, id: BufferId, offset: usize, bytes: &[u8]) -> Result<(), BackendError> {
        self.cpu.upload(id, offset, bytes)
    }

    fn compile(&self, program: &Program) -> Result<Executable, BackendError> {
        self.cpu.compile(program)
    }

    fn submit(&self, executable: Executable, control: &Control, lane: Lane) -> Result<Ticket, BackendError> {
        self.cpu.submit(executable, control, lane)
    }

    fn progress(&self) -> u64 {
        self.cpu.progress() + self.ops.load(Ordering::Relaxed)
    }

    fn wait(&self, ticket: Ticket) -> Result<Report, BackendError> {
        if self.told.swap(false, Ordering::Relaxed) {
            for _ in 0..PAUSE.as_millis() / OP.as_millis() {
                std::thread::sleep(OP);
                self.ops.fetch_add(u64::from(self.computes), Ordering::Relaxed);
            }
        }
        self.cpu.wait(ticket)
    }

    fn write_port(&self, id: BufferId, bytes: &[u8]) -> Result<(), BackendError> {
        self.cpu.write_port(id, bytes)
    }

    fn read_port(&self, id: BufferId, bytes: &mut [u8]) -> Result<(), BackendError> {
        self.cpu.read_port(id, bytes)
    }
}

fn asked() -> Request {
    request(vec![1, 2, 3], 4, SamplingParams::default())
}

/// The answer of three stages, of which `rank` is slow once.
async fn answer(rank: usize, computes: bool) -> (Vec<SampledToken>, Event) {
    let slow = Arc::new(Slow::new(computes));
    let backend = |of| {
        let other = || Arc::new(Slow::new(true));
        if of == rank { Arc::clone(&slow) } else { other() }
    };
    let stage = |of, place| engine_on(backend(of), "v2-lite", Some(place), None, None);
    let engines = Engines::start_with(&Placement::even_pipeline(3, 3).unwrap(), stage).ready().await;
    slow.told.store(true, Ordering::Relaxed);
    let found = collect(submit(&engines.handles[0], asked())).await;
    assert!(!slow.told.load(Ordering::Relaxed), "rank {rank} was not slow");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_computes_for_longer_than_the_progress_deadline_is_waited_for_and_an_idle_one_is_not() {
    let whole = Engines { handles: vec![engine("v2-lite", None, None)] }.ready().await;
    let expected = collect(submit(&whole.handles[0], asked())).await;
    assert_eq!(expected.1, Event::Finished(FinishReason::Length));
    let (second, third, idle) = tokio::join!(answer(1, true), answer(2, true), answer(2, false));
    assert_eq!((second, third), (expected.clone(), expected));
    let (tokens, Event::Failed(failure)) = idle else { panic!("{idle:?}") };
    assert_eq!((tokens.len(), failure.code, failure.retryable), (0, FailureCode::Unavailable, true));
    assert!(failure.message.starts_with("the pipeline stands still: no outcome of step "), "{failure:?}");
}
