//! When a pass makes, corrects or removes the NetworkPolicy.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use pretty_assertions::assert_eq;

use super::*;
use crate::controller::dereference::PolicyView;

/// What a pass over `world` does about it: `make`, `correct`, `remove` or nothing.
fn guards(world: &World, wanted: bool) -> &'static str {
    let (timing, inventory) = (Timing::default(), Inventory::Unknown);
    let World { model, found, now, .. } = world;
    let input =
        Input { model, found, inventory: &inventory, default_image: "i", timing: &timing, now: *now, turn: Turn::May };
    let mut work = Work::default();
    Pass::decide(&input).guard(wanted, &mut work);
    match (work.policy, work.unguard) {
        (Some((_, false)), None) => "make",
        (Some((_, true)), None) => "correct",
        (None, Some(_)) => "remove",
        (None, None) => "",
        both => panic!("{both:?}"),
    }
}

/// A world whose model has this NetworkPolicy.
fn with(change: impl FnOnce(&mut NetworkPolicy)) -> World {
    let mut world = World::served(1);
    let mut policy = build::policy(&Owner::of(&world.model).unwrap());
    change(&mut policy);
    world.found.policies = vec![Arc::new(PolicyView::from(policy))];
    world
}

#[test]
fn a_policy_is_made_corrected_and_removed_again_but_never_somebody_elses() {
    let opened = |policy: &mut NetworkPolicy| policy.spec.as_mut().unwrap().ingress = Some(vec![Default::default()]);
    let foreign = |policy: &mut NetworkPolicy| policy.metadata.owner_references = None;
    let table = [
        (World::new(1), "make", ""),
        (World::served(1), "make", ""),
        (with(|_| {}), "", "remove"),
        (with(opened), "correct", "remove"),
        (with(foreign), "make", ""),
    ];
    for (world, wanted, unwanted) in table {
        assert_eq!((guards(&world, true), guards(&world, false)), (wanted, unwanted), "{:?}", world.found.policies);
    }
}

#[test]
fn a_model_that_cannot_be_served_gets_no_policy() {
    let mut world = World::new(1);
    world.edit(|model| model.spec.hardware.backend = Some(crate::crd::Backend::CUDA));
    assert_eq!((guards(&world, true), guards(&world, false)), ("", ""));
}
