//! `shoal crds`: the CustomResourceDefinition as YAML.

use std::io::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSON;
use kube::CustomResourceExt as _;
use serde_json::json;

use crate::crd::ModelDeployment;
use crate::manifest;

/// Why the definition could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum CrdsError {
    /// Standard output is closed.
    #[error("cannot write the definition: {0}")]
    Output(#[from] std::io::Error),
    /// It is no YAML.
    #[error("cannot write the definition as YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

/// Runs `shoal crds`.
///
/// # Errors
/// [`CrdsError`].
pub fn run() -> Result<(), CrdsError> {
    Ok(std::io::stdout().write_all(yaml()?.as_bytes())?)
}

/// The definition as YAML.
///
/// # Errors
/// Never for the types of [`crate::crd`].
pub fn yaml() -> Result<String, serde_yaml::Error> {
    let mut definition = ModelDeployment::crd();
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let status = schema.and_then(|schema| schema.properties.as_mut()?.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(unseen()));
        }
    }
    manifest::to_yaml(&definition)
}

/// The status of an object that no operator has looked at: whoever waits for Ready (Helm, kstatus) must not take an
/// object without conditions for one that is done.
fn unseen() -> serde_json::Value {
    json!({"conditions": [{
        "type": "Ready", "status": "Unknown", "reason": "Pending", "message": "waiting for the operator",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]})
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_is_the_committed_one_and_small_enough_for_every_client() {
        let yaml = super::yaml().unwrap();
        assert!(yaml.len() < 40_000, "{} bytes", yaml.len());
        let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/shoal/files/crd.yaml");
        let committed = std::fs::read_to_string(committed).unwrap();
        assert!(committed == yaml, "run: shoal crds > charts/shoal/files/crd.yaml");
    }
}
