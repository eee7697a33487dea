//! A revision: what was decided once for what the user asked, and is never recomputed.
//!
//! Never plans: it freezes a plan, writes it into the status and reads it back.

use shoal_proto::placement::{Placement, PlacementError};

use super::{Plan, ShardBytes};
use crate::controller::validate::{Owner, Rejection, Validated, validate_spec};
use crate::crd::RevisionStatus;
use crate::names::RevisionHash;

/// Everything from which the pods of a revision are built.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Hash of what the user asked for.
    pub hash: RevisionHash,
    /// Worker image.
    pub image: String,
    /// Shards of one group, 1 to 64.
    pub shards: u32,
    /// Who owns which experts or layers; `None`: the workers divide them evenly.
    pub placement: Option<Placement>,
    /// Memory of one shard in bytes; `None` if unknown.
    pub shard_bytes: Option<u64>,
    /// What one shard reads at its start, in bytes; `None` if unknown.
    pub load_bytes: Option<u64>,
    /// Memory that a shard needs on its device, in bytes; `None` without a device or if unknown.
    pub device_bytes: Option<u64>,
    /// The product for which it was planned, where nodes offered several.
    pub product: Option<String>,
    /// The spec of this revision.
    pub spec: Validated,
}

/// Why an entry of `status.revisions` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// Not a hash.
    #[error("revision hash {0:?} is not ten hexadecimal digits")]
    Hash(String),
    /// The compact spec is not JSON of a spec.
    #[error("the spec of revision {hash} cannot be read")]
    Json {
        /// The revision.
        hash: RevisionHash,
        /// What was wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The compact spec is not accepted any more.
    #[error("the spec of revision {hash} is not accepted")]
    Rejected {
        /// The revision.
        hash: RevisionHash,
        /// Why.
        #[source]
        source: Rejection,
    },
    /// The placement is broken.
    #[error("the placement of revision {hash} cannot be read")]
    Placement {
        /// The revision.
        hash: RevisionHash,
        /// What was wrong.
        #[source]
        source: PlacementError,
    },
}

impl Revision {
    /// The hash of what the user asks for now.
    #[must_use]
    pub fn hash_of(spec: &Validated) -> RevisionHash {
        RevisionHash::of(spec.asked.as_bytes())
    }

    /// Freezes a plan; `None` when it makes no pods or this build cannot run it.
    #[must_use]
    pub fn decide(spec: &Validated, plan: &Plan, default_image: &str) -> Option<Self> {
        if spec.supported().is_err() || !plan.verdict.reason.permits_pods() {
            return None;
        }
        let layout = plan.layout.as_ref()?;
        Some(Self {
            hash: Self::hash_of(spec),
            image: spec.pod.image.clone().unwrap_or_else(|| default_image.to_owned()),
            shards: layout.shards,
            placement: layout.placement.clone(),
            shard_bytes: layout.bytes.as_ref().map(|bytes| bytes.host()),
            load_bytes: layout.bytes.as_ref().map(|bytes| bytes.loaded()),
            device_bytes: layout.bytes.as_ref().map(ShardBytes::device).filter(|bytes| *bytes > 0),
            product: layout.product.clone(),
            spec: spec.clone(),
        })
    }

    /// The entry of `status.revisions`, neither target nor serving yet.
    #[must_use]
    pub fn to_status(&self) -> RevisionStatus {
        let signed = |bytes: Option<u64>| i64::try_from(bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        RevisionStatus {
            hash: self.hash.to_string(),
            target: false,
            serving: false,
            image: self.image.clone(),
            shards: i32::try_from(self.shards).unwrap_or(i32::MAX),
            placement: self.placement.as_ref().map(Placement::to_base64).unwrap_or_default(),
            shard_bytes: signed(self.shard_bytes),
            load_bytes: signed(self.load_bytes),
            device_bytes: self.device_bytes.map(|bytes| signed(Some(bytes))),
            product: self.product.clone(),
            spec: self.spec.compact.clone(),
        }
    }

    /// Reads an entry of `status.revisions`.
    ///
    /// # Errors
    /// [`RevisionError`]: someone else wrote the status, or an older build did.
    pub fn from_status(owner: &Owner, entry: &RevisionStatus) -> Result<Self, RevisionError> {
        let hash = RevisionHash::parse(&entry.hash).ok_or_else(|| RevisionError::Hash(entry.hash.clone()))?;
        let spec =
            serde_json::from_str(&entry.spec).map_err(|source| RevisionError::Json { hash: hash.clone(), source })?;
        let spec = validate_spec(owner.clone(), &spec, None)
            .map_err(|source| RevisionError::Rejected { hash: hash.clone(), source })?;
        let placement = (!entry.placement.is_empty()).then(|| Placement::from_base64(&entry.placement)).transpose();
        let placement = placement.map_err(|source| RevisionError::Placement { hash: hash.clone(), source })?;
        let known = |bytes: i64| u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
        Ok(Self {
            hash,
            image: entry.image.clone(),
            shards: u32::try_from(entry.shards).unwrap_or(1).clamp(1, 64),
            placement,
            shard_bytes: known(entry.shard_bytes),
            load_bytes: known(entry.load_bytes),
            device_bytes: entry.device_bytes.and_then(known),
            product: entry.product.clone(),
            spec,
        })
    }
}
