//! The shards under measurement, in this process: started like any worker's, over real sockets on loopback.

use std::net::{Ipv4Addr, TcpListener};

use super::{Bench, BenchError, Strategy};
use crate::engine::handle::{EngineHandle, Readiness};
use crate::engine::stats::EngineStats;
use crate::launch;

/// Engines of one group, by rank; all of them have answered a token.
pub(super) struct Group {
    pub(super) handles: Vec<EngineHandle>,
    strategy: Strategy,
}

/// Starts every shard and waits for the first token of the group.
pub(super) async fn start(bench: &Bench) -> Result<Group, BenchError> {
    let peers = addresses(bench.size())?;
    let mut loading = Vec::new();
    for rank in 0..bench.size() {
        let config = bench.config(rank, &peers)?;
        loading.push(tokio::task::spawn_blocking(move || launch::engine(&config)));
    }
    let mut handles = Vec::new();
    for load in loading {
        handles.push(load.await.map_err(|_| BenchError::Failed("loading panicked".to_owned()))??);
    }
    let lost = |reason: &str| BenchError::Failed(format!("the group is lost: {reason}"));
    for handle in &handles {
        let mut readiness = handle.readiness.clone();
        let settled = readiness.wait_for(|readiness| *readiness != Readiness::Starting).await;
        match settled.map_err(|_| lost("its engine ended"))?.clone() {
            Readiness::Lost { reason } => return Err(lost(&reason)),
            Readiness::Ready | Readiness::Starting => {}
        }
    }
    Ok(Group { handles, strategy: bench.strategy })
}

/// Free ports of this moment; a lone shard needs none.
fn addresses(size: usize) -> Result<Vec<String>, BenchError> {
    let failed = |source| BenchError::System { what: "a port on loopback", source };
    let listener = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // All are held until all are found, so that none is found twice.
    let held = (0..size).map(listener).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    held.iter().map(|one| Ok(one.local_addr().map_err(failed)?.to_string())).collect()
}

/// What the shards have read until some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Of the shard that ran most.
    pub(super) steps: u64,
    /// Bytes of weights, of all shards.
    pub(super) bytes: u64,
    /// Experts, counted anew in each layer and run, of all shards.
    pub(super) experts: u64,
}

impl Group {
    pub(super) fn vocabulary(&self) -> u32 {
        self.handles[0].info.vocabulary_size
    }

    /// Who serves sequence `index`: in a pipeline only the first stage accepts requests.
    pub(super) fn server(&self, index: usize) -> &EngineHandle {
        match self.strategy {
            Strategy::Experts => &self.handles[index % self.handles.len()],
            Strategy::Pipeline => &self.handles[0],
        }
    }

    /// Layers with experts that one step goes through.
    pub(super) fn mixture_layers(&self) -> u64 {
        let layers = self.handles.iter().map(|handle| handle.info.reads.mixture_layers);
        match self.strategy {
            Strategy::Experts => layers.max().unwrap_or(0),
            Strategy::Pipeline => layers.sum(),
        }
    }

    /// The counters of each shard: steps and experts read.
    pub(super) fn counters(&self) -> Vec<(u64, u64)> {
        let of = |stats: &EngineStats| (EngineStats::get(&stats.steps), EngineStats::get(&stats.experts_read));
        self.handles.iter().map(|handle| of(&handle.stats)).collect()
    }

    /// What was read between two looks at the counters.
    pub(super) fn between(&self, before: &[(u64, u64)], after: &[(u64, u64)]) -> Reading {
        let mut reading = Reading::default();
        for (handle, (before, after)) in self.handles.iter().zip(before.iter().zip(after)) {
            let (steps, experts) = (after.0 - before.0, after.1 - before.1);
            let reads = handle.info.reads;
            reading.steps = reading.steps.max(steps);
            reading.bytes += steps * reads.step_bytes + experts * reads.expert_bytes;
            reading.experts += experts;
        }
        reading
    }
}
