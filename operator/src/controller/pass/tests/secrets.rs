//! Which passes make the Secret of a revision.

use pretty_assertions::assert_eq;

use super::*;

/// Names of the Secrets that a pass over `world` would make.
fn secrets(world: &World) -> Vec<String> {
    let (timing, inventory) = (Timing::default(), Inventory::Unknown);
    let World { model, found, now, .. } = world;
    let input =
        Input { model, found, inventory: &inventory, default_image: "i", timing: &timing, now: *now, turn: Turn::May };
    let work = Pass::decide(&input).work();
    work.secrets.into_iter().map(|secret| secret.metadata.name.unwrap()).collect()
}

#[test]
fn a_formation_brings_the_secret_of_its_revision_and_a_settled_pass_or_a_lone_shard_none() {
    let first = secrets(&World::new(3));
    assert!(first.len() == 1 && first[0].starts_with("m-") && first[0].ends_with("-tls"), "{first:?}");
    let mut world = World::served(3);
    assert_eq!(secrets(&world), Vec::<String>::new());
    world.change("g1-e1-r0", Shard::Lost(LossReason::Exited));
    assert_eq!(secrets(&world), first, "a lost group forms from the same pair, made again if it was deleted");
    let mut world = World::served(3);
    world.edit(|model| model.spec.pod.image = Some("new".into()));
    let second = secrets(&world);
    assert!(second.len() == 1 && second != first, "{second:?}");
    let mut world = World::new(3);
    world.edit(|model| model.spec.sharding.as_mut().unwrap().shards = Some(1));
    assert_eq!(secrets(&world), Vec::<String>::new());
}
