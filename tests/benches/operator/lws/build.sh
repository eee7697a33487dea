#!/usr/bin/env bash
# Builds LeaderWorkerSet's manager from its pinned Go module into target/bench/lws, with its CRD and its webhooks beside it.
# Minutes when cold; `make bench-operator` runs it.
set -euo pipefail
cd "$(dirname "$0")"
out=../../../../target/bench/lws
if ! command -v go >/dev/null; then
  echo "lws: Go is missing (1.26 or newer): the rival is not measured" >&2
  exit 0
fi
mkdir -p "$out"
CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$out/manager" sigs.k8s.io/lws/cmd
config=$(go list -m -f '{{.Dir}}' sigs.k8s.io/lws)/config
cp -f "$config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml" "$out/crd.yaml"
cp -f "$config/webhook/manifests.yaml" "$out/webhooks.yaml"
chmod u+w "$out"/*.yaml
echo "lws: $(go list -m sigs.k8s.io/lws) is built"
