//! `--shard-tls DIR`: `tls.crt` and `tls.key`, as kubelet mounts a Secret of type `kubernetes.io/tls`.
//!
//! Read once, at the start: a pod's certificate is that of its revision and never changes under it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio_rustls::rustls::{self, crypto::aws_lc_rs};

use super::pin::Pin;
use super::{Identity, Tls};

/// Why the traffic between shards cannot be secured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there, or not for us.
    #[error("{path} cannot be read", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Not what its name says.
    #[error("{path} holds no {what} in PEM", path = .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Certificate or private key.
        what: &'static str,
        /// What was wrong.
        #[source]
        source: pem::Error,
    },
    /// A chain has no meaning: exactly one certificate is accepted.
    #[error("{path} holds {found} certificates; allowed is one", path = .path.display())]
    Chain {
        /// The file.
        path: PathBuf,
        /// How many.
        found: usize,
    },
    /// Out of date, not signed by its own key, or of another kind.
    #[error("the certificate in {path} is not usable", path = .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        #[source]
        source: rustls::Error,
    },
    /// A key that does not belong to the certificate, or that cannot be used at all.
    #[error("the key in {path} is not usable with the certificate beside it", path = .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        #[source]
        source: rustls::Error,
    },
}

/// Reads the certificate and the key of `directory`, which must be valid now.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn load(directory: &Path) -> Result<Tls, TlsError> {
    read(directory, Arc::new(DefaultTimeProvider))
}

/// The same at the time of `clock`.
pub(super) fn read(directory: &Path, clock: Arc<dyn TimeProvider>) -> Result<Tls, TlsError> {
    let path = directory.join("tls.crt");
    let certificate = certificate(&path)?;
    let unusable = |source| TlsError::Certificate { path: path.clone(), source };
    let now = clock.current_time().ok_or(rustls::Error::FailedToGetCurrentTime).map_err(unusable)?;
    let pin = Pin::new(certificate.clone(), &aws_lc_rs::default_provider());
    pin.and_then(|pin| pin.check(&certificate, now)).map_err(unusable)?;
    let path = directory.join("tls.key");
    let key = PrivateKeyDer::from_pem_slice(&bytes(&path)?);
    let key = key.map_err(|source| TlsError::Pem { path: path.clone(), what: "private key", source })?;
    Tls::new(&Identity { certificate, key }, clock).map_err(|source| TlsError::Key { path, source })
}

fn certificate(path: &Path) -> Result<CertificateDer<'static>, TlsError> {
    let pem = |source| TlsError::Pem { path: path.to_owned(), what: "certificate", source };
    let bytes = bytes(path)?;
    let all = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>().map_err(pem)?;
    match <[_; 1]>::try_from(all) {
        Ok([one]) => Ok(one),
        Err(all) if all.is_empty() => Err(pem(pem::Error::NoItemsFound)),
        Err(all) => Err(TlsError::Chain { path: path.to_owned(), found: all.len() }),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
