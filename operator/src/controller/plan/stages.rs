//! How the layers of a model are cut into the stages of a pipeline: so that the largest stage is as small as it can be.
//!
//! All layers count alike. The first stage holds the embedding as well and the last one the head, so they get fewer.

use shoal_proto::placement::Placement;

use super::ShardBytes;
use super::bytes::ShardLoad;
use crate::controller::validate::Validated;
use crate::crd::{ModelShape, Strategy};

/// Layers of each stage, at least one; fewer stages than wished when there are fewer layers.
fn lengths(shape: &ModelShape, spec: &Validated, shards: u32) -> Vec<u64> {
    let layers = u64::from(shape.layers.unsigned_abs()).max(1);
    let count = u64::from(shards.max(1)).min(layers);
    let total = |layers: u64, table: bool| ShardBytes::of(shape, spec, stage(shape, count, layers, table)).total();
    let is_end = |stage: u64| stage == 0 || stage + 1 == count;
    let [end, middle] = [true, false].map(|table| (0..=layers).map(|many| total(many, table)).collect::<Vec<_>>());
    let mut lengths = vec![1; usize::try_from(count).unwrap_or(1)];
    for _ in count..layers {
        // One layer more where it hurts least: with equal layers no other order ends with a smaller maximum.
        let grown = |stage: u64, length: u64| {
            let table = if is_end(stage) { &end } else { &middle };
            usize::try_from(length + 1).ok().and_then(|at| table.get(at)).copied().unwrap_or(u64::MAX)
        };
        let least = (0..).zip(&mut lengths).min_by_key(|(stage, length)| grown(*stage, **length));
        if let Some((_, length)) = least {
            *length += 1;
        }
    }
    lengths
}

fn stage(shape: &ModelShape, shards: u64, layers: u64, table: bool) -> ShardLoad {
    let experts = u64::from(shape.experts.unsigned_abs());
    ShardLoad { strategy: Strategy::Pipeline, shards, experts, layers, table }
}

/// The stage that needs most.
pub(super) fn largest(shape: &ModelShape, spec: &Validated, shards: u32) -> ShardLoad {
    let lengths = lengths(shape, spec, shards);
    let last = lengths.len() - 1;
    let loads = lengths.iter().enumerate().map(|(at, &layers)| {
        let load = stage(shape, lengths.len() as u64, layers, at == 0 || at == last);
        // A wish for more stages than layers is refused before; the number is kept for the words that say so.
        ShardLoad { shards: u64::from(shards.max(1)), ..load }
    });
    let largest = loads.reduce(|one, other| {
        let total = |load: &ShardLoad| ShardBytes::of(shape, spec, *load).total();
        if total(&other) > total(&one) { other } else { one }
    });
    largest.unwrap_or(stage(shape, 1, u64::from(shape.layers.unsigned_abs()), true))
}

/// Who has which layers; `None` for more stages than layers.
pub(super) fn placement(shape: &ModelShape, spec: &Validated, shards: u32) -> Option<Placement> {
    let layers = shape.layers.unsigned_abs();
    let mut begin = 0;
    let stages = lengths(shape, spec, shards).into_iter().map(|length| {
        let range = begin..begin + u32::try_from(length).unwrap_or(u32::MAX);
        begin = range.end;
        range
    });
    let placement = Placement::pipeline(layers, stages.collect()).ok()?;
    (placement.size() == shards as usize).then_some(placement)
}

#[cfg(test)]
mod tests;
