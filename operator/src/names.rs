//! The names that Shoal gives: newtypes, label keys, ports, the field manager.
//!
//! Never reads an object: a name is made from its parts.

use std::fmt;

/// Who owns the fields that we write, as `managedFields` tells.
pub const FIELD_MANAGER: &str = "shoal-operator";

/// Name of the container that runs the worker.
pub const WORKER: &str = "worker";

/// Label keys of every pod.
pub mod label {
    /// Name of the ModelDeployment.
    pub const MODEL: &str = "inference.shoal.dev/model";
    /// Hash of what the user asked for.
    pub const REVISION: &str = "inference.shoal.dev/revision";
    /// Index of the group.
    pub const GROUP: &str = "inference.shoal.dev/group";
    /// Formation of the group; only rises.
    pub const EPOCH: &str = "inference.shoal.dev/epoch";
    /// Index of the shard in its group.
    pub const RANK: &str = "inference.shoal.dev/rank";
    /// `true` on pods that take requests: the client Service selects it.
    pub const ACCEPTS: &str = "inference.shoal.dev/accepts";
}

/// Ports of every worker.
pub mod port {
    /// Generate, DescribeModel, CountTokens, reflection, health.
    pub const GRPC: u16 = 50051;
    /// `/metrics`, `/healthz`, `/readyz`.
    pub const HTTP: u16 = 8080;
    /// grpc.health.v1 alone, for kubelet.
    pub const HEALTH: u16 = 50052;
    /// Shard to shard.
    pub const SHARD: u16 = 50053;
}

/// Why a text is not a [`ModelName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a DNS-1035 label of at most {max} characters", max = ModelName::MAX_LEN)]
pub struct NameError(pub String);

/// Name of a ModelDeployment: a DNS-1035 label of at most 40 characters, so that every pod name is a hostname.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(String);

impl ModelName {
    /// The longest name, in characters.
    pub const MAX_LEN: usize = 40;

    /// Checks a name.
    ///
    /// # Errors
    /// When it is no DNS-1035 label of at most [`Self::MAX_LEN`] characters.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let good = text.len() <= Self::MAX_LEN
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-')
            && text.bytes().all(inner);
        if good { Ok(Self(text.to_owned())) } else { Err(NameError(text.to_owned())) }
    }

    /// The client Service.
    #[must_use]
    pub fn service(&self) -> String {
        self.0.clone()
    }

    /// The headless Service: subdomain of every shard.
    #[must_use]
    pub fn shards_service(&self) -> String {
        format!("{}-shards", self.0)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Ten hexadecimal digits that identify what the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevisionHash(String);

impl RevisionHash {
    /// Hashes the canonical text of what the user asked for.
    #[must_use]
    pub fn of(asked: &[u8]) -> Self {
        Self(blake3::hash(asked).to_hex()[..10].to_owned())
    }

    /// Reads a label or a status entry; `None` unless it is ten hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        (text.len() == 10 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RevisionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! index {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $number);

        impl $name {
            /// Reads a label; `None` unless it is a number.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                text.parse().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

index!(
    /// Place of a group among the replicas, from 0.
    GroupIndex(u32)
);
index!(
    /// How often a group was formed, from 1; only rises.
    Epoch(u64)
);
index!(
    /// Place of a shard in its group, from 0.
    Rank(u32)
);

impl Epoch {
    /// Of a group that never lost a shard.
    pub const FIRST: Self = Self(1);

    /// The next formation.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Which formation of which group: with a [`Rank`], a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId {
    /// Place among the replicas.
    pub index: GroupIndex,
    /// Formation.
    pub epoch: Epoch,
}

/// `NAME-HHHHHH`: begins every name that belongs to one revision.
fn stem(model: &ModelName, owner_uid: &str, revision: &RevisionHash) -> String {
    let hash = blake3::hash(format!("{owner_uid}/{revision}").as_bytes()).to_hex();
    format!("{model}-{}", &hash[..6])
}

/// Name of the Secret that holds the key pair of a revision's shards: `NAME-HHHHHH-tls`.
#[must_use]
pub fn tls_secret(model: &ModelName, owner_uid: &str, revision: &RevisionHash) -> String {
    format!("{}-tls", stem(model, owner_uid, revision))
}

/// Name of a pod, and its hostname: `NAME-HHHHHH-gG-eE-rR`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodName(String);

impl PodName {
    /// `owner_uid` and `revision` are hashed, so that a namesake's leftovers are never mistaken for ours.
    ///
    /// Fits in a hostname (63) up to epoch 9999 for every index and rank that the CRD allows.
    #[must_use]
    pub fn new(model: &ModelName, owner_uid: &str, revision: &RevisionHash, group: GroupId, rank: Rank) -> Self {
        let GroupId { index, epoch } = group;
        Self(format!("{}-g{index}-e{epoch}-r{rank}", stem(model, owner_uid, revision)))
    }

    /// Which shard a pod of that name is, whatever its labels say: a name never changes. `None`: not a name of this form.
    #[must_use]
    pub fn place(name: &str) -> Option<(GroupId, Rank)> {
        let mut parts = name.rsplit('-');
        let rank = Rank::parse(parts.next()?.strip_prefix('r')?)?;
        let epoch = Epoch::parse(parts.next()?.strip_prefix('e')?)?;
        let index = GroupIndex::parse(parts.next()?.strip_prefix('g')?)?;
        Some((GroupId { index, epoch }, rank))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What peers dial: resolved through the headless Service, in the pod's own namespace.
    #[must_use]
    pub fn peer(&self, model: &ModelName) -> String {
        format!("{}.{}:{}", self.0, model.shards_service(), port::SHARD)
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pod_name_is_a_hostname() {
        let model = ModelName::parse(&"m".repeat(40)).unwrap();
        let group = GroupId { index: GroupIndex(1099), epoch: Epoch(9999) };
        let name = PodName::new(&model, "uid", &RevisionHash::of(b"spec"), group, Rank(63));
        assert_eq!(name.as_str().len(), 63);
        assert_eq!(tls_secret(&model, "uid", &RevisionHash::of(b"spec")).len(), 51);
    }

    #[test]
    fn owner_and_revision_change_the_name_of_a_pod() {
        let model = ModelName::parse("tiny").unwrap();
        let group = GroupId { index: GroupIndex(0), epoch: Epoch::FIRST };
        let name = |uid, asked: &[u8]| PodName::new(&model, uid, &RevisionHash::of(asked), group, Rank(1)).0;
        assert_ne!(name("a", b"x"), name("b", b"x"));
        assert_ne!(name("a", b"x"), name("a", b"y"));
        assert!(name("a", b"x").starts_with("tiny-") && name("a", b"x").ends_with("-g0-e1-r1"));
    }

    #[test]
    fn a_name_tells_which_shard_it_is_and_other_names_tell_nothing() {
        let model = ModelName::parse("g1-e2-r3").unwrap();
        let group = GroupId { index: GroupIndex(7), epoch: Epoch(12) };
        let name = PodName::new(&model, "uid", &RevisionHash::of(b"spec"), group, Rank(3));
        assert_eq!(PodName::place(name.as_str()), Some((group, Rank(3))));
        for other in ["", "tiny", "tiny-g0-e1", "tiny-g0-e1-rx", "tiny-g0-e-r1", "tiny-0-1-2", "r1-e1-g1"] {
            assert_eq!(PodName::place(other), None, "{other}");
        }
    }

    #[test]
    fn only_dns_1035_labels_are_names() {
        for bad in ["", "1a", "a-", "-a", "A", "a_b", "a.b", &"a".repeat(41)] {
            assert_eq!(ModelName::parse(bad), Err(NameError(bad.to_owned())));
        }
        assert_eq!(ModelName::parse("a-1").unwrap().shards_service(), "a-1-shards");
    }
}
