#!/usr/bin/env bash
# Every test of the project, in stages, with the seconds each took. Go and cargo never build at once:
# two compilers on two cores only slow each other down, and together they may not fit into memory.
set -euo pipefail
cd "$(dirname "$0")/.."

began=$SECONDS
stages=()
failed=()

# What the stages need beside Rust, as Debian packages it.
packages=(buildah containerd runc containernetworking-plugins nftables conntrack iproute2 openssl python3-venv)

# stage NAME COMMAND…: runs it, keeps its seconds, and goes on after a failure so that one run shows all.
# Functions of this file run as `step FUNCTION`, a process of their own: left of `||` bash would not stop at their errors.
stage() {
  local name=$1 started=$SECONDS verdict=ok
  shift
  printf '\n==> %s\n' "$name"
  "$@" || verdict=FAILED
  [ "$verdict" = ok ] || failed+=("$name")
  stages+=("$(printf '%-14s %5d s  %s' "$name" $((SECONDS - started)) "$verdict")")
}

install_packages() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not root on Debian: using what is installed (wanted: ${packages[*]})"
    return
  fi
  local missing=()
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  fi
}

# The client that knows only reflection.
install_python() {
  local wanted=tests/python/requirements.txt
  if ! command -v python3 >/dev/null; then
    echo "Python is missing: what asks through reflection is skipped, or fails where it is required"
    return
  fi
  if ! cmp -s "$wanted" target/venv/requirements.txt; then
    mkdir -p target
    python3 -m venv target/venv
    target/venv/bin/pip install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" target/venv/requirements.txt
  fi
}

# Debian's promtool, taken out of its package: installing that would bring a daemon along. Without it what checks the
# chart's rules is skipped loudly, or fails where it is required.
fetch_promtool() {
  local tools=target/tools/bin
  if command -v promtool >/dev/null || [ -x "$tools/promtool" ]; then
    return
  fi
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "no promtool, and not Debian: the chart's rules are not checked"
    return
  fi
  local scratch
  scratch=$(mktemp -d)
  # Package lists may be older than the archive, or not there at all; renewing them needs root.
  if (cd "$scratch" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } 2>/dev/null); then
    mkdir -p "$tools"
    dpkg-deb --fsys-tarfile "$scratch"/prometheus_*.deb | tar -xO ./usr/bin/promtool >"$scratch/promtool"
    install -m 755 "$scratch/promtool" "$tools/promtool"
  else
    echo "apt-get cannot download prometheus: the chart's rules are not checked"
  fi
  rm -rf "$scratch"
}

# Without Go the cluster and node tests skip loudly themselves, or fail where they are required.
build_cluster() {
  if [ "$(uname -s)" != Linux ]; then
    echo "not Linux: no control plane is built"
  elif ! command -v go >/dev/null; then
    echo "Go is missing: no control plane is built"
  else
    tests/cluster/build.sh
  fi
}

# One graph for binaries and tests: asking for them one after another would build what they share twice, since features
# are unified over what is asked for. The stages below name the whole workspace for the same reason.
build_rust() {
  cargo build --workspace --bins --tests
}

build_images() {
  if ! command -v buildah >/dev/null; then
    echo "buildah is missing: no images are built"
    return
  fi
  images/build.sh debug
}

summary() {
  printf '\n==> seconds per stage\n'
  printf '%s\n' "${stages[@]}"
  if [ ${#failed[@]} -gt 0 ]; then
    printf 'make test: FAILED after %d s: %s\n' $((SECONDS - began)) "${failed[*]}"
    exit 1
  fi
  printf 'make test: ok, %d stages in %d s\n' "${#stages[@]}" $((SECONDS - began))
}

step() {
  tests/all.sh --step "$1"
}

main() {
  stage packages step install_packages
  stage python step install_python
  stage promtool step fetch_promtool
  stage kubernetes step build_cluster
  stage build step build_rust
  stage images step build_images
  stage lint tests/lint.sh
  stage unit cargo test --workspace --lib --bins --no-fail-fast
  stage worker cargo test --workspace --test process --test formats --test fuzz
  stage doc cargo test --workspace --doc
  # The real node comes last: it is the longest path through everything the others prove in parts.
  local test
  for test in tests/tests/*.rs; do
    test=$(basename "$test" .rs)
    [ "$test" = node ] || stage "$test" cargo test --workspace --test "$test"
  done
  [ ! -e tests/tests/node.rs ] || stage node cargo test --workspace --test node
  summary
}

if [ "${1:-}" = --step ]; then
  "$2"
else
  main
fi
