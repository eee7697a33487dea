//! What we own of a NetworkPolicy: all of its spec.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;

use super::object::{Applied, ObjectView};

/// A NetworkPolicy as a pass sees it.
pub type PolicyView = ObjectView<NetworkPolicy>;

impl Applied for NetworkPolicy {
    /// The API server defaults nothing in it that we leave out.
    fn fields(&self) -> impl Serialize {
        self.spec.clone()
    }
}
