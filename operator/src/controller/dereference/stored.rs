//! A ModelDeployment as it is stored, perhaps by a newer version: read if it can be, and never in the way of the others.
//!
//! Without this one object that cannot be read would end the list, and with it the watch, of all. Never guesses what
//! an unknown value may mean.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::crd::ModelDeployment;
use crate::crd::admit::{Section, misfit, unknown_fields};

/// See the module.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The object, as far as this version knows its fields.
    pub object: Result<ModelDeployment, Unread>,
    /// Fields of its spec that this version does not know: nothing acts on them.
    pub unknown: Vec<String>,
    /// Its status as it is stored, if that holds fields that this version does not know: they are to be kept.
    pub status: Option<Value>,
}

/// A stored object that this version cannot read.
#[derive(Clone, Debug, PartialEq)]
pub struct Unread {
    /// Its metadata.
    pub meta: ObjectMeta,
    /// Which field has which value that this version does not know.
    pub problem: String,
    /// Its status as it is stored.
    pub status: Value,
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let mut raw = Value::deserialize(text)?;
        let object = match ModelDeployment::deserialize(&raw) {
            Ok(model) => Ok(model),
            Err(error) => Err(Unread {
                meta: ObjectMeta::deserialize(&raw["metadata"]).map_err(D::Error::custom)?,
                problem: misfit(&raw).unwrap_or_else(|| error.to_string()),
                status: raw["status"].take(),
            }),
        };
        let unknown = unknown_fields(Section::Spec, &raw);
        let status = (!unknown_fields(Section::Status, &raw).is_empty()).then(|| raw["status"].take());
        Ok(Self { object, unknown, status })
    }
}

impl Resource for Stored {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        ModelDeployment::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        ModelDeployment::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        ModelDeployment::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        ModelDeployment::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.object {
            Ok(model) => &model.metadata,
            Err(unread) => &unread.meta,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.object {
            Ok(model) => &mut model.metadata,
            Err(unread) => &mut unread.meta,
        }
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    fn stored(change: impl FnOnce(&mut Value)) -> Stored {
        let mut raw = json!({
            "apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "m", "namespace": "n", "uid": "u"},
            "spec": {"model": {"source": "file:///m"}, "pod": {"labels": {"any": "x"}}},
            "status": {"observedGeneration": 1, "groups": [
                {"index": 0, "epoch": 1, "revision": "A", "phase": "Ready", "readyShards": 1, "shards": 1},
            ]},
        });
        change(&mut raw);
        serde_json::from_value(raw).unwrap()
    }

    fn problem(change: impl FnOnce(&mut Value)) -> String {
        let stored = stored(change);
        assert_eq!(stored.meta().name.as_deref(), Some("m"));
        stored.object.unwrap_err().problem
    }

    #[test]
    fn what_a_newer_version_wrote_is_named_by_field_and_value_and_does_not_fail_the_list() {
        let backend = problem(|raw| raw["spec"]["hardware"] = json!({"backend": "TPU"}));
        assert_eq!(
            backend,
            r#"spec.hardware.backend: Unsupported value: "TPU": supported values: "CUDA", "WGPU", "CPU""#
        );
        let strategy = problem(|raw| raw["spec"]["sharding"] = json!({"strategy": "Tensor"}));
        assert!(strategy.starts_with(r#"spec.sharding.strategy: Unsupported value: "Tensor""#), "{strategy}");
        let phase = problem(|raw| raw["status"]["groups"][0]["phase"] = json!("Warm"));
        assert!(phase.starts_with(r#"status.groups[0].phase: Unsupported value: "Warm""#), "{phase}");
        let replicas = problem(|raw| raw["spec"]["replicas"] = json!({"min": 1}));
        assert!(replicas.starts_with(r#"spec.replicas: Invalid value: {"min":1}"#), "{replicas}");
    }

    #[test]
    fn unknown_fields_are_named_and_a_status_that_holds_some_is_kept_as_it_is() {
        let plain = stored(|_| {});
        assert_eq!((plain.object.is_ok(), plain.unknown, plain.status), (true, vec![], None));
        let newer = stored(|raw| {
            raw["spec"]["speculative"] = json!(true);
            raw["spec"]["serving"] = json!({"draft": {"tokens": 4}});
        });
        assert!(newer.object.is_ok());
        assert_eq!((newer.unknown, newer.status), (vec!["spec.serving.draft".into(), "spec.speculative".into()], None));
        let newer = stored(|raw| raw["status"]["groups"][0]["watts"] = json!(700));
        assert_eq!(newer.status.unwrap()["groups"][0]["watts"], 700);
    }
}
