//! Free ports for the pods of this machine.
//!
//! A port is free when it is given out, not for ever: a pod that finds it taken fails and its group starts anew
//! with other ports.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use k8s_openapi::api::core::v1::Pod;

use super::command::{hostname, port_number};

/// One free loopback port for each container port of `pods`, keyed by the pod's hostname and the container port.
///
/// # Errors
/// When the system has no port left.
pub fn allocate(pods: &[Pod]) -> io::Result<BTreeMap<(String, u16), u16>> {
    let mut ports = BTreeMap::new();
    // Held until all are found, or the system would give the same one twice.
    let mut held = Vec::new();
    for pod in pods {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        for port in containers.flat_map(|container| container.ports.iter().flatten()) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            ports.insert((hostname(pod).to_owned(), port_number(port.container_port)), listener.local_addr()?.port());
            held.push(listener);
        }
    }
    Ok(ports)
}
