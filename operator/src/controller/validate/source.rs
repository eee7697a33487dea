//! Model sources. Never opens one.

use std::fmt;

/// Where the weights are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder in the worker's file system: part of the image.
    File {
        /// Absolute.
        path: String,
    },
    /// A folder of a PersistentVolumeClaim.
    Claim {
        /// Name of the claim.
        claim: String,
        /// Relative to the volume; may be empty.
        path: String,
    },
    /// A published model.
    Hub {
        /// `org/name`.
        repository: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// `s3://` or `oci://`.
    Remote {
        /// The scheme.
        scheme: &'static str,
        /// What follows `://`.
        rest: String,
    },
}

/// Why a source names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_text:?} {problem}")]
pub struct SourceError {
    source_text: String,
    problem: &'static str,
}

impl ModelSource {
    /// Where the volume of a claim is mounted.
    pub const CLAIM_MOUNT: &str = "/var/lib/shoal/model";

    /// Reads a source.
    ///
    /// # Errors
    /// [`SourceError`], saying what is allowed.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let error = |problem| SourceError { source_text: text.to_owned(), problem };
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(error("has no scheme; allowed: file://, pvc://, hf://, s3://, oci://"));
        };
        if rest.split('/').any(|part| part == "..") || rest.contains(|c: char| c.is_control()) {
            return Err(error("must contain neither .. nor control characters"));
        }
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::File { path: rest.to_owned() }),
            "file" => Err(error("must be absolute: file:///dir")),
            "pvc" => {
                let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
                let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
                let name = !claim.is_empty() && claim.len() <= 253 && claim.chars().all(good);
                let claim = claim.to_owned();
                if !name {
                    return Err(error("must name a claim: pvc://claim/path"));
                }
                Ok(Self::Claim { claim, path: path.trim_matches('/').to_owned() })
            }
            "hf" => {
                let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
                let parts: Vec<_> = repository.split('/').collect();
                if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) || revision.is_empty() {
                    return Err(error("must name a model: hf://org/name or hf://org/name@revision"));
                }
                Ok(Self::Hub { repository: repository.to_owned(), revision: revision.to_owned() })
            }
            "s3" if !rest.is_empty() => Ok(Self::Remote { scheme: "s3", rest: rest.to_owned() }),
            "oci" if !rest.is_empty() => Ok(Self::Remote { scheme: "oci", rest: rest.to_owned() }),
            _ => Err(error("is not supported; allowed: file://, pvc://, hf://, s3://, oci://")),
        }
    }

    /// The part before `://`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Claim { .. } => "pvc",
            Self::Hub { .. } => "hf",
            Self::Remote { scheme, .. } => scheme,
        }
    }

    /// Whether the worker finds a folder at its start, without a download.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Claim { .. })
    }

    /// The argument of the worker's `--model`.
    #[must_use]
    pub fn worker_uri(&self) -> String {
        match self {
            Self::Claim { path, .. } if path.is_empty() => format!("file://{}", Self::CLAIM_MOUNT),
            Self::Claim { path, .. } => format!("file://{}/{path}", Self::CLAIM_MOUNT),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path } => write!(f, "file://{path}"),
            Self::Claim { claim, path } => write!(f, "pvc://{claim}/{path}"),
            Self::Hub { repository, revision } => write!(f, "hf://{repository}@{revision}"),
            Self::Remote { scheme, rest } => write!(f, "{scheme}://{rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_reads_back() {
        for text in ["file:///models/tiny", "pvc://weights/v3/chat", "hf://a/b@main", "s3://bucket/x", "oci://r/m:1"] {
            assert_eq!(ModelSource::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_claim_is_a_folder_for_the_worker() {
        let uri = |text| ModelSource::parse(text).unwrap().worker_uri();
        assert_eq!(uri("pvc://weights/v3"), "file:///var/lib/shoal/model/v3");
        assert_eq!(uri("pvc://weights"), "file:///var/lib/shoal/model");
        assert_eq!(uri("file:///models/tiny"), "file:///models/tiny");
    }

    #[test]
    fn a_source_that_names_nothing_is_refused() {
        for bad in [
            "tiny",
            "file://models",
            "file:///a/../b",
            "pvc:///x",
            "pvc://A/x",
            "hf://name",
            "hf://a/b@",
            "s3://",
            "ftp://x",
        ] {
            assert!(ModelSource::parse(bad).is_err(), "{bad}");
        }
    }
}
