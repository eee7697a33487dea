//! Free ports for the pods of this machine.
//!
//! A port is free when it is given out, not for ever: a pod that finds it taken fails and its group starts anew
//! with other ports. So that this stays rare, ports come from below those that the system lends to clients by itself,
//! each process begins to look somewhere else, and none gives the same one out twice in a row.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::api::core::v1::Pod;

use super::command::{hostname, port_number};

/// The first port that is tried.
const FIRST: u32 = 10_000;
/// How many there are: they end below 32768, where Linux begins to lend (other systems begin higher).
const COUNT: u32 = 22_000;
/// Processes whose ids are neighbours begin that far from each other.
const STRIDE: u32 = 64;

/// Ports that this process has looked at.
static LOOKED_AT: AtomicU32 = AtomicU32::new(0);

/// One free loopback port for each container port of `pods`, keyed by the pod's hostname and the container port.
///
/// # Errors
/// When the system has no port left.
pub fn allocate(pods: &[Pod]) -> io::Result<BTreeMap<(String, u16), u16>> {
    let mut ports = BTreeMap::new();
    for pod in pods {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        for port in containers.flat_map(|container| container.ports.iter().flatten()) {
            ports.insert((hostname(pod).to_owned(), port_number(port.container_port)), free()?);
        }
    }
    Ok(ports)
}

/// A loopback port that nobody listens on.
///
/// # Errors
/// When every port that could be given out is taken; it holds what binding the last one said.
pub fn free() -> io::Result<u16> {
    let start = std::process::id().wrapping_mul(STRIDE);
    let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..COUNT {
        let next = start.wrapping_add(LOOKED_AT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + next % COUNT).map_err(io::Error::other)?;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_passed_over_and_none_is_given_twice() {
        let first = free().unwrap();
        let taken: Vec<_> = (1..8).map(|ahead| TcpListener::bind((Ipv4Addr::LOCALHOST, first + ahead))).collect();
        let second = free().unwrap();
        let held = taken.iter().flatten().map(|listener| listener.local_addr().unwrap().port());
        assert!(second != first && !held.collect::<Vec<_>>().contains(&second), "{first} then {second}");
        assert!(u32::from(second) < FIRST + COUNT);
    }
}
