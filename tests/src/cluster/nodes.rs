//! Fake nodes that belong to one test: nobody else's pods come there, and the test may do to them what it likes.

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::Cluster;
use super::wait::await_object;

/// Label and taint of nodes that belong to one test, whose namespace is the value.
pub const POOL: &str = "shoal.test/pool";

/// The nodes of one test.
pub struct Pool<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Pool<'a> {
    /// Makes `count` nodes `NAMESPACE-0`, `NAMESPACE-1`, … with `cpus` CPUs each, every one in a zone of its own.
    ///
    /// # Errors
    /// When the API server refuses, or when they do not become Ready.
    pub async fn new(cluster: &'a Cluster, namespace: &str, count: usize, cpus: u32) -> Result<Self> {
        let pool = Self { cluster, name: namespace.to_owned() };
        for index in 0..count {
            pool.add(index, cpus).await?;
        }
        Ok(pool)
    }

    /// Makes the node of that number.
    ///
    /// # Errors
    /// When the API server refuses, or when it does not become Ready.
    pub async fn add(&self, index: usize, cpus: u32) -> Result<()> {
        let name = self.node(index);
        let amounts = json!({"cpu": cpus.to_string(), "memory": "64Gi", "ephemeral-storage": "100Gi", "pods": "110"});
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {
                    POOL: self.name, "kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64",
                    "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": name,
                },
            },
            "spec": {"taints": [{"key": POOL, "value": self.name, "effect": "NoSchedule"}]},
            "status": {"allocatable": amounts, "capacity": amounts},
        }))?;
        self.api().create(&PostParams::default(), &node).await?;
        await_object(&self.api(), &name, "Ready", is_ready).await.map(drop)
    }

    /// Name of the node of that number.
    #[must_use]
    pub fn node(&self, index: usize) -> String {
        format!("{}-{index}", self.name)
    }

    /// What a spec's `pod` must say to run here, and nowhere else.
    #[must_use]
    pub fn placement(&self) -> serde_json::Value {
        json!({
            "nodeSelector": {POOL: self.name},
            "tolerations": [{"key": POOL, "operator": "Equal", "value": self.name, "effect": "NoSchedule"}],
        })
    }

    /// From now on the node is silent: somebody else holds its lease, so the fake kubelet does nothing there any more, and
    /// nobody renews it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn silence(&self, index: usize) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.cluster.client(), "kube-node-lease");
        let spec = json!({"spec": {"holderIdentity": "nobody", "leaseDurationSeconds": 3600}});
        leases.patch(&self.node(index), &PatchParams::default(), &Patch::Merge(spec)).await?;
        Ok(())
    }

    /// Deletes the node of that number.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete(&self, index: usize) -> Result<()> {
        self.api().delete(&self.node(index), &DeleteParams::default()).await?;
        Ok(())
    }

    /// Deletes all that is left of them.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn clear(&self) -> Result<()> {
        let ours = ListParams::default().labels(&format!("{POOL}={}", self.name));
        self.api().delete_collection(&DeleteParams::default(), &ours).await?;
        Ok(())
    }

    /// The nodes.
    #[must_use]
    pub fn api(&self) -> Api<Node> {
        Api::all(self.cluster.client())
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
