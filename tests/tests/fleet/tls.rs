//! Shards behind mutual TLS: the same bits as in plaintext, and nobody else gets in.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use shoal_proto::placement::Placement;
use shoal_tests::fleet::ask::greedy;
use shoal_tests::fleet::bits::of_answer;
use shoal_tests::fleet::fixture::{expected, layers, path};
use shoal_tests::fleet::stranger::{Keys, hello_in_plaintext};
use shoal_tests::fleet::{Fleet, Spec, Worker};
use tokio::time::Instant;

use crate::{answers, answers_of, even};

const LIMIT: Duration = Duration::from_secs(30);
/// Has as many layers as a pipeline here has stages, and one more.
const STAGED: &str = "v3-yarn";
const STAGES: usize = 3;

fn pipeline() -> Result<Spec> {
    Ok(Spec::new(path(STAGED), Placement::even_pipeline(layers(STAGED)?, STAGES)?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_behind_tls_answer_with_the_bits_of_plaintext() -> Result<()> {
    let cases = expected("v2-lite")?.cases;
    let keys = Keys::made_ago(0)?;
    let open = answers_of(&even("v2-lite", 3)?, &cases).await?;
    let closed = Fleet::start(&even("v2-lite", 3)?.with(&[&keys.flag()])).await?;
    let secret = answers(&closed.workers[0], &cases).await?;
    let bits = |answers: &[_]| answers.iter().map(of_answer).collect::<Option<Vec<_>>>();
    ensure!(bits(&open).is_some() && bits(&open) == bits(&secret), "other bits behind TLS");
    ensure!(closed.sum("place=\"remote\"").await? > 0, "no row has crossed the wire");
    Ok(())
}

/// A refusal is counted under its reason, and the log says it.
async fn was_refused(worker: &Worker, reason: &str, words: &str) -> Result<()> {
    worker.wait_for_log(words, LIMIT).await?;
    let count = worker.metric(&format!("shard_refusals_total{{reason=\"{reason}\"}}")).await?;
    ensure!(count > 0, "no refusal for {reason} is counted: {}", worker.log_tail());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_no_shard_of_the_group_is_refused_for_a_stated_reason_and_the_group_serves_on() -> Result<()> {
    let cases = expected("v2-lite")?.cases;
    let keys = Keys::made_ago(0)?;
    let fleet = Fleet::start(&even("v2-lite", 2)?.with(&[&keys.flag()])).await?;
    let before = answers(&fleet.workers[0], &cases[..1]).await?;
    for worker in &fleet.workers {
        ensure!(hello_in_plaintext(worker.shard).await.is_err(), "plaintext was served");
        was_refused(worker, "plaintext", "\"plaintext\"").await?;
        ensure!(Keys::made_ago(0)?.knock(worker.shard).await.is_err(), "another model's certificate was served");
        was_refused(worker, "certificate", "another certificate than this shard's").await?;
        ensure!(Keys::made_ago(11)?.knock(worker.shard).await.is_err(), "an expired certificate was served");
        was_refused(worker, "expired", "certificate expired").await?;
        ensure!(!keys.knock(worker.shard).await?.is_empty(), "the group's own certificate is not served");
    }
    ensure!(answers(&fleet.workers[0], &cases[..1]).await? == before, "the group answers otherwise now");
    ensure!(fleet.sum("group_losses_total").await? == 0, "the group was lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_with_another_certificate_or_none_never_joins() -> Result<()> {
    let (ours, theirs) = (Keys::made_ago(0)?, Keys::made_ago(0)?);
    for (second, words) in
        [(vec![theirs.flag()], "another certificate than this shard's"), (vec![], "InvalidContentType")]
    {
        let spec = even("v2-lite", 2)?.with_of(0, &[&ours.flag()]);
        let second: Vec<&str> = second.iter().map(String::as_str).collect();
        let fleet = Fleet::launch(&spec.with_of(1, &second))?;
        fleet.workers[0].wait_for_log(words, LIMIT).await?;
        for worker in &fleet.workers {
            ensure!(!worker.is_ready().await, "rank {} is ready", worker.rank);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_certificate_has_expired_does_not_start_and_says_so() -> Result<()> {
    let old = Keys::made_ago(11)?;
    let mut fleet = Fleet::launch(&even("v2-lite", 2)?.with(&[&old.flag()]))?;
    for worker in &mut fleet.workers {
        let code = worker.wait().await?.code();
        let log = worker.log_tail();
        ensure!(
            code == Some(1) && log.contains("/tls.crt is not usable: invalid peer certificate: certificate expired"),
            "{code:?}: {log}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_behind_tls_answers_with_the_bits_of_plaintext_and_lets_nobody_else_in() -> Result<()> {
    const TOKENS: u32 = 40;
    let cases = expected(STAGED)?.cases;
    let ask_all = async |fleet: &Fleet| {
        let answers = cases.iter().map(|case| fleet.workers[0].ask(greedy(&case.prompt, TOKENS)));
        let answers = try_join_all(answers).await?;
        Ok::<_, anyhow::Error>(answers.iter().map(of_answer).collect::<Option<Vec<_>>>())
    };
    let open = ask_all(&Fleet::start(&pipeline()?).await?).await?;
    let keys = Keys::made_ago(0)?;
    let closed = Fleet::start(&pipeline()?.with(&[&keys.flag()])).await?;
    ensure!(open.is_some() && open == ask_all(&closed).await?, "other bits behind TLS");
    for worker in &closed.workers {
        let went_on = worker.metric("stage_rows_total").await?;
        ensure!(worker.rank + 1 == STAGES || went_on > 0, "no row has left stage {}", worker.rank);
        ensure!(hello_in_plaintext(worker.shard).await.is_err(), "plaintext was served");
        was_refused(worker, "plaintext", "\"plaintext\"").await?;
        ensure!(Keys::made_ago(0)?.knock(worker.shard).await.is_err(), "another revision's certificate was served");
        was_refused(worker, "certificate", "another certificate than this shard's").await?;
    }
    ensure!(open == ask_all(&closed).await?, "the pipeline answers otherwise now");
    ensure!(closed.sum("group_losses_total").await? == 0, "the group was lost");
    Ok(())
}

/// Waits until a stage has said of each of `peers`, and of nobody else, that it shows another certificate.
async fn refuses(fleet: &Fleet, worker: &Worker, peers: &[usize]) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        let log = worker.log();
        let lines = || log.lines().filter(|line| line.contains("another certificate than this shard's"));
        let address = |rank: usize| format!("\"{}\"", fleet.workers[rank].shard);
        let is_refused = |rank: &usize| lines().any(|line| line.contains(&address(*rank)));
        let refused: Vec<_> = (0..STAGES).filter(is_refused).collect();
        if refused == peers {
            return Ok(());
        }
        ensure!(Instant::now() < end, "rank {} refuses {refused:?}, not {peers:?}: {log}", worker.rank);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_with_another_revisions_certificate_never_joins_and_every_other_stage_says_why() -> Result<()> {
    let (ours, theirs) = (Keys::made_ago(0)?, Keys::made_ago(0)?);
    for odd in 0..STAGES {
        let key = |rank| if rank == odd { theirs.flag() } else { ours.flag() };
        let spec = (0..STAGES).fold(pipeline()?, |spec, rank| spec.with_of(rank, &[&key(rank)]));
        let fleet = Fleet::launch(&spec)?;
        for worker in &fleet.workers {
            let peers: Vec<_> = (0..STAGES).filter(|&peer| peer != worker.rank).collect();
            let odd_ones = if worker.rank == odd { &peers[..] } else { &[odd] };
            refuses(&fleet, worker, odd_ones).await?;
        }
        for worker in &fleet.workers {
            ensure!(!worker.is_ready().await, "rank {} is ready", worker.rank);
        }
    }
    Ok(())
}
