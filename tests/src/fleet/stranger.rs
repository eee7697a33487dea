//! A client of a shard port that is no shard: it accepts every server and shows whatever pair it was given.
//!
//! Only such a client gets far enough to be refused by the server: a real shard would turn away first.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use shoal_operator::controller::apply::keys::{Pair, fresh};
use shoal_proto::shard::HelloRequest;
use shoal_proto::shard::shard_client::ShardClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// A key pair as the operator makes it, in a folder as kubelet mounts it.
pub struct Keys {
    pair: Pair,
    folder: TempDir,
}

impl Keys {
    /// Made `years` ago.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn made_ago(years: i64) -> Result<Self> {
        let ago = std::time::Duration::from_secs(u64::try_from(years)? * 365 * 24 * 60 * 60);
        let pair = fresh("test", (std::time::SystemTime::now() - ago).try_into()?);
        let folder = tempfile::tempdir().context("a folder for keys")?;
        std::fs::write(folder.path().join("tls.crt"), &pair.certificate)?;
        std::fs::write(folder.path().join("tls.key"), &pair.key)?;
        Ok(Self { pair, folder })
    }

    /// The worker's flag for this folder.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--shard-tls={}", self.folder.path().display())
    }

    /// Knocks at a shard port with this pair; what came back before the port closed the connection.
    ///
    /// # Errors
    /// The refusal.
    pub async fn knock(&self, port: SocketAddr) -> Result<Vec<u8>> {
        let certificate = CertificateDer::from_pem_slice(self.pair.certificate.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.pair.key.as_bytes())?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_client_auth_cert(vec![certificate], key)?;
        let stream = TcpStream::connect(port).await?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("shard")?, stream).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        let mut answer = vec![0; 64];
        let length = stream.read(&mut answer).await?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// Says Hello to a shard port in plaintext.
///
/// # Errors
/// The refusal.
pub async fn hello_in_plaintext(port: SocketAddr) -> Result<()> {
    let mut client = ShardClient::connect(format!("http://{port}")).await?;
    client.hello(HelloRequest::default()).await?;
    Ok(())
}

/// Accepts every server.
#[derive(Debug)]
struct Anybody;

#[rustfmt::skip]
impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8], _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
