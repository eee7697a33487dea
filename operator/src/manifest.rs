//! Manifests on disk: the one place that reads and writes YAML.
//!
//! Never reads what a network sent.

mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::crd::ModelDeployment;
use crate::crd::admit::{AdmitError, admit};

pub use self::write::{WriteError, with_shape};

/// The longest file, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why manifests cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Longer than any manifest.
    #[error("{path} has {bytes} bytes; at most {MAX_FILE_BYTES} are allowed")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Not YAML.
    #[error("{path} is not YAML")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_yaml::Error,
    },
    /// The API server would refuse it.
    #[error("{path}, document {document} is refused")]
    Refused {
        /// The file.
        path: PathBuf,
        /// From 1.
        document: usize,
        /// Why.
        #[source]
        source: AdmitError,
    },
    /// Two manifests with one name.
    #[error("{path}: {namespace}/{name} is given twice")]
    Twice {
        /// The file of the second.
        path: PathBuf,
        /// Their namespace.
        namespace: String,
        /// Their name.
        name: String,
    },
    /// No document at all.
    #[error("{path} holds no ModelDeployment")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Reads every ModelDeployment of the given files, as strictly as the API server would.
///
/// # Errors
/// The first [`ManifestError`].
pub fn read(paths: &[PathBuf]) -> Result<Vec<ModelDeployment>, ManifestError> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for path in paths {
        let documents = documents(path)?;
        if documents.is_empty() {
            return Err(ManifestError::Empty { path: path.clone() });
        }
        for (index, raw) in documents.iter().enumerate() {
            let object = admit(raw).map_err(|source| ManifestError::Refused {
                path: path.clone(),
                document: index + 1,
                source,
            })?;
            let namespace = object.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
            let name = object.metadata.name.clone().unwrap_or_default();
            if !seen.insert((namespace.clone(), name.clone())) {
                return Err(ManifestError::Twice { path: path.clone(), namespace, name });
            }
            all.push(object);
        }
    }
    Ok(all)
}

/// Reads every non-empty YAML document of one file.
///
/// # Errors
/// [`ManifestError::Read`], [`ManifestError::TooLong`] or [`ManifestError::Yaml`].
pub fn documents(path: &Path) -> Result<Vec<Value>, ManifestError> {
    let failed = |source| ManifestError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ManifestError::TooLong { path: path.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    parse(&text).map_err(|source| ManifestError::Yaml { path: path.to_owned(), source })
}

fn parse(text: &str) -> Result<Vec<Value>, serde_yaml::Error> {
    let all: Result<Vec<_>, _> = serde_yaml::Deserializer::from_str(text).map(Value::deserialize).collect();
    Ok(all?.into_iter().filter(|document| !document.is_null()).collect())
}

/// Writes YAML.
///
/// # Errors
/// When a map has a key that is no string.
pub fn to_yaml(value: &impl Serialize) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: inference.shoal.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: a}\nspec: {model: {source: 'file:///m'}}\n";

    /// The error of reading one file with `text`, its sources included, without the folder.
    fn refused(text: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.yaml");
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", anyhow::Error::from(read(&[path]).unwrap_err()));
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn every_unusable_manifest_names_the_file_and_the_fault() {
        let table = [
            refused(b""),
            refused(b"# nothing\n---\n"),
            refused(b"a: [1\n"),
            refused(b"\xff\xfe"),
            refused(b"- 1\n"),
            refused(b"apiVersion: v1\nkind: Pod\n"),
            refused(format!("{GOOD}---\n{GOOD}").as_bytes()),
            refused(GOOD.replace("spec: {", "spec: {replicas: two, ").as_bytes()),
            refused(GOOD.replace("spec: {", "spec: {replicas: -1, colour: red, ").as_bytes()),
        ];
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(&["no/such.yaml".into()]).unwrap_err().to_string();
        assert_eq!(error, "cannot read no/such.yaml");
    }

    #[test]
    fn two_documents_with_two_names_are_two_models() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.yaml");
        std::fs::write(&path, format!("{GOOD}---\n{}", GOOD.replace("name: a", "name: b"))).unwrap();
        let names: Vec<_> = read(&[path]).unwrap().into_iter().filter_map(|object| object.metadata.name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
