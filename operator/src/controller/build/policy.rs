//! The NetworkPolicy of a model: the shard port is for its own pods, the others are for everyone.
//!
//! No narrower, because a policy selects by labels and cannot say "of the same group": the key pair draws that line. Never
//! limits what pods call: DNS and model sources are where each cluster has them, and a guess would part the shards.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta;
use crate::controller::validate::Owner;
use crate::names::{label, port};

/// Named as the headless Service, whose port it closes.
pub(super) fn policy(owner: &Owner) -> NetworkPolicy {
    let peer = NetworkPolicyPeer { pod_selector: Some(pods(owner)), ..Default::default() };
    let spec = NetworkPolicySpec {
        pod_selector: Some(pods(owner)),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: Some(vec![
            rule(&[port::SHARD], Some(vec![peer])),
            // Clients and scrapers are the user's to limit. kubelet asks the health port from its node, which no label
            // selects.
            rule(&[port::GRPC, port::HTTP, port::HEALTH], None),
        ]),
        egress: None,
    };
    NetworkPolicy { metadata: meta(owner, owner.name.shards_service()), spec: Some(spec) }
}

fn pods(owner: &Owner) -> LabelSelector {
    let model = BTreeMap::from([(label::MODEL.to_owned(), owner.name.to_string())]);
    LabelSelector { match_labels: Some(model), match_expressions: None }
}

fn rule(ports: &[u16], from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    let port = |port: &u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(*port))),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicyIngressRule { from, ports: Some(ports.iter().map(port).collect()) }
}
