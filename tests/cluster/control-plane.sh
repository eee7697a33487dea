#!/usr/bin/env bash
# Runs COMMAND beside a real Kubernetes control plane. Start it through enter.sh, which makes the namespaces:
#
#   tests/cluster/enter.sh control-plane bash
#
# etcd, kube-apiserver, controller-manager, scheduler and, with NODES, kwok's fake nodes; ready in about three seconds.
# Everything ends with COMMAND, or when unshare dies, and leaves nothing behind:
# the scratch folder is a tmpfs of this mount namespace, the network is this network namespace's loopback.
#
# Environment: BIN (binaries; KUBEBUILDER_ASSETS goes first when it holds etcd, kube-apiserver and kubectl),
# NODES (manifest of fake nodes, empty for none), ADVERTISE (address that pods of a real node reach the API at),
# LOGS (folder that gets the logs when COMMAND fails).
# COMMAND gets KUBECONFIG (admin), CLUSTER_RUN (scratch folder), CLUSTER_AUDIT (audit log).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"

bin=${BIN:-$root/target/cluster/bin}
nodes=${NODES-$here/nodes.yaml}
advertise=${ADVERTISE:-127.0.0.1}
run=$root/target/cluster/run
caller=$PWD

prefer_given_assets() {
  local assets=${KUBEBUILDER_ASSETS:-}
  export PATH="$bin:$PATH"
  if [ -x "$assets/etcd" ] && [ -x "$assets/kube-apiserver" ] && [ -x "$assets/kubectl" ]; then
    export PATH="$assets:$PATH"
  fi
}

enter_scratch_folder() {
  mkdir -p "$run"
  mount -t tmpfs -o mode=0755 shoal-cluster "$run"
  cd "$run"
  mkdir logs
  ip link set lo up
}

make_identities() {
  new_ca
  issue apiserver /CN=kube-apiserver \
    "DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.96.0.1,IP:$advertise"
  issue admin /O=system:masters/CN=admin DNS:localhost
  issue kcm /CN=system:kube-controller-manager DNS:localhost
  issue scheduler /CN=system:kube-scheduler DNS:localhost
  for user in admin kcm scheduler; do
    kubeconfig "$user" "https://$advertise:6443"
  done
  openssl ecparam -genkey -name prime256v1 -noout -out sa.key
  openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
}

# Metadata of every request: who called what. Tests count writes and compare used rights with granted ones.
write_audit_policy() {
  cat >audit.yaml <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
YAML
}

start_api() {
  etcd --data-dir etcd --unsafe-no-fsync >logs/etcd.log 2>&1 &
  # A loopback address cannot be the endpoint of Service `kubernetes`; without a real node nobody needs it.
  local endpoint=(--advertise-address="$advertise")
  if [ "$advertise" = 127.0.0.1 ]; then
    endpoint=(--advertise-address=127.0.0.2 --endpoint-reconciler-type=none)
  fi
  # ImageVolume: beta, off by default before 1.35; model sources of oci:// need it.
  kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443 "${endpoint[@]}" \
    --tls-cert-file=apiserver.crt --tls-private-key-file=apiserver.key --client-ca-file=ca.crt \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
    --service-cluster-ip-range=10.96.0.0/16 --allow-privileged \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction,PodSecurity \
    --feature-gates=ImageVolume=true \
    --audit-policy-file=audit.yaml --audit-log-path="$run/logs/audit.log" --audit-log-maxsize=4096 \
    --kubelet-client-certificate=admin.crt --kubelet-client-key=admin.key \
    --kubelet-preferred-address-types=InternalIP >logs/apiserver.log 2>&1 &
  wait_for 60 kubectl get --raw /readyz
}

start_controllers() {
  # A fake node that goes silent is noticed sooner; it renews its lease every four seconds.
  local patience=()
  [ -z "$nodes" ] || patience=(--node-monitor-grace-period=20s)
  kube-controller-manager --kubeconfig=kcm.kubeconfig --service-account-private-key-file=sa.key \
    --root-ca-file=ca.crt --use-service-account-credentials --leader-elect=false "${patience[@]}" \
    --kube-api-qps=300 --kube-api-burst=600 >logs/kcm.log 2>&1 &
  kube-scheduler --kubeconfig=scheduler.kubeconfig --leader-elect=false \
    --kube-api-qps=500 --kube-api-burst=1000 >logs/scheduler.log 2>&1 &
}

start_fake_nodes() {
  local stage
  for stage in "$here"/stages/*.yaml "$bin"/stages/*.yaml; do
    cat "$stage"
    printf '\n---\n'
  done >stages.yaml
  # The annotation keeps kwok away from nodes that are not fake.
  kwok --kubeconfig=admin.kubeconfig --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake \
    --node-ip=127.0.0.1 --config=stages.yaml --node-lease-duration-seconds=16 >logs/kwok.log 2>&1 &
  kubectl apply -f "$nodes" >/dev/null
  wait_for 60 kubectl wait --for=condition=Ready nodes --all --timeout=1s
}

keep_logs() {
  if [ -n "${LOGS:-}" ]; then
    mkdir -p "$LOGS"
    cp logs/*.log "$LOGS/"
    echo "cluster: logs are in $LOGS" >&2
  fi
}

main() {
  prefer_given_assets
  enter_scratch_folder
  make_identities
  write_audit_policy
  export KUBECONFIG=$run/admin.kubeconfig
  start_api
  start_controllers
  [ -z "$nodes" ] || start_fake_nodes
  wait_for 30 kubectl get serviceaccount default
  export CLUSTER_RUN=$run CLUSTER_AUDIT=$run/logs/audit.log
  local status=0
  (cd "$caller" && "$@") || status=$?
  [ "$status" = 0 ] || keep_logs
  exit "$status"
}

main "$@"
