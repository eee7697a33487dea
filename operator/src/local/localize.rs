//! Every substitution that turns a pod of the operator into a process of this machine (the table is in
//! `docs/localize.md`). A field of the pod that nothing here honours is refused or named as not enforced.
//!
//! Never binds a port, touches a file or starts anything: what the machine offers comes in as a [`Table`].

mod arguments;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, Pod, PodSpec, Probe, ResourceRequirements, Volume, VolumeMount,
};

use super::command::{LocalCommand, LocalPort, Table, hostname, port_number};
use super::expand::expand;
use super::probes::{ProbeSpec, Probes};

/// Kubernetes' `terminationGracePeriodSeconds` when a pod names none.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Why a pod cannot run as a process here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LocalizeError {
    /// A field that changes what the worker does and that no process here can honour.
    #[error("pod {pod}: {field} cannot be honoured on this machine: {allowed}")]
    Refused {
        /// The pod's name.
        pod: String,
        /// The field, as in the pod's YAML.
        field: String,
        /// What would be accepted instead.
        allowed: String,
    },
    /// An argument names a pod that has no address in the table.
    #[error("pod {pod}: {value} names port {port}, for which this machine has no address")]
    NoAddress {
        /// The pod's name.
        pod: String,
        /// The argument, variable or probe.
        value: String,
        /// The container port.
        port: u16,
    },
}

/// Applies the table to `pod`. Pure: equal pods and tables give equal commands, here and for a pod read from a cluster.
///
/// # Errors
/// [`LocalizeError::Refused`] for a field that cannot be honoured, [`LocalizeError::NoAddress`] for a port without one.
pub fn substitute(pod: &Pod, table: &Table) -> Result<LocalCommand, LocalizeError> {
    let mut localizer = Localizer {
        pod,
        name: pod.metadata.name.clone().unwrap_or_default(),
        table,
        mounts: Vec::new(),
        command: LocalCommand { program: table.worker.clone(), ..LocalCommand::default() },
    };
    let Some(spec) = &pod.spec else {
        return Err(localizer.refusal("a pod without spec", "a spec with one container"));
    };
    localizer.pod_spec(spec)?;
    Ok(localizer.command)
}

struct Localizer<'a> {
    pod: &'a Pod,
    name: String,
    table: &'a Table,
    /// (mount path in the container, directory here)
    mounts: Vec<(String, PathBuf)>,
    command: LocalCommand,
}

impl Localizer<'_> {
    #[rustfmt::skip]
    fn pod_spec(&mut self, spec: &PodSpec) -> Result<(), LocalizeError> {
        let PodSpec {
            // Honoured.
            containers, volumes, termination_grace_period_seconds, restart_policy,
            // Honoured by the table of addresses.
            hostname: _, subdomain: _, dns_policy: _, dns_config, host_aliases, set_hostname_as_fqdn,
            // Said to be without effect.
            affinity, automount_service_account_token, image_pull_secrets, node_selector, os, overhead,
            preemption_policy, priority, priority_class_name, resources, runtime_class_name, scheduler_name,
            scheduling_gates, security_context, service_account: _, service_account_name, tolerations,
            topology_spread_constraints, host_users, enable_service_links: _,
            // Refused.
            active_deadline_seconds, ephemeral_containers, host_ipc, host_network, host_pid, init_containers,
            node_name: _, readiness_gates, resource_claims, share_process_namespace,
        } = spec;
        self.refuse(restart_policy.as_deref() != Some("Never"), "spec.restartPolicy", "Never: the operator restarts groups")?;
        self.refuse(dns_config.is_some(), "spec.dnsConfig", "none: peers are found by the table")?;
        self.refuse(some(host_aliases), "spec.hostAliases", "none: peers are found by the table")?;
        self.refuse(*set_hostname_as_fqdn == Some(true), "spec.setHostnameAsFQDN", "false")?;
        self.refuse(active_deadline_seconds.is_some(), "spec.activeDeadlineSeconds", "none")?;
        self.refuse(some(ephemeral_containers), "spec.ephemeralContainers", "none")?;
        self.refuse(some(init_containers), "spec.initContainers", "none: one process per pod")?;
        self.refuse(*host_ipc == Some(true), "spec.hostIPC", "false")?;
        self.refuse(*host_network == Some(true), "spec.hostNetwork", "false")?;
        self.refuse(*host_pid == Some(true), "spec.hostPID", "false")?;
        self.refuse(some(readiness_gates), "spec.readinessGates", "none")?;
        self.refuse(some(resource_claims), "spec.resourceClaims", "none")?;
        self.refuse(*share_process_namespace == Some(true), "spec.shareProcessNamespace", "false")?;
        self.not_enforced(affinity.is_some(), "affinity");
        self.not_enforced(*automount_service_account_token == Some(true), "service account token");
        self.not_enforced(some(image_pull_secrets), "image pull secrets");
        self.not_enforced(node_selector.as_ref().is_some_and(|labels| !labels.is_empty()), "node selector");
        self.not_enforced(os.is_some(), "operating system");
        self.not_enforced(overhead.is_some(), "pod overhead");
        self.not_enforced(preemption_policy.is_some() || priority.is_some() || priority_class_name.is_some(), "priority");
        self.not_enforced(runtime_class_name.is_some(), "runtime class");
        self.not_enforced(scheduler_name.is_some(), "scheduler");
        self.not_enforced(some(scheduling_gates), "scheduling gates");
        self.not_enforced(security_context.is_some(), "security context");
        self.not_enforced(service_account_name.as_deref().is_some_and(|name| name != "default"), "service account");
        self.not_enforced(some(tolerations), "tolerations");
        self.not_enforced(some(topology_spread_constraints), "topology spread");
        self.not_enforced(*host_users == Some(false), "user namespace");
        self.resources(resources.as_ref());
        let [container] = containers.as_slice() else {
            return Err(self.refusal("spec.containers", "exactly one: one process per pod"));
        };
        self.command.grace = seconds(termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS));
        self.container(container, volumes.as_deref().unwrap_or_default())
    }

    #[rustfmt::skip]
    fn container(&mut self, container: &Container, volumes: &[Volume]) -> Result<(), LocalizeError> {
        let Container {
            // Honoured.
            name: _, args, env, ports, image, liveness_probe, readiness_probe, startup_probe, volume_mounts,
            // The last lines of the log stand for the message, as FallbackToLogsOnError allows.
            termination_message_path: _, termination_message_policy: _,
            // Said to be without effect.
            image_pull_policy: _, resize_policy, resources, security_context,
            // Refused.
            command, env_from, lifecycle, restart_policy, stdin, stdin_once, tty, volume_devices, working_dir,
        } = container;
        self.refuse(some(command), "command", "none: the image's entry point is the worker")?;
        self.refuse(some(env_from), "envFrom", "none: list variables under env")?;
        self.refuse(lifecycle.is_some(), "lifecycle", "none")?;
        self.refuse(restart_policy.is_some(), "a container's restartPolicy", "none")?;
        self.refuse([stdin, stdin_once, tty].contains(&&Some(true)), "stdin and tty", "false")?;
        self.refuse(some(volume_devices), "volumeDevices", "none")?;
        self.refuse(working_dir.is_some(), "workingDir", "none")?;
        self.not_enforced(some(resize_policy), "resize policy");
        self.not_enforced(security_context.is_some(), "security context");
        self.resources(resources.as_ref());

        let image = image.as_deref().unwrap_or("of the node");
        self.command.substituted.insert(format!("image {image} -> {}", self.table.worker.display()));
        for port in ports.iter().flatten() {
            let container = port_number(port.container_port);
            let address = self.own_address(port.name.as_deref().unwrap_or("ports"), container)?;
            let name = port.name.clone().unwrap_or_default();
            self.command.ports.push(LocalPort { name, container, address });
        }
        for mount in volume_mounts.iter().flatten() {
            self.mount(mount, volumes)?;
        }
        // Longest first, so that /data/cache is not taken for /data.
        self.mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        for variable in env.iter().flatten() {
            self.variable(variable)?;
        }
        self.arguments(args.as_deref().unwrap_or_default())?;
        self.command.probes = Probes {
            startup: self.probe("startupProbe", startup_probe.as_ref())?,
            readiness: self.probe("readinessProbe", readiness_probe.as_ref())?,
            liveness: self.probe("livenessProbe", liveness_probe.as_ref())?,
        };
        Ok(())
    }

    /// Volume → directory: an emptyDir gets one of its own, a claim is a folder of the model root.
    fn mount(&mut self, mount: &VolumeMount, volumes: &[Volume]) -> Result<(), LocalizeError> {
        let VolumeMount {
            name,
            mount_path,
            sub_path,
            sub_path_expr,
            read_only,
            recursive_read_only: _,
            mount_propagation: _,
        } = mount;
        self.refuse(sub_path_expr.is_some(), "subPathExpr", "subPath")?;
        let Some(volume) = volumes.iter().find(|volume| volume.name == *name) else {
            return Err(self.refusal(&format!("the mount of volume {name}"), "a volume of the pod"));
        };
        if arguments::is_shard_tls(volume, mount) {
            return Ok(());
        }
        let mut directory = self.volume(volume)?;
        if let Some(sub_path) = sub_path {
            directory.push(sub_path);
        }
        self.not_enforced(*read_only == Some(true), "read-only mounts");
        self.mounts.push((mount_path.trim_end_matches('/').to_owned(), directory));
        Ok(())
    }

    fn volume(&mut self, volume: &Volume) -> Result<PathBuf, LocalizeError> {
        let Volume { name, empty_dir, persistent_volume_claim: claim, .. } = volume;
        // Every source but these two is refused, the ones of later Kubernetes versions included.
        let honoured = Volume {
            name: name.clone(),
            empty_dir: empty_dir.clone(),
            persistent_volume_claim: claim.clone(),
            ..Volume::default()
        };
        let allowed = "emptyDir or persistentVolumeClaim";
        if let Some(reference) = volume.image.as_ref().and_then(|image| image.reference.as_deref()) {
            return Err(self.refusal(&format!("the image volume oci://{reference}"), "file:// or pvc:// as the source"));
        }
        self.refuse(*volume != honoured, &format!("the source of volume {name}"), allowed)?;
        match (empty_dir, claim, &self.table.model_root) {
            (Some(_), None, _) => {
                let directory = self.table.volumes.join(&self.name).join(name);
                self.command.substituted.insert(format!("volume {name} -> a directory of the pod's own"));
                self.command.directories.push(directory.clone());
                Ok(directory)
            }
            (None, Some(claim), Some(root)) => {
                let directory = root.join(&claim.claim_name);
                let line = format!("volume {name} (claim {}) -> {}", claim.claim_name, directory.display());
                self.command.substituted.insert(line);
                Ok(directory)
            }
            (None, Some(claim), None) => {
                let field = format!("claim {}", claim.claim_name);
                Err(self.refusal(&field, "--model-root DIR, in which DIR/CLAIM stands for the claim"))
            }
            _ => Err(self.refusal(&format!("the source of volume {name}"), allowed)),
        }
    }

    fn variable(&mut self, variable: &EnvVar) -> Result<(), LocalizeError> {
        let EnvVar { name, value, value_from } = variable;
        let value = match value_from {
            Some(source) => self.reference(name, source)?,
            None => Some(expand(value.as_deref().unwrap_or_default(), &self.command.env)),
        };
        if let Some(value) = value {
            let value = self.value(&value)?;
            self.command.env.insert(name.clone(), value);
        }
        Ok(())
    }

    /// fieldRef → value. A secret or config map is refused unless the pod can do without.
    fn reference(&mut self, variable: &str, source: &EnvVarSource) -> Result<Option<String>, LocalizeError> {
        let EnvVarSource { config_map_key_ref, field_ref, resource_field_ref, secret_key_ref } = source;
        self.refuse(resource_field_ref.is_some(), &format!("resourceFieldRef of {variable}"), "value or fieldRef")?;
        let optional = secret_key_ref.as_ref().and_then(|secret| secret.optional).unwrap_or_default()
            || config_map_key_ref.as_ref().and_then(|map| map.optional).unwrap_or_default();
        let Some(field) = field_ref.as_ref().map(|field| field.field_path.as_str()) else {
            self.refuse(!optional, &format!("valueFrom of {variable}"), "value or fieldRef: there is no API server")?;
            self.not_enforced(true, "optional secrets and config maps");
            return Ok(None);
        };
        let metadata = &self.pod.metadata;
        let keyed = |map: &Option<BTreeMap<String, String>>, kind: &str| {
            let key = field.strip_prefix(kind)?.strip_prefix("['")?.strip_suffix("']")?;
            Some(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default())
        };
        let value = match field {
            "metadata.name" => Some(self.name.clone()),
            "metadata.namespace" => Some(metadata.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            "spec.nodeName" => Some("localhost".to_owned()),
            "status.podIP" | "status.podIPs" | "status.hostIP" | "status.hostIPs" => {
                Some(Ipv4Addr::LOCALHOST.to_string())
            }
            _ => keyed(&metadata.labels, "metadata.labels")
                .or_else(|| keyed(&metadata.annotations, "metadata.annotations")),
        };
        if value.is_none() {
            let allowed = "metadata.name, metadata.namespace, a label or annotation, spec.nodeName, an IP of status";
            return Err(self.refusal(&format!("fieldRef {field} of {variable}"), allowed));
        }
        self.command.substituted.insert(format!("fieldRef {field} -> its value"));
        Ok(value)
    }

    /// One argument or variable: of `--flag=a,b` each of a and b is looked up by itself.
    fn value(&mut self, text: &str) -> Result<String, LocalizeError> {
        let flag = if text.starts_with("--") { text.find('=').map_or(text.len(), |at| at + 1) } else { 0 };
        let (flag, items) = text.split_at(flag);
        if items.starts_with("file://") {
            return Ok(format!("{flag}{}", self.item(items)?));
        }
        let items = items.split(',').map(|item| self.item(item)).collect::<Result<Vec<_>, _>>()?;
        Ok(format!("{flag}{}", items.join(",")))
    }

    fn item(&mut self, item: &str) -> Result<String, LocalizeError> {
        if let Some(path) = item.strip_prefix("file://") {
            let here = self.model_path(path);
            self.command.sources.insert(item.to_owned(), here.clone());
            return Ok(format!("file://{}", here.display()));
        }
        if item.starts_with('/') {
            return Ok(self.mounted(item).map_or_else(|| item.to_owned(), |path| path.display().to_string()));
        }
        let Some((host, port)) = item.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?))) else {
            return Ok(item.to_owned());
        };
        let label = host.split('.').next().unwrap_or_default();
        let is_pod = self.table.ports.keys().any(|(name, _)| name == label);
        if is_pod {
            return self.address(label, item, port).map(|address| address.to_string());
        }
        let is_self = matches!(host, "" | "0.0.0.0" | "[::]" | "127.0.0.1" | "localhost");
        if is_self && self.command.ports.iter().any(|own| own.container == port) {
            return self.own_address(item, port).map(|address| address.to_string());
        }
        Ok(item.to_owned())
    }

    /// `file:///P`: below a mount, the volume's directory; else below the model root; else as written.
    fn model_path(&mut self, path: &str) -> PathBuf {
        let here = self.mounted(path).or_else(|| {
            let root = self.table.model_root.as_ref()?;
            Some(root.join(path.trim_start_matches('/')))
        });
        let Some(here) = here else {
            return PathBuf::from(path);
        };
        self.command.substituted.insert(format!("model file://{path} -> {}", here.display()));
        here
    }

    fn mounted(&self, path: &str) -> Option<PathBuf> {
        self.mounts.iter().find_map(|(mount, directory)| {
            let rest = Path::new(path).strip_prefix(mount).ok()?;
            Some(if rest.as_os_str().is_empty() { directory.clone() } else { directory.join(rest) })
        })
    }

    fn own_address(&self, value: &str, port: u16) -> Result<SocketAddr, LocalizeError> {
        self.address(hostname(self.pod), value, port)
    }

    fn address(&self, host: &str, value: &str, port: u16) -> Result<SocketAddr, LocalizeError> {
        let no_address = || LocalizeError::NoAddress { pod: self.name.clone(), value: value.to_owned(), port };
        let local = self.table.ports.get(&(host.to_owned(), port)).ok_or_else(no_address)?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, *local)))
    }

    fn probe(&self, field: &str, probe: Option<&Probe>) -> Result<Option<ProbeSpec>, LocalizeError> {
        let Some(probe) = probe else { return Ok(None) };
        let Probe { grpc, exec, http_get, tcp_socket, termination_grace_period_seconds, .. } = probe;
        let other = exec.is_some() || http_get.is_some() || tcp_socket.is_some();
        self.refuse(other, field, "a gRPC probe")?;
        self.refuse(termination_grace_period_seconds.is_some(), field, "the pod's own grace period")?;
        let Some(grpc) = grpc else { return Err(self.refusal(field, "a gRPC probe")) };
        Ok(Some(ProbeSpec::new(self.own_address(field, port_number(grpc.port))?, grpc, probe)))
    }

    fn resources(&mut self, resources: Option<&ResourceRequirements>) {
        let Some(ResourceRequirements { claims, limits, requests }) = resources else { return };
        self.not_enforced(some(claims), "resource claims");
        for resource in limits.iter().flat_map(BTreeMap::keys) {
            self.not_enforced(true, &format!("{resource} limit"));
        }
        self.not_enforced(requests.as_ref().is_some_and(|requests| !requests.is_empty()), "resource requests");
    }

    fn not_enforced(&mut self, present: bool, what: &str) {
        if present {
            self.command.not_enforced.insert(what.to_owned());
        }
    }

    fn refuse(&self, present: bool, field: &str, allowed: &str) -> Result<(), LocalizeError> {
        if present { Err(self.refusal(field, allowed)) } else { Ok(()) }
    }

    fn refusal(&self, field: &str, allowed: &str) -> LocalizeError {
        let (pod, field, allowed) = (self.name.clone(), field.to_owned(), format!("allowed is {allowed}"));
        LocalizeError::Refused { pod, field, allowed }
    }
}

fn some<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or_default())
}

#[cfg(test)]
mod tests;
