#!/usr/bin/env bash
# Runs COMMAND beside a real single-node Kubernetes: the control plane, containerd, kubelet, kube-proxy, CoreDNS.
# Start it through enter.sh as root, which also removes the kubelet's control groups afterwards:
#
#   tests/cluster/enter.sh node bash
#
# Needs containerd, runc, CNI plugins, nftables, conntrack, iproute2 as Debian packages them.
# Environment: CGROUP (from enter.sh), IMAGES (docker-archive files; default target/images/*.tar), LOGS as control-plane.sh.
# COMMAND resolves cluster DNS names and reaches Services like a pod does.
#
# It also runs where the kernel has only cgroup v1 and no dummy links, sysctls are read-only and oom_score_adj may not be
# lowered, as in many virtual machines that build software: the settings for that are marked (!).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"

address=172.31.0.1
pod_network=10.244.0.0/16

# The node's own link: a bridge, since dummy links may not exist (!).
make_network() {
  ip link add node0 type bridge
  ip addr add "$address/24" dev node0
  ip link set node0 up
  ip route add default dev node0
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

# What containerd's CNI library and the resolver read is at fixed paths; this mount namespace has its own.
hide_host_state() {
  mkdir -p /var/lib/cni
  mount -t tmpfs shoal-cni /var/lib/cni
  local resolv
  resolv=$(realpath /etc/resolv.conf)
  printf 'nameserver %s\nsearch svc.cluster.local cluster.local\noptions ndots:5\n' "$address" >/var/lib/cni/resolv.conf
  mount --bind /var/lib/cni/resolv.conf "$resolv"
}

write_cni() {
  mkdir -p cni
  cat >cni/10-pods.conflist <<JSON
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.244.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

start_containerd() {
  mkdir -p containerd
  # restrict_oom_score_adj (!): otherwise runc dies with "can't get final child's PID from pipe".
  cat >containerd.toml <<TOML
version = 2
root = "$run/containerd/root"
state = "$run/containerd/state"
[grpc]
address = "$run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$run/cni"
TOML
  containerd --config containerd.toml >logs/containerd.log 2>&1 &
  wait_for 30 ctr -a containerd.sock version
}

import_images() {
  local image
  # shellcheck disable=SC2086
  for image in ${IMAGES:-$root/target/images/*.tar}; do
    ctr -a containerd.sock -n k8s.io images import "$image" >/dev/null
  done
}

# cgroup v1 has a folder for each controller, v2 one for all.
make_cgroups() {
  local parent
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p "/sys/fs/cgroup/$CGROUP"
    return
  fi
  for parent in cpu cpuacct cpuset memory pids devices freezer blkio systemd; do
    mkdir -p "/sys/fs/cgroup/$parent/$CGROUP"
  done
}

start_kubelet() {
  issue kubelet /O=system:nodes/CN=system:node:node0 "DNS:node0,IP:$address"
  kubeconfig kubelet "https://$address:6443"
  cat >kubelet.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$run/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false   # (!)
failSwapOn: false
enforceNodeAllocatable: []
authentication: {x509: {clientCAFile: $run/ca.crt}, anonymous: {enabled: false}, webhook: {enabled: true}}
authorization: {mode: Webhook}
tlsCertFile: $run/kubelet.crt
tlsPrivateKeyFile: $run/kubelet.key
clusterDNS: [$address]
clusterDomain: cluster.local
resolvConf: ""
podLogsDir: $run/pods
volumePluginDir: $run/volume-plugins
evictionHard: {memory.available: "10Mi", nodefs.available: "1%", imagefs.available: "1%"}
YAML
  kubelet --config=kubelet.yaml --kubeconfig=kubelet.kubeconfig --hostname-override=node0 --node-ip="$address" \
    --root-dir="$run/kubelet" --cert-dir="$run/pki" >logs/kubelet.log 2>&1 &
}

start_proxy() {
  issue proxy /CN=system:kube-proxy DNS:proxy
  kubeconfig proxy "https://$address:6443"
  kubectl create clusterrolebinding proxy --clusterrole=system:node-proxier --user=system:kube-proxy >/dev/null
  # Zero leaves the conntrack sysctls alone (!).
  kube-proxy --kubeconfig=proxy.kubeconfig --hostname-override=node0 --cluster-cidr="$pod_network" \
    --proxy-mode=nftables --conntrack-max-per-core=0 --conntrack-min=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 >logs/proxy.log 2>&1 &
}

start_dns() {
  cat >Corefile <<CONF
.:53 {
  bind $address
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $run/admin.kubeconfig
  }
  cache 5
}
CONF
  coredns -conf Corefile >logs/coredns.log 2>&1 &
}

# Inside the control plane's command: its scratch folder holds the authority.
run_node() {
  run=$CLUSTER_RUN
  local caller=$PWD
  cd "$run"
  write_cni
  start_containerd
  import_images
  make_cgroups
  start_kubelet
  start_proxy
  start_dns
  wait_for 60 kubectl wait --for=condition=Ready node/node0 --timeout=1s
  cd "$caller"
  "$@"
}

if [ "${1:-}" = --inside ]; then
  shift
  run_node "$@"
else
  make_network
  hide_host_state
  NODES='' ADVERTISE=$address exec "$here/control-plane.sh" "$here/node.sh" --inside "$@"
fi
