//! Mutual TLS between the shards of a group: both ends hold one certificate with its key, and accept exactly that one.
//!
//! TLS 1.3 alone, and every connection proves its key anew: nothing is resumed. Never falls back to plaintext, never
//! trusts an issuer, and never looks at a name: whoever holds the key is a shard of this revision.

mod accept;
mod files;
mod pin;
mod refusals;

use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::{ClientConfig, Resumption};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ServerConfig};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{self, version::TLS13};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(super) use accept::incoming;
pub use files::{TlsError, load};
use pin::Pin;

use super::timing::Timing;

/// What both ends speak above TLS.
const HTTP2: &[u8] = b"h2";

/// A certificate and its key, which may still be those of another certificate.
#[derive(Debug)]
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// Both ends of this shard's traffic.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// `clock` judges the validity of certificates in every handshake.
    fn new(identity: &Identity, clock: Arc<dyn TimeProvider>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pin = Arc::new(Pin::new(identity.certificate.clone(), &provider)?);
        let server = server(identity, &provider, (Arc::clone(&pin), Arc::clone(&clock)))?;
        let client = client(identity, &provider, (pin, clock))?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), connector: TlsConnector::from(Arc::new(client)) })
    }

    /// Connects to `address` and proves who both ends are, as far as a client can know: a server that refuses our
    /// certificate says so on the first read.
    ///
    /// # Errors
    /// What the network or the handshake says, or that either took too long.
    pub(super) async fn connect(&self, address: &str, timing: &Timing) -> io::Result<TlsStream<TcpStream>> {
        let late = |what: &'static str| move |_| io::Error::new(io::ErrorKind::TimedOut, what);
        let stream = tokio::time::timeout(timing.connect, TcpStream::connect(address));
        let stream = stream.await.map_err(late("no connection in time"))??;
        stream.set_nodelay(true)?;
        let handshake = self.connector.connect(nobody(), stream);
        tokio::time::timeout(timing.handshake, handshake).await.map_err(late("no TLS handshake in time"))?
    }
}

/// rustls wants a name; it is neither sent nor compared.
fn nobody() -> ServerName<'static> {
    ServerName::try_from("shard").expect("should parse: a DNS name")
}

type Judge = (Arc<Pin>, Arc<dyn TimeProvider>);

fn server(
    identity: &Identity,
    provider: &Arc<CryptoProvider>,
    (pin, clock): Judge,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_details(Arc::clone(provider), clock)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(pin)
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
    // A resumed session would prove neither the key nor the validity of its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

fn client(
    identity: &Identity,
    provider: &Arc<CryptoProvider>,
    (pin, clock): Judge,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_details(Arc::clone(provider), clock)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pin)
        .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())?;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
