//! Pods whose labels or owner somebody changed.

use pretty_assertions::assert_eq;

use super::*;

impl World {
    /// Changes the pod whose name ends with `name`, as the API server would show it.
    fn tamper(&mut self, name: &str, change: impl Fn(&mut PodView)) {
        for pod in self.found.pods.iter_mut().filter(|pod| pod.meta.name.as_deref().unwrap().ends_with(name)) {
            change(Arc::make_mut(pod));
        }
    }
}

const REPLACED: &str = "remember; make g0-e2-r0 g0-e2-r1; end g0-e1-r0 g0-e1-r1; tell GroupLost GroupCreated; status";

#[test]
fn a_pod_that_names_another_revision_is_replaced_with_its_group_and_told_to_end() {
    for revision in ["", "0123456789"] {
        let mut world = World::served(1);
        world.tamper("g0-e1-r1", |pod| pod.place.as_mut().unwrap().revision = revision.into());
        world.pass();
        assert_eq!(world.lines, [REPLACED]);
        let memory = &world.model.status.as_ref().unwrap().recovery[0];
        let words = "shard 1: somebody changed its label inference.shoal.dev/revision";
        assert_eq!((memory.epoch, memory.reason.as_str(), memory.message.as_str()), (2, "Altered", words));
    }
}

#[test]
fn a_pod_that_was_taken_from_its_owner_is_replaced_left_alone_and_told_of_until_it_is_gone() {
    for controller in [None, Some("other".to_owned())] {
        let mut world = World::served(1);
        world.tamper("g0-e1-r1", |pod| pod.controller.clone_from(&controller));
        world.pass();
        assert_eq!(world.lines, [REPLACED.replace(" g0-e1-r1;", ";")]);
        let memory = &world.model.status.as_ref().unwrap().recovery[0];
        assert_eq!(
            (memory.reason.as_str(), memory.message.as_str()),
            ("Altered", "shard 1: somebody took it from its owner")
        );
        world.change("g0-e2-r0", Shard::Ready(world.now));
        world.change("g0-e2-r1", Shard::Ready(world.now));
        world.now = later(world.now, Duration::from_secs(5));
        world.pass();
        assert_eq!(world.condition("Ready"), says("True", "AllGroupsAvailable"));
        assert_eq!(world.condition("Degraded"), says("True", "PodsTaken"));
        world.found.pods.retain(|pod| pod.place.as_ref().unwrap().epoch == 2);
        world.pass();
        assert_eq!(world.condition("Degraded"), says("False", "AsExpected"));
    }
}

#[test]
fn before_a_group_forms_again_those_of_its_pods_that_no_watch_shows_are_looked_for() {
    let mut world = World::served(2);
    let strays = |world: &World| world.decide("i", |pass| pass.work().strays);
    assert_eq!(strays(&world), Vec::<String>::new());
    let name = world.found.pods[1].meta.name.clone().unwrap();
    world.found.pods.remove(1);
    assert_eq!(strays(&world), [name.as_str()]);
    // Until the new formation is made: an operator that died in between looks again.
    let before = world.decide("i", |pass| pass.status_before());
    world.model.status = Some(before);
    assert_eq!(strays(&world), [name.as_str()]);
    assert_eq!(strays(&World::new(2)), Vec::<String>::new(), "a first formation replaces none");
}
