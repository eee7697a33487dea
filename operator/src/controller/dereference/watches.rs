//! The watches, and the queue of objects that they fill.

mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(in crate::controller) use self::queue::AT_ONCE;
use self::queue::Queue;
use super::nodes::Nodes;
use super::{BudgetView, Found, ModelKey, PodView, PolicyView, ServiceView, Shelf, Stored, View};
use crate::controller::ends::Graves;
use crate::controller::queue::Turns;
use crate::controller::rollout::Shard;
use crate::inventory::{Catalogue, Inventory};
use crate::metrics::Metrics;
use crate::names::label;
use crate::timing::Timing;

/// Objects of one answer to a list: what is read from it is far larger than what is kept, and lives as long as the answer.
const PAGE: u32 = 100;

/// Everything that is known, kept current by watches.
pub struct World {
    models: Store<Stored>,
    pods: Shelf<PodView>,
    services: Shelf<ServiceView>,
    budgets: Shelf<BudgetView>,
    policies: Shelf<PolicyView>,
    nodes: Option<Mutex<Nodes>>,
    graves: Mutex<BTreeMap<ModelKey, Graves>>,
    turns: Mutex<Turns<ModelKey>>,
    unseen: Duration,
    nodes_filled: watch::Sender<bool>,
    written: Mutex<BTreeMap<ModelKey, Written>>,
    /// Objects that wait for a pass.
    pub(in crate::controller) queue: Queue,
}

/// The newest state of an object that a status write of ours has returned, and the versions that it replaced.
struct Written {
    latest: Arc<Stored>,
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
            budgets: Shelf::new(timing.unseen),
            policies: Shelf::new(timing.unseen),
            nodes: may_read_nodes.then(|| Mutex::new(Nodes::new(catalogue.clone()))),
            graves: Mutex::default(),
            turns: Mutex::new(Turns::new(timing.partial)),
            unseen: timing.unseen,
            nodes_filled: watch::Sender::new(!may_read_nodes),
            written: Mutex::new(BTreeMap::new()),
            queue: Queue::new(metrics.queue_depth.clone()),
        });
        let any = watcher::Config::default().page_size(PAGE);
        let ours = any.clone().labels(label::MODEL);
        let all = watcher(scoped(client, namespace), any.clone());
        tasks.spawn(Arc::clone(&world).follow_models(writer, all.modify(forget_editors)));
        let shelf = |world: &Self, event: Event<PodView>| world.take_pod(event);
        tasks.spawn(follow_shelf(Arc::clone(&world), watcher(scoped(client, namespace), ours.clone()), shelf));
        let shelf = |world: &Self, event: Event<ServiceView>| world.services.take(event, Instant::now());
        tasks.spawn(follow_shelf(Arc::clone(&world), watcher(scoped(client, namespace), ours.clone()), shelf));
        let shelf = |world: &Self, event: Event<BudgetView>| world.budgets.take(event, Instant::now());
        tasks.spawn(follow_shelf(Arc::clone(&world), watcher(scoped(client, namespace), ours.clone()), shelf));
        let shelf = |world: &Self, event: Event<PolicyView>| world.policies.take(event, Instant::now());
        tasks.spawn(follow_shelf(Arc::clone(&world), watcher(scoped(client, namespace), ours), shelf));
        if may_read_nodes {
            tasks.spawn(Arc::clone(&world).follow_nodes(watcher(Api::all(client.clone()), any)));
        }
        world
    }

    fn take_pod(&self, event: Event<PodView>) -> BTreeSet<ModelKey> {
        if let Event::Delete(pod) = &event
            && let Some(key) = pod.model()
        {
            self.bury(&key, pod);
            // What a refused model gives back it had only tried: that is no more room than before.
            if pod.node.is_some() && !self.turns(|turns| turns.is_refused(&key)) {
                self.turns_taken(|turns| turns.room(Timestamp::now()));
            }
        }
        self.pods.take(event, Instant::now())
    }

    /// What a pod that vanished told is kept until its model has had time for a pass.
    fn bury(&self, key: &ModelKey, pod: &PodView) {
        if self.models.get(&key.to_ref()).is_none() {
            return;
        }
        let pod = self.on_its_node(Arc::new(pod.clone())).as_ref().clone();
        let mut graves = lock(&self.graves);
        let line = graves.entry(key.clone()).or_default();
        line.bury(pod, Instant::now(), self.unseen);
        if line.is_empty() {
            graves.remove(key);
        }
    }

    /// Asks the queue across models.
    pub(in crate::controller) fn turns<T>(&self, ask: impl FnOnce(&mut Turns<ModelKey>) -> T) -> T {
        ask(&mut lock(&self.turns))
    }

    /// Changes the queue across models; whoever shall look again gets a pass.
    pub(in crate::controller) fn turns_taken(&self, change: impl FnOnce(&mut Turns<ModelKey>) -> Vec<ModelKey>) {
        self.turns(change).into_iter().for_each(|key| self.queue.push(key));
    }

    /// Waits until every kind has been listed once.
    pub async fn filled(&self) {
        let mut nodes = self.nodes_filled.subscribe();
        // Both senders live as long as `self`.
        let _ = tokio::join!(self.models.wait_until_ready(), nodes.wait_for(|filled| *filled));
        tokio::join!(self.pods.filled(), self.services.filled(), self.budgets.filled(), self.policies.filled());
    }

    /// The objects by reference, as kube's scheduler wants them.
    #[must_use]
    pub fn models(&self) -> Store<Stored> {
        self.models.clone()
    }

    /// What exists of one model.
    #[must_use]
    pub fn found(&self, model: &ModelKey, now: Instant) -> Found {
        let pods = self.pods.of(model, now).into_iter().map(|pod| self.on_its_node(pod)).collect();
        let gone = lock(&self.graves).get(model).map(Graves::pods).unwrap_or_default();
        Found {
            pods,
            gone,
            services: self.services.of(model, now),
            budgets: self.budgets.of(model, now),
            policies: self.policies.of(model, now),
            unknown: Vec::new(),
        }
    }

    /// The pod, lost if its node is.
    fn on_its_node(&self, pod: Arc<PodView>) -> Arc<PodView> {
        let lost = pod.node.as_ref().zip(self.nodes.as_ref()).is_some_and(|(name, nodes)| lock(nodes).lost(name));
        if lost { Arc::new(pod.as_ref().clone().stranded()) } else { pod }
    }

    /// The nodes as the planner sees them.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        self.nodes.as_ref().map_or(Inventory::Unknown, |nodes| lock(nodes).inventory())
    }

    /// Notes a pod that a write of ours returned.
    pub fn note_pod(&self, pod: PodView, now: Instant) {
        match pod.shard {
            Shard::Terminating | Shard::Stranded => self.pods.note_ending(pod, now),
            _ => self.pods.note(pod, now),
        }
    }

    /// Whether a write of ours made or changed pods of `model` that no watch has shown yet.
    #[must_use]
    pub fn awaits_pods(&self, model: &ModelKey) -> bool {
        self.pods.awaits(model)
    }

    /// Pods that our writes made and that no watch has shown for long.
    #[must_use]
    pub fn overdue_pods(&self, model: &ModelKey, now: Instant) -> Vec<Arc<PodView>> {
        self.pods.overdue(model, now)
    }

    /// Takes in what the server answered when it was asked for `pod`.
    pub fn settle_pod(&self, pod: &PodView, there: Option<PodView>, now: Instant) {
        self.pods.settle(pod, there, now);
    }

    /// Notes a Service that a write of ours returned.
    pub fn note_service(&self, service: ServiceView, now: Instant) {
        self.services.note(service, now);
    }

    /// Notes a PodDisruptionBudget that a write of ours returned.
    pub fn note_budget(&self, budget: BudgetView, now: Instant) {
        self.budgets.note(budget, now);
    }

    /// Notes that a PodDisruptionBudget is gone.
    pub fn note_unprotected(&self, budget: BudgetView) {
        self.budgets.take(Event::Delete(budget), Instant::now());
    }

    /// Notes a NetworkPolicy that a write of ours returned.
    pub fn note_policy(&self, policy: PolicyView, now: Instant) {
        self.policies.note(policy, now);
    }

    /// Notes that a NetworkPolicy is gone.
    pub fn note_unguarded(&self, policy: PolicyView) {
        self.policies.take(Event::Delete(policy), Instant::now());
    }

    /// Notes the object that a status write of ours returned for `replaced`.
    pub fn note_model(&self, replaced: &Stored, mut latest: Stored) {
        forget_editors(&mut latest);
        let mut written = lock(&self.written);
        let latest = Arc::new(latest);
        let entry = written
            .entry(ModelKey::of(latest.as_ref()))
            .or_insert_with(|| Written { latest: Arc::clone(&latest), replaced: Vec::new() });
        entry.latest = latest;
        entry.replaced.extend(replaced.meta().resource_version.clone());
    }

    /// The watched object, or what our own last write made of it while the watch still shows what was replaced.
    #[must_use]
    pub fn newest(&self, watched: Arc<Stored>) -> Arc<Stored> {
        let mut written = lock(&self.written);
        let key = ModelKey::of(watched.as_ref());
        let version = watched.meta().resource_version.as_ref();
        match written.get(&key) {
            Some(entry)
                if entry.latest.meta().uid == watched.meta().uid
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
        mut writer: Writer<Stored>,
        stream: impl Stream<Item = watcher::Result<Event<Stored>>>,
    ) {
        follow(stream, |event| {
            writer.apply_watcher_event(&event);
            match &event {
                Event::Apply(model) | Event::InitApply(model) => self.queue.push(ModelKey::of(model)),
                Event::Delete(model) => {
                    let key = ModelKey::of(model);
                    lock(&self.written).remove(&key);
                    lock(&self.graves).remove(&key);
                    self.turns_taken(|turns| turns.forget(&key, Timestamp::now()));
                    self.queue.push(key);
                }
                Event::Init | Event::InitDone => {}
            }
        })
        .await;
    }

    async fn follow_nodes(self: Arc<Self>, stream: impl Stream<Item = watcher::Result<Event<Node>>>) {
        follow(stream, |event| {
            let Some(nodes) = &self.nodes else { return };
            let listed = matches!(event, Event::InitDone);
            let changed = {
                let mut nodes = lock(nodes);
                let changed = nodes.take(event);
                nodes.forget_gone(|name| !self.pods.models(|pod| pod.node.as_deref() == Some(name)).is_empty());
                changed
            };
            if listed {
                self.nodes_filled.send_replace(true);
            }
            if changed.is_empty() {
                return;
            }
            self.turns_taken(|turns| turns.room(Timestamp::now()));
            // What runs there may be lost, so it goes first; a plan may change for anyone.
            let there = self.pods.models(|pod| pod.node.as_ref().is_some_and(|name| changed.contains(name)));
            there.into_iter().for_each(|key| self.queue.push(key));
            self.models.state().iter().for_each(|model| self.queue.push(ModelKey::of(model.as_ref())));
        })
        .await;
    }
}

/// Who wrote which field is as large as the object, and nothing is decided by it.
fn forget_editors(model: &mut Stored) {
    model.meta_mut().managed_fields = None;
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
    take: impl Fn(&World, Event<V>) -> BTreeSet<ModelKey>,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
