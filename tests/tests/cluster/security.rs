//! What closes the shard port: key pairs, one a revision, made by the operator and never read by it; and the NetworkPolicy.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use pretty_assertions::assert_eq;
use serde_json::json;
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::operator::Operator;
use shoal_tests::cluster::pods;
use shoal_tests::cluster::tools::{apply, helm, kubectl};
use shoal_tests::cluster::wait::{await_gone, await_object, await_value};

use super::bench::{Bench, ENV, tiny, with_operator};

fn secrets(bench: &Bench<'_>) -> Api<Secret> {
    Api::namespaced(bench.cluster.client(), bench.namespace)
}

/// The Secrets of the model by revision, as the cluster's admin sees them.
async fn pairs(bench: &Bench<'_>) -> Result<BTreeMap<String, Secret>> {
    let list = secrets(bench).list(&ListParams::default().labels(&format!("{}=tiny", label::MODEL))).await?;
    let revision = |secret: &Secret| secret.labels().get(label::REVISION).cloned();
    list.into_iter().map(|secret| Ok((revision(&secret).context("a revision")?, secret))).collect()
}

/// What every pod mounts for its shards, and its revision.
async fn mounted(bench: &Bench<'_>) -> Result<BTreeSet<(String, String)>> {
    let of = |pod: &k8s_openapi::api::core::v1::Pod| {
        let mut volumes = pod.spec.as_ref()?.volumes.iter().flatten();
        let secret = volumes.find_map(|volume| volume.secret.as_ref()?.secret_name.clone())?;
        Some((pod.labels().get(label::REVISION)?.clone(), secret))
    };
    bench.pods("tiny").await?.iter().map(|pod| of(pod).context("a pod without a key pair")).collect()
}

fn data(secret: &Secret) -> BTreeMap<String, ByteString> {
    secret.data.clone().unwrap_or_default()
}

pub(crate) async fn every_revision_has_a_key_pair_that_the_operator_makes_and_never_reads() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let model = bench.serve(&tiny(1)?).await?;
        let first = pairs(bench).await?;
        let (revision, secret) = first.first_key_value().context("no Secret")?;
        assert_eq!(mounted(bench).await?, BTreeSet::from([(revision.clone(), secret.name_any())]));
        assert_eq!((secret.type_.as_deref(), secret.immutable), (Some("kubernetes.io/tls"), Some(true)));
        assert_eq!(data(secret).keys().collect::<Vec<_>>(), ["tls.crt", "tls.key"]);
        let owners: Vec<_> =
            secret.owner_references().iter().map(|owner| (Some(owner.uid.clone()), owner.controller)).collect();
        assert_eq!(owners, [(model.uid(), Some(true))]);

        bench.edit("tiny", json!({"spec": {"serving": {"contextTokens": 256}}})).await?;
        bench.ready("tiny").await?;
        let both = pairs(bench).await?;
        assert_eq!((both.len(), both.get(revision)), (2, Some(secret)), "the old pair stays as it was");
        let new = both.iter().find(|(other, _)| *other != revision).context("a second Secret")?;
        ensure!(data(new.1) != data(secret), "two revisions share a key");
        await_value("pods of the new revision alone", async || {
            Ok((mounted(bench).await? == BTreeSet::from([(new.0.clone(), new.1.name_any())])).then_some(()))
        })
        .await?;

        // Made again with the next formation, for nobody else could.
        secrets(bench).delete(&new.1.name_any(), &DeleteParams::default()).await?;
        pods::fail(bench.cluster, bench.namespace, &bench.pods("tiny").await?[0].name_any(), "Error", 1).await?;
        bench.until("tiny", "epoch 2", |status| status.groups.iter().any(|group| group.epoch == 2)).await?;
        bench.ready("tiny").await?;
        let again = pairs(bench).await?;
        ensure!(again.contains_key(new.0) && data(&again[new.0]) != data(new.1), "the Secret did not come back");

        let calls = bench.cluster.audit().calls(&bench.operator.user())?;
        let used: BTreeSet<_> =
            calls.into_iter().filter(|call| call.resource == "secrets").map(|call| (call.verb, call.code)).collect();
        ensure!(used.contains(&("create".to_owned(), 201)), "{used:?}");
        ensure!(used.iter().all(|(verb, code)| verb == "create" && [201, 409].contains(code)), "{used:?}");

        bench.models().delete("tiny", &DeleteParams::default()).await?;
        await_gone(&bench.models(), "tiny").await?;
        await_value("no Secret", async || Ok(pairs(bench).await?.is_empty().then_some(()))).await
    })
    .await
}

pub(crate) async fn a_pair_that_is_there_already_is_used_and_without_the_right_to_make_one_no_pod_is_made() -> Result<()>
{
    with_operator(Mode::Namespaced, async |bench| {
        bench.serve(&tiny(1)?).await?;
        let before = pairs(bench).await?;
        let taken = before.values().next().context("a Secret")?;
        // A second formation meets its own pair.
        pods::fail(bench.cluster, bench.namespace, &bench.pods("tiny").await?[0].name_any(), "Error", 1).await?;
        bench.until("tiny", "epoch 2", |status| status.groups.iter().any(|group| group.epoch == 2)).await?;
        bench.ready("tiny").await?;
        assert_eq!(data(&secrets(bench).get(&taken.name_any()).await?), data(taken));

        // A quota refuses, as a missing right does.
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"count/secrets": "0"}}});
        apply(bench.namespace, &quota.to_string()).await?;
        await_value("a quota in force", async || {
            let quotas: Api<k8s_openapi::api::core::v1::ResourceQuota> = Api::namespaced(bench.cluster.client(), bench.namespace);
            let status = quotas.get("none").await?.status.unwrap_or_default();
            Ok(status.used.is_some_and(|used| !used.is_empty()).then_some(()))
        })
        .await?;
        let serving = bench.identities("tiny").await?;
        bench.edit("tiny", json!({"spec": {"serving": {"contextTokens": 256}}})).await?;
        let model = bench.condition("tiny", "Stalled", "True").await?;
        let stalled = model.status.unwrap_or_default().conditions.into_iter().find(|c| c.type_ == "Stalled");
        let message = stalled.map(|condition| condition.message).unwrap_or_default();
        ensure!(message.starts_with("not allowed to create Secret tiny-"), "{message}");
        assert_eq!(bench.identities("tiny").await?, serving, "no pod waits for a Secret that cannot be had");
        Ok(())
    })
    .await
}

pub(crate) async fn the_network_policy_is_kept_right_and_removed_when_it_is_switched_off() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(1)?).await?;
        let policies: Api<NetworkPolicy> = Api::namespaced(bench.cluster.client(), bench.namespace);
        let right = policies.get("tiny-shards").await?.spec;
        ensure!(right.is_some(), "a policy without a spec");
        let open = r#"{"spec":{"ingress":[{}]}}"#;
        kubectl(&["patch", "networkpolicy", "tiny-shards", "-n", bench.namespace, "--type=merge", "-p", open]).await?;
        await_object(&policies, "tiny-shards", "closed again", |policy| policy.spec == right).await?;
        let before = policies.get("tiny-shards").await?.uid();
        policies.delete("tiny-shards", &DeleteParams::default()).await?;
        await_object(&policies, "tiny-shards", "made again", |policy| policy.uid() != before).await?;

        bench.install.set_aside();
        let off = ["--reuse-values", "--set", "networkPolicy.enabled=false"];
        helm(&[&["upgrade", "shoal", "charts/shoal", "-n", bench.namespace], &off[..]].concat()).await?;
        let pods = bench.identities("tiny").await?;
        let env = [&ENV[..], &[("SHOAL_NETWORK_POLICY", "false")]].concat();
        let next = Operator::start_with(bench.cluster, &bench.install, &env).await?;
        std::mem::replace(&mut bench.operator, next).kill().await?;
        await_gone(&policies, "tiny-shards").await?;
        assert_eq!(bench.identities("tiny").await?, pods, "the switch touches no pod");
        Ok(())
    })
    .await
}
