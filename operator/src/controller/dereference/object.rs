//! Objects that we own field by field, as a pass sees them: who controls one, and whether it is as we would write it.
//!
//! What is ours in an object is read in one place, [`owned`]: its digest shows drift without a request, and the difference
//! between what is there and what was built is the correction.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::{ModelKey, View};
use crate::names::label;

/// A kind that we make and keep as we made it.
pub trait Applied:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + k8s_openapi::Resource
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
    /// The fields of its spec that are ours, each as a whole: what others put into one is taken out again. What the API
    /// server would default within them is filled in when they are built.
    const FIELDS: &'static [&'static str];

    /// Of what we write, what can never be changed in an object, as a word: a change makes it anew.
    fn fixed(&self) -> &'static str {
        ""
    }
}

/// Digest of the fields of an object that we own, equal for what was built and for what the API server stores of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned([u8; 32]);

impl Owned {
    /// Reads the owned fields.
    #[must_use]
    pub fn of<K: Applied>(object: &K) -> Self {
        let text = serde_json::to_vec(&(owned(object), object.fixed())).expect("plain fields should serialise");
        Self(*blake3::hash(&text).as_bytes())
    }
}

/// Labels with our prefix, and the fields of its spec that are ours.
#[must_use]
pub fn owned<K: Applied>(object: &K) -> Value {
    let labels = object.meta().labels.iter().flatten().filter(|(key, _)| key.starts_with("inference.shoal.dev/"));
    let labels: BTreeMap<_, _> = labels.collect();
    let mut whole = serde_json::to_value(object).expect("an API object should serialise");
    let spec: Map<_, _> = K::FIELDS
        .iter()
        .filter_map(|field| Some(((*field).to_owned(), whole["spec"].get_mut(*field)?.take())))
        .collect();
    json!({"metadata": {"labels": labels}, "spec": spec})
}

/// Who controls an object, and a digest of what we own in it.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectView<K> {
    /// Name, namespace, uid and resourceVersion only.
    pub meta: ObjectMeta,
    /// Value of the model label.
    pub model: Option<String>,
    /// UID of the controller.
    pub controller: Option<String>,
    /// Of the fields that we own, as they are.
    pub owned: Owned,
    /// What can never be changed in it.
    pub fixed: &'static str,
    kind: PhantomData<fn() -> K>,
}

impl<'de, K: Applied> Deserialize<'de> for ObjectView<K> {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        K::deserialize(text).map(Self::from)
    }
}

impl<K: Applied> From<K> for ObjectView<K> {
    fn from(mut object: K) -> Self {
        let (owned, fixed) = (Owned::of(&object), object.fixed());
        let metadata = std::mem::take(object.meta_mut());
        let owners = metadata.owner_references.unwrap_or_default();
        Self {
            model: metadata.labels.and_then(|mut labels| labels.remove(label::MODEL)),
            controller: owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid),
            owned,
            fixed,
            meta: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                ..ObjectMeta::default()
            },
            kind: PhantomData,
        }
    }
}

impl<K: Applied> View for ObjectView<K> {
    fn model(&self) -> Option<ModelKey> {
        Some(ModelKey { namespace: self.meta.namespace.clone()?, name: self.model.clone()? })
    }

    fn succeed(&mut self, older: &Self) -> bool {
        let same = |view: &Self| (view.model.clone(), view.controller.clone(), view.owned);
        same(self) != same(older)
    }
}

impl<K: Applied> Resource for ObjectView<K> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        <K as Resource>::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        <K as Resource>::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        <K as Resource>::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        <K as Resource>::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
