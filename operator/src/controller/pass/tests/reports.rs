//! What the status says of a rollout that waits, stops or is stopped, and when it says so.

use pretty_assertions::assert_eq;

use super::*;

impl World {
    fn say(&mut self, name: &str, shard: Shard, note: &str) {
        self.change(name, shard);
        for pod in self.found.pods.iter_mut().filter(|pod| pod.meta.name.as_deref().unwrap().ends_with(name)) {
            *pod = Arc::new(PodView { note: Some(note.to_owned()), created: Some(self.now), ..(**pod).clone() });
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now = later(self.now, Duration::from_secs(seconds));
        self.pass();
    }

    fn message(&self, kind: &str) -> String {
        let status = self.model.status.as_ref().unwrap();
        status.conditions.iter().find(|condition| condition.type_ == kind).unwrap().message.clone()
    }

    fn progressed(&self) -> Option<String> {
        self.model.status.as_ref().unwrap().progressed_at.as_ref().map(|time| time.0.to_string())
    }
}

fn new_image(model: &mut ModelDeployment) {
    model.spec.pod.image = Some("new".into());
}

#[test]
fn a_paused_rollout_says_so_and_has_no_deadline() {
    let mut world = World::served(2);
    world.edit(|model| (model.spec.rollout.paused, model.spec.pod.image) = (true, Some("new".into())));
    world.pass();
    world.wait(100_000);
    assert_eq!(world.condition("Reconciling"), says("True", "Paused"));
    assert_eq!(world.condition("Ready"), says("False", "Paused"));
    assert_eq!(world.condition("Degraded"), says("False", "AsExpected"));
    assert_eq!(world.progressed(), None);
    assert_eq!(world.lines, ["status", ""]);
}

#[test]
fn a_surge_that_finds_no_room_is_degraded_after_the_deadline_and_names_the_way_out() {
    let mut world = World::served(2);
    world.edit(|model| {
        new_image(model);
        model.spec.rollout.max_accelerators = Some(5);
        model.spec.rollout.progress_deadline = Some(crate::crd::Span("20m".into()));
    });
    world.pass();
    assert_eq!(world.condition("Reconciling"), says("True", "AcceleratorCap"));
    world.wait(1199);
    assert_eq!(world.condition("Degraded"), says("False", "AsExpected"));
    world.wait(1);
    assert_eq!(world.condition("Degraded"), says("True", "NoRoomToSurge"));
    assert_eq!(world.condition("Available"), says("True", "GroupsAvailable"));
    assert_eq!(
        world.message("Degraded"),
        "no room for another group within 1200 s: rollout.maxAccelerators is 5; free some, or set \
         rollout.maxUnavailable: 1 and rollout.maxSurge: 0, so that an old group goes first"
    );
    world.wait(1200);
    assert_eq!(world.lines, ["status", "", "status", ""]);
}

#[test]
fn a_rollout_whose_group_does_not_start_is_degraded_after_the_deadline_in_the_words_of_its_pod() {
    let mut world = World::served(1);
    world.edit(new_image);
    world.pass();
    world.say("g1-e1-r0", Shard::Pending, "ImagePullBackOff: not found");
    // Ten minutes for a start, and ten more.
    world.wait(1199);
    let before = world.progressed();
    world.wait(1);
    assert_eq!(world.condition("Degraded"), says("True", "ProgressDeadlineExceeded"));
    assert_eq!(
        world.message("Degraded"),
        "nothing has come nearer to what is asked within 1200 s: group 1: shard 0: ImagePullBackOff: not found"
    );
    assert_eq!(world.progressed(), before);
    world.all_ready();
    world.pass();
    world.pass();
    assert_eq!(world.condition("Degraded"), says("False", "AsExpected"));
    assert_eq!(world.progressed(), None);
}

#[test]
fn a_pass_that_waits_is_repeated_at_the_deadline() {
    let mut world = World::served(1);
    world.edit(new_image);
    world.pass();
    let timing = Timing::default();
    let input = Input {
        model: &world.model,
        found: &world.found,
        inventory: &Inventory::Unknown,
        default_image: "i",
        timing: &timing,
        turn: Turn::May,
        now: later(world.now, Duration::from_secs(200)),
    };
    let pass = Pass::decide(&input);
    assert_eq!(pass.look_again(&pass.status_after(&[], None)), Some(Duration::from_millis(1_000_005)));
}

#[test]
fn a_withdrawn_group_tells_the_scheduler_s_words_and_what_it_needs_and_is_no_replica() {
    let mut world = World::served(1);
    world.edit(|model| model.spec.replicas = 2);
    world.pass();
    assert_eq!(world.model.status.as_ref().unwrap().replicas, 2);
    world.say("g1-e1-r1", Shard::Unschedulable(world.now), "Unschedulable: 0/4 nodes are available");
    world.wait(10);
    assert_eq!(world.condition("Degraded"), says("True", "Unschedulable"));
    assert_eq!(
        world.message("Degraded"),
        "group 1 was withdrawn (Unschedulable: shard 1: Unschedulable: 0/4 nodes are available); a group needs \
         2 × CPU, shape unknown; it is tried again from 2026-01-01T00:00:25Z as epoch 2"
    );
    assert_eq!(world.model.status.as_ref().unwrap().replicas, 1);
    assert_eq!(world.lines.last().unwrap(), "remember; end g1-e1-r0 g1-e1-r1; tell GroupWithdrawn");
    world.wait(10);
    assert_eq!(world.lines.last().unwrap(), "remember; make g1-e2-r0 g1-e2-r1; tell GroupCreated; status");
}

#[test]
fn a_slot_that_is_given_up_says_how_often_why_and_until_when() {
    let mut world = World::served(1);
    world.model.spec.recovery.restart_budget = 0;
    world.say("g0-e1-r1", Shard::Lost(LossReason::OutOfMemory), "OOMKilled (exit code 137) last line");
    world.pass();
    assert_eq!(world.condition("Degraded"), says("True", "RestartBudgetExhausted"));
    assert_eq!(
        world.message("Degraded"),
        "group 0 was lost 1 times within spec.recovery.window (OutOfMemory: shard 1: OOMKilled (exit code 137) last \
         line); it is left alone until 2026-01-01T00:10:05Z"
    );
    let memory = world.model.status.as_ref().unwrap().recovery[0].clone();
    assert_eq!((memory.epoch, memory.message.as_str()), (2, "shard 1: OOMKilled (exit code 137) last line"));
    world.wait(599);
    world.wait(1);
    assert_eq!(
        world.lines,
        [
            "remember; end g0-e1-r0 g0-e1-r1; tell GroupLost",
            "status",
            "remember; make g0-e2-r0 g0-e2-r1; tell GroupCreated; status"
        ]
    );
}

#[test]
fn a_cap_below_the_group_that_was_planned_stalls() {
    let mut world = World::new(1);
    world.model.spec.rollout.max_accelerators = Some(1);
    world.pass();
    assert_eq!(world.condition("Stalled"), says("True", "AcceleratorCapTooSmall"));
    assert_eq!(world.message("Stalled"), "a group of this plan has 2 shards; rollout.maxAccelerators is 1");
    assert_eq!(world.lines, ["services 2; tell Refused; status"]);
}
