//! What users of other operators complain of, as far as one pass shows it; `docs/faults.md` lists them all.

use pretty_assertions::assert_eq;

use super::*;

#[test]
fn groups_of_an_older_revision_do_not_make_a_model_ready() {
    let mut world = World::served(2);
    world.edit(|model| model.spec.pod.image = Some("new".into()));
    world.pass();
    let status = world.model.status.as_ref().unwrap();
    assert_eq!((status.available_groups, status.updated_groups, status.observed_generation), (2, 1, Some(2)));
    assert_eq!(world.condition("Available"), says("True", "GroupsAvailable"));
    assert_eq!(world.condition("Ready"), says("False", "RollingOut"));
    // As many as wished, all of them available and nothing else left, but not what was asked for.
    let mut world = World::served(2);
    world.edit(|model| model.spec.pod.image = Some("new".into()));
    world.model.spec.rollout.paused = true;
    world.pass();
    assert_eq!(world.condition("Ready"), says("False", "Paused"));
}

#[test]
fn the_selector_of_the_scale_subresource_finds_exactly_one_pod_of_a_group() {
    let mut world = World::new(3);
    let made = world.decide("i", |pass| pass.work().create);
    world.pass();
    let selector = world.model.status.as_ref().unwrap().selector.clone();
    let selects = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref().unwrap();
        selector.split(',').all(|term| term.split_once('=').is_some_and(|(key, value)| labels[key] == value))
    };
    let groups: Vec<&str> =
        made.iter().filter(selects).map(|pod| &*pod.metadata.labels.as_ref().unwrap()[label::GROUP]).collect();
    assert_eq!((made.len(), groups), (6, vec!["0", "1", "2"]));
}

#[test]
fn a_new_default_image_touches_no_group_and_a_lost_one_comes_back_with_the_old_one() {
    let mut world = World::served(1);
    world.decide("upgraded", |pass| {
        let status = pass.status_after(&[], None);
        assert_eq!((pass.work().is_empty(), Some(&status)), (true, world.model.status.as_ref()));
    });
    world.change("g0-e1-r0", Shard::Lost(LossReason::Exited));
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    let images = world.decide("upgraded", |pass| pass.work().create.iter().map(image).collect::<Vec<_>>());
    assert_eq!(images, ["i", "i"]);
}
