//! The chart, installed as users install it, except that its operator runs outside as a process of the test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::Cluster;
use super::tools::{helm, kubectl};
use super::wait::await_object;

const CRD: &str = "modeldeployments.inference.shoal.dev";

/// Applies the chart's CRD with plain `kubectl apply`, which refuses definitions that are too big, and waits for it.
pub(super) async fn crd(cluster: &Cluster) -> Result<()> {
    kubectl(&["apply", "-f", "charts/shoal/files/crd.yaml"]).await?;
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let served = |crd: &CustomResourceDefinition| {
        let conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
    };
    await_object(&api, CRD, "Established", served).await.map(drop)
}

/// Which rights the chart gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A ClusterRole: every namespace, and Nodes.
    Cluster,
    /// Roles of one namespace.
    Namespaced,
}

impl Mode {
    /// What Helm is told.
    #[must_use]
    pub fn values(self) -> [&'static str; 4] {
        let mode = match self {
            Self::Cluster => "mode=cluster",
            Self::Namespaced => "mode=namespaced",
        };
        ["--set", mode, "--set", "crd.install=false,replicas=0"]
    }
}

/// The operators' users of this process, and which rights each was given.
static USERS: Mutex<BTreeMap<String, Mode>> = Mutex::new(BTreeMap::new());

/// Every user that an [`Install`] has made so far and that kept all its rights.
#[must_use]
pub fn users() -> BTreeMap<String, Mode> {
    USERS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// One release of the chart, without operator pods.
#[derive(Clone, Debug)]
pub struct Install {
    /// Where the release, its ServiceAccount and its lease live.
    pub namespace: String,
    /// Which rights it has.
    pub mode: Mode,
}

impl Install {
    /// `helm install` of the committed chart into `namespace`.
    ///
    /// # Errors
    /// What Helm or the API server refuses.
    pub async fn new(namespace: &str, mode: Mode) -> Result<Self> {
        let words = ["install", "shoal", "charts/shoal", "--namespace", namespace];
        helm(&[&words[..], &mode.values()].concat()).await?;
        let install = Self { namespace: namespace.to_owned(), mode };
        USERS.lock().unwrap_or_else(PoisonError::into_inner).insert(install.user(), mode);
        Ok(install)
    }

    /// `helm uninstall`: its rights are gone afterwards.
    ///
    /// # Errors
    /// What Helm or the API server refuses.
    pub async fn uninstall(&self) -> Result<()> {
        helm(&["uninstall", "shoal", "--namespace", &self.namespace]).await.map(drop)
    }

    /// A test is about to change this user's rights, or to ask for what it must not: what it asks for counts no more.
    pub fn set_aside(&self) {
        USERS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.user());
    }

    /// The operator's user, as the audit log names it.
    #[must_use]
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:shoal", self.namespace)
    }

    /// A kubeconfig that acts as the chart's ServiceAccount, with a token of an hour.
    ///
    /// # Errors
    /// When the token is refused.
    pub async fn kubeconfig(&self, cluster: &Cluster) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client(), &self.namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request("shoal", &PostParams::default(), &request).await?;
        let token = answer.status.context("a granted TokenRequest holds a token")?.token;
        let admin: serde_json::Value =
            serde_yaml::from_str(&std::fs::read_to_string(cluster.run_folder().join("admin.kubeconfig"))?)?;
        let mut kubeconfig = admin.clone();
        kubeconfig["users"] = json!([{"name": "admin", "user": {"token": token}}]);
        kubeconfig["contexts"][0]["context"]["namespace"] = json!(self.namespace);
        let path = cluster.run_folder().join(format!("{}.kubeconfig", self.namespace));
        std::fs::write(&path, serde_yaml::to_string(&kubeconfig)?)?;
        Ok(path)
    }
}
