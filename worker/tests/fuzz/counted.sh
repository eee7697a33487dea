#!/usr/bin/env bash
# A RUSTC_WRAPPER: the crates that read foreign bytes count which of their edges are reached (LLVM's SanitizerCoverage),
# all others are compiled as usual. worker/tests/fuzz/coverage.rs holds what the counters call.
set -eu
name='' kind='' before=''
for argument; do
  case $before in
    --crate-name) name=$argument ;;
    --crate-type) kind=$argument ;;
  esac
  before=$argument
done
case $name-$kind in
  shoal_worker-bin)
    # Cargo builds it beside every test; nobody runs it, and it lacks what the counters call.
    set -- "$@" -C link-arg=-Wl,--unresolved-symbols=ignore-all ;;
  shoal_worker-lib | shoal_proto-lib | tokenizers-lib | safetensors-lib | minijinja-lib)
    set -- "$@" -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=3 \
      -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table ;;
esac
exec "$@"
