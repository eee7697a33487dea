//! Key pairs for the shards of a revision: the one thing that the operator draws at random and hands to pods.
//!
//! Never stores a pair and never reads one: it goes into a Secret and is forgotten.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};

/// Clocks of nodes may be behind the operator's.
const SKEW: Duration = Duration::from_secs(60 * 60);
/// Ten years: a pair is used by the pods of one revision alone and replaced with it (`shoal restart` does), so an earlier
/// end would revoke nothing and only stop a model that nobody had touched.
const VALID: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A certificate and its key in PEM.
pub struct Pair {
    /// Signed by its own key.
    pub certificate: String,
    /// PKCS #8.
    pub key: String,
}

/// A new pair, valid from an hour before `now`; `subject` is for whoever looks at it.
#[must_use]
pub fn fresh(subject: &str, now: Timestamp) -> Pair {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("should make a key: the algorithm is built in");
    let now = Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, subject);
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.saturating_sub(SKEW);
    params.not_after = epoch + now + VALID;
    params.distinguished_name = name;
    let certificate = params.self_signed(&key).expect("should sign: nothing in it can be wrong");
    Pair { certificate: certificate.pem(), key: key.serialize_pem() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_another_and_in_pem() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let (one, other) = (fresh("m-tls", now), fresh("m-tls", now));
        assert!(one.key != other.key && one.certificate != other.certificate);
        assert!(one.certificate.starts_with("-----BEGIN CERTIFICATE-----"), "{}", one.certificate);
        assert!(one.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }
}
