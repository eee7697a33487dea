//! What the status shows already: a plan stays unless another is clearly better.
//!
//! Never starts anything: what runs was decided with its revision.

use super::Revision;
use super::choose::{Candidate, best};
use crate::controller::validate::Validated;
use crate::crd::ModelDeploymentStatus;

/// How many times the tokens per second and cost another layout must make to be worth a change.
pub const WORTHWHILE: f64 = 1.1;

/// The layout that the status shows for the same spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Shards of one group.
    pub shards: u32,
    /// Groups were made from it, or will be: only an edit changes it.
    pub started: bool,
}

impl Shown {
    /// Reads the status that was written for the same spec.
    #[must_use]
    pub fn of(spec: &Validated, generation: Option<i64>, status: &ModelDeploymentStatus) -> Option<Self> {
        let hash = Revision::hash_of(spec);
        let started = status.revisions.iter().find(|entry| entry.hash == hash.as_str());
        let layout = status.plan.as_ref().and_then(|plan| plan.layout.as_ref());
        let layout = layout.filter(|_| generation.is_some() && status.observed_generation == generation);
        let shards = started.map(|entry| entry.shards).or_else(|| layout.map(|layout| layout.shards))?;
        let shards = u32::try_from(shards).ok().filter(|shards| (1..=64).contains(shards))?;
        Some(Self { shards, started: started.is_some() })
    }
}

/// What to show, and what would be better than what runs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Settled<'a> {
    /// A layout that fits.
    Fits { chosen: &'a Candidate, better: Option<&'a Candidate> },
    /// `shards` shards run, or would have to, and do not fit.
    Not { shards: Option<u32>, better: Option<&'a Candidate> },
}

/// Settles on one of `candidates`.
pub(super) fn settle(candidates: &[Candidate], shown: Option<Shown>) -> Settled<'_> {
    let top = best(candidates);
    let of = |shown: Shown| {
        let same: Vec<_> = candidates.iter().filter(|candidate| candidate.shards == shown.shards).cloned().collect();
        best(&same).and_then(|found| candidates.iter().find(|candidate| *candidate == found))
    };
    let kept = shown.and_then(of);
    let worthwhile = |kept: &Candidate| top.filter(|top| top.score.better_than(&kept.score, WORTHWHILE));
    match (shown, kept, top) {
        (Some(Shown { started: true, .. }), Some(kept), _) => {
            let better = worthwhile(kept).filter(|top| top.shards != kept.shards);
            Settled::Fits { chosen: kept, better }
        }
        (Some(Shown { started: true, shards }), None, top) => Settled::Not { shards: Some(shards), better: top },
        (_, Some(kept), _) => Settled::Fits { chosen: worthwhile(kept).unwrap_or(kept), better: None },
        (_, None, Some(top)) => Settled::Fits { chosen: top, better: None },
        (_, None, None) => Settled::Not { shards: None, better: None },
    }
}
