//! What the models of one `up` share: the memory of this machine, taken by one model after another, and its cores.
//!
//! Pure. Counts what shards ask for, as a scheduler would; what other processes of the machine hold is unknown.

use super::model::Wanted;
use crate::controller::plan::{Revision, size};
use crate::inventory::{Inventory, NodeCapacity, quantity};

/// The most compute threads of one worker; its own limit.
const MOST_THREADS: u32 = 1024;

/// A machine, and the models that it is planned to hold.
#[derive(Debug, Clone)]
pub struct Share {
    machine: NodeCapacity,
    /// Bytes of all shards of a model, by its name, in order of the manifests.
    taken: Vec<(String, u64)>,
}

/// All groups of a model together are more than what is left, though one alone is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{need}; {account}")]
pub struct NoRoom {
    need: String,
    account: String,
}

impl Share {
    /// Nothing is taken yet.
    #[must_use]
    pub fn new(machine: NodeCapacity) -> Self {
        Self { machine, taken: Vec::new() }
    }

    /// What the next model is planned against. Its cores are all there: processes take turns on them, and nothing
    /// enforces here what pods ask for.
    #[must_use]
    pub fn left(&self) -> Inventory {
        Inventory::Nodes(vec![NodeCapacity { memory_bytes: self.left_bytes(), ..self.machine.clone() }])
    }

    /// Sets aside what all groups of a model ask for; a shard of unknown size that asks for nothing counts as nothing.
    ///
    /// # Errors
    /// [`NoRoom`] for more than is left, unless the memory of this machine is unknown.
    pub fn take(&mut self, wanted: &Wanted) -> Result<(), NoRoom> {
        let each = memory(&wanted.revision);
        let need = each.saturating_mul(workers(wanted));
        if need > self.left_bytes() && self.machine.memory_bytes > 0 {
            let (groups, shards) = (several(wanted.replicas, "group"), several(wanted.revision.shards, "shard"));
            let need = format!("{groups} of {shards} of {} need {}", size(each), size(need));
            return Err(NoRoom { need, account: self.account() });
        }
        self.taken.push((wanted.revision.spec.owner.name.to_string(), need));
        Ok(())
    }

    /// Whether a model has been planned.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        !self.taken.is_empty()
    }

    /// What there is, and who is to have what.
    #[must_use]
    pub fn account(&self) -> String {
        let memory = size(self.machine.memory_bytes);
        if self.taken.is_empty() {
            return format!("this machine has {memory} of memory");
        }
        let taken: Vec<_> = self.taken.iter().map(|(name, bytes)| format!("{} for {name}", size(*bytes))).collect();
        format!("of this machine's {memory} of memory are planned: {}", taken.join(", "))
    }

    fn left_bytes(&self) -> u64 {
        self.taken.iter().fold(self.machine.memory_bytes, |left, (_, bytes)| left.saturating_sub(*bytes))
    }
}

/// Compute threads of each worker of `wanted`: all of them share `cores`.
#[must_use]
pub fn threads(wanted: &[Wanted], cores: u64) -> u32 {
    let workers: u64 = wanted.iter().map(workers).sum();
    u32::try_from(cores / workers.max(1)).unwrap_or(MOST_THREADS).clamp(1, MOST_THREADS)
}

/// Whether the manifest says how much CPU a worker should have.
#[must_use]
pub fn asks_for_cpu(revision: &Revision) -> bool {
    let resources = &revision.spec.pod.resources;
    [&resources.limits, &resources.requests].into_iter().any(|amounts| amounts.contains_key("cpu"))
}

fn workers(wanted: &Wanted) -> u64 {
    u64::from(wanted.replicas) * u64::from(wanted.revision.shards)
}

/// Of one shard: what the manifest asks for, else what was planned.
fn memory(revision: &Revision) -> u64 {
    let resources = &revision.spec.pod.resources;
    let asked = resources.requests.get("memory").or_else(|| resources.limits.get("memory"));
    asked.and_then(quantity::units).or(revision.shard_bytes).unwrap_or(0)
}

fn several(count: u32, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::plan::plan;
    use crate::controller::validate::validate;
    use crate::crd::ModelDeployment;

    const MIB: u64 = 1 << 20;

    /// The demo model under another name, `replicas` groups of `shards`; a shard takes 535.99 MiB of two, 529.86 alone.
    fn object(name: &str, (replicas, shards): (i32, i32)) -> ModelDeployment {
        let text = std::fs::read_to_string("../manifests/tiny-cpu.yaml").unwrap();
        let mut object: ModelDeployment = serde_yaml::from_str(&text).unwrap();
        object.metadata.name = Some(name.to_owned());
        object.spec.replicas = replicas;
        object.spec.sharding.as_mut().unwrap().shards = Some(shards);
        object
    }

    fn machine(mib: u64) -> Share {
        let machine = NodeCapacity { memory_bytes: mib * MIB, cpu_millis: 16_000, ..NodeCapacity::default() };
        Share::new(machine)
    }

    /// Plans a model against what is left; `None`: the planner says no.
    fn wanted(object: &ModelDeployment, share: &Share) -> Option<Wanted> {
        let spec = validate(object).unwrap();
        let plan = plan(&spec, &share.left());
        let revision = Revision::decide(&spec, &plan, "image")?;
        Some(Wanted { revision, replicas: spec.replicas, rollout: spec.rollout, recovery: spec.recovery })
    }

    #[test]
    fn the_second_model_is_planned_against_what_the_first_left() {
        let mut share = machine(2000);
        share.take(&wanted(&object("left", (1, 2)), &share).unwrap()).unwrap();
        assert!(wanted(&object("right", (1, 2)), &share).is_none(), "there is room for one more shard");
        assert!(wanted(&object("right", (1, 1)), &share).is_some());
        assert_eq!(share.account(), "of this machine's 1.96 GiB of memory are planned: 1.05 GiB for left");
    }

    #[test]
    fn all_groups_count_and_a_refusal_names_who_has_the_rest() {
        let mut share = machine(2000);
        let two = wanted(&object("alone", (2, 2)), &share).unwrap();
        let refused = share.take(&two).unwrap_err().to_string();
        assert_eq!(refused, "2 groups of 2 shards of 535.99 MiB need 2.10 GiB; this machine has 1.96 GiB of memory");
        share.take(&wanted(&object("left", (1, 2)), &share).unwrap()).unwrap();
        let refused = share.take(&wanted(&object("right", (2, 1)), &share).unwrap()).unwrap_err().to_string();
        let (need, account) = refused.split_once("; ").unwrap();
        assert!(need.starts_with("2 groups of 1 shard of "), "{need}");
        assert_eq!(account, "of this machine's 1.96 GiB of memory are planned: 1.05 GiB for left");
    }

    #[test]
    fn what_a_manifest_asks_for_counts_instead_of_what_was_planned() {
        let mut share = machine(2000);
        let mut greedy = object("greedy", (1, 1));
        greedy.spec.pod.resources = serde_json::from_value(json!({"requests": {"memory": "1500Mi"}})).unwrap();
        share.take(&wanted(&greedy, &share).unwrap()).unwrap();
        assert_eq!(share.account(), "of this machine's 1.96 GiB of memory are planned: 1.47 GiB for greedy");
        assert!(wanted(&object("next", (1, 1)), &share).is_none());
    }

    #[test]
    fn cores_are_divided_by_the_workers_of_all_models_but_each_has_one() {
        let share = machine(64_000);
        let of = |name, layout| wanted(&object(name, layout), &share).unwrap();
        let one = [of("a", (1, 2))];
        assert_eq!([1, 2, 5, 16, 100_000].map(|cores| threads(&one, cores)), [1, 1, 2, 8, 1024]);
        let two = [of("a", (1, 2)), of("b", (3, 1))];
        assert_eq!([1, 4, 10, 16].map(|cores| threads(&two, cores)), [1, 1, 2, 3]);
        assert_eq!(threads(&[], 4), 4);
    }

    #[test]
    fn only_a_manifest_without_cpu_leaves_threads_to_the_machine() {
        let share = machine(64_000);
        let asks = |resources| {
            let mut object = object("a", (1, 1));
            object.spec.pod.resources = serde_json::from_value(resources).unwrap();
            asks_for_cpu(&wanted(&object, &share).unwrap().revision)
        };
        let cases = [
            json!({}),
            json!({"limits": {"memory": "1Gi"}}),
            json!({"requests": {"cpu": "1"}}),
            json!({"limits": {"cpu": "2"}}),
        ];
        assert_eq!(cases.map(asks), [false, false, true, true]);
    }
}
