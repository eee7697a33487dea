#!/usr/bin/env bash
# Format, clippy, documentation, dependency rules. `cargo deny` comes from PATH or target/tools; with
# SHOAL_REQUIRE set, as in CI, it is installed there when absent, and otherwise its absence is said.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH="$PWD/target/tools/bin:$PATH"

deny() {
  if ! command -v cargo-deny >/dev/null; then
    if [ -z "${SHOAL_REQUIRE:-}" ]; then
      echo "skipped: cargo-deny is not installed (cargo install cargo-deny)"
      return
    fi
    cargo install --quiet --locked --root target/tools cargo-deny
  fi
  # Advisories need a database from the network; licences, bans and sources are decided by what is here.
  cargo deny --log-level error check bans licenses sources
}

cargo fmt --all --check
cargo clippy --quiet --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
deny
echo "lint: ok"
