//! Whole handshakes over a pipe: who is let in, who is not, and for which reason.

use std::path::Path;
use std::time::Duration;

use pretty_assertions::assert_eq;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rstest::rstest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{DigitallySignedStruct, SignatureScheme};

use super::files::read;
use super::refusals::Reason;
use super::*;

/// Mid 2026, by the wall clock of these tests.
const NOW: u64 = 1_780_000_000;

#[derive(Debug)]
struct Clock(u64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// A key, and a certificate of it that is valid from one year to another.
fn identity(key: &KeyPair, years: (i32, i32)) -> Identity {
    let mut params = CertificateParams::new(["shard".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    Identity {
        certificate: params.self_signed(key).unwrap().der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn shard(identity: &Identity) -> Tls {
    Tls::new(identity, Arc::new(Clock(NOW))).unwrap()
}

/// Accepts every server and shows one pair of certificate and key, whether they belong together or not.
#[derive(Debug)]
struct Stranger(Option<Arc<CertifiedKey>>);

impl Stranger {
    fn tls(certificate: &Identity, key: &Identity) -> TlsConnector {
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key.key.clone_key()).unwrap();
        Self(Some(Arc::new(CertifiedKey::new(vec![certificate.certificate.clone()], key)))).connector()
    }

    fn connector(self) -> TlsConnector {
        let stranger = Arc::new(self);
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(stranger.clone())
            .with_client_cert_resolver(stranger);
        TlsConnector::from(Arc::new(config))
    }
}

impl ResolvesClientCert for Stranger {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

#[rustfmt::skip]
impl ServerCertVerifier for Stranger {
    fn verify_server_cert(
        &self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8], _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// What the server says of a client, and the client of the server; one byte travels each way.
async fn meet(server: &Tls, client: &TlsConnector) -> (io::Result<()>, io::Result<()>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let serve = async {
        let mut stream = server.acceptor.accept(near).await?;
        let byte = stream.read_u8().await?;
        stream.write_all(&[byte]).await?;
        stream.flush().await
    };
    let call = async {
        let mut stream = client.connect(nobody(), far).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        stream.read_u8().await.map(drop)
    };
    tokio::join!(serve, call)
}

async fn refused(server: &Tls, client: &TlsConnector) -> (Reason, String) {
    let error = meet(server, client).await.0.expect_err("the server should refuse it");
    (Reason::of(&error), error.to_string())
}

#[tokio::test]
async fn shards_with_one_certificate_talk() {
    let pair = shard(&identity(&key(), (2026, 2030)));
    let (served, called) = meet(&pair, &pair.connector).await;
    served.unwrap();
    called.unwrap();
}

#[tokio::test]
async fn another_certificate_is_refused_by_either_end_even_with_the_same_key() {
    let key = key();
    let ours = identity(&key, (2026, 2030));
    for theirs in [identity(&self::key(), (2026, 2030)), identity(&key, (2026, 2031))] {
        let (reason, words) = refused(&shard(&ours), &Stranger::tls(&theirs, &theirs)).await;
        assert_eq!(reason, Reason::Certificate);
        assert!(words.contains("another certificate than this shard's"), "{words}");
        let refusal = meet(&shard(&ours), &shard(&theirs).connector).await.1.unwrap_err().to_string();
        assert!(refusal.contains("another certificate than this shard's"), "{refusal}");
    }
}

#[tokio::test]
async fn our_certificate_without_its_key_opens_nothing() {
    let ours = identity(&key(), (2026, 2030));
    let thief = Stranger::tls(&ours, &identity(&key(), (2026, 2030)));
    assert_eq!(
        refused(&shard(&ours), &thief).await,
        (Reason::Certificate, "invalid peer certificate: BadSignature".into())
    );
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let ours = shard(&identity(&key(), (2026, 2030)));
    assert_eq!(
        refused(&ours, &Stranger(None).connector()).await,
        (Reason::Certificate, "peer sent no certificates".into())
    );
}

#[tokio::test]
async fn a_certificate_out_of_date_is_refused_as_such_whether_it_is_ours_or_not() {
    let ours = identity(&key(), (2026, 2030));
    for (years, words) in [((2020, 2025), "certificate expired"), ((2028, 2030), "certificate not valid yet")] {
        let theirs = identity(&key(), years);
        let (reason, refusal) = refused(&shard(&ours), &Stranger::tls(&theirs, &theirs)).await;
        assert_eq!(reason, Reason::Expired, "{refusal}");
        assert!(refusal.contains(words), "{refusal}");
        let (reason, refusal) = refused(&shard(&theirs), &Stranger::tls(&theirs, &theirs)).await;
        assert_eq!(reason, Reason::Expired, "{refusal}");
        let stale = shard(&theirs);
        let refusal = meet(&stale, &stale.connector).await.1.unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[tokio::test]
async fn plaintext_and_noise_are_refused_before_anything_is_read_of_them() {
    let ours = shard(&identity(&key(), (2026, 2030)));
    for (text, reason) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Reason::Plaintext),
        (b"GET / HTTP/1.1\r\n\r\n", Reason::Plaintext),
        (b"", Reason::Handshake),
    ] {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        far.write_all(text).await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(Reason::of(&ours.acceptor.accept(near).await.unwrap_err()), reason);
    }
}

#[tokio::test]
async fn a_second_connection_proves_the_key_again() {
    let pair = shard(&identity(&key(), (2026, 2030)));
    for _ in 0..2 {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (server, client) = tokio::join!(pair.acceptor.accept(near), pair.connector.connect(nobody(), far));
        let (server, client) = (server.unwrap(), client.unwrap());
        let full = Some(rustls::HandshakeKind::Full);
        assert_eq!((server.get_ref().1.handshake_kind(), client.get_ref().1.handshake_kind()), (full, full));
        assert_eq!(server.get_ref().1.alpn_protocol(), Some(HTTP2));
    }
}

/// A folder with these two files; an empty text leaves the file out.
fn folder(certificate: &str, key: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
        if !text.is_empty() {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
    }
    folder
}

fn pem(years: (i32, i32)) -> (String, String) {
    let key = key();
    let mut params = CertificateParams::new(["shard".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn refusal(path: &Path) -> String {
    let error = read(path, Arc::new(Clock(NOW))).err().expect("should be refused");
    let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}").replace(&path.display().to_string(), "DIR")
}

#[test]
fn a_sound_pair_is_taken() {
    let (certificate, key) = pem((2026, 2030));
    assert!(read(folder(&certificate, &key).path(), Arc::new(Clock(NOW))).is_ok());
}

#[rstest]
#[case("", "k", "DIR/tls.crt cannot be read: No such file or directory (os error 2)")]
#[case("c", "", "DIR/tls.key cannot be read: No such file or directory (os error 2)")]
#[case("nonsense", "k", "DIR/tls.crt holds no certificate in PEM: no items found")]
#[case("c", "nonsense", "DIR/tls.key holds no private key in PEM: no items found")]
#[case("k", "k", "DIR/tls.crt holds no certificate in PEM: no items found")]
#[case("c", "c", "DIR/tls.key holds no private key in PEM: no items found")]
#[case("cc", "k", "DIR/tls.crt holds 2 certificates; allowed is one")]
#[case("c", "other", "DIR/tls.key is not usable")]
#[case("old", "k", "the certificate in DIR/tls.crt is not usable: invalid peer certificate: certificate expired")]
#[case(
    "young",
    "k",
    "the certificate in DIR/tls.crt is not usable: invalid peer certificate: certificate not valid yet"
)]
fn a_pair_that_cannot_be_used_is_refused_by_file_and_reason(
    #[case] certificate: &str,
    #[case] key: &str,
    #[case] expected: &str,
) {
    let (sound, its_key) = pem((2026, 2030));
    let text = |word: &str| match word {
        "c" => sound.clone(),
        "cc" => format!("{sound}{sound}"),
        "k" => its_key.clone(),
        "old" => pem((2020, 2025)).0,
        "young" => pem((2028, 2030)).0,
        "other" => pem((2026, 2030)).1,
        word => word.to_owned(),
    };
    let found = refusal(folder(&text(certificate), &text(key)).path());
    assert!(found.starts_with(expected) || found.contains(expected), "{found}");
}

#[test]
fn a_certificate_that_is_garbage_inside_is_refused_and_nothing_panics() {
    let (certificate, key) = pem((2026, 2030));
    let lines: Vec<&str> = certificate.lines().collect();
    let cut = [&lines[..2], &lines[lines.len() - 1..]].concat().join("\n");
    let found = refusal(folder(&cut, &key).path());
    assert!(found.contains("DIR/tls.crt"), "{found}");
}
