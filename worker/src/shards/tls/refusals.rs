//! Who was refused on the shard port and why: every one counted, few of them logged.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::{Error, InvalidMessage};

use super::pin::is_about_time;
use crate::engine::stats::EngineStats;

/// Between two lines about the same reason: a scanner must not fill the log.
const QUIET: Duration = Duration::from_secs(10);

/// Why a connection was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// No TLS at all.
    Plaintext,
    /// Another certificate than ours, or none.
    Certificate,
    /// A certificate that has expired or is not valid yet.
    Expired,
    /// Any other handshake that failed, or took too long.
    Handshake,
}

impl Reason {
    /// Reads what `accept` failed with.
    pub(super) fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::Plaintext,
            Some(error) if is_about_time(error) => Self::Expired,
            Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => Self::Certificate,
            _ => Self::Handshake,
        }
    }

    fn counter(self, stats: &EngineStats) -> &AtomicU64 {
        match self {
            Self::Plaintext => &stats.refused_plaintext,
            Self::Certificate => &stats.refused_certificate,
            Self::Expired => &stats.refused_expired,
            Self::Handshake => &stats.refused_handshake,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Certificate => "another certificate",
            Self::Expired => "a certificate that is not valid now",
            Self::Handshake => "a failed handshake",
        }
    }
}

/// When a line was last written, and how many were not since.
struct Line {
    at: Instant,
    unsaid: u64,
}

/// What was refused of late.
pub(super) struct Refusals {
    stats: Arc<EngineStats>,
    lines: Mutex<BTreeMap<Reason, Line>>,
}

impl Refusals {
    /// Counts in `stats`.
    pub(super) fn new(stats: Arc<EngineStats>) -> Self {
        Self { stats, lines: Mutex::default() }
    }

    /// Counts a refusal, and logs it unless one of its kind was logged a moment ago.
    pub(super) fn note(&self, error: &io::Error, peer: SocketAddr, now: Instant) {
        let reason = Reason::of(error);
        EngineStats::add(reason.counter(&self.stats), 1);
        if let Some(unsaid) = self.may_speak(reason, now) {
            let reason = reason.words();
            tracing::warn!(reason, %peer, %error, unsaid, "refused a connection to the shard port");
        }
    }

    /// The number of refusals since the last line, when it is time for another.
    fn may_speak(&self, reason: Reason, now: Instant) -> Option<u64> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.get_mut(&reason) {
            Some(line) if now.duration_since(line.at) < QUIET => {
                line.unsaid += 1;
                None
            }
            _ => Some(lines.insert(reason, Line { at: now, unsaid: 0 }).map_or(0, |line| line.unsaid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn a_scanner_is_counted_each_time_and_told_of_every_ten_seconds() {
        let refusals = Refusals::new(Arc::default());
        let start = Instant::now();
        let said = |reason, seconds| refusals.may_speak(reason, start + Duration::from_secs(seconds));
        let told: Vec<_> = [0, 1, 9, 10, 11, 30].map(|at| said(Reason::Plaintext, at)).into();
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
        assert_eq!(said(Reason::Expired, 30), Some(0), "another reason waits for nobody");
    }
}
