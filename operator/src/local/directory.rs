//! The folder of one `up`: logs and volumes.
//!
//! Never shared with another process: it is made anew, for this user alone.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Removed when dropped, unless kept.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    keep: bool,
}

impl RunDirectory {
    /// Makes a folder under `base` that did not exist.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(base: &Path) -> io::Result<Self> {
        for attempt in 0..u32::MAX {
            let path = base.join(format!("shoal-up-{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path, keep: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it behind: there is something to read in it.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Whether it will be left behind.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.keep
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed is the system's to clean.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
