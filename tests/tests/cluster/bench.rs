//! One operator in one namespace, and small verbs on the models that it serves.

use std::collections::BTreeMap;
use std::ops::Deref;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use shoal_operator::crd::{GroupPhase, ModelDeployment, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::{Install, Mode};
use shoal_tests::cluster::namespace::with_temp_ns;
use shoal_tests::cluster::nodes::Pool;
use shoal_tests::cluster::operator::Operator;
use shoal_tests::cluster::wait::{await_object, await_value};
use shoal_tests::cluster::{Cluster, audit::Call, audit::Mark, pods};
use shoal_tests::seeds::{Draw, seeds};

/// Every interval of the operator is divided by 20, and every pass is logged.
pub(crate) const ENV: [(&str, &str); 2] = [("SHOAL_TIMING_DIVISOR", "20"), ("RUST_LOG", "info,shoal_operator=debug")];

/// Held to write by whoever changes the definition of ModelDeployments: that ends every watch of them, and a lapsed one is
/// listed anew. Held to read by whoever counts lists.
pub(crate) static DEFINITION: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// See the module.
pub(crate) struct Bench<'a> {
    pub(crate) room: Room<'a>,
    pub(crate) install: Install,
    pub(crate) operator: Operator,
}

/// The models of one namespace, whichever operator serves it.
#[derive(Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) namespace: &'a str,
}

impl<'a> Deref for Bench<'a> {
    type Target = Room<'a>;

    fn deref(&self) -> &Room<'a> {
        &self.room
    }
}

/// Runs `body` beside an operator that has the chart's rights in a namespace of its own.
pub(crate) async fn with_operator(mode: Mode, body: impl AsyncFnOnce(&mut Bench<'_>) -> Result<()>) -> Result<()> {
    with_temp_ns(async |cluster, namespace| {
        let install = Install::new(namespace, mode).await?;
        let operator = Operator::start_with(cluster, &install, &ENV).await?;
        let mut bench = Bench { room: Room { cluster, namespace }, install, operator };
        body(&mut bench).await
    })
    .await
}

/// Runs `body` once for every seed, each beside an operator of its own, all at once.
pub(crate) async fn with_seeds(mode: Mode, body: impl AsyncFn(&mut Bench<'_>, Draw) -> Result<()>) -> Result<()> {
    let body = &body;
    let one = |seed| async move {
        let life = with_operator(mode, async |bench| body(bench, Draw::of(seed)).await);
        life.await.with_context(|| format!("seed {seed}"))
    };
    try_join_all(seeds().map(one)).await.map(drop)
}

/// The demo model on two CPU shards, as `manifests/tiny-cpu.yaml` has it, with `replicas` groups.
pub(crate) fn tiny(replicas: u32) -> Result<ModelDeployment> {
    let path = shoal_tests::paths::repository().join("manifests/tiny-cpu.yaml");
    let mut model: ModelDeployment = serde_yaml::from_str(&std::fs::read_to_string(path)?)?;
    model.spec.replicas = replicas.cast_signed();
    Ok(model)
}

/// [`tiny`], whose pods carry `annotations`.
pub(crate) fn annotated(replicas: u32, annotations: &[(&str, &str)]) -> Result<ModelDeployment> {
    let mut model = tiny(replicas)?;
    let both = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    model.spec.pod.annotations.extend(both);
    Ok(model)
}

/// [`tiny`] on the nodes of `pool` alone, a whole CPU a shard.
pub(crate) fn within(pool: &Pool<'_>, replicas: u32) -> Result<ModelDeployment> {
    let mut model = tiny(replicas)?;
    let place = pool.placement();
    model.spec.pod.node_selector = serde_json::from_value(place["nodeSelector"].clone())?;
    model.spec.pod.tolerations = serde_json::from_value(place["tolerations"].clone())?;
    model.spec.pod.resources.requests = serde_json::from_value(json!({"cpu": "1"}))?;
    Ok(model)
}

impl Room<'_> {
    pub(crate) fn models(&self) -> Api<ModelDeployment> {
        Api::namespaced(self.cluster.client(), self.namespace)
    }

    /// Creates `model` and waits until it is Ready.
    pub(crate) async fn serve(&self, model: &ModelDeployment) -> Result<ModelDeployment> {
        let created = self.models().create(&PostParams::default(), model).await?;
        self.ready(&created.name_any()).await
    }

    /// Waits until the newest spec is Ready.
    pub(crate) async fn ready(&self, name: &str) -> Result<ModelDeployment> {
        self.condition(name, "Ready", "True").await
    }

    /// Waits until `kind` has `status` for the newest spec.
    pub(crate) async fn condition(&self, name: &str, kind: &str, status: &str) -> Result<ModelDeployment> {
        let holds = |model: &ModelDeployment| {
            let now = model.status.clone().unwrap_or_default();
            let current = now.observed_generation == model.metadata.generation;
            current && now.conditions.iter().any(|c| c.type_ == kind && c.status == status)
        };
        await_object(&self.models(), name, &format!("{kind}={status}"), holds).await
    }

    /// Waits until `holds` is true of the status.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&ModelDeploymentStatus) -> bool,
    ) -> Result<ModelDeploymentStatus> {
        let of = |model: &ModelDeployment| model.status.as_ref().is_some_and(&holds);
        Ok(await_object(&self.models(), name, what, of).await?.status.unwrap_or_default())
    }

    /// Merges `change` into the object, as `kubectl patch --type=merge` does.
    pub(crate) async fn edit(&self, name: &str, change: Value) -> Result<()> {
        self.models().patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    /// Somebody adds to the selector of the client Service and opens the NetworkPolicy of `tiny`; waits until both are as
    /// they were.
    pub(crate) async fn meddle(&self) -> Result<()> {
        let (client, changed) = (self.cluster.client(), PatchParams::default());
        let services: Api<Service> = Api::namespaced(client.clone(), self.namespace);
        let selector = json!({"spec": {"selector": {"inference.shoal.dev/extra": "key"}}});
        let right = services.get("tiny").await?.spec;
        services.patch("tiny", &changed, &Patch::Merge(selector)).await?;
        await_object(&services, "tiny", "selecting its pods again", |service| service.spec == right).await?;
        let policies: Api<NetworkPolicy> = Api::namespaced(client, self.namespace);
        let right = policies.get("tiny-shards").await?.spec;
        policies.patch("tiny-shards", &changed, &Patch::Merge(json!({"spec": {"ingress": [{}]}}))).await?;
        await_object(&policies, "tiny-shards", "closed again", |policy| policy.spec == right).await.map(drop)
    }

    /// The pods of `model`, by name.
    pub(crate) async fn pods(&self, model: &str) -> Result<Vec<Pod>> {
        pods::list(self.cluster, self.namespace, &format!("{}={model}", label::MODEL)).await
    }

    /// Name and uid of every pod of `model`.
    pub(crate) async fn identities(&self, model: &str) -> Result<BTreeMap<String, String>> {
        let pods = self.pods(model).await?;
        Ok(pods.into_iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect())
    }

    /// Makes a pod of somebody else that takes a CPU of `pool`.
    pub(crate) async fn occupy(&self, pool: &Pool<'_>, name: &str, priority: Option<&str>) -> Result<()> {
        let place = pool.placement();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "priorityClassName": priority,
                "nodeSelector": place["nodeSelector"],
                "tolerations": place["tolerations"],
                "securityContext": {"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "c", "image": "none", "resources": {"requests": {"cpu": "1"}},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        }))?;
        let api: Api<Pod> = Api::namespaced(self.cluster.client(), self.namespace);
        api.create(&PostParams::default(), &pod).await?;
        let placed = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        await_object(&api, name, "scheduled", placed).await.map(drop)
    }

    /// Waits for an Event of that reason whose note contains `words`.
    pub(crate) async fn told(&self, reason: &str, words: &str) -> Result<()> {
        let events: Api<Event> = Api::namespaced(self.cluster.client(), self.namespace);
        await_value(&format!("an Event {reason} with {words:?}"), async || {
            let all = events.list(&ListParams::default()).await?;
            let told = |event: &Event| {
                event.reason.as_deref() == Some(reason) && event.note.as_ref().is_some_and(|note| note.contains(words))
            };
            Ok(all.iter().any(told).then_some(()))
        })
        .await
    }
}

impl Bench<'_> {
    /// How many passes the operators of this namespace have logged.
    fn passes(&self) -> Result<usize> {
        Ok(self.operator.log()?.matches("\"message\":\"pass\"").count())
    }

    /// Touches the object without changing its spec, and waits until the operator has looked at it.
    pub(crate) async fn touch(&self, name: &str, round: usize) -> Result<()> {
        let before = self.passes()?;
        self.edit(name, json!({"metadata": {"annotations": {"touched": round.to_string()}}})).await?;
        await_value("a pass", async || Ok((self.passes()? > before).then_some(()))).await
    }

    /// The operator's writes since `mark`, without those that renew its lease.
    pub(crate) fn writes_since(&self, mark: Mark) -> Result<Vec<Call>> {
        let mut writes = self.cluster.audit().writes_since(mark, &self.operator.user())?;
        writes.retain(|call| call.resource != "leases");
        Ok(writes)
    }

    /// Starts an operator with the API fault `fault` in the place of the one that runs.
    pub(crate) async fn replace_operator(&mut self, fault: &str) -> Result<()> {
        let env = [&ENV[..], &[("SHOAL_API_FAULT", fault)]].concat();
        let next = Operator::start_with(self.cluster, &self.install, &env).await?;
        // Whether it had begun or not: a lease that it held is released.
        let _ = std::mem::replace(&mut self.operator, next).stop().await;
        Ok(())
    }

    /// Kills the operator and starts another.
    pub(crate) async fn restart_operator(&mut self) -> Result<()> {
        let next = Operator::start_with(self.cluster, &self.install, &ENV).await?;
        std::mem::replace(&mut self.operator, next).kill().await?;
        Ok(())
    }
}

/// The groups that are not ending, with a letter per revision in order of appearance: `A0e1+ B2e1.`
pub(crate) fn picture(status: &ModelDeploymentStatus, letters: &mut Vec<String>, phases: bool) -> String {
    let mut words = Vec::new();
    for group in status.groups.iter().filter(|group| group.phase != GroupPhase::Draining) {
        let at = letters.iter().position(|known| *known == group.revision).unwrap_or_else(|| {
            letters.push(group.revision.clone());
            letters.len() - 1
        });
        let letter = char::from(b'A' + u8::try_from(at).unwrap_or(25));
        let mark = if group.phase == GroupPhase::Ready { "+" } else { "." };
        words.push(format!("{letter}{}e{}{}", group.index, group.epoch, if phases { mark } else { "" }));
    }
    words.join(" ")
}

/// The label of a pod as a number.
pub(crate) fn number(pod: &Pod, key: &str) -> Result<u64> {
    pod.labels().get(key).with_context(|| format!("{} has no label {key}", pod.name_any()))?.parse().context("a number")
}
