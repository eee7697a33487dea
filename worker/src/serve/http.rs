//! `--http`: `/metrics`, `/healthz`, `/readyz`. Never serves a model.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// What the routes read.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: watch::Receiver<bool>,
}

/// The three routes.
pub(super) fn routes(watched: Watched) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(watched)
}

async fn metrics(State(watched): State<Watched>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], watched.metrics.encode())
}

async fn ready(State(watched): State<Watched>) -> impl IntoResponse {
    if *watched.ready.borrow() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}
