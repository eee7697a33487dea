//! The command line of a worker.

use shoal_proto::placement::Placement;

use super::{SHARD_TLS_MOUNT, has_peers, pod_name};
use crate::controller::plan::Revision;
use crate::crd::Backend;
use crate::inventory::quantity;
use crate::names::{GroupId, Rank, port};

/// Arguments of the worker of `rank`, every flag with its value in the next argument.
pub(super) fn args(revision: &Revision, group: GroupId, rank: Rank) -> Vec<String> {
    let spec = &revision.spec;
    let any = |port: u16| format!("0.0.0.0:{port}");
    let mut args = Vec::new();
    let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
    flag("model", spec.source.worker_uri());
    flag("model-name", spec.owner.name.to_string());
    flag("listen", any(port::GRPC));
    flag("http", any(port::HTTP));
    flag("health-listen", any(port::HEALTH));
    if has_peers(revision) {
        flag("shard-listen", any(port::SHARD));
        flag("shard-tls", SHARD_TLS_MOUNT.to_owned());
    }
    flag("rank", rank.to_string());
    flag("size", revision.shards.to_string());
    flag("peers", peers(revision, group));
    flag("epoch", group.epoch.to_string());
    if let Some(placement) = &revision.placement {
        flag("placement", Placement::to_base64(placement));
    }
    flag("context-tokens", spec.context_tokens.to_string());
    flag("max-concurrent-sequences", spec.max_concurrent_sequences.to_string());
    flag("threads", threads(revision).to_string());
    flag("numerics", if spec.device.backend == Backend::CPU { "exact" } else { "default" }.to_owned());
    flag("backend", format!("{:?}", spec.device.backend).to_lowercase());
    args
}

/// `HOST.SUBDOMAIN:PORT` of every shard, in order of rank, this one included.
fn peers(revision: &Revision, group: GroupId) -> String {
    let peer = |rank| pod_name(revision, group, Rank(rank)).peer(&revision.spec.owner.name);
    (0..revision.shards).map(peer).collect::<Vec<_>>().join(",")
}

/// As many as the container has CPUs, by limit, else by request.
fn threads(revision: &Revision) -> u64 {
    let resources = &revision.spec.pod.resources;
    let cpu = resources.limits.get("cpu").or_else(|| resources.requests.get("cpu"));
    cpu.and_then(quantity::units).unwrap_or(1).clamp(1, 1024)
}
