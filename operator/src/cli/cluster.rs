//! The cluster that a command talks to: the current kube context, with the caller's own rights.

use kube::api::{DynamicObject, ListParams, ObjectMeta};
use kube::config::InferConfigError;
use kube::core::ObjectList;
use kube::runtime::watcher;
use kube::{Api, Client, Config};

use super::seen;
use crate::crd::ModelDeployment;

/// Names that a hint holds at most.
const HINTS: usize = 6;

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
    #[error("namespace {namespace} has no ModelDeployment {name}{hint}")]
    Missing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// What there is instead, if the caller may know.
        hint: String,
    },
    /// The kind itself is unknown there.
    #[error("this cluster does not know ModelDeployments; install them with helm install shoal charts/shoal")]
    NotInstalled,
    /// The watch cannot go on: not allowed, or nothing to watch.
    #[error("cannot watch {what}")]
    Watch {
        /// What was watched.
        what: &'static str,
        /// The API server's answer.
        #[source]
        source: Box<watcher::Error>,
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

    /// The object, or an error that names it and what there is instead.
    pub(super) async fn model(&self, name: &str) -> Result<ModelDeployment, ClusterError> {
        let found = self.models().get_opt(name).await.map_err(during("read the ModelDeployment"))?;
        match found {
            Some(model) => Ok(model),
            None => Err(self.missing(name).await),
        }
    }

    /// Why `name` was not found.
    pub(super) async fn missing(&self, name: &str) -> ClusterError {
        let hint = match list(&seen::stored(self.client.clone(), Some(&self.namespace))).await {
            Err(ClusterError::NotInstalled) => return ClusterError::NotInstalled,
            // Whoever may not list them gets no hint.
            Err(_) => String::new(),
            Ok(models) => hint(models.items.iter().map(|model| self::name(&model.metadata)).collect()),
        };
        ClusterError::Missing { name: name.to_owned(), namespace: self.namespace.clone(), hint }
    }
}

/// All ModelDeployments that `api` reaches.
pub(super) async fn list(api: &Api<DynamicObject>) -> Result<ObjectList<DynamicObject>, ClusterError> {
    match api.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Err(ClusterError::NotInstalled),
        answer => answer.map_err(during("list ModelDeployments")),
    }
}

fn hint(mut names: Vec<&str>) -> String {
    names.sort_unstable();
    let more = names.len().saturating_sub(HINTS);
    names.truncate(HINTS);
    match (names.as_slice(), more) {
        ([], _) => "; it has none (another namespace: -n NAMESPACE)".to_owned(),
        (names, 0) => format!("; it has {}", names.join(", ")),
        (names, more) => format!("; it has {} and {more} more", names.join(", ")),
    }
}

/// An error of a watch that goes on by itself is told on standard error; one that cannot go on is returned.
pub(super) fn or_go_on<T>(event: watcher::Result<T>, what: &'static str) -> Result<Option<T>, ClusterError> {
    let refused = |error: &kube::Error| matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 410 && status.code != 429);
    match event {
        Ok(event) => Ok(Some(event)),
        Err(source) => match &source {
            watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) if refused(error) => {
                Err(ClusterError::Watch { what, source: Box::new(source) })
            }
            _ => {
                eprintln!("watching {what}: {source}; trying again");
                Ok(None)
            }
        },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_what_there_is_but_not_everything() {
        assert_eq!(hint(vec![]), "; it has none (another namespace: -n NAMESPACE)");
        assert_eq!(hint(vec!["b", "a"]), "; it has a, b");
        assert_eq!(hint(vec!["8", "7", "6", "5", "4", "3", "2", "1"]), "; it has 1, 2, 3, 4, 5, 6 and 2 more");
    }
}
