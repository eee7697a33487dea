//! An API server that refuses, breaks off, is slow or forgets: the operator ends where it would have, and asks little.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::ResourceExt as _;
use kube::api::PostParams;
use pretty_assertions::assert_eq;
use rustix::process::Signal;
use serde_json::{Value, json};
use shoal_operator::crd::ModelDeployment;
use shoal_operator::names::label;
use shoal_tests::cluster::audit::Mark;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::operator::Operator;
use shoal_tests::cluster::tools::{apply, kubectl};
use shoal_tests::cluster::wait::await_value;
use shoal_tests::seeds::{Draw, seeds};

use super::bench::{Bench, DEFINITION, ENV, tiny, with_operator, with_seeds};
use super::scenario::{Life, Stage, lives, undisturbed};

/// What an API server may answer instead of the truth; `slow` is milliseconds.
const KINDS: [&str; 8] = ["409", "429", "500", "503", "504", "reset", "slow=400", "truncated"];
/// Every verb that the operator sends but `update`, which only renews the lease.
const VERBS: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];

/// Every kind once, where the seed strikes.
fn drawn(seed: u64) -> Vec<String> {
    let mut draw = Draw::of(seed);
    let strike = |kind: &str| {
        let verb = *draw.one(&VERBS);
        // There is not always a second reading.
        let first = draw.number(1..=if verb == "get" { 1 } else { 2 });
        let kind = if kind.starts_with("slow") { format!("slow={}", draw.number(50..=1500)) } else { kind.to_owned() };
        format!("{kind} {verb} * {first}-{}", first + draw.number(0..=3))
    };
    KINDS.map(strike).into()
}

pub(crate) async fn any_error_at_any_verb_leaves_the_same_as_undisturbed() -> Result<()> {
    let stages = [Stage::Create, Stage::Scale, Stage::Edit, Stage::Meddle];
    let expected = undisturbed(Mode::Namespaced, &stages).await?;
    let faults = VERBS.iter().flat_map(|verb| KINDS.map(|kind| format!("{kind} {verb} * 1-3")));
    let mut faults: Vec<String> = faults.collect();
    // Every kind at every verb, and for every further seed each kind again where that seed strikes.
    faults.extend(seeds().skip(1).flat_map(drawn));
    let faults = RefCell::new(faults);
    let all = faults.borrow().len();
    let lived = |_, life: Life| {
        ensure!(life.struck > 0, "the fault never struck");
        ensure!(!life.ended, "the operator ended");
        Ok(())
    };
    lives(Mode::Namespaced, (&stages, &expected), || faults.borrow_mut().pop(), lived).await?;
    println!("API faults: {} kinds at {} verbs and where further seeds strike, {all} lives", KINDS.len(), VERBS.len());
    Ok(())
}

/// The operators' log lines of one object or of none, parsed.
fn lines(bench: &Bench<'_>) -> Result<Vec<Value>> {
    bench.operator.log()?.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?["fields"].clone())).collect()
}

pub(crate) async fn while_its_calls_fail_an_object_asks_at_most_ten_times_a_second() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.replace_operator("500 create pods 1-24").await?;
        bench.models().create(&PostParams::default(), &tiny(8)?).await?;
        for round in 0..10 {
            bench.edit("tiny", json!({"metadata": {"annotations": {"touched": round.to_string()}}})).await?;
        }
        bench.ready("tiny").await?;
        assert_eq!(bench.pods("tiny").await?.len(), 16, "no duplicate");
        let (mut asked, mut failed, mut passes, mut waits) = (0_u64, 0_usize, 0_usize, Vec::new());
        for line in lines(bench)? {
            match line["message"].as_str() {
                Some("API fault") => asked += 1,
                Some("pass") if line["result"] == "ApiError" => passes += 1,
                Some("pass failed") => {
                    failed += 1;
                    // The test divides every interval by 20.
                    let wait_ms = 20 * line["wait_ms"].as_u64().context("a wait")?;
                    ensure!(asked * 100 <= wait_ms, "{asked} requests, then a wait of {wait_ms} ms");
                    waits.push((asked, wait_ms / 1000));
                    asked = 0;
                }
                _ => {}
            }
        }
        println!("24 refused POSTs of 16 pods: {failed} passes, requests and then seconds {waits:?}");
        assert_eq!(passes, failed, "no pass fails but those that the back-off begins");
        // A pass that only meets a newer version of the object is no failure.
        ensure!((5..=12).contains(&failed), "{failed} passes failed: {waits:?}");
        Ok(())
    })
    .await
}

/// How often each resource was listed since `mark`.
fn lists(bench: &Bench<'_>, mark: Mark) -> Result<BTreeMap<String, usize>> {
    let mut lists = BTreeMap::new();
    for call in bench.cluster.audit().calls_since(mark, &bench.operator.user())? {
        if call.verb == "list" {
            *lists.entry(call.resource).or_default() += 1;
        }
    }
    Ok(lists)
}

pub(crate) async fn a_watch_that_ends_resumes_and_one_that_expired_lists_once() -> Result<()> {
    let _counting = DEFINITION.read().await;
    with_seeds(Mode::Namespaced, async |bench, mut draw| {
        bench.serve(&tiny(2)?).await?;
        bench.touch("tiny", 0).await?;
        let before = (bench.identities("tiny").await?, bench.models().get("tiny").await?.status);
        let mark = bench.cluster.audit().mark()?;
        let kinds = ["pods", "services", "modeldeployments"];
        let faults = kinds.map(|kind| {
            let (ended, expired) = (draw.number(20..=400), draw.number(20..=400));
            format!("ended={ended} watch {kind} 1; expired={expired} watch {kind} 2")
        });
        bench.replace_operator(&faults.join(";")).await?;
        let twice: BTreeMap<String, usize> = kinds.map(|kind| (kind.to_owned(), 2)).into();
        let listed = |lists: &mut BTreeMap<String, usize>| {
            lists.retain(|resource, _| kinds.contains(&resource.as_str()));
            *lists == twice
        };
        await_value("each kind listed a second time", async || Ok(listed(&mut lists(bench, mark)?).then_some(())))
            .await?;
        bench.touch("tiny", 1).await?;
        ensure!(listed(&mut lists(bench, mark)?), "at the start, and once more: {:?}", lists(bench, mark)?);
        assert_eq!(bench.writes_since(mark)?, vec![]);
        assert_eq!((bench.identities("tiny").await?, bench.models().get("tiny").await?.status), before);
        Ok(())
    })
    .await
}

pub(crate) async fn pods_that_no_watch_shows_for_long_are_asked_for_and_never_taken_for_lost() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        // Far longer than an own write is believed unasked: the watch of a busy server lags like that.
        bench.replace_operator("slow=20000 watch pods 1").await?;
        let mark = bench.cluster.audit().mark()?;
        bench.models().create(&PostParams::default(), &tiny(2)?).await?;
        await_value("each of the four pods asked for twice", async || {
            let mut calls = bench.cluster.audit().calls_since(mark, &bench.operator.user())?;
            calls.retain(|call| (call.verb.as_str(), call.resource.as_str()) == ("get", "pods"));
            Ok((calls.len() >= 8).then_some(()))
        })
        .await?;
        let made = bench.identities("tiny").await?;
        assert_eq!(made.len(), 4);
        bench.ready("tiny").await?;
        assert_eq!(bench.identities("tiny").await?, made);
        let writes = bench.writes_since(mark)?;
        let ended = writes.iter().filter(|call| (call.verb.as_str(), call.resource.as_str()) == ("delete", "pods"));
        assert_eq!(ended.count(), 0);
        Ok(())
    })
    .await
}

pub(crate) async fn a_slow_call_for_one_object_does_not_hold_up_another() -> Result<()> {
    with_seeds(Mode::Cluster, async |bench, mut draw| {
        // Longer than the test may take: however slow the machine, the other is not served after these.
        bench.replace_operator(&format!("slow={} create pods 1-2", draw.number(900_000..=990_000))).await?;
        bench.models().create(&PostParams::default(), &tiny(1)?).await?;
        await_value("its POSTs under way", async || {
            Ok((bench.operator.log()?.matches("\"message\":\"API fault\"").count() == 2).then_some(()))
        })
        .await?;
        let mut other = tiny(1)?;
        other.metadata.name = Some("other".into());
        bench.serve(&other).await?;
        assert_eq!(bench.identities("tiny").await?, BTreeMap::new(), "the slow one still waits");
        bench.restart_operator().await?;
        bench.ready("tiny").await.map(drop)
    })
    .await
}

pub(crate) async fn a_leader_that_cannot_renew_ends_and_its_successor_touches_no_pod() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let before = bench.identities("tiny").await?;
        // It leads, renews a few times, and then every renewal takes longer than a lease lasts.
        bench.replace_operator("slow=6000 update leases 8-").await?;
        let successor = Operator::start_with(bench.cluster, &bench.install, &ENV).await?;
        let ended = std::mem::replace(&mut bench.operator, successor).ended().await?;
        ensure!(!ended.success(), "a lost lease is a failure");
        bench.edit("tiny", json!({"spec": {"replicas": 3}})).await?;
        bench.ready("tiny").await?;
        let after = bench.identities("tiny").await?;
        assert_eq!(after.iter().filter(|(name, uid)| before.get(*name) == Some(uid)).count(), 4);
        Ok(())
    })
    .await
}

pub(crate) async fn what_a_paused_leader_still_sends_has_no_effect() -> Result<()> {
    with_seeds(Mode::Cluster, async |bench, mut draw| {
        bench.serve(&tiny(1)?).await?;
        bench.replace_operator(&format!("slow={} create pods", draw.number(1000..=2000))).await?;
        let mark = bench.cluster.audit().mark()?;
        bench.edit("tiny", json!({"spec": {"replicas": 2}})).await?;
        await_value("its POSTs under way", async || {
            Ok((bench.operator.log()?.matches("\"message\":\"API fault\"").count() == 2).then_some(()))
        })
        .await?;
        bench.operator.signal(Signal::STOP)?;
        let successor = Operator::start_with(bench.cluster, &bench.install, &ENV).await?;
        let mut paused = std::mem::replace(&mut bench.operator, successor);
        bench.ready("tiny").await?;
        let settled = bench.identities("tiny").await?;
        paused.signal(Signal::CONT)?;
        ensure!(!paused.ended().await?.success(), "it finds its lease lost");
        bench.touch("tiny", 0).await?;
        let made = bench.writes_since(mark)?;
        let made = made.iter().filter(|call| call.resource == "pods" && call.code < 300);
        assert_eq!(made.map(|call| call.verb.as_str()).collect::<Vec<_>>(), ["create", "create"]);
        assert_eq!(bench.identities("tiny").await?, settled);
        Ok(())
    })
    .await
}

fn reason(model: &ModelDeployment, kind: &str) -> Option<(String, String)> {
    let status = model.status.as_ref()?;
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")?;
    Some((condition.reason.clone(), condition.message.clone()))
}

pub(crate) async fn a_right_taken_away_is_named_in_the_status_and_given_back_is_enough() -> Result<()> {
    with_seeds(Mode::Namespaced, async |bench, mut draw| {
        let (verb, groups, wished) = *draw.one(&[("create", 1, 2), ("delete", 2, 1), ("create", 0, 1), ("delete", 1, 0)]);
        bench.serve(&tiny(groups)?).await?;
        bench.install.set_aside();
        let role = kubectl(&["get", "role", "shoal", "-n", bench.namespace, "-o", "json"]).await?;
        let role: Value = serde_json::from_str(&role)?;
        let mut less = json!({"apiVersion": role["apiVersion"], "kind": "Role", "metadata": {"name": "shoal"}, "rules": role["rules"]});
        for rule in less["rules"].as_array_mut().context("rules")?.iter_mut().filter(|rule| rule["resources"] == json!(["pods"])) {
            rule["verbs"].as_array_mut().context("verbs")?.retain(|granted| granted != verb);
        }
        apply(bench.namespace, &less.to_string()).await?;
        bench.edit("tiny", json!({"spec": {"replicas": wished}})).await?;
        let degraded = |model: &ModelDeployment| reason(model, "Degraded").filter(|(reason, _)| reason == "Forbidden");
        let message = await_value("Degraded/Forbidden", async || Ok(degraded(&bench.models().get("tiny").await?))).await?.1;
        for word in [verb, "\"pods\"", bench.namespace] {
            ensure!(message.contains(word), "{word} is not named: {message}");
        }
        less["rules"] = role["rules"].clone();
        apply(bench.namespace, &less.to_string()).await?;
        let model = bench.ready("tiny").await?;
        assert_eq!(reason(&model, "Degraded"), None);
        Ok(())
    })
    .await
}

pub(crate) async fn a_quota_that_refuses_a_pod_leaves_no_partial_group() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "three"}, "spec": {"hard": {"pods": "3"}}});
        apply(bench.namespace, &quota.to_string()).await?;
        await_value("the quota counts", async || {
            let words = ["get", "resourcequota", "three", "-n", bench.namespace, "-o", "jsonpath={.status.used.pods}"];
            Ok((kubectl(&words).await? == "0").then_some(()))
        })
        .await?;
        bench.models().create(&PostParams::default(), &tiny(2)?).await?;
        let told = |model: &ModelDeployment| reason(model, "Degraded").filter(|(_, message)| message.contains("exceeded quota"));
        await_value("the missing quantity", async || Ok(told(&bench.models().get("tiny").await?))).await?;
        await_value("one whole group and no part of another", async || {
            let pods = bench.pods("tiny").await?;
            let groups: BTreeSet<_> =
                pods.iter().filter_map(|pod| pod.labels().get(label::GROUP)).collect();
            Ok((pods.len() == 2 && groups.len() == 1).then_some(()))
        })
        .await
    })
    .await
}

/// Longer than every back-off of a failing object, divided.
const A_WHILE: Duration = Duration::from_secs(4);

pub(crate) async fn a_namespace_deleted_under_the_operator_is_soon_forgotten() -> Result<()> {
    with_seeds(Mode::Cluster, async |bench, mut draw| {
        let doomed = format!("{}-doomed", bench.namespace);
        kubectl(&["create", "namespace", &doomed]).await?;
        let env = [&ENV[..], &[("SHOAL_NAMESPACE", doomed.as_str())]].concat();
        let next = Operator::start_with(bench.cluster, &bench.install, &env).await?;
        std::mem::replace(&mut bench.operator, next).kill().await?;
        let model = serde_json::to_string(&tiny(2)?)?;
        apply(&doomed, &model).await?;
        // Some of them while they still start.
        let moment = draw.one(&["--for=condition=Ready", "--for=jsonpath={.status.observedGeneration}=1"]);
        kubectl(&["wait", "modeldep/tiny", "-n", &doomed, moment, "--timeout=60s"]).await?;
        let mark = bench.cluster.audit().mark()?;
        kubectl(&["delete", "namespace", &doomed, "--timeout=60s"]).await?;
        let gone = bench.cluster.audit().mark()?;
        tokio::time::sleep(A_WHILE).await;
        let of_it = |mark| {
            let mut writes = bench.writes_since(mark)?;
            writes.retain(|call| call.namespace == doomed);
            anyhow::Ok(writes)
        };
        assert_eq!(of_it(gone)?, vec![], "nothing is sent for what is gone");
        let writes = of_it(mark)?;
        let events = writes.iter().filter(|call| call.resource == "events").count();
        println!("a namespace deleted under 2 groups: {} writes, {events} of them Events", writes.len());
        // A back-off that starts at 50 ms, four pods and two status patches a pass, two losses and one refusal told.
        if writes.len() > 80 || events > 4 {
            bail!("a storm: {writes:#?}");
        }
        Ok(())
    })
    .await
}
