//! A directory of this process, in memory where the system has such, for readers that open files.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    parent.join(format!("shoal-fuzz-{}", std::process::id()))
});

/// A directory of this name.
pub(super) fn directory(name: &str) -> Result<PathBuf, String> {
    let directory = PLACE.join(name);
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    Ok(directory)
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).map_err(|error| error.to_string())
}

/// Removes all of them.
pub(crate) fn clear() {
    // What was never made cannot be removed.
    drop(std::fs::remove_dir_all(&*PLACE));
}
