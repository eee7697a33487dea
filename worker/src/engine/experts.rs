//! A shard's place among others that own experts: links to all of them, and the expert lane. Never waits for a peer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::protocol::Protocol;
use super::start::spawn;
use super::{EngineError, GroupConfig};
use crate::model::loaded::{LoadedModel, Programs, frame_rows};
use crate::shards::OUTSTANDING;
use crate::shards::exchange::{Exchange, Owner};
use crate::shards::expert_lane::{ExpertLane, Job};
use crate::shards::frames::Shape;
use crate::shards::group::Answer;
use crate::shards::server::Served;

/// Prepares links and server, starts the expert lane, and gives the step lane its side.
pub(super) fn join(
    protocol: &mut Protocol,
    model: &LoadedModel,
    place: &GroupConfig,
    answers: Receiver<Answer>,
) -> Result<Exchange, EngineError> {
    let shape = shape(model);
    let (jobs, queue) = sync_channel(2 * OUTSTANDING * place.peers.len().saturating_sub(1));
    protocol.listen(place, Served::Experts(jobs))?;
    let ports = |rank: u32| model.peers.get(rank as usize).copied().flatten();
    let owner = |(rank, link)| {
        let owned = place.placement.ranges(rank as usize).to_vec();
        ports(rank).map(|ports| Owner { rank, owned, ports, link })
    };
    let owners: Vec<Owner> = protocol.link(place, OUTSTANDING).into_iter().filter_map(owner).collect();
    start_experts(protocol, model, place, queue)?;
    let sequences = vec![0; owners.len()];
    let (group, backend) = (Arc::clone(&protocol.group), Arc::clone(&model.backend));
    Ok(Exchange { group, backend, shape, owners, answers, sequences })
}

fn start_experts(
    protocol: &Protocol,
    model: &LoadedModel,
    place: &GroupConfig,
    queue: Receiver<Job>,
) -> Result<(), EngineError> {
    let (Some(ports), Programs::Sharded { serve, .. }) = (model.serve, &model.programs) else { return Ok(()) };
    let lane = ExpertLane {
        backend: Arc::clone(&model.backend),
        serve: serve.clone(),
        ports,
        shape: shape(model),
        owned: place.placement.ranges(place.rank as usize).to_vec(),
        stats: protocol.group.stats_handle(),
        fault: protocol.fault,
    };
    spawn("shoal-experts", move || lane.run(&queue))
}

fn shape(model: &LoadedModel) -> Shape {
    Shape {
        hidden: model.info.hidden,
        top_k: model.info.top_k,
        experts: model.info.experts,
        layers: model.info.mixture_layers,
        rows: frame_rows(model.info.hidden, model.info.top_k),
    }
}
