//! Sockets, and what a connection may do on them. Never knows a service.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::ServeError;
use crate::config::Listeners;

/// Bound sockets that nobody serves yet.
#[derive(Debug)]
pub struct Bound {
    pub(super) grpc: TcpListener,
    pub(super) http: Option<TcpListener>,
    pub(super) health: TcpListener,
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
        Ok(Self { grpc, http, health })
    }

    /// Where it listens in truth: a port 0 has become a real one.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> std::io::Result<Listeners> {
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

/// Connections without delay.
pub(super) fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// A server for strangers: every limit is set, none is left to a default.
pub(super) fn hardened() -> Server {
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
        .max_connection_age(Duration::from_secs(15 * 60))
        .max_connection_age_grace(Duration::from_secs(2 * 60))
}
