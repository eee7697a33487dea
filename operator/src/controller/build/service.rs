//! The two Services of a model.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta;
use crate::controller::validate::Owner;
use crate::names::{label, port};

/// Selects every accepting shard of every revision: a rollout never takes the Service away. Headless, it resolves to
/// the ready ones among them, so that a client can balance by itself.
pub(super) fn client(owner: &Owner, headless: bool) -> Service {
    let accepts = (label::ACCEPTS.to_owned(), "true".to_owned());
    let selector = BTreeMap::from([(label::MODEL.to_owned(), owner.name.to_string()), accepts]);
    let ports = vec![named("grpc", port::GRPC, "kubernetes.io/h2c"), named("http", port::HTTP, "http")];
    let cluster_ip = headless.then(|| "None".to_owned());
    let spec = ServiceSpec { cluster_ip, selector: Some(selector), ports: Some(ports), ..Default::default() };
    Service { metadata: meta(owner, owner.name.service()), spec: Some(spec), status: None }
}

/// Resolves shards before they are ready: they find one another while they start.
pub(super) fn shards(owner: &Owner) -> Service {
    let selector = BTreeMap::from([(label::MODEL.to_owned(), owner.name.to_string())]);
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        selector: Some(selector),
        ports: Some(vec![named("shard", port::SHARD, "kubernetes.io/h2c")]),
        ..Default::default()
    };
    Service { metadata: meta(owner, owner.name.shards_service()), spec: Some(spec), status: None }
}

fn named(name: &str, number: u16, protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some(protocol.to_owned()),
        ..Default::default()
    }
}
