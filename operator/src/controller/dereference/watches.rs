//! The watches, and the queue of objects that they fill.

mod queue;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::queue::Queue;
use super::{Found, ModelKey, PodView, PolicyView, ServiceView, Shelf, View};
use crate::controller::rollout::Shard;
use crate::crd::ModelDeployment;
use crate::inventory::{Catalogue, Inventory, NodeCapacity};
use crate::metrics::Metrics;
use crate::names::label;
use crate::timing::Timing;

/// Everything that is known, kept current by watches.
pub struct World {
    models: Store<ModelDeployment>,
    pods: Shelf<PodView>,
    services: Shelf<ServiceView>,
    policies: Shelf<PolicyView>,
    nodes: Option<Mutex<BTreeMap<String, NodeCapacity>>>,
    nodes_filled: watch::Sender<bool>,
    catalogue: Catalogue,
    written: Mutex<BTreeMap<ModelKey, Written>>,
    /// Objects that wait for a pass.
    pub(in crate::controller) queue: Queue,
}

/// The newest state of an object that a status write of ours has returned, and the versions that it replaced.
struct Written {
    latest: Arc<ModelDeployment>,
    replaced: Vec<String>,
}

impl World {
    /// Starts one watch per kind in `tasks`; `namespace` limits them, and then nodes are watched only if we may.
    pub async fn watch(
        client: &Client,
        namespace: Option<&str>,
        (timing, metrics, catalogue): (Timing, &Metrics, &Catalogue),
        tasks: &mut JoinSet<()>,
    ) -> Arc<Self> {
        let (models, writer) = reflector::store();
        let may_read_nodes = namespace.is_none() || may_list_nodes(client, timing).await;
        let world = Arc::new(Self {
            models,
            pods: Shelf::new(timing.unseen),
            services: Shelf::new(timing.unseen),
            policies: Shelf::new(timing.unseen),
            nodes: may_read_nodes.then(|| Mutex::new(BTreeMap::new())),
            nodes_filled: watch::Sender::new(!may_read_nodes),
            catalogue: catalogue.clone(),
            written: Mutex::new(BTreeMap::new()),
            queue: Queue::new(metrics.queue_depth.clone()),
        });
        let ours = watcher::Config::default().labels(label::MODEL);
        tasks.spawn(
            Arc::clone(&world).follow_models(writer, watcher(scoped(client, namespace), watcher::Config::default())),
        );
        let shelf = |world: &Self, event: Event<PodView>| world.pods.take(event);
        tasks.spawn(follow_shelf(Arc::clone(&world), watcher(scoped(client, namespace), ours.clone()), shelf));
        let shelf = |world: &Self, event: Event<ServiceView>| world.services.take(event);
        tasks.spawn(follow_shelf(Arc::clone(&world), watcher(scoped(client, namespace), ours.clone()), shelf));
        let shelf = |world: &Self, event: Event<PolicyView>| world.policies.take(event);
        tasks.spawn(follow_shelf(Arc::clone(&world), watcher(scoped(client, namespace), ours), shelf));
        if may_read_nodes {
            tasks.spawn(Arc::clone(&world).follow_nodes(watcher(Api::all(client.clone()), watcher::Config::default())));
        }
        world
    }

    /// Waits until every kind has been listed once.
    pub async fn filled(&self) {
        let mut nodes = self.nodes_filled.subscribe();
        // Both senders live as long as `self`.
        let _ = tokio::join!(self.models.wait_until_ready(), nodes.wait_for(|filled| *filled));
        tokio::join!(self.pods.filled(), self.services.filled(), self.policies.filled());
    }

    /// The objects by reference, as kube's scheduler wants them.
    #[must_use]
    pub fn models(&self) -> Store<ModelDeployment> {
        self.models.clone()
    }

    /// What exists of one model.
    #[must_use]
    pub fn found(&self, model: &ModelKey, now: Instant) -> Found {
        Found {
            pods: self.pods.of(model, now),
            services: self.services.of(model, now),
            policies: self.policies.of(model, now),
        }
    }

    /// The nodes as the planner sees them.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        let Some(nodes) = &self.nodes else { return Inventory::Unknown };
        Inventory::Nodes(nodes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect())
    }

    /// Notes a pod that a write of ours returned.
    pub fn note_pod(&self, pod: PodView, now: Instant) {
        match pod.shard {
            Shard::Terminating => self.pods.note_ending(pod, now),
            _ => self.pods.note(pod, now),
        }
    }

    /// Notes a Service that a write of ours returned.
    pub fn note_service(&self, service: ServiceView, now: Instant) {
        self.services.note(service, now);
    }

    /// Notes a NetworkPolicy that a write of ours returned.
    pub fn note_policy(&self, policy: PolicyView, now: Instant) {
        self.policies.note(policy, now);
    }

    /// Notes that a NetworkPolicy is gone.
    pub fn note_unguarded(&self, policy: PolicyView) {
        self.policies.take(Event::Delete(policy));
    }

    /// Notes the object that a status write of ours returned for `replaced`.
    pub fn note_model(&self, replaced: &ModelDeployment, latest: ModelDeployment) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = Arc::new(latest);
        let entry = written
            .entry(ModelKey::of(&latest))
            .or_insert_with(|| Written { latest: Arc::clone(&latest), replaced: Vec::new() });
        entry.latest = latest;
        entry.replaced.extend(replaced.metadata.resource_version.clone());
    }

    /// The watched object, or what our own last write made of it while the watch still shows what was replaced.
    #[must_use]
    pub fn newest(&self, watched: Arc<ModelDeployment>) -> Arc<ModelDeployment> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let key = ModelKey::of(&watched);
        let version = watched.metadata.resource_version.as_ref();
        match written.get(&key) {
            Some(entry)
                if entry.latest.metadata.uid == watched.metadata.uid
                    && entry.replaced.iter().any(|replaced| Some(replaced) == version) =>
            {
                Arc::clone(&entry.latest)
            }
            _ => {
                written.remove(&key);
                watched
            }
        }
    }

    async fn follow_models(
        self: Arc<Self>,
        mut writer: Writer<ModelDeployment>,
        stream: impl Stream<Item = watcher::Result<Event<ModelDeployment>>>,
    ) {
        follow(stream, |event| {
            writer.apply_watcher_event(&event);
            match &event {
                Event::Apply(model) | Event::InitApply(model) => self.queue.push(ModelKey::of(model)),
                Event::Delete(model) => {
                    let key = ModelKey::of(model);
                    self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                    self.queue.push(key);
                }
                Event::Init | Event::InitDone => {}
            }
        })
        .await;
    }

    async fn follow_nodes(self: Arc<Self>, stream: impl Stream<Item = watcher::Result<Event<Node>>>) {
        let mut listed = BTreeMap::new();
        follow(stream, |event| {
            let Some(nodes) = &self.nodes else { return };
            let mut nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = match event {
                Event::Apply(node) => {
                    let capacity = NodeCapacity::of(&node, &self.catalogue);
                    nodes.insert(capacity.name.clone(), capacity.clone()).as_ref() != Some(&capacity)
                }
                Event::Delete(node) => nodes.remove(&node.metadata.name.unwrap_or_default()).is_some(),
                Event::Init => {
                    listed.clear();
                    false
                }
                Event::InitApply(node) => {
                    let capacity = NodeCapacity::of(&node, &self.catalogue);
                    listed.insert(capacity.name.clone(), capacity);
                    false
                }
                Event::InitDone => {
                    let new = std::mem::take(&mut listed);
                    let changed = *nodes != new;
                    *nodes = new;
                    self.nodes_filled.send_replace(true);
                    changed
                }
            };
            if changed {
                self.models.state().iter().for_each(|model| self.queue.push(ModelKey::of(model)));
            }
        })
        .await;
    }
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Asks until there is an answer: a server that cannot say must not be taken for one that says no.
async fn may_list_nodes(client: &Client, timing: Timing) -> bool {
    loop {
        match Api::<Node>::all(client.clone()).list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return true,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::info!("nodes may not be read: plans are not compared with them");
                return false;
            }
            Err(error) => tracing::warn!(%error, "cannot ask for nodes"),
        }
        tokio::time::sleep(timing.error_first).await;
    }
}

async fn follow_shelf<V: View + DeserializeOwned + Debug + Send + 'static>(
    world: Arc<World>,
    stream: impl Stream<Item = watcher::Result<Event<V>>>,
    take: impl Fn(&World, Event<V>) -> std::collections::BTreeSet<ModelKey>,
) {
    follow(stream, |event| take(&world, event).into_iter().for_each(|key| world.queue.push(key))).await;
}

/// Hands on every event; errors are logged and the watch resumes by itself, with back-off.
async fn follow<K>(stream: impl Stream<Item = watcher::Result<Event<K>>>, mut take: impl FnMut(Event<K>)) {
    let mut stream = pin!(stream.default_backoff());
    while let Some(item) = stream.next().await {
        match item {
            Ok(event) => take(event),
            Err(error) => tracing::warn!(kind = std::any::type_name::<K>(), error = %error, "watch interrupted"),
        }
    }
}
