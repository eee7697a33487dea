//! Exactly minimal rights: what the chart grants is what all operators of this test binary used, verb by verb.
//!
//! Nothing is listed here: granted is what the chart renders, used is what the audit log holds.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{Patch, PatchParams};
use pretty_assertions::assert_eq;
use serde::Deserialize as _;
use serde_json::{Value, json};
use shoal_tests::cluster::Cluster;
use shoal_tests::cluster::audit::Right;
use shoal_tests::cluster::install::{Mode, users};
use shoal_tests::cluster::tools::helm;
use shoal_tests::cluster::wait::{await_object, await_value};

use super::bench::{tiny, with_operator};

/// What other tests do only now and then, or under one kind of rights: a pod of a name that exists already is looked
/// at, what somebody edited is corrected, a single group has no PodDisruptionBudget, a Service that must change its kind is
/// made anew, an Event that repeats
/// becomes a series.
pub(crate) async fn what_happens_rarely_needs_the_same_rights_in_both_modes() -> Result<()> {
    for mode in [Mode::Cluster, Mode::Namespaced] {
        with_operator(mode, async |bench| {
            bench.replace_operator("409 create pods 1").await?;
            bench.serve(&tiny(2)?).await?;
            bench.meddle().await?;
            let budgets: Api<PodDisruptionBudget> = Api::namespaced(bench.cluster.client(), bench.namespace);
            let right = budgets.get("tiny").await?.spec;
            let open = Patch::Merge(json!({"spec": {"minAvailable": 0}}));
            budgets.patch("tiny", &PatchParams::default(), &open).await?;
            await_object(&budgets, "tiny", "protecting again", |budget| budget.spec == right).await?;
            bench.edit("tiny", json!({"spec": {"replicas": 1}})).await?;
            bench.ready("tiny").await?;
            for headless in [true, false] {
                bench.edit("tiny", json!({"spec": {"serving": {"headless": headless}}})).await?;
                bench.ready("tiny").await?;
            }
            for (source, kind) in [("s3://b/m", "Stalled"), ("file:///models/tiny", "Ready"), ("s3://b/m", "Stalled")] {
                bench.edit("tiny", json!({"spec": {"model": {"source": source}}})).await?;
                bench.condition("tiny", kind, "True").await?;
            }
            await_value("a series of Events", async || {
                let calls = bench.cluster.audit().calls(&bench.operator.user())?;
                Ok(calls.iter().any(|call| call.verb == "patch" && call.resource == "events").then_some(()))
            })
            .await
        })
        .await?;
    }
    Ok(())
}

/// Asked for without being granted: without a right to Nodes the operator plans without them, and it asks to find out.
const PROBED: [(Mode, &str, &str, &str); 1] = [(Mode::Namespaced, "list", "", "nodes")];

pub(crate) async fn every_right_of_the_chart_is_used_and_no_other_is_wanted() -> Result<()> {
    let users = users();
    let by_user = Cluster::get().await?.audit().rights_used(|user| users.contains_key(user))?;
    let mut used: BTreeMap<Mode, BTreeSet<Right>> = BTreeMap::new();
    for (user, rights) in by_user {
        used.entry(users[&user]).or_default().extend(rights);
    }
    for (mode, verb, group, resource) in PROBED {
        let probe = (verb.to_owned(), group.to_owned(), resource.to_owned());
        ensure!(used.entry(mode).or_default().remove(&probe), "{mode:?}: nobody asked for {resource}");
    }
    for mode in [Mode::Cluster, Mode::Namespaced] {
        let (granted, used) = (lines(&granted(mode).await?), lines(&used[&mode]));
        println!("rights, {mode:?}: {} granted, {} used", granted.len(), used.len());
        assert_eq!(granted, used, "{mode:?}: left is granted, right is used");
    }
    Ok(())
}

pub(crate) async fn only_objects_with_our_label_are_ever_asked_for() -> Result<()> {
    let users = users();
    let lists = Cluster::get().await?.audit().lists(|user| users.contains_key(user))?;
    // Of nodes and models every one counts; of everything else what carries the model label, so that an operator never
    // holds the pods of others.
    let whole = |uri: &str| ["/nodes", "/modeldeployments"].iter().any(|kind| uri.contains(kind));
    let strays: Vec<_> =
        lists.iter().filter(|uri| !whole(uri) && !uri.contains("labelSelector=inference.shoal.dev%2Fmodel")).collect();
    ensure!(lists.iter().any(|uri| uri.contains("/pods?")), "nobody listed pods");
    assert_eq!(strays, Vec::<&String>::new());
    Ok(())
}

fn lines(rights: &BTreeSet<Right>) -> Vec<String> {
    rights.iter().map(|(verb, group, resource)| format!("{resource}.{group} {verb}").replace(". ", " ")).collect()
}

/// What the release's bindings give to its ServiceAccount.
async fn granted(mode: Mode) -> Result<BTreeSet<Right>> {
    let chart = helm(&[&["template", "shoal", "charts/shoal"], &mode.values()[..]].concat()).await?;
    let objects: Vec<Value> =
        serde_yaml::Deserializer::from_str(&chart).map(Value::deserialize).collect::<std::result::Result<_, _>>()?;
    let mut granted = BTreeSet::new();
    for binding in objects.iter().filter(|object| object["roleRef"].is_object()) {
        let reference = &binding["roleRef"];
        let role =
            objects.iter().find(|o| o["kind"] == reference["kind"] && o["metadata"]["name"] == reference["name"]);
        let rules = role.and_then(|role| role["rules"].as_array()).with_context(|| format!("rules of {reference}"))?;
        rules.iter().for_each(|rule| granted.extend(rights(rule)));
    }
    Ok(granted)
}

fn rights(rule: &Value) -> Vec<Right> {
    let words = |key: &str| {
        let all = rule[key].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let mut rights = Vec::new();
    for group in words("apiGroups") {
        for resource in words("resources") {
            rights.extend(words("verbs").into_iter().map(|verb| (verb, group.clone(), resource.clone())));
        }
    }
    rights
}
