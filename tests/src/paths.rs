//! Where the repository and the binaries under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The repository's root.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' package should lie one folder below the root")
}

/// The binary `name` that cargo built beside this test: `target/PROFILE/NAME`.
///
/// # Errors
/// When it is not there: cargo builds another package's binaries only when asked to.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("the path of this test binary")?;
    let profile = test.ancestors().nth(2).context("a test binary lies in target/PROFILE/deps")?;
    let path = profile.join(name);
    ensure!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    Ok(path)
}
