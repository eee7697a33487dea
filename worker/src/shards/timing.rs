//! Every interval of the shard protocol in one place. Holds no clock.

use std::time::Duration;

/// How long things may take. A loss reaches the clients within 6 s: `progress` or `dead`, and a margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of a stream.
    pub heartbeat: Duration,
    /// How long a broken stream may take to be restored.
    pub suspect: Duration,
    /// Silence after which a peer is dead.
    pub dead: Duration,
    /// Most time between two answers of a peer that owes some, even while its heartbeats arrive.
    pub progress: Duration,
    /// Between two attempts to dial.
    pub redial: Duration,
    /// Of one attempt to connect.
    pub connect: Duration,
    /// Of one TLS handshake.
    pub handshake: Duration,
    /// How long a leaving group still accepts requests that were under way to it.
    pub accept: Duration,
    /// How long a drain may take in all.
    pub drain: Duration,
    /// Left to the last heartbeats before the process ends.
    pub linger: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            suspect: Duration::from_secs(3),
            dead: Duration::from_secs(5),
            progress: Duration::from_millis(4500),
            redial: Duration::from_millis(100),
            connect: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            accept: Duration::from_secs(5),
            drain: Duration::from_secs(100),
            linger: Duration::from_millis(300),
        }
    }
}
