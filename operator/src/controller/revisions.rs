//! Which revision is wanted and which one serves: decided once, kept in the status, never recomputed.
//!
//! Pure. A revision that the status knows is read from there, whatever nodes, chart or operator say today.

use std::collections::BTreeMap;

use super::plan::{Plan, Revision, RevisionError};
use super::validate::{Owner, Validated};
use crate::crd::{ModelDeploymentStatus, RevisionStatus};

/// The revisions that groups may be formed from.
#[derive(Debug, Default)]
pub struct Revisions {
    /// What the user asks for, if it can be built.
    pub target: Option<Revision>,
    /// The last one that was rolled out whole.
    pub serving: Option<Revision>,
    /// An entry of the status that cannot be used.
    pub unreadable: Option<RevisionError>,
}

impl Revisions {
    /// `asked`: the accepted spec with its plan; `None` keeps what serves.
    #[must_use]
    pub fn decide(
        owner: &Owner,
        asked: Option<(&Validated, &Plan)>,
        status: &ModelDeploymentStatus,
        default_image: &str,
    ) -> Self {
        let mut revisions = Self::default();
        let mut read = |entry: &RevisionStatus| match Revision::from_status(owner, entry) {
            Ok(revision) => Some(revision),
            Err(error) => {
                revisions.unreadable = Some(error);
                None
            }
        };
        let serving = status.revisions.iter().find(|entry| entry.serving).and_then(&mut read);
        let target = asked.filter(|(spec, _)| spec.supported().is_ok()).and_then(|(spec, plan)| {
            let hash = Revision::hash_of(spec);
            let known = status.revisions.iter().find(|entry| entry.hash == hash.as_str()).and_then(&mut read);
            known.or_else(|| Revision::decide(spec, plan, default_image))
        });
        revisions.serving = serving;
        revisions.target = target;
        revisions
    }

    /// What new groups are formed from: the target, else what serves.
    #[must_use]
    pub fn wanted(&self) -> Option<&Revision> {
        self.target.as_ref().or(self.serving.as_ref())
    }

    /// By hash.
    #[must_use]
    pub fn find(&self, hash: &str) -> Option<&Revision> {
        [&self.target, &self.serving].into_iter().flatten().find(|revision| revision.hash.as_str() == hash)
    }

    /// Shards of a group, by hash.
    #[must_use]
    pub fn sizes(&self) -> BTreeMap<String, usize> {
        let both = [&self.target, &self.serving].into_iter().flatten();
        both.map(|revision| (revision.hash.to_string(), revision.shards as usize)).collect()
    }

    /// The entries of the status, once `whole` says whether every group is an available one of the target.
    #[must_use]
    pub fn to_status(&self, whole: bool) -> Vec<RevisionStatus> {
        let wanted = self.target.as_ref();
        let serving = if whole { wanted.or(self.serving.as_ref()) } else { self.serving.as_ref() };
        let mut entries: Vec<RevisionStatus> = Vec::new();
        if let Some(serving) = serving {
            let target = wanted.is_some_and(|target| target.hash == serving.hash);
            entries.push(RevisionStatus { serving: true, target, ..serving.to_status() });
        }
        if let Some(target) = wanted.filter(|target| serving.is_none_or(|serving| serving.hash != target.hash)) {
            entries.push(RevisionStatus { target: true, ..target.to_status() });
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::controller::plan::plan;
    use crate::controller::validate::validate;
    use crate::crd::ModelDeployment;
    use crate::inventory::Inventory;

    fn revision(shards: u32) -> Revision {
        let text = include_str!("../../../manifests/tiny-cpu.yaml");
        let mut model: ModelDeployment = serde_yaml::from_str(text).unwrap();
        model.spec.sharding.as_mut().unwrap().shards = Some(shards.cast_signed());
        let spec = validate(&model).unwrap();
        Revision::decide(&spec, &plan(&spec, &Inventory::Unknown), "image").unwrap()
    }

    #[test]
    fn target_and_serving_have_each_its_size_and_entry_until_the_target_stands_whole() {
        let (target, serving) = (revision(1), revision(2));
        let hashes = [target.hash.to_string(), serving.hash.to_string()];
        let both = Revisions { target: Some(target.clone()), serving: Some(serving), unreadable: None };
        assert_eq!(both.sizes(), hashes.clone().into_iter().zip([1, 2]).collect::<BTreeMap<_, _>>());
        let shown = |revisions: &Revisions, whole| {
            let entries = revisions.to_status(whole).into_iter();
            entries.map(|entry| (entry.hash, entry.target, entry.serving)).collect::<Vec<_>>()
        };
        let [new, old] = hashes;
        assert_eq!(shown(&both, false), [(old, false, true), (new.clone(), true, false)]);
        assert_eq!(shown(&both, true), [(new.clone(), true, true)]);
        let settled = Revisions { target: Some(target.clone()), serving: Some(target), unreadable: None };
        assert_eq!(shown(&settled, false), [(new, true, true)]);
    }
}
