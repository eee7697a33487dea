//! Whole passes without a cluster: what is remembered, what is done, what the status says.

mod altered;
mod complaints;
mod policies;
mod reports;
mod secrets;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use k8s_openapi::api::core::v1::Pod;
use pretty_assertions::assert_eq;
use serde_json::json;

use super::*;
use crate::controller::dereference::ServiceView;
use crate::controller::recover::later;
use crate::controller::rollout::{LossReason, Shard};
use crate::crd::GroupPhase;
use crate::names::label;

/// An API server that holds one model and does what it is told.
struct World {
    model: ModelDeployment,
    found: Found,
    now: Timestamp,
    lines: Vec<String>,
}

impl World {
    fn new(replicas: i32) -> Self {
        let model = serde_json::from_value(json!({
            "apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "m", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"model": {"source": "file:///m"}, "replicas": replicas, "sharding": {"shards": 2}},
        }));
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Self { model: model.unwrap(), found: Found::default(), now, lines: Vec::new() }
    }

    fn served(replicas: i32) -> Self {
        let mut world = Self::new(replicas);
        world.pass();
        world.all_ready();
        world.pass();
        world.lines.clear();
        world
    }

    /// One pass, carried out whole.
    fn pass(&mut self) {
        let timing = Timing::divided(NonZeroU32::MIN);
        let (model, found, now) = (self.model.clone(), self.found.clone(), self.now);
        let inventory = Inventory::Unknown;
        let input = Input {
            model: &model,
            found: &found,
            inventory: &inventory,
            default_image: "i",
            timing: &timing,
            turn: Turn::May,
            now,
        };
        let pass = Pass::decide(&input);
        let work = pass.work();
        let mut line = Vec::new();
        if pass.must_remember() {
            line.push("remember".to_owned());
            self.model.status = Some(pass.status_before());
        }
        let named = |pods: Vec<String>| pods.iter().map(|name| name[9..].to_owned()).collect::<Vec<_>>().join(" ");
        let made: Vec<PodView> = work.create.iter().cloned().map(PodView::from).collect();
        for (verb, names) in [
            ("make", named(work.create.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect())),
            ("end", named(work.delete.iter().map(|pod| pod.meta.name.clone().unwrap()).collect())),
            ("unmake", work.outdated.len().to_string().replace('0', "")),
            ("services", work.services.len().to_string().replace('0', "")),
        ] {
            if !names.is_empty() {
                line.push(format!("{verb} {names}"));
            }
        }
        self.found.services.retain(|view| !work.outdated.contains(view));
        self.found
            .services
            .extend(work.services.iter().map(|(service, _)| Arc::new(ServiceView::from(service.clone()))));
        let ended: Vec<_> = work.delete.iter().map(|pod| pod.meta.name.clone()).collect();
        self.found.pods.retain(|pod| !ended.contains(&pod.meta.name));
        self.found.pods.extend(made.iter().cloned().map(Arc::new));
        let told = work.delete.iter().map(|pod| PodView { shard: Shard::Terminating, ..(**pod).clone() });
        let after = pass.status_after(&made.into_iter().chain(told).collect::<Vec<_>>(), None);
        let stories: Vec<_> = pass.story(&after).into_iter().map(|story| story.reason).collect();
        if !stories.is_empty() {
            line.push(format!("tell {}", stories.join(" ")));
        }
        if self.model.status.as_ref() != Some(&after) {
            line.push("status".to_owned());
        }
        self.model.status = Some(after);
        self.lines.push(line.join("; "));
    }

    /// What `look` sees of a pass that is not carried out, under an operator with that default image.
    fn decide<T>(&self, default_image: &str, look: impl FnOnce(&Pass<'_>) -> T) -> T {
        let (timing, inventory, turn) = (Timing::divided(NonZeroU32::MIN), Inventory::Unknown, Turn::May);
        let (model, found, now) = (&self.model, &self.found, self.now);
        look(&Pass::decide(&Input { model, found, inventory: &inventory, default_image, timing: &timing, turn, now }))
    }

    fn change(&mut self, name: &str, shard: Shard) {
        for pod in self.found.pods.iter_mut().filter(|pod| pod.meta.name.as_deref().unwrap().ends_with(name)) {
            let view = PodView { shard, ..(**pod).clone() };
            *pod = Arc::new(view);
        }
    }

    fn all_ready(&mut self) {
        self.change("", Shard::Ready(self.now));
        self.now = later(self.now, Duration::from_secs(5));
    }

    fn edit(&mut self, change: impl FnOnce(&mut ModelDeployment)) {
        change(&mut self.model);
        *self.model.metadata.generation.as_mut().unwrap() += 1;
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let status = self.model.status.as_ref().unwrap();
        let found = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (found.status.clone(), found.reason.clone())
    }
}

fn says(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_first_creation_is_written_down_afterwards_and_a_settled_pass_does_nothing() {
    let mut world = World::new(1);
    world.pass();
    world.all_ready();
    world.pass();
    world.pass();
    assert_eq!(world.lines, ["make g0-e1-r0 g0-e1-r1; services 2; tell GroupCreated; status", "status", ""]);
    assert_eq!(world.condition("Ready"), says("True", "AllGroupsAvailable"));
    let revisions = world.model.status.unwrap().revisions;
    assert_eq!(revisions.iter().map(|r| (r.target, r.serving)).collect::<Vec<_>>(), [(true, true)]);
}

#[test]
fn a_lost_shard_is_remembered_before_its_group_forms_again_under_the_next_epoch() {
    let mut world = World::served(2);
    world.change("g1-e1-r0", Shard::Lost(LossReason::OutOfMemory));
    world.pass();
    assert_eq!(
        world.lines,
        ["remember; make g1-e2-r0 g1-e2-r1; end g1-e1-r0 g1-e1-r1; tell GroupLost GroupCreated; status"]
    );
    assert_eq!(world.condition("Degraded"), says("True", "ShardLost"));
    assert_eq!(world.condition("Reconciling"), says("True", "Recovering"));
    world.all_ready();
    world.pass();
    assert_eq!(world.condition("Degraded"), says("False", "AsExpected"));
}

#[test]
fn an_operator_that_dies_after_remembering_goes_on_where_it_stopped() {
    let mut world = World::served(1);
    world.change("g0-e1-r1", Shard::Lost(LossReason::Exited));
    let (before, found) = (world.model.clone(), world.found.clone());
    world.pass();
    let remembered = world.lines.pop();
    // The status was written, nothing else was.
    let timing = Timing::default();
    let inventory = Inventory::Unknown;
    let input = Input {
        model: &before,
        found: &found,
        inventory: &inventory,
        default_image: "i",
        timing: &timing,
        turn: Turn::May,
        now: world.now,
    };
    let pass = Pass::decide(&input);
    let mut again = World::served(1);
    again.model = ModelDeployment { status: Some(pass.status_before()), ..before.clone() };
    again.found = found.clone();
    again.now = world.now;
    again.pass();
    assert_eq!(
        remembered.unwrap(),
        "remember; make g0-e2-r0 g0-e2-r1; end g0-e1-r0 g0-e1-r1; tell GroupLost GroupCreated; status"
    );
    assert_eq!(again.lines, ["remember; make g0-e2-r0 g0-e2-r1; end g0-e1-r0 g0-e1-r1; tell GroupCreated; status"]);
    assert_eq!(again.model.status.unwrap().recovery, world.model.status.unwrap().recovery);
}

#[test]
fn a_refused_edit_keeps_what_serves_and_still_brings_lost_groups_back() {
    let mut world = World::served(1);
    world.edit(|model| model.spec.model.source = "file:///../etc".into());
    world.pass();
    world.change("g0-e1-r1", Shard::Lost(LossReason::Exited));
    world.pass();
    world.all_ready();
    world.pass();
    assert_eq!(
        world.lines,
        [
            "tell Refused; status",
            "remember; make g0-e2-r0 g0-e2-r1; end g0-e1-r0 g0-e1-r1; tell GroupLost GroupCreated; status",
            "status"
        ]
    );
    assert_eq!(world.condition("Accepted"), says("False", "InvalidSource"));
    assert_eq!(world.condition("Available"), says("True", "GroupsAvailable"));
    assert_eq!(world.condition("Ready"), says("False", "InvalidSource"));
}

#[test]
fn what_is_not_supported_yet_gets_a_plan_and_no_object() {
    let mut world = World::new(1);
    world.edit(|model| model.spec.hardware.backend = Some(crate::crd::Backend::CUDA));
    world.pass();
    assert_eq!(world.lines, ["tell Refused; status"]);
    assert_eq!(world.condition("Accepted"), says("False", "NotSupportedYet"));
    assert!(world.model.status.unwrap().plan.is_some());
}

#[test]
fn a_lost_group_of_the_old_revision_comes_back_with_its_old_image() {
    let mut world = World::served(1);
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    world.edit(|model| model.spec.pod.image = Some("new".into()));
    world.pass();
    world.change("g0-e1-r0", Shard::Lost(LossReason::NodeLost));
    let timing = Timing::default();
    let inventory = Inventory::Unknown;
    let input = Input {
        model: &world.model,
        found: &world.found,
        inventory: &inventory,
        default_image: "upgraded",
        timing: &timing,
        turn: Turn::May,
        now: world.now,
    };
    let work = Pass::decide(&input).work();
    let made: BTreeMap<String, String> = work
        .create
        .iter()
        .map(|pod| (pod.metadata.labels.as_ref().unwrap()[label::GROUP].clone(), image(pod)))
        .collect();
    assert_eq!(made, BTreeMap::from([("0".to_owned(), "i".to_owned())]));
}

#[test]
fn a_client_service_that_becomes_headless_is_made_anew_and_no_pod_is_touched() {
    let mut world = World::served(2);
    world.edit(|model| model.spec.serving.headless = true);
    world.pass();
    world.pass();
    world.edit(|model| model.spec.serving.headless = false);
    world.pass();
    world.pass();
    assert_eq!(world.lines, ["unmake 1; services 1; status", "", "unmake 1; services 1; status", ""]);
}

/// As after a restore from a backup that kept no status, or a `kubectl replace --subresource=status`.
fn forget(world: &mut World) {
    world.model.status = None;
    world.lines.clear();
}

/// A model of two groups, the first of them at epoch 3.
fn lost_twice() -> World {
    let mut world = World::served(2);
    for epoch in ["g0-e1-r0", "g0-e2-r1"] {
        world.change(epoch, Shard::Lost(LossReason::Exited));
        world.pass();
        world.now = later(world.now, Duration::from_secs(60));
        world.pass();
        world.all_ready();
        world.pass();
    }
    world
}

fn groups(world: &World) -> Vec<(i32, i64, GroupPhase)> {
    let status = world.model.status.as_ref().unwrap();
    status.groups.iter().map(|group| (group.index, group.epoch, group.phase)).collect()
}

#[test]
fn without_its_status_a_served_model_is_recognised_by_its_pods() {
    let mut world = lost_twice();
    let before = world.model.status.clone().unwrap();
    assert_eq!(groups(&world), [(0, 3, GroupPhase::Ready), (1, 1, GroupPhase::Ready)]);
    forget(&mut world);
    world.pass();
    world.pass();
    assert_eq!(world.lines, ["status", ""]);
    assert_eq!(groups(&world), [(0, 3, GroupPhase::Ready), (1, 1, GroupPhase::Ready)]);
    let after = world.model.status.clone().unwrap();
    assert_eq!((&after.revisions, after.available_groups), (&before.revisions, 2));
    assert_eq!(world.condition("Ready"), says("True", "AllGroupsAvailable"));
    // The next epoch follows those that the labels tell.
    world.change("g0-e3-r0", Shard::Lost(LossReason::Exited));
    world.pass();
    assert_eq!(
        world.lines.last().unwrap(),
        "remember; make g0-e4-r0 g0-e4-r1; end g0-e3-r0 g0-e3-r1; tell GroupLost GroupCreated; status"
    );
}

#[test]
fn without_its_status_a_formation_that_still_ends_is_no_second_group() {
    let mut world = World::served(2);
    let ending: Vec<_> =
        world.found.pods.iter().filter(|pod| pod.place.as_ref().unwrap().index == 0).cloned().collect();
    world.change("g0-e1-r0", Shard::Lost(LossReason::Exited));
    world.pass();
    world.all_ready();
    let ending = ending.iter().map(|pod| Arc::new(PodView { shard: Shard::Terminating, ..(**pod).clone() }));
    world.found.pods.extend(ending);
    forget(&mut world);
    // A wish that is not fulfilled yet leaves room for a group, which the ending one must not fill.
    world.model.spec.replicas = 3;
    world.pass();
    world.pass();
    assert_eq!(world.lines, ["make g2-e1-r0 g2-e1-r1; tell GroupCreated; status", ""]);
}

#[test]
fn a_rollout_that_lost_its_status_goes_on_within_its_budgets() {
    let mut world = World::served(2);
    world.edit(|model| model.spec.pod.image = Some("new".into()));
    world.pass();
    forget(&mut world);
    let mut available = Vec::new();
    for _ in 0..4 {
        world.pass();
        world.all_ready();
        available.push(world.model.status.as_ref().unwrap().available_groups);
    }
    assert_eq!(
        world.lines,
        [
            "status",
            "remember; make g3-e1-r0 g3-e1-r1; end g1-e1-r0 g1-e1-r1; tell GroupRemoved GroupCreated; status",
            "remember; end g0-e1-r0 g0-e1-r1; tell GroupRemoved; status",
            "status",
        ]
    );
    assert_eq!(available, [2, 2, 2, 2]);
    assert_eq!(world.condition("Ready"), says("True", "AllGroupsAvailable"));
}

#[test]
fn a_group_of_a_forgotten_revision_that_is_lost_comes_back_as_the_target() {
    let mut world = World::served(2);
    world.edit(|model| model.spec.pod.image = Some("new".into()));
    world.pass();
    forget(&mut world);
    world.pass();
    world.change("g0-e1-r0", Shard::Lost(LossReason::Exited));
    for _ in 0..6 {
        world.pass();
        world.all_ready();
    }
    let status = world.model.status.as_ref().unwrap();
    assert_eq!((status.updated_groups, status.available_groups, status.groups.len()), (2, 2, 2), "{:?}", world.lines);
    assert_eq!(world.condition("Ready"), says("True", "AllGroupsAvailable"));
}
