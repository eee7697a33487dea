//! The only reader: one watch per kind, label-selected, kept as projections.
//!
//! A settled pass asks the API server nothing. Foreign pods are never asked for, and of ours only the projected fields
//! stay in memory. Never writes to the API server; what the writer did is noted here until a watch shows it.

mod budget;
mod nodes;
mod object;
mod pod;
mod policy;
mod service;
mod shelf;
mod stored;
mod watches;

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;

pub use self::budget::BudgetView;
pub use self::object::{Applied, ObjectView, Owned, owned};
pub use self::pod::{Place, PodView};
pub use self::policy::PolicyView;
pub use self::service::ServiceView;
pub use self::shelf::Shelf;
pub use self::stored::{Stored, Unread};
pub(in crate::controller) use self::watches::AT_ONCE;
pub use self::watches::World;

/// Namespace and name of a ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ModelKey {
    /// Of an object as the API server gives it.
    #[must_use]
    pub fn of(model: &impl kube::Resource) -> Self {
        let metadata = model.meta();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// The same as kube names it.
    #[must_use]
    pub fn to_ref(&self) -> ObjectRef<Stored> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

/// What a [`Shelf`] keeps: a projection that knows which model it belongs to.
pub trait View: kube::Resource<DynamicType = ()> + Clone {
    /// By the model label; `None`: nobody's.
    fn model(&self) -> Option<ModelKey>;
    /// Adds what an older view of the same object knew better, and tells whether anything that matters differs.
    fn succeed(&mut self, older: &Self) -> bool;
}

/// A pass's view of what exists of one model.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its pods, by name, whoever controls them.
    pub pods: Vec<Arc<PodView>>,
    /// Pods that vanished lately and told why.
    pub gone: Vec<Arc<PodView>>,
    /// Its Services, by name, whoever controls them.
    pub services: Vec<Arc<ServiceView>>,
    /// Its PodDisruptionBudgets, likewise.
    pub budgets: Vec<Arc<BudgetView>>,
    /// Its NetworkPolicies, likewise.
    pub policies: Vec<Arc<PolicyView>>,
    /// Fields of its spec that this version does not know.
    pub unknown: Vec<String>,
}
