//! Every committed manifest through the pure steps: what the API server and the operator answer.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::build;
use super::plan::{Revision, plan};
use super::validate::{Owner, Validated, validate};
use crate::crd::admit::admit;
use crate::inventory::{Catalogue, Inventory, NodeCapacity};
use crate::manifest;
use crate::names::{Epoch, GroupId, GroupIndex};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifests(folder: &str) -> Vec<PathBuf> {
    let entries = root().join(folder).read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

/// The fake fleet of the cluster tests.
fn fleet() -> Inventory {
    let list = manifest::documents(&root().join("tests/cluster/nodes.yaml")).unwrap();
    let nodes = list[0]["items"].as_array().unwrap().iter();
    let node = |node: &serde_json::Value| serde_json::from_value(node.clone()).unwrap();
    Inventory::Nodes(nodes.map(|value| NodeCapacity::of(&node(value), &Catalogue::default())).collect())
}

fn sample(name: &str) -> Validated {
    let objects = manifest::read(&[root().join("manifests").join(name)]).unwrap();
    validate(&objects[0]).unwrap()
}

#[test]
fn every_sample_is_planned_on_the_fake_fleet() {
    for path in manifests("manifests") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let spec = sample(&name);
        let plan = plan(&spec, &fleet());
        let accepted =
            spec.supported().map_or_else(|no| format!("False/{}: {no}", no.reason()), |()| "True".to_owned());
        let answer = json!({
            "accepted": accepted,
            "planned": format!("{}: {}", plan.verdict.reason.as_str(), plan.verdict.message),
            "plan": plan.to_status(),
            "pods": Revision::decide(&spec, &plan, "worker").is_some(),
        });
        insta::assert_yaml_snapshot!(name.trim_end_matches(".yaml"), answer);
    }
}

#[test]
fn the_tiny_sample_carries_the_sizes_of_the_committed_model() {
    let sizes = crate::shape::folder::shape(&root().join("models/tiny")).unwrap();
    assert_eq!(sample("tiny-cpu.yaml").shape, Some(sizes), "run: shoal plan --write");
}

#[test]
fn every_invalid_sample_is_refused_for_the_reason_in_its_first_line() {
    let files = manifests("manifests/invalid");
    assert!(files.len() >= 10);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = text.lines().next().unwrap();
        let admitted = admit(&manifest::documents(&path).unwrap()[0]);
        let found = match admitted.map(|object| validate(&object)) {
            Err(refused) => refused.to_string(),
            Ok(Err(rejection)) => format!("Accepted=False/{}", rejection.reason()),
            Ok(Ok(_)) => "accepted".to_owned(),
        };
        let wanted =
            ["# refused: CEL: ", "# refused: schema: ", "# "].iter().find_map(|start| expected.strip_prefix(start));
        assert!(found.contains(wanted.unwrap()), "{}: expected {expected}, found {found}", path.display());
    }
}

#[test]
fn the_pods_services_and_secret_of_the_tiny_model_are_these() {
    let mut spec = sample("tiny-cpu.yaml");
    spec.owner.uid = "4f1c9e0a-0000-4000-8000-000000000001".to_owned();
    let plan = plan(&spec, &fleet());
    let revision = Revision::decide(&spec, &plan, "localhost/shoal-worker:dev").unwrap();
    let group = build::group(&revision, GroupId { index: GroupIndex(0), epoch: Epoch(2) });
    insta::assert_yaml_snapshot!("tiny-pod-0", group.pods[0]);
    assert_eq!(group.pods.len(), 2);
    insta::assert_yaml_snapshot!("tiny-secret", build::shard_tls(&revision));
    insta::assert_yaml_snapshot!("tiny-policy", build::policy(&spec.owner));
    let services = build::services(&spec.owner, false);
    insta::assert_yaml_snapshot!("tiny-services", [services.client, services.shards]);
}

#[test]
fn of_a_pipeline_the_service_selects_the_first_stage_of_every_group() {
    let spec = sample("tiny-pipeline-cpu.yaml");
    let revision = Revision::decide(&spec, &plan(&spec, &fleet()), "worker").unwrap();
    let group = build::group(&revision, GroupId { index: GroupIndex(0), epoch: Epoch(1) });
    let service = build::services(&spec.owner, false).client;
    let selector = service.spec.unwrap().selector.unwrap();
    let selected = |pod: &k8s_openapi::api::core::v1::Pod| {
        let labels = pod.metadata.labels.as_ref().unwrap();
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    assert_eq!(group.pods.iter().map(selected).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn a_revision_read_back_from_the_status_builds_the_same_pods() {
    let spec = sample("tiny-cpu.yaml");
    let revision = Revision::decide(&spec, &plan(&spec, &fleet()), "worker").unwrap();
    let revision = Revision { device_bytes: Some(5 << 30), product: Some("NVIDIA-L4".to_owned()), ..revision };
    let entry = serde_json::from_value(serde_json::to_value(revision.to_status()).unwrap()).unwrap();
    let read = Revision::from_status(&Owner { ..spec.owner }, &entry).unwrap();
    let group = GroupId { index: GroupIndex(3), epoch: Epoch(7) };
    assert_eq!(build::group(&read, group), build::group(&revision, group));
    assert_eq!((read.device_bytes, read.product), (revision.device_bytes, revision.product));
}
