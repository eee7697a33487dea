//! What we own of a Service: exactly the fields that server-side apply writes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::object::{Applied, ObjectView};

/// A Service as a pass sees it.
pub type ServiceView = ObjectView<Service>;

/// Without an address of its own.
const HEADLESS: &str = "headless";

#[derive(Serialize)]
struct Fields {
    selector: Option<BTreeMap<String, String>>,
    headless: bool,
    publish_not_ready: bool,
    ports: Vec<Port>,
}

#[derive(Serialize)]
struct Port {
    name: Option<String>,
    port: i32,
    target: String,
    protocol: String,
    app_protocol: Option<String>,
}

impl Applied for Service {
    fn fields(&self) -> impl Serialize {
        let spec = self.spec.clone().unwrap_or_default();
        let ports = spec.ports.into_iter().flatten().map(|port| {
            let target = match port.target_port {
                Some(IntOrString::Int(number)) => number.to_string(),
                Some(IntOrString::String(name)) => name,
                None => port.port.to_string(),
            };
            let protocol = port.protocol.unwrap_or_else(|| "TCP".to_owned());
            Port { name: port.name, port: port.port, target, protocol, app_protocol: port.app_protocol }
        });
        Fields {
            headless: self.fixed() == HEADLESS,
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
            ports: ports.collect(),
            selector: spec.selector,
        }
    }

    fn fixed(&self) -> &'static str {
        let address = self.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
        if address == Some("None") { HEADLESS } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Owned;
    use super::*;

    fn owned(change: impl FnOnce(&mut Value)) -> Owned {
        let mut service = json!({
            "metadata": {"labels": {"inference.shoal.dev/model": "m"}},
            "spec": {"selector": {"a": "b"}, "ports": [{"name": "grpc", "port": 50051, "targetPort": "grpc"}]},
        });
        change(&mut service);
        Owned::of::<Service>(&serde_json::from_value(service).unwrap())
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
