//! What we own of a NetworkPolicy: all of its spec.

use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::object::{Applied, ObjectView};

/// A NetworkPolicy as a pass sees it.
pub type PolicyView = ObjectView<NetworkPolicy>;

impl Applied for NetworkPolicy {
    const FIELDS: &'static [&'static str] = &["podSelector", "policyTypes", "ingress", "egress"];
}
