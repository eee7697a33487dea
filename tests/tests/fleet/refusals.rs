//! Peers that may not compute together: refused by name, nothing served, nothing left running.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shoal_proto::shard::shard_client::ShardClient;
use shoal_proto::shard::{ExchangeRequest, Heartbeat, HelloRequest, exchange_request};
use shoal_tests::fleet::Fleet;
use shoal_tests::fleet::fixture::Copy;
use tonic::{Code, Status};

use crate::even;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_other_weights_is_refused_naming_both_digests() -> Result<()> {
    let other = Copy::of("v2-lite")?.with_zeros("model.norm.weight")?;
    let fleet = Fleet::launch(&even("v2-lite", 2)?.with_model(1, other.path()))?;
    for worker in &fleet.workers {
        worker.wait_for_log("dense_digest differs: rank", LIMIT).await?;
        ensure!(!worker.is_ready().await, "rank {} is ready", worker.rank);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_that_are_not_numbers_are_refused_by_tensor() -> Result<()> {
    let spoiled = Copy::of("v2-lite")?.with_nan("model.norm.weight")?;
    let fleet = Fleet::launch(&even("v2-lite", 1)?.with_model(0, spoiled.path()))?;
    let refusal = "tensor model.norm.weight holds a number that is not finite";
    fleet.workers[0].wait_for_log(refusal, LIMIT).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_whose_sums_overflow_never_becomes_ready() -> Result<()> {
    let spoiled = Copy::of("v2-lite")?.with_huge("model.norm.weight")?;
    let fleet = Fleet::launch(&even("v2-lite", 2)?.with_model(0, spoiled.path()).with_model(1, spoiled.path()))?;
    for worker in &fleet.workers {
        worker.wait_for_log("the first token failed: NumericFault", LIMIT).await?;
        ensure!(!worker.is_ready().await, "rank {} is ready", worker.rank);
        ensure!(worker.metric("numeric_faults_total").await? == 1, "the fault was not counted");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_another_config_is_refused_naming_both_digests() -> Result<()> {
    let other = Copy::of("v2-lite")?.with_config(|config| config["rms_norm_eps"] = 1e-5.into())?;
    let fleet = Fleet::launch(&even("v2-lite", 2)?.with_model(1, other.path()))?;
    fleet.workers[0].wait_for_log("model_digest differs: rank", LIMIT).await?;
    ensure!(!fleet.workers[0].is_ready().await, "rank 0 is ready");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_an_old_epoch_is_refused_and_never_joins() -> Result<()> {
    let fleet = Fleet::launch(&even("v2-lite", 2)?.with_epoch(0, 3).with_epoch(1, 2))?;
    fleet.workers[0].wait_for_log("epoch differs: rank 0 has 3, rank 1 has 2", LIMIT).await?;
    ensure!(!fleet.workers[0].is_ready().await, "rank 0 is ready");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_an_old_epoch_is_refused_and_the_group_serves_on() -> Result<()> {
    let fleet = Fleet::start(&even("v2-lite", 2)?.with_epoch(0, 3).with_epoch(1, 3)).await?;
    let mut client = ShardClient::connect(format!("http://{}", fleet.workers[0].shard)).await?;
    let ours = client.hello(HelloRequest::default()).await.err().context("an empty identity was admitted")?;
    ensure!(ours.code() == Code::FailedPrecondition, "{ours:?}");
    let old = hello_of_epoch(&mut client, 1, 2).await.err().context("an old epoch was admitted")?;
    ensure!(old.message().contains("epoch differs: rank 0 has 3, rank 1 has 2"), "{old:?}");
    let identity = hello_of_epoch(&mut client, 1, 3).await?;
    let frame = |epoch, frame| ExchangeRequest { epoch, frame: Some(frame) };
    let frames = [
        frame(3, exchange_request::Frame::Identity(identity)),
        frame(2, exchange_request::Frame::Heartbeat(Heartbeat::default())),
    ];
    let mut stream = client.exchange(tokio_stream::iter(frames)).await?.into_inner();
    let refused = loop {
        match stream.message().await {
            Ok(message) => ensure!(message.is_some(), "the stream closed without a reason"),
            Err(status) => break status,
        }
    };
    ensure!(refused.code() == Code::FailedPrecondition, "{refused:?}");
    ensure!(refused.message() == "a frame of epoch 2 from rank 1; this is epoch 3", "{refused:?}");
    ensure!(fleet.workers[0].is_ready().await, "the group no longer serves");
    Ok(())
}

/// What `rank` of two would say in `epoch`, to whoever says it to the other one.
pub(crate) async fn identity_of(
    client: &mut ShardClient<tonic::transport::Channel>,
    rank: u32,
    epoch: u64,
) -> Result<shoal_proto::shard::Identity> {
    Ok(hello_of_epoch(client, rank, epoch).await?)
}

/// The same, learnt field by field from the refusals.
async fn hello_of_epoch(
    client: &mut ShardClient<tonic::transport::Channel>,
    rank: u32,
    epoch: u64,
) -> Result<shoal_proto::shard::Identity, Status> {
    let mut identity = shoal_proto::shard::Identity { rank, size: 2, epoch, ..Default::default() };
    identity.protocol_version = shoal_proto::SHARD_PROTOCOL_VERSION;
    loop {
        match client.hello(HelloRequest { identity: Some(identity.clone()) }).await {
            Ok(_) => return Ok(identity),
            Err(status) if !learn(&mut identity, status.message()) => return Err(status),
            Err(_) => {}
        }
    }
}

/// Takes the first value out of "FIELD differs: rank 0 has VALUE, rank 1 has …".
fn learn(identity: &mut shoal_proto::shard::Identity, message: &str) -> bool {
    let Some((field, rest)) = message.split_once(" differs: rank ") else { return false };
    let value = rest.split_once(" has ").map_or("", |(_, values)| values);
    let value = value.split(", rank ").next().unwrap_or_default();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16).unwrap_or(0);
    let bytes: Vec<u8> = value.as_bytes().chunks(2).map(byte).collect();
    match field {
        "model_digest" => identity.model_digest = bytes.into(),
        "dense_digest" => identity.dense_digest = bytes.into(),
        "placement_fingerprint" => identity.placement_fingerprint = bytes.into(),
        "numerics_id" => value.clone_into(&mut identity.numerics_id),
        "capacity" => value.clone_into(&mut identity.capacity),
        _ => return false,
    }
    true
}
