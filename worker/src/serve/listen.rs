//! Sockets, and what a connection may do on them. Never knows a service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::net::TcpListener;
use tonic::transport::Server;

use super::ServeError;
use super::aged::Aged;
use crate::config::Listeners;

/// Bound sockets that nobody serves yet.
#[derive(Debug)]
pub struct Bound {
    pub(super) grpc: TcpListener,
    pub(super) http: Option<TcpListener>,
    pub(super) health: TcpListener,
    pub(super) stay: Stay,
}

/// How long a connection may be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stay {
    /// At this age its client is told to come again (GOAWAY), and may land elsewhere.
    pub(super) age: Duration,
    /// What it has begun by then may go on so much longer; then it is cut.
    pub(super) grace: Duration,
}

impl Stay {
    /// Of a connection that nothing is known about.
    pub(super) const USUAL: Self = Self { age: Duration::from_secs(15 * 60), grace: Duration::from_secs(2 * 60) };
    /// Of one that is made while the group leaves: its client does not know that yet, and shall know it before requests
    /// are refused.
    pub(super) const OF_LATE_COMERS: Self = Self { age: Duration::from_secs(1), ..Self::USUAL };
}

impl Bound {
    /// Takes all addresses before anything is loaded, so that a taken port is known at once.
    ///
    /// # Errors
    /// [`ServeError::Bind`], naming flag and address.
    pub async fn bind(listeners: &Listeners) -> Result<Self, ServeError> {
        let http = match listeners.http {
            Some(address) => Some(bind("--http", address).await?),
            None => None,
        };
        let grpc = bind("--listen", listeners.grpc).await?;
        let health = bind("--health-listen", listeners.health).await?;
        Ok(Self { grpc, http, health, stay: Stay::USUAL })
    }

    /// Where it listens in truth: a port 0 has become a real one.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> io::Result<Listeners> {
        Ok(Listeners {
            grpc: self.grpc.local_addr()?,
            http: self.http.as_ref().map(TcpListener::local_addr).transpose()?,
            health: self.health.local_addr()?,
        })
    }
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { flag, address, source })
}

/// Connections without delay. Several may take them from one listener, which closes with the last.
///
/// The cut is made here and not by tonic's `max_connection_age_grace`: with a grace set, tonic 0.14 sleeps through age and
/// grace and then cuts, so that no client is ever told to go.
pub(super) fn incoming(listener: Arc<TcpListener>, stay: Stay) -> impl Stream<Item = io::Result<Aged>> {
    let life = stay.age + stay.grace;
    futures::stream::unfold(listener, move |listener| async move {
        let taken = listener.accept().await.and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream));
        Some((taken.map(|stream| Aged::new(stream, life)), listener))
    })
}

/// A server for strangers: every limit is set, none is left to a default.
pub(super) fn hardened(stay: Stay) -> Server {
    Server::builder()
        .max_concurrent_streams(128)
        .concurrency_limit_per_connection(64)
        .load_shed(true)
        .http2_max_header_list_size(8 * 1024)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_connection_age(stay.age)
}
