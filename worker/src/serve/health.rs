//! grpc.health.v1: `""` is this process, the inference service is its group.
//!
//! Never decides readiness: it repeats what the engine says, unless the group drains.

use shoal_proto::INFERENCE_SERVICE;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::engine::handle::{DrainPhase, EngineHandle, Readiness};

/// The statuses that all health services of the process share.
#[derive(Debug, Clone)]
pub(super) struct Health {
    reporter: HealthReporter,
    ready: watch::Sender<bool>,
}

impl Health {
    /// The process lives, and its group does not answer yet.
    pub(super) async fn starting() -> Self {
        let reporter = HealthReporter::new();
        reporter.set_service_status(INFERENCE_SERVICE, ServingStatus::NotServing).await;
        Self { reporter, ready: watch::Sender::new(false) }
    }

    /// A service to add to a listener.
    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    /// Whether the group answers, for those who do not speak gRPC.
    pub(super) fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Repeats what the engine says until the engine is gone.
    pub(super) async fn follow(self, mut engine: EngineHandle) {
        loop {
            let ready = *engine.readiness.borrow_and_update() == Readiness::Ready
                && *engine.drain.borrow_and_update() == DrainPhase::Accepting;
            self.set(ready).await;
            let changed = tokio::select! {
                changed = engine.readiness.changed() => changed,
                changed = engine.drain.changed() => changed,
            };
            if changed.is_err() {
                return self.set(false).await;
            }
        }
    }

    async fn set(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(INFERENCE_SERVICE, status).await;
        if self.ready.send_replace(ready) != ready {
            tracing::info!(ready, "readiness changed");
        }
    }
}
