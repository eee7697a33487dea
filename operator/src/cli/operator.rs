//! `shoal operator`: wires the lease, the HTTP port and the controller, and ends them in order.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use clap::ArgAction;
use kube::client::ClientBuilder;
use kube::config::InferConfigError;
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::controller::apply::Teller;
use crate::controller::dereference::World;
use crate::controller::{self, Controller};
use crate::faults::{ApiFaults, InjectFaults};
use crate::http::{self, HttpError, Readiness};
use crate::inventory::Catalogue;
use crate::lease::{self, Candidate, LeaseError, Standing};
use crate::metrics::{CountCalls, Metrics};
use crate::timing::Timing;

/// Name of the Lease.
const LEASE: &str = "shoal-operator";

/// Runs the controller in or beside a cluster: KUBECONFIG or the pod's ServiceAccount, all namespaces.
#[derive(Clone, Debug, clap::Args)]
pub struct OperatorArgs {
    /// Serve only this namespace.
    #[arg(long, env = "SHOAL_NAMESPACE")]
    namespace: Option<String>,
    /// Worker image of ModelDeployments that name none. A change never restarts what runs.
    #[arg(long, env = "SHOAL_WORKER_IMAGE", default_value = "localhost/shoal-worker:dev")]
    worker_image: String,
    /// GPUs to know beside the built-in ones: a JSON list of {product, memoryGiB, bandwidthGBps, bf16Tflops}.
    #[arg(long, env = "SHOAL_GPU_CATALOGUE", default_value = "[]", value_parser = Catalogue::extended)]
    gpu_catalogue: Catalogue,
    /// Keep a NetworkPolicy a model: only its own pods reach the shard port. false removes those that were made.
    #[arg(long, env = "SHOAL_NETWORK_POLICY", default_value = "true", action = ArgAction::Set, value_name = "BOOL")]
    network_policy: bool,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "SHOAL_HTTP", default_value = "0.0.0.0:8081")]
    http: SocketAddr,
    /// Namespace of the Lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default", hide = true)]
    pod_namespace: String,
    /// Who holds the Lease; made up when absent.
    #[arg(long, env = "POD_NAME", hide = true)]
    pod_name: Option<String>,
    /// Divides every interval: for tests.
    #[arg(long, env = "SHOAL_TIMING_DIVISOR", default_value = "1", hide = true)]
    timing_divisor: NonZeroU32,
    /// Faults between the operator and the API server: for tests.
    #[arg(long, env = "SHOAL_API_FAULT", hide = true)]
    api_fault: Option<ApiFaults>,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Neither KUBECONFIG nor a ServiceAccount.
    #[error("no cluster is configured: neither KUBECONFIG nor a pod's ServiceAccount")]
    Config(#[source] Box<InferConfigError>),
    /// The configuration names no usable API server.
    #[error("the cluster's configuration cannot be used")]
    Client(#[source] Box<kube::Error>),
    /// The signal handlers could not be installed.
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    /// The HTTP port.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The lease is lost: what this process believes is stale.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A task ended that must not.
    #[error("{0} ended")]
    Ended(&'static str),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`OperatorError`].
pub async fn run(args: OperatorArgs) -> Result<(), OperatorError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).json().init();
    let (metrics, registry) = Metrics::new();
    let mut config = Config::infer().await.map_err(|error| OperatorError::Config(Box::new(error)))?;
    // One back-off, ours: the client's own would send a refused request again after 5 ms, and ever so many of them.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).map_err(|error| OperatorError::Client(Box::new(error)))?;
    let count = CountCalls::new(metrics.clone());
    let client = match args.api_fault.clone() {
        None => builder.with_layer(&count).build(),
        Some(faults) => {
            tracing::warn!(?faults, "API faults are injected: this is a test");
            builder.with_layer(&InjectFaults::new(faults)).with_layer(&count).build()
        }
    };
    let stop = CancellationToken::new();
    let (readiness, reader) = watch::channel(Readiness::Starting);
    let port = serve_http(&args, registry, reader, &stop).await?;
    let timing = Timing::divided(args.timing_divisor);
    let candidate = candidate(&args);
    let teller = Teller::new(client.clone(), candidate.identity.clone());
    let (standing, mut watched) = watch::channel(Standing::Unknown);
    let release = CancellationToken::new();
    let mut leading = tokio::spawn(lease::lead(client.clone(), candidate, timing, standing, release.clone()));
    stop_on_signal(&stop)?;

    let work = async {
        while *watched.borrow_and_update() != Standing::Leads {
            if *watched.borrow() == Standing::StandsBy {
                readiness.send_replace(Readiness::Ready);
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = watched.changed() => changed.map_err(|_| OperatorError::Ended("the election"))?,
            }
        }
        metrics.leader.set(1.0);
        work(&args, (client, teller), (timing, &metrics), (&readiness, &stop)).await
    };
    tokio::select! {
        // Whatever a deposed leader believes is stale: it ends at once, and its writes carry preconditions.
        ended = &mut leading => {
            ended.map_err(|_| OperatorError::Ended("the election"))??;
            return Err(OperatorError::Ended("the election"));
        }
        worked = work => worked?,
    }
    readiness.send_replace(Readiness::Stopping);
    release.cancel();
    leading.await.map_err(|_| OperatorError::Ended("the election"))??;
    port.await.map_err(|_| OperatorError::Ended("the HTTP port"))??;
    Ok(())
}

async fn work(
    args: &OperatorArgs,
    (client, teller): (Client, Teller),
    (timing, metrics): (Timing, &Metrics),
    (readiness, stop): (&watch::Sender<Readiness>, &CancellationToken),
) -> Result<(), OperatorError> {
    let mut watches = JoinSet::new();
    let known = (timing, metrics, &args.gpu_catalogue);
    let watching = World::watch(&client, args.namespace.as_deref(), known, &mut watches);
    let world = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        world = watching => world,
    };
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = world.filled() => {}
    }
    readiness.send_replace(Readiness::Ready);
    tracing::info!("watching");
    let controller = Controller {
        client,
        world,
        teller,
        metrics: metrics.clone(),
        timing,
        default_image: args.worker_image.clone(),
        network_policy: args.network_policy,
        ledger: Mutex::default(),
    };
    tokio::select! {
        () = controller::run(Arc::new(controller), stop.clone()) => Ok(()),
        _ = watches.join_next() => Err(OperatorError::Ended("a watch")),
    }
}

async fn serve_http(
    args: &OperatorArgs,
    registry: Registry,
    readiness: watch::Receiver<Readiness>,
    stop: &CancellationToken,
) -> Result<tokio::task::JoinHandle<Result<(), HttpError>>, OperatorError> {
    let listener = http::bind(args.http).await?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "http");
    }
    Ok(tokio::spawn(http::serve(listener, registry, readiness, stop.clone())))
}

fn candidate(args: &OperatorArgs) -> Candidate {
    let name = args.pod_name.clone().unwrap_or_else(|| "shoal".to_owned());
    // A restarted process is another candidate: it must not take its predecessor's lease for its own.
    let identity = format!("{name}_{:016x}", rand::random::<u64>());
    Candidate { namespace: args.pod_namespace.clone(), name: LEASE.to_owned(), identity }
}

fn stop_on_signal(stop: &CancellationToken) -> Result<(), OperatorError> {
    let mut term = signal(SignalKind::terminate()).map_err(OperatorError::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(OperatorError::Signals)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(())
}
