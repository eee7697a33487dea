//! One good object, spoiled in one line each.

use super::*;
use crate::crd::{EnvVariable, ModelSpec};
use crate::shape::published;

fn good() -> ModelDeployment {
    let mut shape = published(&ModelSource::parse("hf://deepseek-ai/DeepSeek-V2-Lite").unwrap()).unwrap();
    shape.max_context_tokens = 8192;
    let spec = ModelDeploymentSpec {
        model: ModelSpec { source: "file:///models/lite".to_owned(), shape: Some(shape) },
        replicas: 2,
        sharding: None,
        hardware: Hardware::default(),
        serving: crate::crd::Serving::default(),
        rollout: Rollout::default(),
        recovery: RecoveryWishes::default(),
        placement: PlacementWishes::default(),
        pod: PodSpec::default(),
    };
    ModelDeployment::new("lite", spec)
}

fn spoiled(spoil: impl FnOnce(&mut ModelDeployment)) -> String {
    let mut object = good();
    spoil(&mut object);
    match validate(&object) {
        Ok(spec) => spec.supported().map_or_else(|no| format!("{}: {no}", no.reason()), |()| "Accepted".to_owned()),
        Err(no) => format!("{}: {no}", no.reason()),
    }
}

#[test]
fn a_good_object_is_accepted() {
    assert_eq!(spoiled(|_| ()), "Accepted");
}

#[test]
fn every_rejection_names_what_is_wrong_and_what_is_allowed() {
    let table = [
        spoiled(|o| o.metadata.name = Some("Lite".to_owned())),
        spoiled(|o| o.spec.model.source = "file://models".to_owned()),
        spoiled(|o| o.spec.model.shape.as_mut().unwrap().architecture = "LlamaForCausalLM".to_owned()),
        spoiled(|o| o.spec.model.shape.as_mut().unwrap().expert_bytes = 1 << 42),
        spoiled(|o| o.spec.serving.context_tokens = 8193),
        spoiled(|o| o.spec.sharding = Some(shards(65))),
        spoiled(|o| _ = o.spec.pod.labels.insert("a b".to_owned(), String::new())),
        spoiled(|o| _ = o.spec.pod.labels.insert("a".to_owned(), "b/c".to_owned())),
        spoiled(|o| _ = o.spec.pod.annotations.insert("inference.shoal.dev/x".to_owned(), String::new())),
        spoiled(|o| o.spec.pod.env = vec![variable("A"), variable("A")]),
        spoiled(|o| amount(o, "cpu", "one")),
        spoiled(|o| amount(o, "nvidia.com/gpu", "1")),
        spoiled(|o| {
            o.spec.pod.env =
                (0..32).map(|i| EnvVariable { value: "x".repeat(4096), ..variable(&format!("V{i}")) }).collect()
        }),
    ];
    insta::assert_snapshot!(table.join("\n"));
}

#[test]
fn what_is_not_built_yet_is_planned_but_not_supported() {
    let table = [
        spoiled(|o| o.spec.hardware.backend = Some(Backend::CUDA)),
        spoiled(|o| o.spec.hardware.backend = Some(Backend::WGPU)),
        spoiled(|o| o.spec.model.source = "hf://deepseek-ai/DeepSeek-V2-Lite".to_owned()),
    ];
    insta::assert_snapshot!(table.join("\n"));
}

#[test]
fn replicas_rollout_and_the_service_are_not_part_of_what_makes_a_revision() {
    let asked = |spoil: fn(&mut ModelDeployment)| {
        let mut object = good();
        spoil(&mut object);
        validate(&object).unwrap().asked
    };
    let same = asked(|_| ());
    assert_eq!(asked(|o| o.spec.replicas = 7), same);
    assert_eq!(asked(|o| o.spec.rollout.max_surge = 3), same);
    assert_eq!(asked(|o| o.spec.serving.headless = true), same);
    assert_ne!(asked(|o| o.spec.serving.context_tokens = 128), same);
    assert_ne!(asked(|o| o.restart()), same);
}

trait Restart {
    fn restart(&mut self);
}

impl Restart for ModelDeployment {
    fn restart(&mut self) {
        let restarted = (RESTARTED_AT.to_owned(), "2026-01-01T00:00:00Z".to_owned());
        self.metadata.annotations = Some([restarted].into());
    }
}

fn shards(shards: i32) -> crate::crd::Sharding {
    crate::crd::Sharding { shards: Some(shards), strategy: Strategy::Experts }
}

fn variable(name: &str) -> EnvVariable {
    EnvVariable { name: name.to_owned(), value: String::new() }
}

fn amount(object: &mut ModelDeployment, name: &str, amount: &str) {
    let amount = k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.to_owned());
    object.spec.pod.resources.requests.insert(name.to_owned(), amount);
}
