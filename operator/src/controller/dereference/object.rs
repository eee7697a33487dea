//! Objects that we own field by field, as a pass sees them: who controls one, and whether it is as we would write it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::{ModelKey, View};
use crate::names::label;

/// A kind that server-side apply writes.
pub trait Applied:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + k8s_openapi::Resource
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
    /// Exactly the fields that we write, beside the labels, with what the API server would default filled in.
    fn fields(&self) -> impl Serialize;

    /// Of these fields, what can never be changed in an object, as a word: a change makes it anew.
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
        let prefix = "inference.shoal.dev/";
        let labels = object.meta().labels.iter().flatten().filter(|(key, _)| key.starts_with(prefix));
        let labels: BTreeMap<_, _> = labels.collect();
        let text = serde_json::to_vec(&(labels, object.fields())).expect("plain fields should serialise");
        Self(*blake3::hash(&text).as_bytes())
    }
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
