//! Where a model that `shoal up` serves is written down, and where `shoal ask NAME` finds it.
//!
//! A name belongs to the process that holds its file's lock, so that a killed `up` leaves no lie behind.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why a name could not be claimed or found.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Someone else could write there.
    #[error("{} must be a folder of this user with mode 0700", .0.display())]
    Folder(PathBuf),
    /// Another `up` holds the name.
    #[error("another `shoal up` already serves {0}")]
    Taken(String),
    /// No `up` holds the name.
    #[error("no `shoal up` of this user serves {name}; looked in {}", .folder.display())]
    Unknown {
        /// The name asked for.
        name: String,
        /// Where its file would be.
        folder: PathBuf,
    },
    /// It is held, and not ready yet.
    #[error("{0} is starting and has no address yet")]
    Starting(String),
    /// The file system said no.
    #[error("{}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// The addresses of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Generate and reflection.
    pub grpc: SocketAddr,
    /// Metrics and, later, the OpenAI API.
    pub http: Option<SocketAddr>,
}

/// The folder of all names: `$XDG_RUNTIME_DIR/shoal`, else `shoal-UID` under the temporary folder.
#[must_use]
pub fn folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_absolute()) {
        Some(runtime) => PathBuf::from(runtime).join("shoal"),
        None => std::env::temp_dir().join(format!("shoal-{}", rustix::process::getuid().as_raw())),
    }
}

/// Finds the addresses of a running model.
///
/// # Errors
/// [`AddressError::Unknown`] when no living `up` holds `name`, [`AddressError::Starting`] before it is ready.
pub fn lookup(folder: &Path, name: &str) -> Result<Addresses, AddressError> {
    let unknown = || AddressError::Unknown { name: name.to_owned(), folder: folder.to_owned() };
    if !is_private(folder).unwrap_or_default() || name.contains('/') {
        return Err(unknown());
    }
    let path = folder.join(name);
    let mut file = File::open(&path).map_err(|_| unknown())?;
    match file.try_lock_shared() {
        Ok(()) => return Err(unknown()),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(source)) => return Err(AddressError::Io { path, source }),
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|source| AddressError::Io { path, source })?;
    serde_json::from_str(&text).map_err(|_| AddressError::Starting(name.to_owned()))
}

/// A name held by this process until it is dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    file: File,
}

impl Claim {
    /// Takes `name` for this process.
    ///
    /// # Errors
    /// [`AddressError::Taken`] while another process holds it; [`AddressError::Folder`] when the folder is not private.
    pub fn new(folder: &Path, name: &str) -> Result<Self, AddressError> {
        let error = |source| AddressError::Io { path: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(error)?;
        if !is_private(folder).map_err(error)? {
            return Err(AddressError::Folder(folder.to_owned()));
        }
        let path = folder.join(name);
        let error = |source| AddressError::Io { path: path.clone(), source };
        loop {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(error)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(AddressError::Taken(name.to_owned())),
                Err(TryLockError::Error(source)) => return Err(error(source)),
            }
            // The last holder may have removed the file between our open and our lock: then the lock is on nothing.
            let locked = file.metadata().map_err(error)?;
            if std::fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (locked.dev(), locked.ino())) {
                file.set_len(0).map_err(error)?;
                return Ok(Self { path, file });
            }
        }
    }

    /// Writes down where the model answers.
    ///
    /// # Errors
    /// [`AddressError::Io`] when the file cannot be written.
    pub fn publish(&mut self, addresses: &Addresses) -> Result<(), AddressError> {
        let text = serde_json::to_vec(addresses).map_err(io::Error::from);
        let write = |file: &mut File, text: &[u8]| {
            file.rewind()?;
            file.set_len(0)?;
            file.write_all(text)
        };
        text.and_then(|text| write(&mut self.file, &text))
            .map_err(|source| AddressError::Io { path: self.path.clone(), source })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A file left behind is unlocked, so nobody believes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_private(folder: &Path) -> io::Result<bool> {
    let metadata = std::fs::symlink_metadata(folder)?;
    let own = metadata.uid() == rustix::process::getuid().as_raw();
    Ok(metadata.is_dir() && own && metadata.permissions().mode() & 0o077 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses { grpc: "127.0.0.1:1".parse().unwrap(), http: Some("127.0.0.1:2".parse().unwrap()) }
    }

    #[test]
    fn a_name_is_found_while_its_holder_lives_and_only_then() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("shoal");
        let mut claim = Claim::new(&folder, "tiny").unwrap();
        assert!(matches!(lookup(&folder, "tiny"), Err(AddressError::Starting(_))));
        claim.publish(&addresses()).unwrap();
        assert_eq!(lookup(&folder, "tiny").unwrap(), addresses());
        assert!(matches!(Claim::new(&folder, "tiny"), Err(AddressError::Taken(_))));
        drop(claim);
        assert!(matches!(lookup(&folder, "tiny"), Err(AddressError::Unknown { .. })));
    }

    #[test]
    fn a_file_left_by_a_killed_process_is_not_believed_and_can_be_taken_over() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("shoal");
        drop(Claim::new(&folder, "other").unwrap());
        std::fs::write(folder.join("tiny"), serde_json::to_vec(&addresses()).unwrap()).unwrap();
        assert!(matches!(lookup(&folder, "tiny"), Err(AddressError::Unknown { .. })));
        Claim::new(&folder, "tiny").unwrap();
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Claim::new(folder.path(), "tiny"), Err(AddressError::Folder(_))));
        assert!(matches!(lookup(folder.path(), "tiny"), Err(AddressError::Unknown { .. })));
    }
}
