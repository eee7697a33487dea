//! What we own of a Service.

use k8s_openapi::api::core::v1::Service;

use super::object::{Applied, ObjectView};

/// A Service as a pass sees it.
pub type ServiceView = ObjectView<Service>;

/// Without an address of its own.
const HEADLESS: &str = "headless";

impl Applied for Service {
    const FIELDS: &'static [&'static str] = &["selector", "ports", "publishNotReadyAddresses"];

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
            "spec": {"selector": {"a": "b"}, "ports": [
                {"name": "grpc", "port": 50051, "targetPort": "grpc", "protocol": "TCP"},
            ]},
        });
        change(&mut service);
        Owned::of::<Service>(&serde_json::from_value(service).unwrap())
    }

    #[test]
    fn defaults_and_foreign_fields_are_no_drift_but_every_owned_field_is() {
        let built = owned(|_| {});
        let stored = owned(|service| {
            service["spec"]["clusterIP"] = json!("10.0.0.7");
            service["spec"]["sessionAffinity"] = json!("None");
            service["metadata"]["labels"]["team"] = json!("x");
            service["metadata"]["annotations"] = json!({"a": "b"});
        });
        assert_eq!(built, stored);
        assert_ne!(built, owned(|service| service["spec"]["selector"]["a"] = json!("c")));
        assert_ne!(built, owned(|service| service["spec"]["selector"]["more"] = json!("c")));
        assert_ne!(built, owned(|service| service["spec"]["clusterIP"] = json!("None")));
        assert_ne!(built, owned(|service| service["spec"]["publishNotReadyAddresses"] = json!(true)));
        assert_ne!(built, owned(|service| service["spec"]["ports"][0]["port"] = json!(1)));
        assert_ne!(built, owned(|service| service["spec"]["ports"][0]["appProtocol"] = json!("kubernetes.io/h2c")));
        assert_ne!(built, owned(|service| service["metadata"]["labels"] = json!({})));
    }
}
