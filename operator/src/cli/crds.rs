//! `shoal crds`: the CustomResourceDefinition as YAML.

use std::io::Write as _;

use kube::CustomResourceExt as _;

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
    manifest::to_yaml(&ModelDeployment::crd())
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
