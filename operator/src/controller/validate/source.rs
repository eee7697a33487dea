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
    /// The root of an OCI image, which kubelet mounts.
    Image {
        /// `registry/repository:tag` or `registry/repository@sha256:…`.
        reference: String,
    },
    /// `s3://`.
    Bucket {
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
    /// Where the volume of a claim or of an image is mounted.
    pub const MOUNT: &str = "/var/lib/shoal/model";

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
            "s3" if !rest.is_empty() => Ok(Self::Bucket { rest: rest.to_owned() }),
            "oci" if is_image(rest) => Ok(Self::Image { reference: rest.to_owned() }),
            "oci" => {
                Err(error("must name an image: oci://registry/repository:tag or oci://registry/repository@sha256:…"))
            }
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
            Self::Image { .. } => "oci",
            Self::Bucket { .. } => "s3",
        }
    }

    /// Whether the worker finds a folder at its start, without a download.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Claim { .. } | Self::Image { .. })
    }

    /// The argument of the worker's `--model`.
    #[must_use]
    pub fn worker_uri(&self) -> String {
        match self {
            Self::Claim { path, .. } if path.is_empty() => format!("file://{}", Self::MOUNT),
            Self::Claim { path, .. } => format!("file://{}/{path}", Self::MOUNT),
            Self::Image { .. } => format!("file://{}", Self::MOUNT),
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
            Self::Image { reference } => write!(f, "oci://{reference}"),
            Self::Bucket { rest } => write!(f, "s3://{rest}"),
        }
    }
}

/// Whether `text` names its registry (a host with a dot, a port, or localhost), a repository, and a tag or a digest:
/// what a node would otherwise fill in is nobody's wish.
fn is_image(text: &str) -> bool {
    let Some((registry, rest)) = text.split_once('/') else { return false };
    let host = registry.contains(['.', ':']) || registry == "localhost";
    let (repository, digest) = rest.split_once('@').map_or((rest, None), |(name, digest)| (name, Some(digest)));
    let (path, tag) = repository.rsplit_once(':').map_or((repository, None), |(path, tag)| (path, Some(tag)));
    let word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let named = word(registry, ".:-") && path.split('/').all(|part| word(part, "._-") && part == part.to_lowercase());
    let tagged = tag.is_none_or(|tag| tag.len() <= 128 && word(tag, "._-"));
    let hex = |hex: &str| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit());
    let pinned = digest.is_none_or(|digest| digest.strip_prefix("sha256:").is_some_and(hex));
    host && named && tagged && pinned && (tag.is_some() || digest.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_reads_back() {
        for text in ["file:///models/tiny", "pvc://weights/v3/chat", "hf://a/b@main", "s3://bucket/x", "oci://r.io/m:1"]
        {
            assert_eq!(ModelSource::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_claim_and_an_image_are_folders_for_the_worker() {
        let uri = |text: &str| ModelSource::parse(text).unwrap().worker_uri();
        assert_eq!(uri("pvc://weights/v3"), "file:///var/lib/shoal/model/v3");
        assert_eq!(uri("pvc://weights"), "file:///var/lib/shoal/model");
        assert_eq!(uri("file:///models/tiny"), "file:///models/tiny");
        for image in ["r.io/models/lite:v1", "localhost/m:1", "r:5000/m:1"] {
            assert_eq!(uri(&format!("oci://{image}")), "file:///var/lib/shoal/model");
        }
        let pinned = format!("oci://r.io/m@sha256:{}", "0a".repeat(32));
        assert_eq!(uri(&pinned), "file:///var/lib/shoal/model");
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
            "oci://lite:1",
            "oci://models/lite:1",
            "oci://r.io/lite",
            "oci://r.io/Lite:1",
            "oci://r.io/lite:",
            "oci://r.io/lite@sha256:12",
            "oci://r.io//lite:1",
            "ftp://x",
        ] {
            assert!(ModelSource::parse(bad).is_err(), "{bad}");
        }
    }
}
