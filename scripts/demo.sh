#!/bin/sh
# Builds what the demo needs and runs it: see tests/src/bin/demo.rs.
set -eu
cd "$(dirname "$0")/.."
cargo build --bins -p shoal-operator -p shoal-worker -p shoal-tests
exec target/debug/demo
