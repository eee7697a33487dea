//! Shards behind mutual TLS: the same bits as in plaintext, and nobody else gets in.

use std::time::Duration;

use anyhow::{Result, ensure};
use shoal_tests::fleet::bits::of_answer;
use shoal_tests::fleet::fixture::expected;
use shoal_tests::fleet::stranger::{Keys, hello_in_plaintext};
use shoal_tests::fleet::{Fleet, Worker};

use crate::{answers, answers_of, even};

const LIMIT: Duration = Duration::from_secs(30);

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
