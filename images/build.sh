#!/usr/bin/env bash
# build.sh release|debug: images from binaries that cargo has built, into target/images as docker-archive files:
#   shoal-operator.tar  localhost/shoal-operator:dev
#   shoal-worker.tar    localhost/shoal-worker:dev, with the demo model at /models/tiny
#   pause.tar           localhost/pause:1, the sandbox of the tests' real node (when tests/cluster/build.sh has run)
# `ctr -n k8s.io images import FILE` or `docker load -i FILE` takes them. Needs Debian's buildah, and no network.
set -euo pipefail

cd "$(dirname "$0")/.."
profile=${1:?release or debug}
out=$PWD/target/images

buildah_here() {
  buildah --storage-driver vfs --root "$out/storage" --runroot "$out/runroot" "$@"
}

# A binary's shared libraries at the paths where its loader looks for them.
copy_libraries() {
  local library
  ldd "$1" | grep -o '/[^ )]*' | while read -r library; do
    install -D -m 0755 "$(realpath "$library")" "$2$library"
  done
}

# lay_out NAME BINARY: $out/NAME/root with the binary and its libraries. No shell, no packages.
# Stripped: debug information is most of a debug build.
lay_out() {
  local root=$out/$1/root
  rm -rf "$root"
  mkdir -p "$root/etc"
  strip -o "$root/$(basename "$2")" "$2"
  copy_libraries "$2" "$root"
  # A worker finds itself in /etc/hosts, as kubelet writes it, and its peers through DNS.
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
}

# pack NAME TAG PROGRAM: the image whose file system is $out/NAME/root.
pack() {
  local container
  container=$(buildah_here from scratch)
  buildah_here copy --quiet "$container" "$out/$1/root" / >/dev/null
  buildah_here config --entrypoint "[\"/$3\"]" --user 65532:65532 "$container"
  buildah_here commit --quiet --timestamp 0 --rm "$container" "$2" >/dev/null
  rm -f "$out/$1.tar"
  buildah_here push --quiet "$2" "docker-archive:$out/$1.tar:$2"
  printf 'images: %s in target/images/%s.tar, %d KiB\n' "$2" "$1" "$(du -k "$out/$1.tar" | cut -f1)"
}

build_operator() {
  lay_out shoal-operator "target/$profile/shoal"
  pack shoal-operator localhost/shoal-operator:dev shoal
}

build_worker() {
  lay_out shoal-worker "target/$profile/shoal-worker"
  local model=$out/shoal-worker/root/models/tiny
  mkdir -p "$model"
  find models/tiny -maxdepth 1 -type f ! -name '*.py' ! -name '*.md' -exec cp {} "$model/" \;
  pack shoal-worker localhost/shoal-worker:dev shoal-worker
}

build_pause() {
  if [ -x target/cluster/bin/pause ]; then
    rm -rf "$out/pause/root"
    install -D target/cluster/bin/pause "$out/pause/root/pause"
    pack pause localhost/pause:1 pause
  fi
}

main() {
  mkdir -p "$out"
  # The layers are in the archives; the store itself would only grow.
  trap 'rm -rf "$out/storage" "$out/runroot"' EXIT
  build_pause
  build_operator
  build_worker
}

main
