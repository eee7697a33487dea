#!/usr/bin/env bash
# enter.sh control-plane|node COMMAND…: runs COMMAND beside that cluster, in fresh network, mount and pid namespaces.
# Root enters them directly, an ordinary user through a user namespace. Everything inside dies with this process,
# also when it is killed: unshare gets the parent-death signal and takes its pid namespace along.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)

namespaces=(--net --mount --pid --fork --kill-child --mount-proc)
[ "$(id -u)" = 0 ] || namespaces=(-Ur "${namespaces[@]}")

# The kubelet's control groups outlive its processes: remove them, deepest first, and what a killed run left.
remove_cgroups() {
  local folder
  for folder in /sys/fs/cgroup/*/shoal-node-"$1" /sys/fs/cgroup/shoal-node-"$1"; do
    [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
}

sweep_dead_runs() {
  local folder pid
  for folder in /sys/fs/cgroup/*/shoal-node-*; do
    pid=${folder##*-}
    [ ! -d "$folder" ] || [ -e "/proc/$pid" ] || remove_cgroups "$pid"
  done
}

kind=$1
shift
if [ "$kind" = probe ]; then
  exec unshare "${namespaces[@]}" true
fi
if [ "$kind" != node ]; then
  exec setpriv --pdeathsig KILL unshare "${namespaces[@]}" "$here/$kind.sh" "$@"
fi
sweep_dead_runs
trap 'remove_cgroups $$' EXIT
CGROUP=shoal-node-$$ setpriv --pdeathsig KILL unshare "${namespaces[@]}" "$here/node.sh" "$@"
