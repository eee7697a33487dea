//! The async front: listeners, services, health, and the order in which they come and go.
//!
//! The only place that builds a gRPC status or an HTTP answer. Never computes and never schedules.

mod aged;
mod answer;
mod assemble;
mod deadline;
mod health;
mod http;
mod inference;
mod listen;
mod request;
mod status;
mod tokenise;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
pub use listen::Bound;
use listen::Stay;
use shoal_proto::inference::inference_server::InferenceServer;
use shoal_proto::{DESCRIPTORS, INFERENCE_SERVICE};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::config::Config;
use crate::engine::handle::{DrainPhase, EngineHandle, Readiness};
use crate::limits::RECEIVE_BYTES;
use crate::metrics::Metrics;
use crate::text::{ModelText, TextError};

/// The largest message sent: 64 tokens with twenty alternatives each stay far below.
const SEND_BYTES: usize = 4 * 1024 * 1024;
/// Between the last connection that is taken as if the group stayed, and the GOAWAY to all of them: a client that is told
/// to go between its handshake and its first request fails that request, for the connection is new and it has no other.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
const HEALTH_SERVICE: &str = "grpc.health.v1.Health";
/// After the drain only bytes already written have to leave.
const LAST_BYTES: Duration = Duration::from_secs(10);
/// How long the process of a lost group still answers: clients learn that they may retry elsewhere, and whoever watches
/// processes sees the one that caused the loss end first.
const LOST: Duration = Duration::from_secs(10);

/// Why the front ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be had.
    #[error("{flag} {address} cannot be listened on")]
    Bind {
        /// The flag that gave it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Such as "address in use".
        #[source]
        source: std::io::Error,
    },
    /// The engine could not start.
    #[error("the engine could not start")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The model's text files are not usable.
    #[error("the model's text files are not usable")]
    Text(#[from] TextError),
    /// The engine ended by itself.
    #[error("the engine stopped")]
    EngineStopped,
    /// The group can serve no more, and only processes that end make somebody form it again.
    #[error("the group is lost: {0}")]
    Lost(String),
    /// gRPC's own machinery failed.
    #[error("gRPC serving failed")]
    Grpc(#[from] tonic::transport::Error),
    /// The descriptors for reflection cannot be served.
    #[error("reflection cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// HTTP's own machinery failed.
    #[error("HTTP serving failed")]
    Http(#[source] std::io::Error),
    /// A task of the front panicked.
    #[error("a task of the front failed")]
    Task(#[from] JoinError),
}

/// What the engine's constructor gives back.
pub type Started = Result<EngineHandle, Box<dyn std::error::Error + Send + Sync>>;

/// Serves until `stop` is ready and the group has drained, or until the group is lost.
///
/// Health and HTTP answer from the first moment, clients once `start` has returned; it runs on a blocking thread,
/// because loading takes as long as it takes. `stop` before that ends at once.
///
/// # Errors
/// [`ServeError`] when something that must run does not.
pub async fn run(
    config: Arc<Config>,
    bound: Bound,
    start: impl FnOnce() -> Started + Send + 'static,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let Bound { grpc, http, health: health_listener, stay } = bound;
    let metrics = Arc::new(Metrics::new());
    let health = health::Health::starting().await;
    let closing = CancellationToken::new();
    let _close_on_return = closing.clone().drop_guard();
    let mut servers = JoinSet::new();
    servers.spawn(serve_health(health_listener, health.clone(), closing.clone()));
    if let Some(listener) = http {
        let watched = http::Watched { metrics: Arc::clone(&metrics), ready: health.ready() };
        servers.spawn(serve_http(listener, watched, closing.clone()));
    }
    let loading = tokio::task::spawn_blocking({
        let config = Arc::clone(&config);
        move || load(&config, start)
    });
    let mut stop = std::pin::pin!(stop);
    let (engine, text) = tokio::select! {
        loaded = loading => loaded??,
        () = &mut stop => return Ok(()),
    };
    metrics.follow(Arc::clone(&engine.stats));
    let following = tokio::spawn(health.clone().follow(engine.clone()));
    let service = inference::InferenceService::new(config, engine.clone(), Arc::new(text), metrics);
    servers.spawn(serve_clients((grpc, stay), routes(service, health)?, engine.drain.clone(), closing.clone()));
    let ended = tokio::select! {
        ended = until_drained(engine.clone(), stop) => ended,
        reason = until_lost(engine) => Err(ServeError::Lost(reason)),
        Some(server) = servers.join_next() => server?,
    };
    closing.cancel();
    let _ = tokio::time::timeout(LAST_BYTES, servers.join_all()).await;
    following.abort();
    ended
}

fn load(config: &Config, start: impl FnOnce() -> Started) -> Result<(EngineHandle, ModelText), ServeError> {
    // Small files first: a broken tokenizer should not cost the loading of weights.
    let text = ModelText::load(&config.model)?;
    Ok((start().map_err(ServeError::Engine)?, text))
}

/// Waits for `stop`, or for peers that leave, and then for the end of the group's drain.
async fn until_drained(mut engine: EngineHandle, mut stop: impl Future<Output = ()> + Unpin) -> Result<(), ServeError> {
    let mut asked = false;
    loop {
        let phase = *engine.drain.borrow_and_update();
        if phase == DrainPhase::Done {
            return Ok(());
        }
        tokio::select! {
            () = &mut stop, if !asked => {
                asked = true;
                tracing::info!("asked to stop; the group drains");
                engine.leave.cancel();
            }
            changed = engine.drain.changed() => match changed {
                Ok(()) => tracing::info!(phase = ?*engine.drain.borrow(), "drain"),
                Err(_) => return Err(ServeError::EngineStopped),
            },
        }
    }
}

/// Waits until the group has been lost for [`LOST`]; says why it is.
async fn until_lost(mut engine: EngineHandle) -> String {
    let lost = engine.readiness.wait_for(|readiness| matches!(readiness, Readiness::Lost { .. })).await;
    let Ok(Readiness::Lost { reason }) = lost.map(|readiness| readiness.clone()) else {
        // The engine is gone, and the drain's end tells so.
        return std::future::pending().await;
    };
    tokio::time::sleep(LOST).await;
    reason
}

fn routes(service: inference::InferenceService, health: health::Health) -> Result<Routes, ServeError> {
    let inference =
        InferenceServer::new(service).max_decoding_message_size(RECEIVE_BYTES).max_encoding_message_size(SEND_BYTES);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // The descriptors hold the shards' service too, which is not served here.
            .with_service_name(INFERENCE_SERVICE)
            .with_service_name(HEALTH_SERVICE)
    };
    Ok(Routes::new(inference)
        .add_service(health.service())
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}

/// When the group begins to leave, every connection is told to go (GOAWAY) and finishes what it has begun. Requests are
/// still accepted then, over new connections, since a client that comes back at once may be sent here again. The old ones
/// are told a little later than new ones go another way, so that the youngest has sent its request by then.
async fn serve_clients(
    (listener, stay): (tokio::net::TcpListener, Stay),
    routes: Routes,
    mut drain: watch::Receiver<DrainPhase>,
    closing: CancellationToken,
) -> Result<(), ServeError> {
    let listener = Arc::new(listener);
    let (leaving, going) = (CancellationToken::new(), CancellationToken::new());
    let told = async {
        tokio::select! {
            // An engine that is gone is found out by others.
            Ok(_) = drain.wait_for(|&phase| phase >= DrainPhase::Leaving) => {}
            () = closing.cancelled() => {}
        }
        leaving.cancel();
        tokio::select! {
            () = tokio::time::sleep(FIRST_REQUEST) => {}
            () = closing.cancelled() => {}
        }
        going.cancel();
        Ok(())
    };
    let early = listen::incoming(Arc::clone(&listener), stay).take_until(leaving.clone().cancelled_owned());
    // An end of them would tell all to go at once.
    let early = early.chain(futures::stream::pending());
    let before = listen::hardened(stay)
        .add_routes(routes.clone())
        .serve_with_incoming_shutdown(Box::pin(early), going.cancelled());
    let after = async {
        leaving.cancelled().await;
        listen::hardened(Stay::OF_LATE_COMERS)
            .add_routes(routes)
            .serve_with_incoming_shutdown(listen::incoming(listener, Stay::OF_LATE_COMERS), closing.cancelled())
            .await
    };
    tokio::try_join!(told, before, after)?;
    Ok(())
}

async fn serve_health(
    listener: tokio::net::TcpListener,
    health: health::Health,
    closing: CancellationToken,
) -> Result<(), ServeError> {
    listen::hardened(Stay::USUAL)
        .add_service(health.service())
        .serve_with_incoming_shutdown(listen::incoming(Arc::new(listener), Stay::USUAL), closing.cancelled())
        .await?;
    Ok(())
}

async fn serve_http(
    listener: tokio::net::TcpListener,
    watched: http::Watched,
    closing: CancellationToken,
) -> Result<(), ServeError> {
    axum::serve(listener, http::routes(watched))
        .with_graceful_shutdown(async move { closing.cancelled().await })
        .await
        .map_err(ServeError::Http)
}

#[cfg(test)]
mod harness;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
