//! The nodes that a plan is compared with, and where they come from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;

use crate::inventory::{Catalogue, Inventory, NodeCapacity, this_machine};
use crate::manifest::{self, ManifestError};

/// A context that does not answer within this is taken for an old one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nodes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] ManifestError),
    /// The file holds something else.
    #[error("{path} holds no nodes; it should be the output of kubectl get nodes -o yaml")]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// A node in the file is not one.
    #[error("{path} holds a node that cannot be read")]
    Node {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The nodes of the file, else of the current kube context, else this machine; and which of them.
pub(super) async fn inventory(file: Option<&Path>, catalogue: &Catalogue) -> Result<(Inventory, String), NodesError> {
    if let Some(path) = file {
        return Ok((from_file(path, catalogue)?, format!("from {}", path.display())));
    }
    if let Ok(Ok((nodes, context))) = tokio::time::timeout(PATIENCE, from_context()).await {
        return Ok((sorted(nodes.iter().map(|node| NodeCapacity::of(node, catalogue)).collect()), context));
    }
    let machine = this_machine();
    Ok((Inventory::Nodes(vec![machine]), "this machine (no kube context answers)".to_owned()))
}

async fn from_context() -> Result<(Vec<Node>, String), kube::Error> {
    let config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    let context = format!("of the kube context at {}", config.cluster_url);
    let client = Client::try_from(config)?;
    Ok((Api::<Node>::all(client).list(&ListParams::default()).await?.items, context))
}

/// A List, a NodeList, or documents of one node each.
fn from_file(path: &Path, catalogue: &Catalogue) -> Result<Inventory, NodesError> {
    let mut nodes = Vec::new();
    for document in manifest::documents(path)? {
        let items = match &document["items"] {
            Value::Array(items) => items.clone(),
            _ => vec![document],
        };
        for item in items {
            if item["kind"].as_str().is_some_and(|kind| kind != "Node") {
                return Err(NodesError::Kind { path: path.to_owned() });
            }
            let node: Node =
                serde_json::from_value(item).map_err(|source| NodesError::Node { path: path.to_owned(), source })?;
            nodes.push(NodeCapacity::of(&node, catalogue));
        }
    }
    if nodes.is_empty() { Err(NodesError::Kind { path: path.to_owned() }) } else { Ok(sorted(nodes)) }
}

fn sorted(mut nodes: Vec<NodeCapacity>) -> Inventory {
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Inventory::Nodes(nodes)
}
