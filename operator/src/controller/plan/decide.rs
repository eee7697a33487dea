//! The decision: the wished number of shards, else the layout with the most tokens per second for its cost.
//!
//! Choosing has its place in [`choose`](super::choose), steadiness in [`shown`](super::shown).

use shoal_proto::placement::Placement;

use super::choose::{Candidate, Choice, best};
use super::fit::{self, Pool};
use super::shown::{Settled, settle};
use super::speed::{self, Prediction};
use super::{Layout, Plan, PlanReason, Shown, Verdict, words};
use crate::controller::validate::{Device, Validated};
use crate::crd::{Backend, ModelShape, Strategy};
use crate::inventory::{Inventory, NodeCapacity};

/// How many layouts with fewer shards are told, and how many that fit too.
const TOLD: (usize, usize) = (4, 2);

/// Decides how the model is cut.
#[must_use]
pub fn plan(spec: &Validated, inventory: &Inventory) -> Plan {
    replan(spec, inventory, None)
}

/// As [`plan`], steady against what is shown already.
#[must_use]
pub fn replan(spec: &Validated, inventory: &Inventory, shown: Option<Shown>) -> Plan {
    let Some(shape) = &spec.shape else { return without_shape(spec) };
    let Inventory::Nodes(nodes) = inventory else { return unseen(shape, spec, shown) };
    let eligible = fit::eligible(nodes, spec);
    let pools = Pool::all(&eligible, spec).split();
    let question = Question { choice: Choice { shape, spec, pools: &pools }, nodes, eligible };
    question.answer(shown)
}

fn without_shape(spec: &Validated) -> Plan {
    let device = words::device(&spec.device);
    let (reason, message, layout) = match spec.shards {
        Some(shards) => (
            PlanReason::Unverified,
            format!(
                "the shape of {} is unknown: {shards} shards are taken as given, nothing was compared",
                spec.source
            ),
            Some(Layout {
                shards,
                device,
                product: None,
                placement: undecided(spec.strategy, shards),
                load: None,
                bytes: None,
                prediction: None,
            }),
        ),
        None => (
            PlanReason::ShapeUnknown,
            format!(
                "the shape of {} is unknown: give spec.model.shape (shoal plan --write makes it from the files), \
                 or spec.sharding.shards, or a published hf:// source",
                spec.source
            ),
            None,
        ),
    };
    Plan { verdict: Verdict { reason, message }, layout, arithmetic: vec![], rejected: vec![], better: None }
}

/// The workers divide evenly what they find.
fn undecided(strategy: Strategy, shards: u32) -> Option<Placement> {
    let count = usize::try_from(shards).ok()?;
    match strategy {
        Strategy::Experts => Placement::undecided(count).ok(),
        Strategy::Pipeline => Placement::undecided_pipeline(count).ok(),
    }
}

/// Without nodes nothing is compared.
fn unseen(shape: &ModelShape, spec: &Validated, shown: Option<Shown>) -> Plan {
    let choice = Choice { shape, spec, pools: &[] };
    let shards = spec.shards.or(shown.map(|shown| shown.shards)).unwrap_or(1);
    let prediction = speed::unseen(spec).map(|device| Prediction::of(shape, spec, choice.load(shards), device));
    let message = "inventory: unknown; nothing was compared with nodes".to_owned();
    show(&choice, (shards, None), prediction, Verdict { reason: PlanReason::InventoryUnknown, message })
}

/// The layout with its arithmetic.
fn show(
    choice: &Choice<'_>,
    (shards, product): (u32, Option<&str>),
    prediction: Option<Prediction>,
    verdict: Verdict,
) -> Plan {
    let Choice { shape, spec, .. } = *choice;
    let placement = choice.placement(shards);
    let (load, bytes) = (choice.load(shards), choice.bytes(shards));
    let mut arithmetic = words::arithmetic(shape, spec, load, &bytes);
    arithmetic.extend(words::speed(shape, spec, load, prediction.as_ref()));
    let layout = Layout {
        shards,
        device: words::device_of(&spec.device, product),
        product: product.filter(|product| *product != fit::UNLABELLED).map(ToOwned::to_owned),
        placement,
        load: Some(load),
        bytes: Some(bytes),
        prediction,
    };
    Plan { verdict, layout: Some(layout), arithmetic, rejected: vec![], better: None }
}

struct Question<'a> {
    choice: Choice<'a>,
    nodes: &'a [NodeCapacity],
    eligible: Vec<&'a NodeCapacity>,
}

impl Question<'_> {
    fn answer(&self, shown: Option<Shown>) -> Plan {
        let candidates = self.choice.candidates();
        // Who pinned the number of shards has decided.
        let shown = shown.filter(|_| self.choice.spec.shards.is_none());
        let mut plan = match settle(&candidates, shown) {
            Settled::Fits { chosen, better } => Plan { better: self.better(better), ..self.fits(chosen, &candidates) },
            Settled::Not { shards, better } => Plan { better: self.better(better), ..self.fits_not(shards) },
        };
        plan.rejected.extend(self.other_backends());
        plan
    }

    fn fits(&self, chosen: &Candidate, candidates: &[Candidate]) -> Plan {
        let shards = chosen.shards;
        let groups = self.choice.room(shards) / u64::from(shards);
        let message = format!("groups of {shards} shards that the nodes hold when empty: {groups}");
        let verdict = Verdict { reason: PlanReason::Fits, message };
        let layout = (shards, chosen.product.as_deref());
        let plan = show(&self.choice, layout, chosen.score.prediction.clone(), verdict);
        let mut rejected = Vec::new();
        if self.choice.spec.shards.is_none() {
            let fewer = (1..shards).rev().filter(|fewer| candidates.iter().all(|other| other.shards != *fewer));
            rejected.extend(fewer.take(TOLD.0).map(|fewer| (self.name(fewer, None), self.problem(fewer))));
            rejected.extend(self.worse(chosen, candidates));
        }
        Plan { rejected, ..plan }
    }

    /// The best layouts of all that fit too.
    fn worse(&self, chosen: &Candidate, candidates: &[Candidate]) -> Vec<(String, String)> {
        let mut others: Vec<_> = candidates.iter().filter(|other| *other != chosen).cloned().collect();
        let mut told = Vec::new();
        while let Some(next) = best(&others).filter(|_| told.len() < TOLD.1).cloned() {
            told.push((self.name(next.shards, next.product.as_deref()), words::worse(&next.score, &chosen.score)));
            others.retain(|other| other.shards != next.shards);
        }
        told
    }

    fn fits_not(&self, shards: Option<u32>) -> Plan {
        let spec = self.choice.spec;
        let memories = self.choice.pools.iter().flat_map(|pool| pool.kinds.keys()).filter_map(fit::Kind::memories);
        let largest = memories.map(|(_, memory)| memory).max();
        let guess = || largest.and_then(|memory| self.choice.fewest(memory)).unwrap_or(self.choice.most());
        let asked = spec.shards.or(shards);
        let shards = asked.unwrap_or_else(guess);
        let mut message = self.problem(shards);
        if let Some((field, value)) = self.choice.less().filter(|_| !self.eligible.is_empty()) {
            message += &format!("; with serving.{field} {value} it would fit");
        }
        let verdict = Verdict { reason: PlanReason::DoesNotFit, message };
        let plan = show(&self.choice, (shards, None), None, verdict);
        let fewer = (1..shards).rev().take(if asked.is_some() { 0 } else { TOLD.0 });
        let rejected = fewer.map(|fewer| (self.name(fewer, None), self.problem(fewer)));
        Plan { rejected: rejected.collect(), ..plan }
    }

    fn name(&self, shards: u32, product: Option<&str>) -> String {
        format!("{shards} × {}", words::device_of(&self.choice.spec.device, product))
    }

    fn better(&self, better: Option<&Candidate>) -> Option<String> {
        let better = better?;
        let name = self.name(better.shards, better.product.as_deref());
        let speed = better.score.prediction.as_ref().map_or_else(String::new, words::tokens);
        Some(format!("{name}{speed}; shoal restart or the next edit starts it"))
    }

    /// Why a layout of `shards` shards cannot be made.
    fn problem(&self, shards: u32) -> String {
        let spec = self.choice.spec;
        let bytes = self.choice.bytes(shards);
        if let Some(limit) = fit::host_limit(spec).filter(|limit| *limit < bytes.host()) {
            let needed = words::size(bytes.host());
            return format!("a shard needs {needed} of memory; spec.pod.resources allows {}", words::size(limit));
        }
        if self.eligible.is_empty() {
            return words::no_node(self.nodes.iter().filter_map(|node| fit::turned_away(node, spec)));
        }
        if let Some(problem) = fit::too_much_asked(&self.eligible, spec, &bytes) {
            return problem;
        }
        let kinds = self.choice.pools.last().map(|pool| &pool.kinds);
        let memories: Vec<_> = kinds.into_iter().flatten().filter_map(|(kind, _)| kind.memories()).collect();
        let needs = words::needs(&memories, |memory| self.choice.fewest(memory));
        let needs = needs.unwrap_or_else(|| words::no_device(&spec.device, &self.eligible));
        let (each, room) = (words::size(bytes.total()), self.choice.room(shards));
        format!("shards of {each} that the nodes hold when empty: {room} of {shards}; {needs}")
    }

    /// When no backend is named, the planner chooses among those that this build runs, and says what others would do.
    fn other_backends(&self) -> Vec<(String, String)> {
        let spec = self.choice.spec;
        if !spec.any_backend {
            return vec![];
        }
        let offered = self.eligible.iter().flat_map(|node| &node.devices);
        let offered = offered.filter(|(name, device)| name.starts_with("nvidia.com/") && device.count > 0);
        let resources: std::collections::BTreeSet<_> = offered.map(|(name, _)| name).collect();
        let on = |resource: &String| {
            let mut spec = spec.clone();
            spec.device = Device { backend: Backend::CUDA, resource: Some(resource.clone()) };
            let pools = Pool::all(&self.eligible, &spec).split();
            let choice = Choice { spec: &spec, pools: &pools, ..self.choice };
            let found = best(&choice.candidates())?.clone();
            let name = format!("{} × {}", found.shards, words::device_of(&spec.device, found.product.as_deref()));
            let speed = found.score.prediction.as_ref().map_or_else(String::new, words::tokens);
            Some((name, format!("NotSupportedYet: backend CUDA is not built yet; fits{speed}")))
        };
        resources.into_iter().filter_map(on).take(TOLD.1).collect()
    }
}
