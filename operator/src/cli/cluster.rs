//! The cluster that a command talks to: the current kube context, with the caller's own rights.

use kube::api::ObjectMeta;
use kube::config::InferConfigError;
use kube::{Api, Client, Config};

use crate::crd::ModelDeployment;

/// Where a command looks.
#[derive(Debug, clap::Args)]
pub struct Scope {
    /// Namespace [default: that of the kube context]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Why the cluster gave no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Neither KUBECONFIG, nor `~/.kube/config`, nor a ServiceAccount.
    #[error("no cluster is configured: neither KUBECONFIG nor ~/.kube/config nor a pod's ServiceAccount")]
    Config(#[source] Box<InferConfigError>),
    /// The configuration names no usable API server.
    #[error("the kube context cannot be used")]
    Client(#[source] Box<kube::Error>),
    /// There is no such object.
    #[error("namespace {namespace} has no ModelDeployment {name}")]
    Missing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// The API server refused, or did not answer.
    #[error("cannot {what}")]
    Api {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client and the namespace that the caller means.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) namespace: String,
}

impl Session {
    /// The current kube context.
    pub(super) async fn open(scope: &Scope) -> Result<Self, ClusterError> {
        let config = Config::infer().await.map_err(|source| ClusterError::Config(Box::new(source)))?;
        let namespace = scope.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|source| ClusterError::Client(Box::new(source)))?;
        Ok(Self { client, namespace })
    }

    pub(super) fn models(&self) -> Api<ModelDeployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The object, or an error that names it.
    pub(super) async fn model(&self, name: &str) -> Result<ModelDeployment, ClusterError> {
        let found = self.models().get_opt(name).await.map_err(during("read the ModelDeployment"))?;
        found.ok_or_else(|| self.missing(name))
    }

    pub(super) fn missing(&self, name: &str) -> ClusterError {
        ClusterError::Missing { name: name.to_owned(), namespace: self.namespace.clone() }
    }
}

/// Says what was asked when the API server refuses.
pub(super) fn during(what: &'static str) -> impl Fn(kube::Error) -> ClusterError {
    move |source| ClusterError::Api { what, source: Box::new(source) }
}

/// The name, which every stored object has.
pub(super) fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}
