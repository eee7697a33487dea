//! A shard's place in a pipeline: links to all peers, the door for what comes from the one before, and its lane. Never waits
//! for a peer.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::first::FirstLane;
use super::stage::StageLane;
use super::{Onward, StageDevice};
use crate::engine::books::Books;
use crate::engine::protocol::Protocol;
use crate::engine::request::Submission;
use crate::engine::start::spawn;
use crate::engine::{EngineError, GroupConfig};
use crate::model::loaded::{LoadedModel, Programs};
use crate::shards::OUTSTANDING;
use crate::shards::pipeline::StageShape;
use crate::shards::pipeline::intake::{Door, Intake};
use crate::shards::server::Served;

/// Prepares links and server and starts the lane of this rank; the books are rank 0's.
pub(in crate::engine) fn start(
    protocol: &mut Protocol,
    model: LoadedModel,
    place: &GroupConfig,
    books: Books,
    inbox: mpsc::Receiver<Submission>,
) -> Result<(), EngineError> {
    let shape = StageShape::of(&model);
    let size = u32::try_from(place.placement.size()).expect("should fit: a placement has at most 64 shards");
    let (before, after) = ((place.rank + size - 1) % size, (place.rank + 1) % size);
    let depth = size as usize;
    let (outcomes, inbound) = mpsc::channel(depth);
    let (stages, frames) = mpsc::channel(depth * shape.frames());
    let door = if place.rank == 0 { Door::Outcomes(outcomes) } else { Door::Stages(stages) };
    protocol.listen(place, Served::Pipeline(Arc::new(Intake::new(before, door))))?;
    let links = protocol.link(place, depth.max(OUTSTANDING));
    let link = links.into_iter().find(|(rank, _)| *rank == after);
    let (rank, link) = link.ok_or_else(|| EngineError::Group(format!("rank {} has no successor", place.rank)))?;
    let group = Arc::clone(&protocol.group);
    let onward = Onward { group: Arc::clone(&group), rank, link, sequence: 0 };
    let Programs::Whole(whole) = model.programs else {
        return Err(EngineError::Group("a stage of a pipeline has no remote experts".into()));
    };
    let stats = group.stats_handle();
    let device = StageDevice { backend: model.backend, whole, ports: model.stage, shape, stats };
    if place.rank > 0 {
        let lane = StageLane { group, device, onward, fault: protocol.fault };
        return spawn("shoal-stage", move || lane.run(frames));
    }
    let what = "the step lane's runtime";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|source| EngineError::Thread { what, source })?;
    let lane = FirstLane { books, device, onward, outcomes: inbound, last: before, runtime };
    spawn("shoal-step", move || lane.run(inbox))
}
