#!/usr/bin/env bash
# Builds a real Kubernetes from its pinned Go modules into target/cluster/bin:
#   etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, kubelet, kube-proxy,
#   helm, kwok (with its node stages), coredns, and the pause binary of the real node's sandboxes.
# Cold it takes about eight minutes on two cores; a second run with nothing changed ends at once.
# BIN overrides the folder.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/../../target/cluster/bin}
modules=(etcd kubernetes helm kwok coredns pause)

say() {
  printf 'cluster: %s\n' "$*"
}

# Everything that decides what the binaries are.
fingerprint() {
  { go version; cat "$here"/*/go.mod "$here"/*/go.sum "$here"/pause/main.go "$here/build.sh"; } | sha256sum | cut -d' ' -f1
}

# Kubernetes reads its own version from these variables; without them it calls itself v0.0.0 and kubectl complains.
version_flags() {
  local version
  version=$(cd "$here/kubernetes" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
  local package=k8s.io/component-base/version
  local minor
  minor=$(cut -d. -f2 <<<"$version")
  printf -- '-s -w -X %s.gitVersion=%s -X %s.gitMajor=1 -X %s.gitMinor=%s' \
    "$package" "$version" "$package" "$package" "$minor"
}

# build_module NAME LDFLAGS: the module's `tool` lines say which commands it holds.
build_module() {
  local what=tool
  [ "$1" != pause ] || what=.
  (cd "$here/$1" && CGO_ENABLED=0 nice go build -buildvcs=false -trimpath -ldflags="$2" -o "$bin/" "$what")
}

# kwok's own stages keep fake nodes ready; those of pods are ours (stages/).
copy_node_stages() {
  local stage
  stage=$(cd "$here/kwok" && go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage/node
  mkdir -p "$bin/stages"
  cp -f "$stage/fast/node-initialize.yaml" "$stage"/heartbeat-with-lease/node-heartbeat-with-lease.yaml "$bin/stages/"
  chmod -R u+w "$bin/stages"
}

main() {
  if ! command -v go >/dev/null; then
    if [ -e "$bin/.stamp" ]; then
      say "Go is missing: using the binaries that are there"
      return
    fi
    say "Go is missing (1.26 or newer): no control plane can be built" >&2
    exit 3
  fi
  mkdir -p "$bin"
  bin=$(cd "$bin" && pwd)
  local wanted
  wanted=$(fingerprint)
  if [ "$(cat "$bin/.stamp" 2>/dev/null || true)" = "$wanted" ]; then
    say "binaries are up to date"
    return
  fi
  local flags number=0
  flags=$(version_flags)
  for module in "${modules[@]}"; do
    number=$((number + 1))
    local started=$SECONDS
    say "building $module ($number of ${#modules[@]})"
    build_module "$module" "$flags"
    say "built $module in $((SECONDS - started)) s"
  done
  mv -f "$bin/server" "$bin/etcd"
  copy_node_stages
  printf '%s\n' "$wanted" >"$bin/.stamp"
}

main
