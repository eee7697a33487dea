//! A Service as we own it: exactly the fields that server-side apply writes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{ModelKey, View};
use crate::names::label;

/// Who controls a Service, and a digest of what we own in it.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(from = "Service")]
pub struct ServiceView {
    /// Name, namespace, uid and resourceVersion only.
    pub meta: ObjectMeta,
    /// Value of the model label.
    pub model: Option<String>,
    /// UID of the controller.
    pub controller: Option<String>,
    /// Of the fields that we own, as they are.
    pub owned: Owned,
    /// Without an address of its own, which never changes in a Service.
    pub headless: bool,
}

/// Digest of the owned fields of a Service, equal for what was built and for what the API server stores of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned([u8; 32]);

#[derive(Serialize)]
struct Fields<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    selector: Option<&'a BTreeMap<String, String>>,
    headless: bool,
    publish_not_ready: bool,
    ports: Vec<Port<'a>>,
}

#[derive(Serialize)]
struct Port<'a> {
    name: Option<&'a str>,
    port: i32,
    target: String,
    protocol: &'a str,
    app_protocol: Option<&'a str>,
}

impl Owned {
    /// Reads the owned fields; what the API server would default is filled in.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let spec = service.spec.clone().unwrap_or_default();
        let labels = service.metadata.labels.iter().flatten();
        let prefix = "inference.shoal.dev/";
        let ports = spec.ports.iter().flatten().map(|port| {
            let target = match &port.target_port {
                Some(IntOrString::Int(number)) => number.to_string(),
                Some(IntOrString::String(name)) => name.clone(),
                None => port.port.to_string(),
            };
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let (name, app_protocol) = (port.name.as_deref(), port.app_protocol.as_deref());
            Port { name, port: port.port, target, protocol, app_protocol }
        });
        let fields = Fields {
            labels: labels.filter(|(k, _)| k.starts_with(prefix)).map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            selector: spec.selector.as_ref(),
            headless: is_headless(service),
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
            ports: ports.collect(),
        };
        let text = serde_json::to_vec(&fields).expect("plain fields should serialise");
        Self(*blake3::hash(&text).as_bytes())
    }
}

/// Whether a Service has no address of its own.
#[must_use]
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

impl From<Service> for ServiceView {
    fn from(service: Service) -> Self {
        let (owned, headless) = (Owned::of(&service), is_headless(&service));
        let metadata = service.metadata;
        let owners = metadata.owner_references.unwrap_or_default();
        Self {
            model: metadata.labels.and_then(|mut labels| labels.remove(label::MODEL)),
            controller: owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid),
            owned,
            headless,
            meta: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                ..ObjectMeta::default()
            },
        }
    }
}

impl View for ServiceView {
    fn model(&self) -> Option<ModelKey> {
        Some(ModelKey { namespace: self.meta.namespace.clone()?, name: self.model.clone()? })
    }

    fn succeed(&mut self, older: &Self) -> bool {
        Self { meta: older.meta.clone(), ..self.clone() } != *older
    }
}

impl Resource for ServiceView {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Service".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "services".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn owned(change: impl FnOnce(&mut Value)) -> Owned {
        let mut service = json!({
            "metadata": {"labels": {"inference.shoal.dev/model": "m"}},
            "spec": {"selector": {"a": "b"}, "ports": [{"name": "grpc", "port": 50051, "targetPort": "grpc"}]},
        });
        change(&mut service);
        Owned::of(&serde_json::from_value(service).unwrap())
    }

    #[test]
    fn defaults_and_foreign_fields_are_no_drift_but_every_owned_field_is() {
        let built = owned(|_| {});
        let stored = owned(|service| {
            service["spec"]["clusterIP"] = json!("10.0.0.7");
            service["spec"]["ports"][0]["protocol"] = json!("TCP");
            service["metadata"]["labels"]["team"] = json!("x");
            service["metadata"]["annotations"] = json!({"a": "b"});
        });
        assert_eq!(built, stored);
        assert_ne!(built, owned(|service| service["spec"]["selector"]["a"] = json!("c")));
        assert_ne!(built, owned(|service| service["spec"]["clusterIP"] = json!("None")));
        assert_ne!(built, owned(|service| service["spec"]["publishNotReadyAddresses"] = json!(true)));
        assert_ne!(built, owned(|service| service["spec"]["ports"][0]["port"] = json!(1)));
        assert_ne!(built, owned(|service| service["spec"]["ports"][0]["appProtocol"] = json!("kubernetes.io/h2c")));
        assert_ne!(built, owned(|service| service["metadata"]["labels"] = json!({})));
    }
}
