//! The operator's HTTP port: `/metrics`, `/healthz`, `/readyz`. Nothing else, no authentication, no secrets.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why the port could not be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {listen}")]
    Listen {
        /// What was asked for.
        listen: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The listener broke.
    #[error("the HTTP server stopped")]
    Serve(#[source] std::io::Error),
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The API server has not answered yet, or a leader's stores are not filled.
    Starting,
    /// Leads with filled stores, or stands by.
    Ready,
    /// Asked to end.
    Stopping,
}

struct Served {
    registry: Registry,
    readiness: watch::Receiver<Readiness>,
}

/// Binds `listen`; port 0 takes a free one.
///
/// # Errors
/// [`HttpError::Listen`].
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(listen).await.map_err(|source| HttpError::Listen { listen, source })
}

/// Serves until `stop`.
///
/// # Errors
/// [`HttpError::Serve`].
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: watch::Receiver<Readiness>,
    stop: CancellationToken,
) -> Result<(), HttpError> {
    let router = router(registry, readiness);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.map_err(HttpError::Serve)
}

fn router(registry: Registry, readiness: watch::Receiver<Readiness>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Served { registry, readiness }))
}

async fn ready(State(served): State<Arc<Served>>) -> (StatusCode, &'static str) {
    match *served.readiness.borrow() {
        Readiness::Ready => (StatusCode::OK, "ok"),
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Readiness::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    }
}

async fn metrics(State(served): State<Arc<Served>>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &served.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text)
        }
        Err(error) => {
            let kind = "text/plain; charset=utf-8";
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, kind)], error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;
    use crate::metrics::Metrics;

    async fn answer(router: &Router, path: &str) -> (u16, String) {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_process_and_metrics_show_what_was_counted() {
        let (metrics, registry) = Metrics::new();
        let (tell, readiness) = watch::channel(Readiness::Starting);
        let router = router(registry, readiness);
        assert_eq!(answer(&router, "/healthz").await, (200, "ok".into()));
        assert_eq!(answer(&router, "/readyz").await, (503, "starting".into()));
        tell.send_replace(Readiness::Ready);
        assert_eq!(answer(&router, "/readyz").await, (200, "ok".into()));
        metrics.reconciled("applied", Duration::from_millis(3));
        let (code, text) = answer(&router, "/metrics").await;
        assert_eq!(code, 200);
        assert!(text.contains("shoal_operator_reconciles_total{result=\"applied\"} 1"), "{text}");
        assert!(text.contains("shoal_operator_reconcile_seconds_count 1"), "{text}");
    }
}
