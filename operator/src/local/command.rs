//! A pod as a process of this machine, and what the machine offers to it: plain data.
//!
//! Never decides a substitution; `localize` does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::probes::Probes;

/// What stands for the cluster on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Runs instead of the image.
    pub worker: PathBuf,
    /// Where `file:///P` and claims are looked up; `None` leaves paths as they are and refuses claims.
    pub model_root: Option<PathBuf>,
    /// Holds one directory per pod and emptyDir volume.
    pub volumes: PathBuf,
    /// (pod hostname, container port) → port on 127.0.0.1.
    pub ports: BTreeMap<(String, u16), u16>,
    /// Compute threads of a pod that asks for no CPU; `None` leaves them as they are.
    pub threads: Option<u32>,
}

/// A pod as a process: the program, its arguments and what kubelet would have watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalCommand {
    /// The executable that stands for the image.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The variables of the pod, substituted; nothing inherited.
    pub env: BTreeMap<String, String>,
    /// The pod's ports, where they are here.
    pub ports: Vec<LocalPort>,
    /// To be made before the start: emptyDir volumes.
    pub directories: Vec<PathBuf>,
    /// Must exist before the start: model paths, as (written, here).
    pub sources: BTreeMap<String, PathBuf>,
    /// What kubelet would probe.
    pub probes: Probes,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// `image X -> /bin/shoal-worker`, one line per kind and value, without the ports.
    pub substituted: BTreeSet<String>,
    /// `memory limit` and the like: written in the pod, without effect here.
    pub not_enforced: BTreeSet<String>,
}

/// One container port and the loopback address that stands for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPort {
    /// The port's name in the pod, empty when it has none.
    pub name: String,
    /// Its number in the pod.
    pub container: u16,
    /// Where it is here.
    pub address: SocketAddr,
}

/// The name under which other pods of its group reach `pod`.
#[must_use]
pub fn hostname(pod: &Pod) -> &str {
    let explicit = pod.spec.as_ref().and_then(|spec| spec.hostname.as_deref());
    explicit.or(pod.metadata.name.as_deref()).unwrap_or_default()
}

/// Kubernetes stores ports as i32; 0 is no port, so nothing has an address for it.
pub(super) fn port_number(port: i32) -> u16 {
    u16::try_from(port).unwrap_or_default()
}
