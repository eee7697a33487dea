//! A shard of four reads what it owns and holds little more, by the system's own counts. What it owns is told by the names
//! and shapes of the model's tensors, not by the worker or the plan.

use anyhow::{Context as _, Result, ensure};
use shoal_proto::inference::DescribeModelRequest;
use shoal_proto::placement::Placement;
use shoal_proto::shard::Strategy;
use shoal_tests::fleet::synthetic::{CACHED, Synthetic};
use shoal_tests::fleet::{Fleet, Spec, Worker};

use crate::memory::{fill, roomy};

const SHARDS: usize = 4;
/// A gigabyte: whoever held all of it would be above the bound.
const MODEL: Synthetic = Synthetic { layers: 9, hidden: 1024, experts: 40, width: 512 };
/// Sequences of the group, and whole blocks of context.
const LOAD: (u32, u32) = (4, 576);
const STEP_TOKENS: u32 = 512;
/// Above weights and cache: code, activations, frames, one tensor on its way.
const MARGIN: u64 = 512 << 20;

/// Whether the placement gives a tensor to a rank: in a pipeline by layer, else by expert, and what is of none to all.
fn owns(placement: &Placement, rank: usize, tensor: &str) -> bool {
    let number = |key: &str| tensor.split_once(key)?.1.split('.').next()?.parse().ok();
    let owned = |index: u32| placement.owner(index) == Some(rank);
    if placement.strategy() != Strategy::Pipeline {
        return number(".experts.").is_none_or(owned);
    }
    let end = if tensor.starts_with("model.embed_tokens.") { 0 } else { SHARDS - 1 };
    number(".layers.").map_or(rank == end, owned)
}

/// Bytes of the cache of one rank, every sequence that it sees with its whole context.
fn cache(placement: &Placement, rank: usize) -> u64 {
    let (sequences, context) = (u64::from(LOAD.0), u64::from(LOAD.1));
    let (sequences, layers) = match placement.strategy() {
        Strategy::Pipeline => (sequences, placement.ranges(rank).iter().map(|range| range.len() as u64).sum()),
        _ => (sequences.div_ceil(SHARDS as u64), MODEL.layers),
    };
    sequences * context * layers * CACHED * 4
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

async fn check(placement: &Placement, fleet: &Fleet) -> Result<()> {
    let read = fleet.workers.iter().map(Worker::bytes_read).collect::<Result<Vec<_>>>()?;
    fill(fleet, LOAD).await?;
    let mut owned = 0;
    for (worker, read) in fleet.workers.iter().zip(read) {
        let rank = worker.rank;
        let (own, cache) = (MODEL.bytes(|tensor| owns(placement, rank, tensor)), cache(placement, rank));
        let described = worker.client().await?.describe_model(DescribeModelRequest::default()).await?.into_inner();
        ensure!(described.weight_bytes == own, "rank {rank} holds {} bytes of weights: {own}", described.weight_bytes);
        let (more, peak) = (read.saturating_sub(own), worker.peak_memory()?);
        println!(
            "| {:?}, rank {rank} | {:.1} MB | +{:.3} % | {:.1} MB | {:.1} MB | {:.1} MB |",
            placement.strategy(),
            megabytes(own),
            more as f64 / own as f64 * 100.0,
            megabytes(cache),
            megabytes(peak),
            megabytes(peak.saturating_sub(own + cache)),
        );
        ensure!(read >= own && more <= own / 100, "rank {rank} owns {own} bytes and read {read}");
        ensure!(peak <= own + cache + MARGIN, "rank {rank} owns {own} bytes, caches {cache} and had {peak}");
        owned += own;
    }
    let whole = MODEL.bytes(|_| true);
    let once = placement.strategy() == Strategy::Pipeline;
    ensure!(if once { owned == whole } else { owned > whole }, "all of {whole} bytes have owners: {owned}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_of_four_reads_its_own_bytes_and_holds_them_its_cache_and_half_a_gibibyte_at_most() -> Result<()> {
    let folder = tempfile::tempdir()?;
    MODEL.write(folder.path())?;
    let (experts, layers) = (u32::try_from(MODEL.experts)?, u32::try_from(MODEL.layers)?);
    println!("| shard of four | own | read | cache | peak memory | beyond both |\n|---|---|---|---|---|---|");
    for placement in [Placement::even(experts, SHARDS)?, Placement::even_pipeline(layers, SHARDS)?] {
        let spec = roomy(Spec::new(folder.path(), placement.clone()), LOAD, STEP_TOKENS);
        let fleet = Fleet::start(&spec).await?;
        check(&placement, &fleet).await.with_context(|| format!("{placement:?}"))?;
    }
    Ok(())
}
